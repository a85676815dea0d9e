// The curve: rings are control points, dots are layers. Drag them, or use the arrow keys.

import { axes, element, frame, linear, path, text, ticks } from "./svg.js";

const STEP = { factor: 0.01, depth: 0.02 }, LARGER = 5;
const USUAL = [0.7, 1.4]; // of the factors that are seen at least
const BEYOND = 90; // pixels beyond the axis in which the pointer reaches the limits
const round = (value) => Number(value.toFixed(3));
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export class Editor {
  // changed: told of every move. settled: told when a handle was let go. selected: told of the layer that is looked at.
  constructor(svg, { changed, settled, selected }) {
    Object.assign(this, { svg, changed, settled, selected });
    this.draft = null;
    this.factors = [];
    this.layer = null;
    this.held = null;
    svg.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) svg.addEventListener(name, () => this.release());
    new ResizeObserver(() => this.draw()).observe(svg);
  }

  get busy() { return this.held !== null; }

  show(model, draft, factors) {
    Object.assign(this, { model, draft: structuredClone(draft), factors: [...factors] });
    const chosen = this.model.rotary_layers;
    if (!chosen.includes(this.layer)) this.layer = chosen[Math.floor(chosen.length / 2)];
    this.draw();
  }

  // The server's factors for the draft that is being dragged.
  refine(factors) {
    this.factors = [...factors];
    this.draw();
  }

  scaled() { return this.model.rotary_layers.slice(this.draft.skip_first); }

  // Where on the axis of layers a depth in [0, 1] lies, and back.
  place(depth) {
    const layers = this.scaled(), at = depth * (layers.length - 1), low = Math.floor(at);
    const high = Math.min(low + 1, layers.length - 1);
    return layers[low] + (layers[high] - layers[low]) * (at - low);
  }

  depth(place) {
    const layers = this.scaled();
    const high = layers.findIndex((layer) => layer >= place);
    if (high <= 0) return high === 0 ? 0 : 1;
    return (high - 1 + (place - layers[high - 1]) / (layers[high] - layers[high - 1])) / (layers.length - 1);
  }

  depthOf(index) {
    const points = this.draft.control_points;
    return this.draft.mode === "uniform" ? index / (points.length - 1) : points[index][0];
  }

  draw() {
    if (!this.draft || !this.svg.getBoundingClientRect().width) return;
    const focused = this.svg.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const box = frame(this.svg), last = Math.max(this.model.num_layers - 1, 1);
    this.box = box;
    const seen = [...this.factors.filter((one) => one !== null), ...this.draft.control_points.map(([, y]) => y)];
    const [low, high] = this.held?.range ?? USUAL.map((one, end) => one + [-0.02, 0.02][end]);
    this.range = [Math.min(low, Math.min(...seen) - 0.02), Math.max(high, Math.max(...seen) + 0.02)];
    this.x = linear([0, last], [box.left + 12, box.right - 12]);
    this.y = linear(this.range, [box.bottom, box.top]);
    const step = Math.max(1, Math.ceil(last / Math.max(3, (box.right - box.left) / 60)));
    const numbers = Array.from({ length: this.model.num_layers }, (_, layer) => layer).filter((layer) => layer % step === 0);
    const dots = this.model.rotary_layers.map((layer) => [this.x(layer), this.y(this.factors[layer])]);
    const rings = this.draft.control_points.map(([, y], index) => [this.x(this.place(this.depthOf(index))), this.y(y)]);
    this.svg.replaceChildren(
      axes(box, this.x, this.y, numbers, ticks(...this.range), "layer", "scaling factor"),
      element("line", { class: "trained", x1: box.left, x2: box.right, y1: this.y(1), y2: this.y(1) }),
      element("path", { class: "polygon", d: path(rings) }),
      element("path", { class: "steps", d: path(dots) }),
      ...this.model.rotary_layers.map((layer, place) => this.layerHandle(layer, dots[place])),
      ...rings.map((at, index) => this.pointHandle(index, at)),
    );
    if (focused) {
      const again = this.svg.querySelector(`[data-key="${focused}"]`);
      again?.focus({ preventScroll: true });
      if (again) this.say(again);
    } else if (this.held) this.say(this.svg.querySelector(`[data-key="${this.held.key}"]`));
  }

  layerHandle(layer, at) {
    const off = this.draft.layers[layer] !== undefined;
    const words = `Layer ${layer}${off ? ", off the curve" : ""}`;
    const made = this.handle(`layer${off ? " off" : ""}`, `layer-${layer}`, at, 4, words, this.factors[layer]);
    made.setAttribute("tabindex", layer === this.layer ? "0" : "-1");
    made.addEventListener("dblclick", () => this.rejoin(layer));
    made.addEventListener("focus", () => this.select(layer));
    made.addEventListener("keydown", (event) => this.layerKey(event, layer));
    made.addEventListener("pointerdown", (event) => this.grab(event, { key: `layer-${layer}`, layer }));
    return made;
  }

  pointHandle(index, at) {
    const points = this.draft.control_points;
    const words = `Control point ${index + 1} of ${points.length}`;
    const made = this.handle("point", `point-${index}`, at, 8, words, points[index][1], ` at depth ${round(this.depthOf(index))}`);
    made.setAttribute("tabindex", "0");
    made.addEventListener("keydown", (event) => this.pointKey(event, index));
    made.addEventListener("pointerdown", (event) => this.grab(event, { key: `point-${index}`, point: index }));
    return made;
  }

  handle(kind, key, [x, y], radius, words, factor, where = "") {
    const held = this.held?.key === key ? " held" : "";
    const made = element("g", {
      class: `handle ${kind}${held}`, role: "slider", "data-key": key, "aria-label": words, "aria-orientation": "vertical",
      "aria-valuemin": this.model.low, "aria-valuemax": this.model.high, "aria-valuenow": round(factor),
      "aria-valuetext": `factor ${factor.toFixed(3)}${where}`, transform: `translate(${x.toFixed(2)} ${y.toFixed(2)})`,
    });
    made.append(
      element("circle", { class: "target", r: Math.max(radius + 3, 8) }),
      element("circle", { class: "mark", r: radius }),
      element("circle", { class: "ring", r: radius + 4 }),
    );
    made.addEventListener("pointerenter", () => this.say(made));
    made.addEventListener("focus", () => this.say(made));
    return made;
  }

  // The number beside a handle that is looked at.
  say(handle) {
    this.svg.querySelector(".value")?.remove();
    if (!handle) return;
    const [x, y] = handle.getAttribute("transform").match(/-?[\d.]+/g).map(Number);
    const factor = Number(handle.getAttribute("aria-valuenow")).toFixed(3);
    const layer = handle.dataset.key.startsWith("layer") ? `layer ${handle.dataset.key.slice(6)}: ` : "";
    const anchor = x > this.box.right - 90 ? "end" : x < this.box.left + 60 ? "start" : "middle";
    this.svg.append(text(x, y < this.box.top + 34 ? y + 28 : y - 16, `${layer}${factor}`, { class: "value", "text-anchor": anchor, "pointer-events": "none", "aria-hidden": "true" }));
  }

  select(layer) {
    if (this.layer === layer) return;
    this.layer = layer;
    for (const one of this.svg.querySelectorAll(".handle.layer")) one.setAttribute("tabindex", one.dataset.key === `layer-${layer}` ? "0" : "-1");
    this.selected(layer);
  }

  grab(event, what) {
    if (event.button) return;
    event.preventDefault();
    this.svg.querySelector(`[data-key="${what.key}"]`).focus({ preventScroll: true });
    this.held = { ...what, moved: false, range: this.range };
    if (what.layer !== undefined) this.select(what.layer);
    this.svg.setPointerCapture(event.pointerId);
  }

  drag(event) {
    if (!this.held) return;
    const at = this.svg.getBoundingClientRect(), box = this.box;
    const factor = this.pointed(event.clientY - at.top);
    this.held.moved = true;
    if (this.held.layer !== undefined) this.setLayer(this.held.layer, factor);
    else {
      const last = Math.max(this.model.num_layers - 1, 1);
      const place = ((event.clientX - at.left - box.left - 12) / (box.right - box.left - 24)) * last;
      this.setPoint(this.held.point, this.depth(place), factor);
    }
  }

  // The factor at a height: by the axis as it was when the handle was taken, and from its ends on to the limits.
  pointed(height) {
    const { box, model } = this, [low, high] = this.held.range;
    const above = Math.min((box.top - height) / BEYOND, 1), below = Math.min((height - box.bottom) / BEYOND, 1);
    if (above > 0) return high + above * Math.max(0, model.high - high);
    if (below > 0) return low - below * Math.max(0, low - model.low);
    return linear([box.bottom, box.top], [low, high])(height);
  }

  release() {
    if (!this.held) return;
    const { moved } = this.held;
    this.held = null;
    this.draw();
    if (moved) this.settled();
  }

  setLayer(layer, factor) {
    const value = round(clamp(factor, this.model.low, this.model.high));
    this.draft.layers[layer] = value;
    this.factors[layer] = value;
    this.draw();
    this.changed(this.draft);
  }

  setPoint(index, depth, factor) {
    const points = this.draft.control_points, inner = index > 0 && index < points.length - 1;
    const sorted = points.length > 4;
    const low = sorted && inner ? points[index - 1][0] : 0, high = sorted && inner ? points[index + 1][0] : 1;
    const x = inner && this.draft.mode === "depth" ? clamp(round(depth), low, high) : points[index][0];
    points[index] = [x, round(clamp(factor, this.model.low, this.model.high))];
    this.draw();
    this.changed(this.draft);
  }

  rejoin(layer) {
    if (this.draft.layers[layer] === undefined) return;
    delete this.draft.layers[layer];
    this.changed(this.draft);
    this.settled();
  }

  layerKey(event, layer) {
    const size = STEP.factor * (event.shiftKey ? LARGER : 1), layers = this.model.rotary_layers;
    const turns = { ArrowUp: 1, ArrowDown: -1 }, walks = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key in turns) this.setLayer(layer, this.factors[layer] + turns[event.key] * size);
    else if (event.key in walks) {
      const next = layers[clamp(layers.indexOf(layer) + walks[event.key] * (event.shiftKey ? LARGER : 1), 0, layers.length - 1)];
      this.svg.querySelector(`[data-key="layer-${next}"]`).focus();
    } else if (event.key === "Delete" || event.key === "Backspace") this.rejoin(layer);
    else return;
    event.preventDefault();
    if (event.key in turns) this.settled();
  }

  pointKey(event, index) {
    const larger = event.shiftKey ? LARGER : 1, [depth, factor] = this.draft.control_points[index];
    const moves = { ArrowUp: [0, 1], ArrowDown: [0, -1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
    if (!moves) return;
    event.preventDefault();
    this.setPoint(index, depth + moves[0] * STEP.depth * larger, factor + moves[1] * STEP.factor * larger);
    this.settled();
  }
}
