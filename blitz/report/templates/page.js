"use strict";
{
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const themes = JSON.parse(document.getElementById("themes").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const views = new Map();
  let shown = [null, null];

  async function draw(place) {
    const chart = charts[place.dataset.chart];
    const spec = { autosize: { type: "fit-x", contains: "padding" }, width: "container", ...chart };
    const config = structuredClone(themes[dark.matches ? "dark" : "light"]);
    if (place.clientWidth < 420) config.legend.columns = 2;
    const { view } = await vegaEmbed(place, spec, { actions: false, renderer: "svg", config });
    views.get(place)?.finalize();
    views.set(place, view);
    if ((chart.params ?? []).some((param) => param.name === "from")) {
      place.classList.add("zoomable");
      show(view);
    }
  }

  function show(view) {
    view.signal("from", shown[0]).signal("to", shown[1]).runAsync();
  }

  function zoom(from, to) {
    shown = [from, to];
    for (const [place, view] of views) if (place.classList.contains("zoomable")) show(view);
  }

  // A mouse chooses steps by dragging; a finger scrolls the page.
  function choose(place, event) {
    const view = views.get(place);
    if (!view || event.pointerType !== "mouse" || event.button !== 0 || !place.classList.contains("zoomable")) return;
    const frame = place.getBoundingClientRect();
    const left = place.querySelector("svg").getBoundingClientRect().left - frame.left + view.origin()[0];
    const within = (x) => Math.min(Math.max(x - frame.left - left, 0), view.width());
    const start = within(event.clientX);
    const range = document.createElement("div");
    range.className = "range";
    place.append(range);
    const move = (moved) => {
      const now = within(moved.clientX);
      Object.assign(range.style, { left: `${left + Math.min(start, now)}px`, width: `${Math.abs(now - start)}px`, top: "0", bottom: "30px" });
    };
    const end = (ended) => {
      removeEventListener("pointermove", move);
      range.remove();
      const now = within(ended.clientX);
      if (Math.abs(now - start) < 6) return;
      const scale = view.scale("x");
      zoom(scale.invert(Math.min(start, now)), scale.invert(Math.max(start, now)));
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", end, { once: true });
  }

  const places = [...document.querySelectorAll("[data-chart]")];
  const drawAll = () => Promise.all(places.map(draw));
  for (const place of places) {
    place.addEventListener("pointerdown", (event) => choose(place, event));
    place.addEventListener("dblclick", () => zoom(null, null));
  }
  dark.addEventListener("change", drawAll);
  for (const details of document.querySelectorAll("details")) {
    details.addEventListener("toggle", () => details.querySelectorAll("[data-chart]").forEach(draw));
  }
  drawAll().then(() => document.documentElement.setAttribute("data-drawn", ""));

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }

  const value = (row, column) => row.cells[column].dataset.value;
  function compare(one, other) {
    const [a, b] = [Number(one), Number(other)];
    return one !== "" && other !== "" && !Number.isNaN(a) && !Number.isNaN(b) ? a - b : one.localeCompare(other);
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const body = table.tBodies[0];
      // Cells without a value come last, whichever way.
      const empty = (row) => value(row, column) === "";
      const rows = [...body.rows].sort((one, other) => empty(one) - empty(other) || sign * compare(value(one, column), value(other, column)));
      body.append(...rows);
    }));
  }
}
