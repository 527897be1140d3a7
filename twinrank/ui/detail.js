// One document beside the hits, or in their place where there is no room: its text with the passage marked, or why it is here.

import { ask } from "./api.js";
import { byId, facts, fill, make, notice } from "./dom.js";
import { drawExplanation, drawWeights } from "./explain.js";
import { value } from "./format.js";
import { current, hitOf } from "./search.js";
import { address, go, read } from "./state.js";
import { Points, marked } from "./text.js";

const TABS = [["text", "Document"], ["why", "Why it is here"]];

const WEIGHING = 256; // texts that each model may read to weigh single words
const LONGEST_MARKED = 1_000_000; // characters; the server marks no longer texts

let running = null;
let shown = ""; // what is in the panel, as a key
let scrolled = 0; // where the hits were, for coming back on a narrow screen

const isOpen = () => !byId("detail").hidden;

/** `searched` is done once the hits are known, of which one may be this document. */
export async function show(state, before, searched) {
  const panel = byId("detail"), key = JSON.stringify([state.doc, state.tab, state.q, state.where, state.k]);
  current(state.doc);
  if (!state.doc || state.view !== "search") {
    if (isOpen()) close(before?.doc ?? "");
    return;
  }
  if (key === shown) return;
  shown = key;
  if (!isOpen()) scrolled = scrollY;
  panel.hidden = false;
  document.body.classList.add("with-detail");
  const fresh = before?.doc !== state.doc;
  frame(panel, state);
  running?.abort();
  const mine = running = new AbortController();
  const inside = byId("detail-inside");
  if (fresh) byId("detail-title").focus({ preventScroll: false });
  fill(inside, make("p", { class: "soft wait" }, state.tab === "why" ? "Asking every model what it saw …" : "Fetching …"));
  try {
    if (state.tab === "why") await why(inside, state, mine.signal);
    else await text(inside, state, mine.signal, searched);
  } catch (error) {
    if (error.name !== "AbortError" && running === mine) fill(inside, notice(error.message, "error"));
  }
}

function close(id) {
  const panel = byId("detail"), inside = panel.contains(document.activeElement);
  running?.abort();
  shown = "";
  panel.hidden = true;
  fill(panel);
  document.body.classList.remove("with-detail");
  scrollTo(0, scrolled);
  if (!inside) return;
  const link = [...document.querySelectorAll(".hit")].find((hit) => hit.dataset.id === id)?.querySelector(".open");
  (link ?? byId("query")).focus({ preventScroll: true });
}

export function leave() {
  if (!isOpen()) return false;
  go({ doc: "", tab: "text" });
  return true;
}

function frame(panel, state) {
  const title = hitOf(state.doc)?.title || state.doc;
  panel.setAttribute("aria-labelledby", "detail-title");
  const link = ([tab, name]) => make("a", {
    href: address({ tab }, state), "aria-current": tab === state.tab ? "page" : null,
  }, name);
  const inTabs = Boolean(document.activeElement.closest(".tabs"));
  fill(panel,
    make("div", { class: "detail-head" },
      make("h2", { id: "detail-title", tabindex: "-1" }, title),
      make("button", { type: "button", class: "close", on: { click: leave } },
        make("span", { "aria-hidden": "true" }, "×"), make("span", { class: "unseen" }, "Close the document")),
      make("nav", { class: "tabs", "aria-label": "Of this document" }, TABS.map(link))),
    make("div", { id: "detail-inside" }));
  if (inTabs) panel.querySelector(".tabs [aria-current]").focus();
}

// -- the document --------------------------------------------------------------------------------------------------------

async function text(inside, state, signal, searched) {
  const told = await ask(`documents?id=${encodeURIComponent(state.doc)}`, { signal });
  const found = Array.isArray(told) ? told[0] : told;
  const asked = { query: state.q, texts: [found.text] };
  const markable = state.q.trim() && found.text.length <= LONGEST_MARKED;
  const marks = markable ? (await ask("marks", { body: asked, signal })).texts[0].marks : [];
  await searched;
  if (read().doc !== state.doc || signal.aborted) return;
  if (found.title) byId("detail-title").textContent = found.title;
  const hit = hitOf(state.doc), points = new Points(found.text);
  const inText = hit && !hit.part && hit.end > hit.start && hit.end <= points.length;
  const within = (start, end) => marked(points, marks, start, end);
  const passage = inText ? make("span", { class: "the-passage", id: "the-passage" },
    make("span", { class: "unseen" }, "The passage that was found: "), within(hit.start, hit.end)) : null;
  const whole = inText && hit.start === 0 && hit.end === points.length;
  fill(inside,
    facts([["id", found.id], ["source", found.source && found.source !== found.id ? found.source : ""],
      ...Object.entries(found.fields).map(([name, given]) => [name, value(given)])]),
    hit?.part ? notice(`What was found lies in its ${hit.part}: ${hit.text}`) : null,
    make("div", { class: "document" },
      inText && !whole ? [within(0, hit.start), passage, within(hit.end, points.length)] : within(0, points.length)));
  if (inText && !whole && hit.start > 600) byId("the-passage").scrollIntoView({ block: "center" });
}

async function why(inside, state, signal) {
  const body = { query: state.q, document: state.doc, k: Number(state.k) };
  if (state.where) body.where = state.where;
  if (!state.q.trim()) {
    fill(inside, notice("Search for something first; then this says why the document was found."));
    return;
  }
  // To weigh single words, the models read some hundred texts; what takes no such time is shown first.
  for (const [budget, draw] of [[0, drawExplanation], [WEIGHING, drawWeights]]) {
    const told = await ask("explain", { body: { ...body, budget }, signal });
    if (read().doc !== state.doc || signal.aborted) return;
    if (told.title) byId("detail-title").textContent = told.title;
    draw(inside, told);
  }
}
