// The decay by distance, and the course of a search.

import { axes, element, frame, linear, path, text, ticks } from "./svg.js";

const mean = (rows, place) => rows.reduce((sum, row) => sum + row[place], 0) / rows.length;

export function drawDecay(svg, model, decay, layer) {
  if (!svg.getBoundingClientRect().width) return;
  const box = frame(svg, 56, 40, 34), places = model.distances.map((one, place) => [one, place]).filter(([one]) => one >= 1);
  const log = linear([0, Math.log2(places.at(-1)[0])], [box.left, box.right]);
  const x = (distance) => log(Math.log2(distance));
  const lowest = Math.min(...places.map(([, place]) => Math.min(...decay.map((row) => row[place]), ...model.vanilla_decay.map((row) => row[place]))));
  const y = linear([Math.max(0, lowest - 0.03), 1], [box.bottom, box.top]);
  const line = (value) => path(places.map(([one, place]) => [x(one), y(value(place))]));
  const above = places.map(([one, place]) => [x(one), y(Math.max(...decay.map((row) => row[place])))]);
  const below = places.map(([one, place]) => [x(one), y(Math.min(...decay.map((row) => row[place])))]).reverse();
  const own = decay[model.rotary_layers.indexOf(layer)];
  const powers = Array.from({ length: 16 }, (_, power) => 2 ** power).filter((one) => one <= places.at(-1)[0]);
  const wide = box.right - box.left > 420;
  svg.replaceChildren(
    axes(box, x, y, powers.filter((_, place) => wide || place % 2 === 0), ticks(Math.max(0, lowest - 0.03), 1, 5), "distance in tokens", "bound"),
    element("path", { class: "band", d: `${path([...above, ...below])}Z` }),
    element("path", { class: "vanilla", d: line((place) => mean(model.vanilla_decay, place)) }),
    element("path", { class: "found", d: line((place) => mean(decay, place)) }),
    element("path", { class: "one", d: own ? line((place) => own[place]) : "" }),
    key(box.left, "vanilla", "vanilla"), key(box.left + 88, "found", wide ? "this curve, mean of layers" : "this curve"),
    key(box.left + (wide ? 280 : 190), "one", `layer ${layer}`),
  );
}

function key(x, kind, words) {
  return element("g", { class: "key" }, element("path", { class: kind, d: `M${x},12h22` }), text(x + 28, 16, words));
}

// The best fitness of each generation, as [generation, fitness].
export function drawCourse(svg, course) {
  if (!svg.getBoundingClientRect().width || !course.length) { svg.replaceChildren(); return; }
  const box = frame(svg), values = course.map(([, fitness]) => fitness), last = Math.max(course.at(-1)[0], 1);
  const ends = [Math.min(0, ...values), Math.max(0.01, ...values)];
  const x = linear([0, last], [box.left + 8, box.right - 8]), y = linear(ends, [box.bottom, box.top]);
  svg.replaceChildren(
    axes(box, x, y, ticks(0, last, 8).filter(Number.isInteger), ticks(...ends, 4), "generation", "best fitness"),
    element("path", { class: "found", d: path(course.map(([generation, fitness]) => [x(generation), y(fitness)])) }),
    ...course.map(([generation, fitness]) => element("circle", { cx: x(generation), cy: y(fitness), r: 3, fill: "var(--found)" })),
  );
}
