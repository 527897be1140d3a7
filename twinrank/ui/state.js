// What is shown, as the address says it: every view, query, filter and document can be linked to and gone back to.

const DEFAULTS = { view: "search", q: "", where: "", k: "10", p: "", risk: "", deadline: "", doc: "", tab: "text" };
const VIEWS = ["search", "compare", "collection", "tuning"];

export function read(search = location.search) {
  const given = new URLSearchParams(search);
  const state = Object.fromEntries(Object.entries(DEFAULTS).map(([name, usual]) => [name, given.get(name) ?? usual]));
  if (!VIEWS.includes(state.view)) state.view = "search";
  if (!["text", "why"].includes(state.tab)) state.tab = "text";
  if (!/^(100|[1-9]\d?)$/.test(state.k)) state.k = DEFAULTS.k; // more are not compared
  for (const name of ["p", "risk", "deadline"]) if (!(Number(state[name]) > 0)) state[name] = "";
  return state;
}

/** The address of a state that differs from `from` in `changes`. */
export function address(changes, from = read()) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...from, ...changes })) if (value !== DEFAULTS[name]) query.set(name, value);
  return `?${query}`;
}

const listeners = [];

export function onChange(listener) {
  listeners.push(listener);
}

/** Show something else; `replace` where going back should not come by here, as while a query is typed. */
export function go(changes, { replace = false } = {}) {
  const before = read(), to = address(changes, before);
  if (to === address({}, before)) return;
  history[replace ? "replaceState" : "pushState"](null, "", to);
  tell(before);
}

let shown = read();

function tell(before) {
  shown = read();
  for (const listener of listeners) listener(shown, before);
}

addEventListener("popstate", () => tell(shown));
