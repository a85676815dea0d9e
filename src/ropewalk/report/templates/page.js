"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const charts = read("charts"), themes = read("themes");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map();

  // A legend in one row would make a narrow chart wider than its box.
  const columns = (width) => (width < 420 ? 1 : width < 700 ? 2 : 0);

  async function draw(box) {
    const theme = structuredClone(dark.matches ? themes.dark : themes.light);
    const width = columns(box.clientWidth);
    if (width) theme.legend.columns = width;
    drawn.get(box)?.finalize();
    const spec = structuredClone(charts[box.dataset.chart]);
    try {
      const options = { actions: false, renderer: "svg", config: theme, tooltip: { theme: dark.matches ? "dark" : "light" } };
      const result = await vegaEmbed(box, spec, options);
      drawn.set(box, result);
      box.dataset.drawn = dark.matches ? "dark" : "light";
      box.dataset.columns = width;
    } catch (error) {
      box.textContent = `This chart can't be drawn (${error.message}); its numbers are in the table below.`;
      console.error(error);
    }
  }

  const boxes = [...document.querySelectorAll("[data-chart]")];
  const all = async () => { for (const box of boxes) await draw(box); };
  let after = all();
  const again = (which) => { after = after.then(async () => { for (const box of which()) await draw(box); }); };
  dark.addEventListener("change", () => again(() => boxes));
  let timer;
  window.addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(() => again(() => boxes.filter((box) => Number(box.dataset.columns) !== columns(box.clientWidth))), 200);
  });
})();
