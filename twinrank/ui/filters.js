// The filters: for every field a control that fits its values, and the options of a search; what they say is in the address.

import { ask } from "./api.js";
import { byId, make, refill } from "./dom.js";
import { count, percent, value as shown } from "./format.js";
import { go } from "./state.js";
import { parse, write } from "./where.js";

const MOST_FIELDS = 12; // that are shown before "more"
const MOST_CHOICES = 7; // that are shown before "more"
const SHORT_RANGE = 7; // numbers that are listed rather than bounded
const DATE = /^\d{4}-\d\d-\d\d/;

let fields = null; // as /fields tells them
let asked = null; // the promise of it
let state = null;
let open = false; // on a narrow screen
let calibrated = false;

/** How many documents there are; null before that is known. */
export const documents = () => fields?.documents ?? null;

export async function load() {
  asked ??= ask("fields");
  try {
    fields = await asked;
  } catch (error) {
    asked = null;
    throw error;
  }
  if (state) draw();
}

/** Probabilities were seen, so that one may ask for them. */
export function noteCalibrated() {
  if (calibrated) return;
  calibrated = true;
  draw();
}

export function show(now) {
  const same = state && ["where", "k", "p", "risk", "deadline", "view"].every((name) => state[name] === now[name]);
  state = now;
  if (!same) draw();
}

function draw() {
  const side = byId("side");
  if (side.hidden || !state) return;
  const clauses = parse(state.where);
  const controls = Object.entries(fields?.fields ?? {}).map(([name, kinds]) => [name, kinds.reduce(moreUsed)])
    .sort(([, one], [, other]) => other.documents - one.documents).map(([name, values]) => control(name, values, clauses));
  const rest = controls.slice(MOST_FIELDS);
  const limits = state.view === "search" ? ["p", "risk", "deadline"].filter((name) => state[name]) : [];
  const active = clauses.length + limits.length;
  refill(side,
    make("button", {
      id: "disclose", class: "disclose", type: "button", "aria-expanded": String(open), "aria-controls": "filters",
      on: { click: () => { open = !open; draw(); } },
    }, "Filters", active ? make("span", { class: "badge" }, count(active)) : null),
    make("div", { class: "filters", id: "filters", "data-open": open ? "true" : null },
      controls.slice(0, MOST_FIELDS),
      rest.length ? make("details", {}, make("summary", {}, `${rest.length} more fields`), rest) : null,
      condition(clauses), options(),
      active ? make("button", {
        type: "button", class: "plain", id: "clear",
        on: { click: () => go({ where: "", p: "", risk: "", deadline: "" }) },
      }, "Clear all filters") : null));
}

/** Of a field with values of several types, the type that most documents have. */
const moreUsed = (one, other) => (other.documents > one.documents ? other : one);

/** Replace the clauses about a field, or the free one where there is no field. */
function put(field, clause) {
  const others = parse(state.where).filter((one) => (field === null ? one.kind !== "other" : one.field !== field));
  change({ where: write(clause ? [...others, clause] : others), doc: "" });
}

/** What a control says, once the focus has moved on to where the key Tab takes it: the controls are drawn anew. */
function change(changes) {
  setTimeout(() => go(changes));
}

function control(name, values, clauses) {
  const mine = clauses.filter((clause) => clause.field === name);
  if (values.kind === "boolean") return choices(name, values, mine, (given) => Boolean(given));
  if (values.kind === "number") {
    return values.values.length && values.values.length <= SHORT_RANGE
      ? choices(name, values, mine, (given) => given) : range(name, values, mine, "number");
  }
  if (values.values.length) return choices(name, values, mine, (given) => given);
  const dates = DATE.test(values.low) && DATE.test(values.high);
  return dates ? range(name, values, mine, "date") : contains(name, mine);
}

function group(name, ...inside) {
  return make("fieldset", {}, make("legend", {}, name), inside);
}

function choices(name, values, mine, typed) {
  const chosen = new Set(mine.flatMap((clause) => (clause.kind === "choice" ? clause.values : [])));
  const box = ([given, documents], number) => {
    const option = typed(given), id = `f-${name}-${number}`;
    return make("label", { class: "choice", for: id },
      make("input", {
        type: "checkbox", id, checked: chosen.has(option), on: {
          change: (event) => {
            if (event.target.checked) chosen.add(option);
            else chosen.delete(option);
            put(name, chosen.size ? { field: name, kind: "choice", values: [...chosen] } : null);
          },
        },
      }), make("span", {}, shown(option)), make("span", { class: "soft" }, count(documents)));
  };
  const boxes = values.values.map(box);
  const rest = boxes.slice(MOST_CHOICES);
  const hidden = values.values.slice(MOST_CHOICES).some(([given]) => chosen.has(typed(given)));
  return group(name, boxes.slice(0, MOST_CHOICES),
    rest.length ? make("details", { open: hidden }, make("summary", {}, `${rest.length} more`), rest) : null);
}

function range(name, values, mine, type) {
  const { low = null, high = null } = mine.find((clause) => clause.kind === "range") ?? {};
  const day = type === "date";
  const bound = (which, set, limit) => {
    const id = `f-${name}-${which}`;
    return make("label", { for: id }, which, make("input", {
      type, id, value: set === null ? null : String(set).slice(0, day ? 10 : undefined), placeholder: day ? null : shown(limit),
      step: "any", min: day ? values.low.slice(0, 10) : null, max: day ? values.high.slice(0, 10) : null,
      on: { change: (event) => put(name, rangeOf(event.target.closest("fieldset"))) },
    }));
  };
  const rangeOf = (fieldset) => {
    const [from, to] = [...fieldset.querySelectorAll("input")].map((input) => input.value.trim());
    if (!from && !to) return null;
    // Times of the last day lie behind its date.
    const last = to && values.high.length > 10 ? `${to}T24` : to;
    if (day) return { field: name, kind: "range", low: from || null, high: last || null };
    return { field: name, kind: "range", low: from ? Number(from) : null, high: to ? Number(to) : null };
  };
  return group(name, make("div", { class: "range" }, bound("from", low, values.low), bound("to", high, values.high)));
}

function contains(name, mine) {
  const id = `f-${name}`, text = mine.find((clause) => clause.kind === "contains")?.text
    ?? mine.find((clause) => clause.kind === "choice")?.values.join(", ") ?? "";
  return group(name, make("label", { for: id }, make("span", { class: "unseen" }, `${name} contains`), make("input", {
    type: "text", id, value: text, placeholder: "contains …",
    on: {
      change: (event) => {
        const given = event.target.value.trim().replaceAll("%", "");
        put(name, given ? { field: name, kind: "contains", text: given } : null);
      },
    },
  })));
}

function condition(clauses) {
  const other = clauses.find((clause) => clause.kind === "other");
  return group("Condition", make("label", { for: "f-other" },
    make("span", { class: "unseen" }, "A condition over fields, such as year >= 2015"), make("input", {
      type: "text", id: "f-other", value: other?.expression ?? "", placeholder: "year >= 2015", spellcheck: "false",
      on: {
        change: (event) => {
          const expression = event.target.value.trim();
          put(null, expression ? { kind: "other", expression } : null);
        },
      },
    })));
}

function options() {
  const select = (id, label, chosen, entries, chosenAs) => make("label", { class: "option", for: id }, label, make("select", {
    id, on: { change: (event) => change(chosenAs(event.target.value)) },
  }, withChosen(entries, chosen).map(([given, told]) => make("option", { value: given, selected: given === chosen }, told))));
  const sure = state.risk ? `risk ${state.risk}` : state.p ? `p ${state.p}` : "";
  const all = ["", "all that is found"];
  const chances = [0.25, 0.5, 0.75, 0.9].map((share) => [`p ${share}`, `at least ${percent(share)} likely`]);
  const risks = [0.05, 0.1, 0.2].map((share) => [`risk ${share}`, `at most ${percent(share)} wrong`]);
  const inSearch = state.view === "search"; // what is compared is not cut short
  return group("Options",
    select("f-k", "Hits", state.k, [["10", "10"], ["20", "20"], ["50", "50"]], (k) => ({ k })),
    inSearch && (calibrated || sure) ? select("f-sure", "Show", sure, [all, ...chances, ...risks], (given) => {
      const [kind, number] = given.split(" ");
      return { p: kind === "p" ? number : "", risk: kind === "risk" ? number : "" };
    }) : null,
    inSearch ? select("f-deadline", "Time", state.deadline,
      [["", "as long as it takes"], ["50", "50 ms"], ["200", "200 ms"], ["1000", "1 second"]],
      (deadline) => ({ deadline })) : null);
}

/** What the address says stays choosable, though no entry is called so. */
function withChosen(entries, chosen) {
  return entries.some(([given]) => given === chosen) ? entries : [...entries, [chosen, chosen]];
}

/** The filters in force, each with a button that takes it away. */
export function chips(now) {
  const clauses = parse(now.where);
  const without = (clause) => write(clauses.filter((one) => one !== clause));
  const made = clauses.map((clause) => chip(told(clause), () => go({ where: without(clause), doc: "" })));
  if (now.p) made.push(chip(`at least ${percent(Number(now.p))} likely`, () => go({ p: "" })));
  if (now.risk) made.push(chip(`at most ${percent(Number(now.risk))} wrong answers`, () => go({ risk: "" })));
  if (now.deadline) made.push(chip(`within ${now.deadline} ms`, () => go({ deadline: "" })));
  if (!made.length) return null;
  return make("ul", { class: "chips", "aria-label": "Filters in force" }, made.map((one) => make("li", {}, one)));
}

function chip(text, remove) {
  const label = `${text}: take this filter away`;
  return make("button", { type: "button", class: "chip", "aria-label": label, on: { click: remove } },
    text, make("span", { "aria-hidden": "true" }, "×"));
}

function told(clause) {
  if (clause.kind === "other") return clause.expression;
  if (clause.kind === "contains") return `${clause.field} contains “${clause.text}”`;
  if (clause.kind === "choice") return `${clause.field}: ${clause.values.map(shown).join(", ")}`;
  const [low, high] = [clause.low, clause.high].map((bound) => bound !== null && String(bound).replace("T24", ""));
  if (low === false) return `${clause.field} up to ${high}`;
  return high === false ? `${clause.field} from ${low}` : `${clause.field} ${low} to ${high}`;
}
