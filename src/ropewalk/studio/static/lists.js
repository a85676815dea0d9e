// Lists and tables of the page. Everything that came from a file or a person is put in as text, never as HTML.

export function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const button = (words, label, click) => {
  const made = make("button", { type: "button", className: "small", textContent: words, onclick: click });
  made.setAttribute("aria-label", label);
  return made;
};

// Builds again only what changed: a button that has the focus keeps it.
const shown = new WeakMap();
function once(target, content, build) {
  const text = JSON.stringify(content);
  if (shown.get(target) === text) return;
  shown.set(target, text);
  target.replaceChildren(...build());
}

export function listJobs(target, jobs, cancel) {
  once(target, jobs, () => [...jobs].reverse().map((job) => {
    const row = make("li", {}, make("span", { className: "label", textContent: job.name }));
    row.dataset.state = job.state;
    const running = ["running", "stopping"].includes(job.state);
    if (running) row.append(make("progress", { max: job.total || 1, value: job.done, ariaLabel: `Evaluation of ${job.name}` }));
    const left = job.seconds_left === null ? "" : `, ${Math.max(1, Math.round(job.seconds_left))} s left`;
    row.append(make("span", { className: "soft", textContent: job.state === "stopping" ? "stopping after these prompts" : running ? `${job.done} of ${job.total} prompts${left}` : job.state }));
    if (["running", "waiting"].includes(job.state)) row.append(button("Cancel", `Cancel the evaluation of ${job.name}`, () => cancel(job.number)));
    if (job.reason) row.append(make("span", { className: "reason", textContent: job.reason }));
    return row;
  }));
}

export function listSaved(target, names, { load, evaluate, forget, hide, hidden }) {
  once(target, [names, [...hidden]], () => names.length ? names.map((name) => {
    const box = make("input", { type: "checkbox", checked: !hidden.has(name), onchange: (event) => hide(name, !event.target.checked) });
    const file = make("a", { className: "button small", textContent: "File", href: `/api/factors.json?${new URLSearchParams({ saved: name })}`, download: `${name}.factors.json` });
    file.setAttribute("aria-label", `Save ${name} as factors.json`);
    return make("li", {}, make("label", { className: "label" }, box, ` ${name}`),
      button("Edit", `Edit ${name}`, () => load(name)), button("Evaluate", `Evaluate ${name}`, () => evaluate(name)), file,
      button("Delete", `Delete ${name}`, () => forget(name)));
  }) : [make("li", { className: "soft", textContent: "None yet. Keep a curve under a name, and it can be compared with others." })]);
}

const head = (cells) => make("thead", {}, make("tr", {}, ...cells.map((cell) => make("th", { scope: "col", textContent: cell }))));
const line = (first, cells) => make("tr", {}, make("th", { scope: "row", textContent: first }), ...cells.map((cell) => cell instanceof Node ? make("td", {}, cell) : make("td", { textContent: cell })));
const percent = (value) => (100 * value).toFixed(1);
const range = ([value, low, high]) => `${percent(value)} [${percent(low)}, ${percent(high)}]`;
const gain = (row, scale, digits) => {
  if (!row || row.difference === null) return "–";
  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(scale * value).toFixed(digits)}`;
  return `${signed(row.difference)} [${signed(row.low)}, ${signed(row.high)}], p = ${row.p < 0.001 ? "<0.001" : row.p.toFixed(3)}`;
};

export function tableGains(target, results) {
  once(target, results, () => [
    head(["", `${results.metric}, %`, `U of ${results.metric}, %`, "gain in U, nats a token", `gain in U of ${results.metric}, points`]),
    make("tbody", {}, ...results.arms.map((row) => line(row.name, [range(row.average), range(row.utilisation), gain(row.gain, 1, 3), gain(row.accuracy_gain, 100, 1)]))),
  ]);
}

export function tablePositions(target, results) {
  once(target, results, () => [
    head(["", ...results.positions.map((position) => `@${position}`)]),
    make("tbody", {}, ...results.rows.map((row) => line(row.name, row.accuracy.map((value, place) => range([value, ...row.interval[place]]))))),
  ]);
}

export function tableLayers(target, model, factors, decay) {
  const average = (row) => (row.reduce((sum, value) => sum + value, 0) / row.length).toFixed(3);
  once(target, [factors, decay.length], () => [
    head(["layer", "factor", "vanilla", "now"]),
    make("tbody", {}, ...model.rotary_layers.map((layer, place) => line(layer, [factors[layer].toFixed(3), average(model.vanilla_decay[place]), average(decay[place])]))),
  ]);
}

export function tableCandidates(target, best, load) {
  once(target, best, () => [
    head(["candidate", "fitness", ""]),
    make("tbody", {}, ...best.map((one) => line(`${one.generation}:${one.slot}`, [
      `${one.fitness.toFixed(4)}${one.stopped ? " (stopped early)" : ""}`,
      button("Edit", `Edit candidate ${one.generation}:${one.slot}`, () => load(one.generation, one.slot)),
    ]))),
  ]);
}
