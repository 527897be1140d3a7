// The search view: hits as one types, each with its passage, what it is worth, and the ways on from it.

import * as answer from "./answer.js";
import { ask } from "./api.js";
import { byId, fill, make, notice, refill } from "./dom.js";
import * as filters from "./filters.js";
import { counted, milliseconds, percent, score, value } from "./format.js";
import { address, go } from "./state.js";
import { snippet } from "./text.js";

const SHOWN_FIELDS = 4;
const LONGEST_FIELD = 40;
const SLOW = 250; // milliseconds until the wait is shown

let running = null; // the AbortController of the search under way
let found = null; // {key, results, marks} of the last answer
let waiting = null; // the key that is being asked for

const keyOf = (state) => JSON.stringify(["q", "where", "k", "p", "risk", "deadline"].map((name) => state[name]));

/** The hit of a document among the results that are shown. */
export const hitOf = (id) => found?.results.hits.find((hit) => hit.id === id) ?? null;

/** What a search of this state sends. */
export function request(state) {
  const body = { query: state.q, k: Number(state.k), where: state.where || null };
  if (state.deadline) body.deadline = Number(state.deadline);
  if (state.risk) body.risk = Number(state.risk);
  else if (state.p) body.min_probability = Number(state.p);
  return body;
}

export async function show(state) {
  const key = keyOf(state);
  if (key === waiting) return;
  if (found?.key === key) {
    running?.abort();
    waiting = null;
    draw(state);
    return;
  }
  running?.abort();
  running = null;
  waiting = null;
  if (!state.q.trim()) {
    found = null;
    welcome();
    return;
  }
  const mine = new AbortController();
  running = mine;
  waiting = key;
  byId("view").setAttribute("aria-busy", "true");
  const slow = setTimeout(() => { byId("progress").hidden = false; }, SLOW);
  try {
    const results = await ask("search", { body: request(state), signal: mine.signal });
    const texts = results.hits.map((hit) => hit.text);
    const marks = texts.length ? await ask("marks", { body: { query: state.q, texts }, signal: mine.signal }) : { texts: [] };
    if (running !== mine) return; // a later search was begun
    found = { key, results, marks: marks.texts };
    if (results.hits.some((hit) => hit.probability !== null)) filters.noteCalibrated();
    draw(state);
    byId("told").textContent = said(results);
  } catch (error) {
    if (error.name === "AbortError" || running !== mine) return;
    found = null;
    refill(byId("view"), filters.chips(state), make("div", { class: "notice error", role: "alert" },
      error.message.split("\n").map((line) => make("p", {}, line))));
  } finally {
    clearTimeout(slow);
    if (running === mine) {
      running = null;
      waiting = null;
      byId("view").removeAttribute("aria-busy");
      byId("progress").hidden = true;
    }
  }
}

/** Milliseconds that the last search took. */
export const took = () => 1000 * (found?.results.seconds ?? 0);

/** Draw again, once more is known of the collection. */
export function refresh(state) {
  if (found) draw(state);
  else if (!waiting) show(state);
}

export function stop() {
  running?.abort();
  running = null;
  waiting = null;
  byId("progress").hidden = true;
}

function welcome() {
  stop();
  byId("view").removeAttribute("aria-busy");
  const held = filters.documents();
  fill(byId("view"), make("div", { class: "welcome" },
    make("h2", {}, held === null ? "Search" : `Search ${counted(held, "document")}`),
    make("p", {}, "Ask in your own words; hits come as you type, and each can say why it is there.")));
}

function said(results) {
  const { hits, verdict } = results;
  if (verdict && !verdict.answered) return "Nothing relevant found";
  if (!hits.length) return "Nothing found";
  const sure = hits[0].probability === null ? "" : `, the first ${percent(hits[0].probability)} likely relevant`;
  return `${counted(hits.length, "hit")}${sure}`;
}

// -- what came back ------------------------------------------------------------------------------------------------------

function draw(state) {
  const { results, marks } = found;
  const of = filters.documents();
  const nothing = !results.hits.length || (results.verdict && !results.verdict.answered);
  refill(byId("view"),
    make("div", { class: "head" },
      make("h2", { class: "count" }, nothing ? "No hits" : counted(results.hits.length, "hit"),
        of === null ? null : make("span", { class: "soft" }, ` of ${counted(of, "document")}`)),
      make("p", { class: "soft time" }, milliseconds(1000 * results.seconds)),
      answer.button(state)),
    filters.chips(state),
    make("div", { id: "answer", "aria-live": "polite" }),
    notes(results),
    nothing ? empty(results, state) : null,
    make("ol", { class: "hits", role: "list", hidden: !results.hits.length },
      results.hits.map((hit, place) => item(hit, marks[place], state))));
  answer.resume(state);
  current(state.doc);
}

function notes(results) {
  return results.notes.map((note) => notice(note));
}

function empty(results, state) {
  const verdict = results.verdict;
  if (verdict && !verdict.answered) {
    const needed = percent(verdict.threshold);
    return make("div", { class: "nothing" },
      make("h3", {}, "Nothing relevant found"),
      make("p", {}, verdict.probability > 0
        ? `The likeliest document is relevant with a probability of ${percent(verdict.probability)}; `
          + (verdict.risk === null ? `at least ${needed} was asked for.`
            : `${needed} is needed so that at most ${percent(verdict.risk)} of all answers hold nothing relevant.`)
        : "Not one document came near."),
      verdict.left_out ? make("p", {}, make("button", { type: "button", on: { click: () => go({ p: "", risk: "" }) } },
        `Show the ${counted(verdict.left_out, "hit")} left out`)) : null);
  }
  return make("div", { class: "nothing" }, make("h3", {}, "Nothing found"),
    make("p", {}, `No document ${state.where ? "that the filters leave " : ""}has to do with this.`));
}

function item(hit, mark, state) {
  const title = hit.title || hit.id;
  return make("li", { class: "hit", data: { id: hit.id } },
    make("div", { class: "worth" }, worth(hit)),
    make("article", {},
      make("h3", {}, make("a", { class: "open", href: address({ doc: hit.id, tab: "text" }, state) }, title)),
      make("p", { class: "passage" }, snippet(hit.text, mark)),
      make("p", { class: "under" },
        hit.title && hit.title !== hit.id ? make("span", { class: "id" }, hit.id) : null,
        hit.part ? make("span", {}, `in ${hit.part}`) : null,
        shortFields(hit.fields).map(([name, told]) => make("span", {}, make("span", { class: "unseen" }, `${name}: `), told)),
        make("a", { class: "why", href: address({ doc: hit.id, tab: "why" }, state) }, "Why?",
          make("span", { class: "unseen" }, ` is ${title} here`)))));
}

/** A probability where there is one; a score is a score, on no scale that a person knows. */
export function worth(hit) {
  const scored = make("span", { class: "score" }, make("span", { class: "unseen" }, "score "), score(hit.score));
  if (hit.probability === null) return [make("span", { class: "rank" }, hit.rank), scored];
  return [
    make("span", { class: "chance", style: { "--share": String(hit.probability) } }, percent(hit.probability),
      make("span", { class: "unseen" }, " likely relevant,")),
    scored,
  ];
}

function shortFields(fields) {
  return Object.entries(fields).map(([name, given]) => [name, value(given)])
    .filter(([, told]) => told && told !== "–" && told.length <= LONGEST_FIELD).slice(0, SHOWN_FIELDS);
}

/** Show which hit's document is open. */
export function current(id) {
  for (const hit of document.querySelectorAll(".hit")) {
    const here = Boolean(id) && hit.dataset.id === id;
    hit.classList.toggle("here", here);
    hit.querySelector(".open").toggleAttribute("aria-current", here);
    if (here) hit.querySelector(".open").setAttribute("aria-current", "true");
  }
}

/** Move to the hit `step` further on; from the search box to the first. */
export function step(by) {
  const links = [...document.querySelectorAll(".hit .open")];
  if (!links.length) return false;
  const at = links.findIndex((link) => link.closest(".hit").contains(document.activeElement));
  if (at + by < 0) byId("query").focus();
  else links[Math.min(at + by, links.length - 1)].focus();
  return true;
}
