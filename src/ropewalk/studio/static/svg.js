// Small helpers to draw SVG: elements, linear and logarithmic scales, axes.

const NAMESPACE = "http://www.w3.org/2000/svg";

export function element(name, attributes = {}, ...children) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const text = (x, y, content, attributes = {}) => element("text", { x, y, ...attributes }, String(content));

export const linear = ([a, b], [from, to]) => (value) => from + ((value - a) / (b - a || 1)) * (to - from);

export const path = (points) => points.map(([x, y], place) => `${place ? "L" : "M"}${x.toFixed(2)},${y.toFixed(2)}`).join("");

// Round numbers from low to high, about `count` of them.
export function ticks(low, high, count = 6) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
  const found = [];
  for (let number = Math.ceil(low / step - 1e-9); number * step <= high + 1e-9; number++) found.push(Number((number * step).toFixed(10)));
  return found;
}

// The frame of a plot: its size and the room for the axes.
export function frame(svg, left = 58, bottom = 42, top = 14, right = 14) {
  const { width, height } = svg.getBoundingClientRect();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  return { width, height, left, right: width - right, top, bottom: height - bottom };
}

export function axes(box, x, y, xTicks, yTicks, xTitle, yTitle, digits = 2) {
  const group = element("g", { "aria-hidden": "true" });
  for (const value of yTicks) {
    group.append(element("line", { class: "grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }));
    group.append(text(box.left - 8, y(value) + 4, value.toFixed(digits), { "text-anchor": "end" }));
  }
  group.append(element("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  for (const value of xTicks) group.append(text(x(value), box.bottom + 17, value, { "text-anchor": "middle" }));
  group.append(text((box.left + box.right) / 2, box.height - 6, xTitle, { "text-anchor": "middle" }));
  const middle = (box.top + box.bottom) / 2;
  group.append(text(12, middle, yTitle, { "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }));
  return group;
}
