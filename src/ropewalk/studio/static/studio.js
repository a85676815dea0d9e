// The page: asks for the state once a second, and shows what changed.

import { act, newestOnly, read, send } from "./api.js";
import { Editor } from "./editor.js";
import { listJobs, listSaved, make, tableCandidates, tableGains, tableLayers, tablePositions } from "./lists.js";
import { drawCourse, drawDecay } from "./plots.js";

const EVERY = 1000, SETTLE = 400; // milliseconds
const MOST_BYTES = 256 * 1024; // of a file
const at = (id) => document.getElementById(id);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const hidden = new Set();
let reference = "vanilla";
let state = null, decay = null, drawnVersion = null, timer = null, sending = 0, changes = 0;

const editor = new Editor(at("editor"), {
  changed: (draft) => { changes++; figures(structuredClone(draft)).catch(complain); },
  settled: () => { clearTimeout(timer); later(); },
  selected: () => {
    if (decay) drawDecay(at("decay"), state, decay, editor.layer);
    look();
  },
});

const figures = newestOnly(async (draft) => {
  const found = await act("factors", { draft });
  if (JSON.stringify(draft) === JSON.stringify(editor.draft)) showFigures(found, true);
});

// What is looked at is kept too.
const keepLook = newestOnly((seen) => act("look", seen));
function look() { keepLook({ hidden: [...hidden], reference, layer: editor.layer }).catch(complain); }

function lookAgain(kept) {
  for (const name of kept.hidden) hidden.add(name);
  reference = kept.reference;
  editor.layer = kept.layer;
}

function showFigures(found, refine) {
  decay = found.decay;
  if (refine) editor.refine(found.factors);
  drawDecay(at("decay"), state, decay, editor.layer);
  tableLayers(at("layers"), state, found.factors, decay);
}

// Not while another handle is held already: what it passes is no step to undo.
function later() { timer = setTimeout(() => (editor.busy ? later() : settle()), SETTLE); }

// The curve as it was let go is the server's from now on.
async function settle() {
  clearTimeout(timer);
  timer = null;
  if (editor.draft) await perform("curve", { draft: editor.draft });
}

const settled = async () => { if (timer !== null) await settle(); };

async function perform(name, body) {
  sending++;
  changes++;
  try {
    const found = await act(name, body);
    complain(null);
    sending--;
    show(found);
    return true;
  } catch (error) {
    sending--;
    complain(error);
    return false;
  }
}

function complain(error) {
  at("error").hidden = !error;
  at("error").textContent = error ? error.message : "";
}

function show(found) {
  const before = state;
  state = found;
  if (!before) lookAgain(found.look);
  at("remarks").hidden = !found.remarks.length;
  at("remarks").textContent = found.remarks.join(" ");
  at("model").textContent = [found.model, found.words].filter(Boolean).join(" · ");
  at("notice").hidden = !found.loading && !found.trouble;
  at("notice").textContent = found.trouble ? `The model can't be used: ${found.trouble}` : "The model is being loaded; the curve appears once it is there.";
  at("undo").disabled = !found.can_undo;
  at("redo").disabled = !found.can_redo;
  for (const id of ["evaluate", "flat", "join"]) at(id).disabled = !found.figures;
  for (const row of at("save").elements) row.disabled = !found.figures;
  at("file").disabled = !found.figures;
  at("join").disabled = !found.figures || !Object.keys(found.current.layers).length;
  listJobs(at("jobs"), found.jobs, (job) => perform("cancel", { job }));
  listSaved(at("saved"), Object.keys(found.saved), saved);
  showSearch(found);
  announce(before, found);
  if (!found.figures) return;
  const idle = !editor.busy && timer === null && !sending;
  if (idle && (!editor.draft || JSON.stringify(editor.draft) !== JSON.stringify(found.current) || !before?.figures)) {
    editor.show(found, found.current, found.figures.factors);
    showFigures(found.figures, false);
  }
  if (drawnVersion !== found.version) { drawnVersion = found.version; results().catch(complain); }
}

function showSearch({ search, figures: there }) {
  const running = search.state === "running";
  for (const row of at("search").elements) row.disabled = !there || running || !search.possible;
  at("stop").hidden = !running;
  at("stop").disabled = false;
  const words = { running: "at work", done: "done", stopped: "stopped", failed: "failed" }[search.state];
  at("search-words").textContent = words ? `${search.out}: ${words}. ${search.says}` : "Its first generation scores this curve too; its candidates appear here.";
}

function announce(before, now) {
  const old = new Map((before?.jobs ?? []).map((job) => [job.number, job.state]));
  const ended = now.jobs.filter((job) => ["done", "failed", "cancelled"].includes(job.state) && ["waiting", "running", "stopping"].includes(old.get(job.number)));
  if (ended.length) at("spoken").textContent = ended.map((job) => `Evaluation of ${job.name}: ${job.state}. ${job.reason}`).join(" ");
}

const saved = {
  hidden,
  load: (name) => settled().then(() => perform("load", { saved: name })),
  evaluate: (name) => perform("evaluate", { saved: name }),
  forget: (name) => perform("forget", { name }),
  hide: (name, off) => { hidden[off ? "add" : "delete"](name); look(); results().catch(complain); },
};

const results = newestOnly(async () => {
  const query = { hidden: [...hidden].join("\n"), reference };
  const found = await read("results", query);
  const there = found.arms.length > 0;
  at("nothing").hidden = there;
  at("compared").hidden = !there;
  document.querySelector(".charts").classList.toggle("drawn", there);
  if (!there) return;
  at("scored").textContent = state.words;
  choose(at("reference"), found.arms.map((row) => row.name), found.reference);
  tableGains(at("gains"), found);
  tablePositions(at("positions"), found);
  for (const name of ["accuracy", "likelihood"]) chart(name, query.hidden, found.arms.length);
});

function chart(name, without, arms) {
  const box = at(name), theme = dark.matches ? "dark" : "light";
  box.parentElement.hidden = name === "likelihood" && arms < 2;
  if (box.parentElement.hidden) return;
  const query = new URLSearchParams({ width: Math.round(box.clientWidth), theme, hidden: without, version: state.version });
  const image = make("img", { alt: "", onload: () => { box.replaceChildren(image); box.dataset.drawn = theme; }, onerror: () => box.replaceChildren("nothing to draw") });
  image.src = `/api/chart/${name}?${query}`;
}

function choose(target, names, chosen) {
  if (target === document.activeElement && target.value === chosen && target.length === names.length) return; // it may be open
  target.replaceChildren(...names.map((name) => make("option", { textContent: name, value: name, selected: name === chosen })));
}

async function run() {
  const found = await read("run");
  at("run").hidden = false;
  at("runs").hidden = state.runs.length < 2;
  choose(at("followed"), state.runs, state.followed);
  const best = found.best[0] ? `, the best ${found.best[0].fitness.toFixed(4)}` : "";
  const luck = found.alike ? "" : " Candidates were scored on different records, so luck is in their order.";
  const course = found.finished ? "finished" : "its candidates appear here as they come";
  at("run-words").textContent = found.trouble || `${found.run}: ${found.count} candidates in ${found.generations} generations${best}; ${course}.${luck}`;
  at("run-factors").disabled = !found.has_factors;
  drawCourse(at("course"), found.course);
  tableCandidates(at("candidates"), found.best, (generation, slot) => settled().then(() => perform("load", { candidate: [generation, slot] })));
}

async function open(file) {
  if (file.size > MOST_BYTES) throw new Error(`${file.name} has ${Math.round(file.size / 1024)} KiB; a file of factors has at most ${MOST_BYTES / 1024}.`);
  await settled();
  show(await send("upload", await file.text()));
  complain(null);
}

at("undo").onclick = () => settled().then(() => perform("undo"));
at("redo").onclick = () => settled().then(() => perform("redo"));
at("flat").onclick = () => settled().then(() => perform("load", { vanilla: true }));
at("join").onclick = () => settled().then(() => perform("curve", { draft: { ...editor.draft, layers: {} } }));
at("evaluate").onclick = () => settled().then(() => perform("evaluate"));
at("run-factors").onclick = () => settled().then(() => perform("load", { run: true }));
at("search").onsubmit = async (event) => {
  event.preventDefault();
  await settled();
  await perform("search", { budget: at("budget").value ? Number(at("budget").value) : null });
};
at("stop").onclick = () => perform("stop");
at("reference").onchange = (event) => { reference = event.target.value; look(); results().catch(complain); };
at("followed").onchange = (event) => perform("follow", { run: event.target.value });
at("download").onclick = async (event) => {
  if (timer === null) return;
  event.preventDefault(); // the file has to hold what is seen
  await settle();
  at("download").click();
};
at("file").onchange = (event) => {
  const [file] = event.target.files;
  if (file) open(file).catch((error) => complain(new Error(`${file.name}: ${error.message}`)));
  event.target.value = "";
};
at("save").onsubmit = async (event) => {
  event.preventDefault();
  await settled();
  if (await perform("save", { name: at("name").value })) at("name").value = "";
};
document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || event.target.matches("input")) return;
  event.preventDefault();
  at(event.shiftKey ? "redo" : "undo").click();
});
const redraw = () => {
  if (!state?.figures || !decay) return;
  drawDecay(at("decay"), state, decay, editor.layer);
  results().catch(complain);
};
dark.addEventListener("change", redraw);
let resized;
window.addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(redraw, 200); });

let silent = false;
async function poll() {
  try {
    if (!sending) {
      const asked = changes, found = await read("state");
      if (asked === changes) show(found); // else it is of before the change
    }
    if (state?.followed) await run();
    if (silent) complain(null);
    silent = false;
  } catch (error) {
    silent = true;
    complain(error);
  }
  setTimeout(poll, EVERY);
}
poll();
