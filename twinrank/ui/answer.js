// An answer above the hits, where the query is a question and somebody asks for it: sentences quoted from the documents.

import { ask } from "./api.js";
import { byId, fill, make, notice } from "./dom.js";
import { percent } from "./format.js";
import { address } from "./state.js";

const ASKING = "what who whom whose when where why how which is are was were do does did can could should will would has have";
const QUESTION = new RegExp(`^(${ASKING.replaceAll(" ", "|")})\\b`, "i");

const DOUBTS = { uncited: "No source is given for this.", unsupported: "The source does not say this." };

let running = null;
let last = null; // {question, where, told}

export const isQuestion = (query) => query.trim().endsWith("?") || QUESTION.test(query.trim());

/** The button that asks for it; null where nothing was asked. */
export function button(state) {
  if (!isQuestion(state.q)) return null;
  return make("button", { type: "button", id: "answer-it", on: { click: () => run(state) } }, "Answer from the documents");
}

/** Show again what was answered to this very question. */
export function resume(state) {
  if (last && last.question === state.q && last.where === state.where) draw(last.told, state);
}

async function run(state) {
  running?.abort();
  const mine = running = new AbortController();
  fill(byId("answer"), make("p", { class: "soft" }, "Reading the documents …"));
  byId("answer-it").disabled = true;
  try {
    const told = await ask("answer", { body: { question: state.q, where: state.where || null }, signal: mine.signal });
    last = { question: state.q, where: state.where, told };
    if (byId("answer")) draw(told, state);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (byId("answer")) fill(byId("answer"), notice(error.message, "error"));
  } finally {
    if (byId("answer-it")) byId("answer-it").disabled = false;
  }
}

function draw(told, state) {
  const notes = (told.notes ?? []).map((note) => notice(note));
  if (told.kind === "none") {
    fill(byId("answer"), make("section", { class: "answer", "aria-label": "Answer" },
      make("p", { class: "said" }, told.text || "I do not know."),
      make("p", { class: "soft" }, "The documents that were found do not answer this."), notes));
    return;
  }
  const numbers = new Map((told.sources ?? []).map((source) => [source.number, source]));
  fill(byId("answer"), make("section", { class: "answer", "aria-label": "Answer" },
    told.quotes?.length ? make("ol", { class: "quotes" }, told.quotes.map((quote) => quoted(quote, state))) : null,
    told.claims?.length ? make("ul", { class: "quotes" }, told.claims.map((claim) => claimed(claim, numbers, state))) : null,
    make("p", { class: "soft" }, told.kind === "extractive" ? "Quoted letter for letter from the documents." : "Written by a "
      + "language model; every sentence was compared with what it cites."),
    notes));
}

function quoted(quote, state) {
  return make("li", {}, make("blockquote", {}, quote.text), source(quote.id, quote.title, state));
}

function claimed(claim, sources, state) {
  const cited = claim.citations.map((number) => sources.get(number)).filter(Boolean);
  const doubt = claim.standing === "supported" ? null
    : make("p", { class: "doubt" }, DOUBTS[claim.standing], claim.why ? ` ${claim.why}` : null);
  return make("li", { class: claim.standing }, make("p", {}, claim.text), doubt,
    cited.map((one) => source(one.id, one.title, state, one.probability)));
}

function source(id, title, state, probability = null) {
  return make("p", { class: "cited" }, make("a", { href: address({ doc: id, tab: "text" }, state) }, title || id),
    probability === null ? null : make("span", { class: "soft" }, ` ${percent(probability)} likely relevant`));
}
