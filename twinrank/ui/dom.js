// Elements made from names, attributes and texts; texts become text nodes, so that no document is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `attributes`: `on` holds listeners, `style` custom properties, `data` data-*; false, null and undefined leave
 *  one out. Children are nodes, texts, numbers, or lists of these; null and false are left out. */
export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "style") for (const [property, set] of Object.entries(value)) element.style.setProperty(property, set);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== "")
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}

/** Replace what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

/** `fill`, without losing the focus: it stays with what has the same id or address, or goes to the element itself. */
export function refill(element, ...children) {
  const at = document.activeElement, inside = element.contains(at) && at !== element;
  const { id, search } = at ?? {};
  fill(element, ...children);
  if (!inside) return;
  const same = (id && byId(id)) || (search && [...element.querySelectorAll("a")].find((link) => link.search === search));
  (same || element).focus({ preventScroll: true });
}

export const byId = (id) => document.getElementById(id);

/** A table: `columns` are {name, of(row), kind}, where kind "number" stands to the right and "name" heads the row. */
export function table(caption, columns, rows, rowAttributes = () => ({})) {
  const cell = (column, row) => make(column.kind === "name" ? "th" : "td",
    { class: column.kind, scope: column.kind === "name" ? "row" : null }, column.of(row));
  const head = (column) => make("th", { scope: "col", class: column.kind },
    column.kind === "meter" ? make("span", { class: "unseen" }, "as a bar") : column.name);
  return make("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    make("table", {},
      make("caption", { class: "unseen" }, caption),
      make("thead", {}, make("tr", {}, columns.map(head))),
      make("tbody", {}, rows.map((row) => make("tr", rowAttributes(row), columns.map((column) => cell(column, row)))))));
}

/** Names and what they are. */
export function facts(pairs) {
  return make("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

/** A length that a figure beside it tells; below 0 in the other colour. */
export function bar(of) {
  const share = Number.isFinite(of) ? Math.min(1, Math.abs(of)) : 0;
  return make("span", { class: of < 0 ? "bar down" : "bar", "aria-hidden": "true", style: { "--share": String(share) } });
}

/** Something that opens on a click. */
export function folded(summary, ...children) {
  return make("details", { class: "folded" }, make("summary", {}, summary), children);
}

export function notice(text, kind = "") {
  return make("p", { class: `notice ${kind}` }, text);
}
