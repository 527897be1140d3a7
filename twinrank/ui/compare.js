// The same query under several architectures, side by side: what each finds, how long it took, and what moved between them.

import { ask } from "./api.js";
import { bar, byId, fill, folded, make, notice, refill } from "./dom.js";
import * as filters from "./filters.js";
import { counted, milliseconds, score } from "./format.js";
import { address } from "./state.js";

let running = null;
let found = null; // {key, told}
let against = null; // the name of the architecture that others are compared with

const keyOf = (state) => JSON.stringify([state.q, state.where, state.k]);

export async function show(state) {
  const view = byId("view"), key = keyOf(state);
  if (found?.key === key) {
    draw(state);
    return;
  }
  running?.abort();
  if (!state.q.trim()) {
    fill(view, make("div", { class: "welcome" }, make("h2", {}, "Compare"),
      make("p", {}, "Ask something above: every architecture that this collection has an index for answers, side by side.")));
    return;
  }
  const mine = running = new AbortController();
  view.setAttribute("aria-busy", "true");
  byId("progress").hidden = false;
  if (!view.querySelector(".architectures")) fill(view, make("p", { class: "soft wait" }, "Asking every architecture …"));
  try {
    const body = { query: state.q, k: Number(state.k), where: state.where || null };
    const told = await ask("compare", { body, signal: mine.signal });
    if (running !== mine) return;
    found = { key, told };
    draw(state);
    byId("told").textContent = `${counted(told.architectures.length, "architecture")} compared`;
  } catch (error) {
    if (error.name === "AbortError" || running !== mine) return;
    fill(view, notice(error.message, "error"));
  } finally {
    if (running === mine) {
      running = null;
      view.removeAttribute("aria-busy");
      byId("progress").hidden = true;
    }
  }
}

export function stop() {
  running?.abort();
  running = null;
}

function draw(state) {
  const { told } = found, rows = told.architectures;
  const base = rows.find((row) => row.name === against) ?? rows.find((row) => row.own) ?? rows[0];
  const slowest = Math.max(...rows.map((row) => row.milliseconds ?? 0), 1e-9);
  refill(byId("view"),
    make("div", { class: "head" }, make("h2", { class: "count" }, "Side by side"),
      make("label", { class: "option", for: "against" }, "compared with", make("select", {
        id: "against", on: {
          change: (event) => {
            against = event.target.value;
            draw(state);
          },
        },
      }, rows.map((row) => make("option", { value: row.name, selected: row === base }, row.name))))),
    filters.chips({ ...state, p: "", risk: "", deadline: "" }), // these are of the search alone
    make("div", { class: "architectures", style: { "--count": String(rows.length) } },
      rows.map((row) => column(row, base, slowest, state))),
    told.left_out.length ? make("div", { class: "left-out" }, make("h3", {}, "Not here"),
      make("ul", { class: "plain-list" }, told.left_out.map((why) => make("li", {}, why)))) : null);
}

function column(row, base, slowest, state) {
  const places = new Map(base.hits.map((hit) => [hit.id, hit.rank]));
  const shared = row.hits.filter((hit) => places.has(hit.id)).length;
  const id = `arch-${row.name.replaceAll(/\W+/g, "-")}`;
  return make("section", { class: row === base ? "architecture base" : "architecture", "aria-labelledby": id },
    make("h3", { id }, row.name, row.own ? make("span", { class: "tag" }, "in use") : null),
    row.error ? notice(row.error, "error") : [
      make("p", { class: "took" }, make("strong", {}, milliseconds(row.milliseconds)),
        bar(row.milliseconds / slowest)),
      make("p", { class: "soft" },
        row === base ? "the others are compared with this" : `${shared} of ${row.hits.length} in common`),
      row.notes.map((note) => notice(note)),
      row.hits.length ? make("ol", { class: "ranks", role: "list" }, row.hits.map((hit) => rank(hit, row, base, places, state)))
        : make("p", {}, "Nothing found."),
      folded("Stages and recipe",
        make("ul", { class: "plain-list" },
          row.stages.map((stage) => make("li", {}, `${stage.stage}: ${milliseconds(stage.milliseconds)}`))),
        make("pre", { tabindex: "0", role: "region", "aria-label": `Recipe of ${row.name}` }, row.recipe)),
    ]);
}

function rank(hit, row, base, places, state) {
  return make("li", { data: { id: hit.id }, on: { mouseenter: () => light(hit.id), mouseleave: () => light(null) } },
    make("span", { class: "place" }, hit.rank),
    make("span", { class: "what" },
      make("a", {
        href: address({ view: "search", doc: hit.id, tab: "text" }, state), title: `score ${score(hit.score)}`,
        on: { focus: () => light(hit.id), blur: () => light(null) },
      }, hit.title || hit.id)),
    row === base ? null : moved(hit.rank, places.get(hit.id), base.name));
}

function moved(here, there, name) {
  const move = (kind, shown, said) => make("span", { class: `move ${kind}` },
    make("span", { "aria-hidden": "true" }, shown), make("span", { class: "unseen" }, said));
  if (there === undefined) return move("new", "new", `not in ${name}`);
  if (here === there) return move("same", "=", `as in ${name}`);
  const up = here < there, by = Math.abs(here - there);
  return move(up ? "up" : "down", `${up ? "▲" : "▼"}${by}`, `${by} ${up ? "higher" : "lower"} than in ${name}`);
}

/** The same document wherever it stands. */
function light(id) {
  for (const item of document.querySelectorAll(".ranks li")) item.classList.toggle("lit", item.dataset.id === id);
}
