// The last tuning: quality against time as a plot, the recipe in use marked, and the same figures as a table.

import { ask } from "./api.js";
import { byId, fill, folded, make, notice, svg, table } from "./dom.js";
import { count, milliseconds, signed } from "./format.js";

const COMMAND = "twinrank tune DATA --deadline 50 -c COLLECTION";

let running = null;
let watching = null;

export async function show() {
  stop();
  const mine = running = new AbortController(), view = byId("view");
  fill(view, make("p", { class: "soft wait" }, "Asking …"));
  try {
    const told = await ask("tuning", { signal: mine.signal });
    if (running === mine) draw(view, told);
  } catch (error) {
    if (error.name === "AbortError" || running !== mine) return;
    fill(view, make("div", { class: "welcome" }, make("h2", {}, "Tuning"), error.status === 404
      ? [make("p", {}, "This collection was not tuned yet. With judged queries, the best pipeline within a deadline "
        + "is found by"),
        make("pre", { tabindex: "0", role: "region", "aria-label": "Command" }, COMMAND)]
      : notice(error.message, "error")));
  }
}

export function stop() {
  running?.abort();
  running = null;
  watching?.disconnect();
  watching = null;
}

function draw(view, told) {
  const rows = told.finalists.map((row, place) => (
    { ...row, number: place + 1, quality: row["nDCG@10"], cost: row.milliseconds.p95 }));
  const plot = make("div", { class: "plot" });
  const inUse = rows.find((row) => row.current);
  fill(view, make("div", { class: "tuning" },
    make("h2", {}, "Tuning"),
    make("p", { class: "soft" }, `${told.dataset}, split ${told.split}: ${count(told.queries)} queries over `
      + `${count(told.documents)} documents; ${count(told.pipelines)} pipelines judged, ${rows.length} of them measured.`),
    make("p", { class: "lead" }, inUse
      ? [make("strong", {}, inUse.pipeline), ` is in use: nDCG@10 ${inUse.quality.toFixed(3)}, `
        + `at most ${milliseconds(inUse.cost)} for 95 of 100 queries.`]
      : "The recipe in use is none of those that were measured."),
    make("figure", {}, plot, make("figcaption", { class: "soft" },
      "Above and to the left is better. The line joins what no other pipeline beats; grey ones are beaten.")),
    make("h3", {}, "The figures"),
    table("Pipelines that were measured, fastest first", [
      { name: "No.", kind: "number", of: (row) => row.number },
      { name: "Pipeline", kind: "name", of: (row) => [row.pipeline, tagged(row)] },
      { name: "nDCG@10", kind: "number", of: (row) => row.quality.toFixed(4) },
      { name: "Over the default", kind: "number", of: over },
      { name: "p50", kind: "number", of: (row) => milliseconds(row.milliseconds.p50) },
      { name: "p95", kind: "number", of: (row) => milliseconds(row.milliseconds.p95) },
      { name: "Memory", kind: "number", of: (row) => `${count(Math.round(row.memory))} MB` },
    ], rows, (row) => ({ class: row.current ? "current" : null })),
    make("p", { class: "soft" }, `${told.clock === "cpu" ? "Times are of the processor, all threads together. " : ""}`
      + "Differences with 95 % intervals."),
    make("h3", {}, "The choice"),
    make("p", {}, make("strong", {}, told.pick.pipeline), `: ${told.pick.reason}. To expect on new queries: nDCG@10 of `
      + `${told.pick.expected.toFixed(3)}.`),
    told.without.length ? make("ul", { class: "plain-list" }, told.without.map((step) => make("li", {},
      `Without ${step.stage}: ${signed(step.loss.mean)} nDCG@10 (${signed(step.loss.low)} to ${signed(step.loss.high)})`
      + `${step.speedup >= 1.1 ? `, ${step.speedup.toFixed(1)}× as fast` : ""}`))) : null,
    make("h3", {}, "Recipes"),
    rows.map((row) => folded(`${row.number} ${row.pipeline}`,
      make("pre", { tabindex: "0", role: "region", "aria-label": `Recipe ${row.number}` }, row.recipe)))));
  let drawn = 0;
  const redraw = () => {
    const width = Math.floor(plot.clientWidth);
    if (width === drawn || !width) return;
    drawn = width;
    fill(plot, pareto(rows, width));
  };
  watching = new ResizeObserver(redraw);
  watching.observe(plot);
  redraw();
}

function tags(row) {
  return [row.current && "in use", row.pick && !row.current && "the pick", row.default && "default"].filter(Boolean);
}

const tagged = (row) => tags(row).map((tag) => make("span", { class: "tag" }, tag));

function over(row) {
  if (row.default) return "–";
  const { mean, low, high } = row.against_default;
  return `${signed(mean)} (${signed(low)} to ${signed(high)})`;
}

// -- the plot ------------------------------------------------------------------------------------------------------------

/** Quality over time, as wide as there is room. */
function pareto(rows, width) {
  const height = Math.round(Math.max(260, Math.min(420, width * 0.5)));
  const frame = { left: 48, right: width - 16, top: 26, bottom: height - 44 };
  const x = timeScale(rows.map((row) => row.cost), frame), y = qualityScale(rows.map((row) => row.quality), frame);
  const front = rows.filter((row) => row.on_front).sort((a, b) => a.cost - b.cost);
  const path = front.map((row, number) => (number ? `H${x(row.cost).toFixed(1)}V${y(row.quality).toFixed(1)}`
    : `M${x(row.cost).toFixed(1)} ${y(row.quality).toFixed(1)}`)).join("");
  const taken = rows.map((row) => ({ left: x(row.cost) - 12, right: x(row.cost) + 12, y: y(row.quality) }));
  return svg("svg", {
    viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": `nDCG@10 against milliseconds at p95 of ${rows.length} pipelines; the figures are in the table below`,
  },
    y.ticks.map((value) => [svg("line", { class: "grid", x1: frame.left, x2: frame.right, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick", x: frame.left - 8, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(y.places))]),
    x.ticks.map((value) => [svg("line", { class: "grid", x1: x(value), x2: x(value), y1: frame.top, y2: frame.bottom }),
      svg("text", { class: "tick", x: x(value), y: frame.bottom + 18, "text-anchor": "middle" }, String(value))]),
    svg("text", { class: "tick", x: frame.right, y: height - 6, "text-anchor": "end" }, "p95 in ms, logarithmic →"),
    svg("text", { class: "tick", x: 4, y: 12 }, "↑ nDCG@10"),
    path ? svg("path", { class: "front", d: `${path}H${frame.right}` }) : null,
    rows.map((row) => point(row, x(row.cost), y(row.quality), width < 500 ? 7.5 : 9.5)),
    rows.filter((row) => tags(row).length).map((row) => label(row, x(row.cost), y(row.quality), frame, taken)));
}

function point(row, x, y, radius) {
  const kind = row.current ? "point current" : row.on_front ? "point on-front" : "point";
  return svg("g", { class: kind },
    svg("title", {}, `${row.number} ${row.pipeline}: nDCG@10 ${row.quality.toFixed(4)}, p95 ${milliseconds(row.cost)}`),
    row.current ? svg("circle", { class: "ring", cx: x, cy: y, r: radius + 4.5 }) : null,
    svg("circle", { cx: x, cy: y, r: radius }),
    svg("text", { x, y: y + 4, "text-anchor": "middle" }, row.number));
}

/** "in use" and "default", beside the point where that is free. */
function label(row, x, y, frame, taken) {
  const said = tags(row).join(", "), long = 7 * said.length;
  const spots = [
    { left: x - long / 2, y: y - 24 }, { left: x - long / 2, y: y + 24 }, { left: x - 10 - long, y: y - 24 },
    { left: x + 10, y: y + 24 }, { left: x + 10, y: y - 24 }, { left: x - 10 - long, y: y + 24 },
    { left: x + 18, y }, { left: x - 18 - long, y },
  ];
  const inside = (spot) => spot.left >= frame.left && spot.left + long <= frame.right
    && spot.y > frame.top - 10 && spot.y < frame.bottom;
  const apart = (spot, other) => spot.left > other.right || spot.left + long < other.left || Math.abs(spot.y - other.y) > 18;
  const free = (spot) => inside(spot) && taken.every((other) => apart(spot, other));
  const spot = spots.find(free) ?? spots[0];
  taken.push({ left: spot.left, right: spot.left + long, y: spot.y });
  return svg("text", { class: row.current ? "name current" : "name", x: spot.left, y: spot.y + 4 }, said);
}

function timeScale(values, frame) {
  const low = Math.log(Math.max(Math.min(...values), 1e-3) / 1.25), high = Math.log(Math.max(...values, 1e-3) * 1.25);
  const scale = (value) => frame.left + ((Math.log(Math.max(value, 1e-3)) - low) / (high - low)) * (frame.right - frame.left);
  const ticks = [];
  for (let power = -3; power < 6; power += 1) {
    for (const step of [1, 2, 5]) {
      const tick = Number((step * 10 ** power).toPrecision(1));
      if (Math.log(tick) >= low && Math.log(tick) <= high) ticks.push(tick);
    }
  }
  const room = Math.max(2, Math.floor((frame.right - frame.left) / 60));
  scale.ticks = ticks.length > room ? ticks.filter((tick) => String(tick).replaceAll(/[0.]/g, "") === "1") : ticks;
  return scale;
}

function qualityScale(values, frame) {
  const spread = Math.max(Math.max(...values) - Math.min(...values), 0.01);
  const low = Math.min(...values) - 0.18 * spread, high = Math.max(...values) + 0.18 * spread;
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough);
  const scale = (value) => frame.bottom - ((value - low) / (high - low)) * (frame.bottom - frame.top);
  scale.ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) scale.ticks.push(tick);
  scale.places = Math.max(2, -Math.floor(Math.log10(step)));
  return scale;
}
