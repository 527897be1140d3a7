// What the collection holds and what state it is in.

import { ask } from "./api.js";
import { bar, byId, facts, fill, folded, make, notice, table } from "./dom.js";
import { bytes, count, counted } from "./format.js";

let running = null;

export async function show() {
  running?.abort();
  const mine = running = new AbortController(), view = byId("view");
  if (!view.querySelector(".collection")) fill(view, make("p", { class: "soft wait" }, "Asking …"));
  try {
    const status = await ask("status", { signal: mine.signal });
    if (running === mine) draw(view, status);
  } catch (error) {
    if (error.name !== "AbortError" && running === mine) fill(view, notice(error.message, "error"));
  }
}

export function stop() {
  running?.abort();
  running = null;
}

function draw(view, status) {
  fill(view, make("div", { class: "collection" },
    make("h2", {}, "Collection"),
    make("dl", { class: "figures" }, [
      [count(status.documents), "documents"], [count(status.passages), "passages"], [bytes(status.size), "on disk"],
      [count(Object.keys(status.fields).length), "fields"],
    ].map(([number, name]) => make("div", {}, make("dt", {}, name), make("dd", {}, number)))),
    status.writable ? null : notice("Read only: it can be searched, not changed."),
    facts([["place", status.path], ["free on disk", status.free ? bytes(status.free) : ""], ["weights", status.weights]]),
    views(status.views), indexes(status.indexes), fields(status.fields),
    make("h3", {}, "Recipe"),
    folded("recipe.toml", make("pre", { tabindex: "0", role: "region", "aria-label": "recipe.toml" }, status.recipe))));
}

function views(rows) {
  return [make("h3", {}, "Views"),
    make("p", { class: "soft" }, "What each model stored of the passages."),
    rows.length ? table("Views", [
      { name: "View", kind: "name", of: (row) => row.name },
      { name: "Model", kind: "text", of: (row) => row.model },
      { name: "Dimensions", kind: "number", of: (row) => count(row.dimension) },
      { name: "State", kind: "text", of: (row) => (row.complete ? "complete" : "not complete: encode again to finish it") },
      { name: "Cut off", kind: "text", of: (row) => (row.truncated
        ? `${counted(row.truncated, "passage")}, ${counted(row.dropped, "token")} not encoded` : "nothing") },
      { name: "Fingerprint", kind: "code", of: (row) => row.fingerprint },
    ], rows) : notice("None: the collection is searched by words alone.")];
}

function indexes(rows) {
  const size = Math.max(...rows.map((row) => row.size), 1);
  return [make("h3", {}, "Indexes"),
    make("p", { class: "soft" }, "Derived from what is stored; deleting them is safe."),
    table("Indexes", [
      { name: "Index", kind: "name", of: (row) => row.name },
      { name: "State", kind: "text", of: state },
      { name: "Passages", kind: "number", of: (row) => count(row.passages) },
      { name: "Size", kind: "number", of: (row) => bytes(row.size) },
      { kind: "meter", of: (row) => bar(row.size / size) },
      { name: "How, and recall", kind: "text", of: (row) => row.detail || "exact: recall 1" },
    ], rows)];
}

function state(row) {
  if (!row.there) return "not there; made at the next search";
  return row.behind ? `${counted(row.behind, "change")} to take in` : "up to date";
}

function fields(told) {
  const rows = Object.entries(told);
  return [make("h3", {}, "Fields"), rows.length ? table("Fields", [
    { name: "Field", kind: "name", of: ([name]) => name },
    { name: "Values", kind: "text", of: ([, summary]) => summary },
  ], rows) : make("p", {}, "The documents have none.")];
}
