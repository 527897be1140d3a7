// An explanation, drawn: where the document stands, its way through the stages, and what each model saw in query and passage.

import { bar, fill, folded, make, notice, svg, table } from "./dom.js";
import { count, counted, percent, score, signed } from "./format.js";
import { Points, parts } from "./text.js";

const MOST_WORDS = 8; // of those that matter, in a table
const CELL = { width: 16, height: 20, left: 92, top: 84 }; // pixels of the heat map

/** All but what single words do to a model's score, which is drawn when it is known. */
export function drawExplanation(inside, told) {
  fill(inside,
    make("p", { class: "outcome" }, told.outcome),
    told.forms.length > 1 || told.forms[0] !== told.query ? notice(`Searched as: ${told.forms.join(" | ")}`) : null,
    told.filter ? notice(filterTold(told.filter)) : null,
    told.probability ? probability(told.probability) : null,
    section("Its way through the search", stages(told.stages), told.sums.map(sum), told.certificates.map(certificate)),
    told.words ? words(told.words, told.passage) : null,
    told.vectors ? vectors(told.vectors, false) : null,
    told.tokens ? tokens(told.tokens, told.passage) : null,
    told.pairs.map((pair) => pairs(pair, false)),
    told.notes.length ? section("What could not be told", make("ul", { class: "plain-list" },
      told.notes.map((note) => make("li", {}, note)))) : null,
    make("p", { class: "soft" }, `Explained by passage ${told.passage.number + 1} of ${told.passage.of}`
      + `${told.passage.part ? `, in its ${told.passage.part}` : ""}, in ${told.seconds.toFixed(1)} s.`));
}

/** What single words do, in the place of what was drawn without it. */
export function drawWeights(inside, told) {
  const fresh = [...(told.vectors ? [vectors(told.vectors, true)] : []), ...told.pairs.map((pair) => pairs(pair, true))];
  for (const [place, section] of inside.querySelectorAll(".weighs").entries()) section.replaceWith(fresh[place] ?? "");
}

function section(title, ...inside) {
  return make("section", { class: "seen" }, make("h3", {}, title), inside);
}

function filterTold(filter) {
  const kept = `The condition leaves ${count(filter.passages)} of ${counted(filter.of, "passage")}`;
  return filter.passes ? `${kept}, this document among them.` : `${kept}, and not this document: ${filter.failed.join("; ")}.`;
}

function certificate(one) {
  const ended = { all: "all were read", settled: "the first places were settled", deadline: "the deadline came",
    tokens: "the token budget was used up" }[one.reason];
  return make("p", { class: "soft" }, `${one.stage}: ${one.pairs} of ${counted(one.of, "pair")} scored, ${ended}`
    + `${one.note ? ` (${one.note})` : ""}.`);
}

// -- its way through the search ------------------------------------------------------------------------------------------

function stages(rows) {
  return table("Stages of the search", [
    { name: "Stage", kind: "name", of: (row) => row.stage },
    { name: "Score", kind: "number", of: (row) => score(row.score) },
    { name: "Place", kind: "text", of: standing },
  ], rows);
}

function standing(row) {
  if (row.rank !== null) return `${row.rank} of ${row.of}`;
  if (row.kind === "rerank") {
    if (row.needed === null || row.came === null) return "not reranked";
    return `not reranked: came with ${score(row.came)}, needed ${score(row.needed)}`;
  }
  if (row.score === null) return "knows nothing of it";
  return `not among its ${row.of}${row.behind ? `; place ${count(row.behind)} in a deeper search` : ""}`
    + `${row.needed === null ? "" : `; needed ${score(row.needed)}`}`;
}

function sum(one) {
  const largest = Math.max(...one.parts.map((part) => Math.abs(part.adds)), 1e-9);
  return make("div", { class: "sum" },
    make("p", {}, `${one.stage} ${score(one.score)} is the sum of`),
    table(`What adds up to ${one.stage}`, [
      { name: "Part", kind: "name", of: (part) => part.name },
      { name: "Adds", kind: "number", of: (part) => signed(part.adds) },
      { kind: "meter", of: (part) => bar(part.adds / largest) },
      { name: "From", kind: "text", of: share },
    ], one.parts),
    one.note ? make("p", { class: "soft" }, one.note) : null);
}

function share(part) {
  const place = part.rank === null ? "" : `place ${part.rank}, `, weight = Number(part.weight.toPrecision(3));
  return part.score === null ? `not found, weight ${weight}` : `${place}score ${score(part.score)}, weight ${weight}`;
}

function probability(told) {
  if (told.probability === null) return section("Probability", make("p", {}, told.note));
  const largest = Math.max(...told.features.map((feature) => Math.abs(feature.adds)), 1e-9);
  return section(`${percent(told.probability)} likely relevant`,
    told.note ? make("p", {}, told.note) : null,
    folded("What the probability is made of",
      make("p", { class: "soft" }, `In log odds, from ${signed(told.base)} of an average pair (${told.method}).`),
      table("What moved the probability", [
        { name: "What", kind: "name", of: (feature) => feature.name },
        { name: "Value", kind: "number", of: (feature) => score(feature.value) },
        { name: "Adds", kind: "number", of: (feature) => signed(feature.adds) },
        { kind: "meter", of: (feature) => bar(feature.adds / largest) },
      ], told.features)));
}

// -- words ---------------------------------------------------------------------------------------------------------------

function words(told, passage) {
  const spans = told.terms.flatMap((term) => term.spans.map((span) => [...span, term.adds])).sort((a, b) => a[0] - b[0]);
  const largest = Math.max(...told.terms.map((term) => term.adds), 1e-9);
  const points = new Points(passage.text);
  return section("Words",
    make("p", { class: "scored" }, `BM25 ${score(told.score)}: the sum of what each word adds`),
    table("Words of the query", [
      { name: "Word", kind: "name", of: (term) => term.words.join(", ") },
      { name: "Adds", kind: "number", of: (term) => (term.count ? signed(term.adds) : "–") },
      { kind: "meter", of: (term) => (term.count ? bar(term.adds / largest) : null) },
      { name: "Here", kind: "number", of: (term) => (term.count ? `${term.count}×` : "not here") },
      { name: "In passages", kind: "number", of: (term) => count(term.passages) },
    ], told.terms),
    make("p", { class: "weighed" }, parts(points, spans, (part, number) => weighed(part, spans[number][2] / largest))));
}

const LEAST = 0.1; // of the largest effect in the text; smaller ones are not marked

function weighed(part, of) {
  if (Math.abs(of) < LEAST) return part;
  const kind = of < 0 ? "weight down" : "weight";
  return make("span", { class: kind, style: { "--share": Math.min(1, Math.abs(of)).toFixed(2) } }, part);
}

// -- models that read texts ----------------------------------------------------------------------------------------------

const vectors = (told, known) => seen("Vectors", told, "cosine of the two vectors", known);
const pairs = (told, known) => seen("Cross-encoder", told, "read as a pair", known);

function seen(title, told, what, known) {
  const made = section(title,
    make("p", { class: "scored" }, `${told.model}: ${score(told.score)}, ${what}`),
    told.searched === false ? make("p", { class: "soft" }, "The recipe does not search by these.") : null,
    occluded("Query", told.query, told.model), occluded("Passage", told.passage, told.model),
    known ? legend() : make("p", { class: "soft wait" }, "Weighing every word …"));
  made.classList.add("weighs");
  return made;
}

function legend() {
  return make("p", { class: "legend soft" }, make("span", { class: "weight", style: { "--share": "0.8" } }, "filled"),
    ": without it the score is lower; ", make("span", { class: "weight down" }, "dotted"), ": without it the score is higher.");
}

function occluded(name, text, model) {
  const points = new Points(text.text);
  const effects = [...text.effects].sort((a, b) => a.start - b.start);
  const largest = Math.max(...effects.map((effect) => Math.abs(effect.effect)), 1e-9);
  const spans = effects.map((effect) => [effect.start, effect.end]);
  const strongest = [...effects].sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect)).slice(0, MOST_WORDS);
  const unit = /^\d/.test(text.unit) ? text.unit : `one ${text.unit}`;
  return make("div", { class: "occluded" },
    make("h4", {}, name, effects.length ? make("span", { class: "soft" }, ` – ${unit} left out at a time`) : null),
    make("p", { class: "weighed" },
      parts(points, spans, (part, number) => weighed(part, effects[number].effect / largest), 0, text.seen),
      text.dropped ? make("span", { class: "unread" }, make("span", { class: "unseen" }, " Not read by the model: "),
        points.slice(text.seen)) : null),
    text.dropped ? notice(`${counted(text.dropped, "token")} beyond the model's limit were not read.`) : null,
    strongest.length ? folded("As figures", table(`Parts of the ${name.toLowerCase()} that matter most to ${model}`, [
      { name: "Left out", kind: "name", of: (effect) => points.slice(effect.start, effect.end) },
      { name: "The score changes by", kind: "number", of: (effect) => signed(-effect.effect) },
    ], strongest)) : null);
}

// -- tokens --------------------------------------------------------------------------------------------------------------

function tokens(told, passage) {
  const query = new Points(told.query), text = new Points(passage.text);
  const rows = told.query_tokens.map((token, row) => ({ token, row, match: told.matches[row], said: saidOf(token, query) }))
    .filter(({ token }) => token.spans.length);
  const others = told.matches.filter((match) => !told.query_tokens[match.query].spans.length);
  const columns = told.passage_tokens.map((token) => saidOf(token, text));
  const shade = shading(rows, told.matrix);
  return section("Tokens",
    make("p", { class: "scored" }, `${told.model}: MaxSim ${score(told.score)}, the sum of each token's best match`),
    make("p", { class: "soft" }, told.stored ? "The passage's vectors are those that the collection keeps."
      : "The passage's vectors were made just now; the collection keeps none."),
    tinted(rows, told, text, shade),
    heatMap(rows, columns, told, shade),
    folded("The matches as figures", table("Each token of the query with its best match", [
      { name: "Query", kind: "name", of: ({ said }) => said },
      { name: "Best match", kind: "text", of: ({ match }) => columns[match.passage] },
      { name: "Similarity", kind: "number", of: ({ match }) => score(match.similarity) },
    ], rows)),
    others.length ? make("p", { class: "soft" }, `${counted(others.length, "token")} of no text (markers, masks) add `
      + `${signed(others.reduce((all, match) => all + match.similarity, 0))}.`) : null,
    told.dropped ? notice(`${counted(told.dropped, "token")} of the passage were not read.`) : null);
}

/** What a vector stands for: its characters, or the token's name. */
function saidOf(token, points) {
  const said = new Set(joined(token.spans).map(([start, end]) => points.slice(start, end)));
  return [...said].join(", ") || token.text;
}

/** Spans that touch, as one: the pieces of a word. */
function joined(spans) {
  const found = [];
  for (const [start, end] of spans) {
    if (found.length && start <= found.at(-1)[1]) found.at(-1)[1] = Math.max(end, found.at(-1)[1]);
    else found.push([start, end]);
  }
  return found;
}

/** Similarity → 0 to 1, from the middle of all to the highest: most pairs of tokens have nothing to do with each other. */
function shading(rows, matrix) {
  const all = rows.flatMap(({ row }) => matrix[row]).sort((a, b) => a - b);
  const low = all[Math.floor(all.length / 2)] ?? 0, high = all.at(-1) ?? 1;
  return (similarity) => Math.max(0, Math.min(1, (similarity - low) / Math.max(high - low, 1e-9)));
}

/** The passage, each token as dark as it is like a token of the query: of the one that is chosen, or of any. */
function tinted(rows, told, text, shade) {
  const spans = told.passage_tokens.flatMap((token, column) => token.spans.map(([start, end]) => [start, end, column]))
    .sort((a, b) => a[0] - b[0]);
  const shown = make("p", { class: "weighed" });
  const draw = (chosen) => {
    const like = (column) => shade(Math.max(...(chosen === null ? rows.map(({ row }) => told.matrix[row][column])
      : [told.matrix[chosen][column]])));
    fill(shown, parts(text, spans, (part, number) => {
      const column = spans[number][2], share = like(column);
      const best = chosen !== null && told.matches[chosen].passage === column;
      if (share < 0.15 && !best) return part;
      return make("span", { class: best ? "heat best" : "heat", style: { "--share": share.toFixed(2) } }, part);
    }));
  };
  const buttons = [];
  const button = (name, chosen) => {
    const made = make("button", { type: "button", class: "token", "aria-pressed": String(chosen === null) }, name);
    made.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === made));
      draw(chosen);
    });
    buttons.push(made);
    return made;
  };
  draw(null);
  return make("div", {},
    make("div", { class: "tokens", role: "group", "aria-label": "Token of the query" },
      button("all", null), rows.map(({ said, row }) => button(said, row))),
    shown);
}

/** Tokens of the query down, tokens of the passage across; the best match of each row has a frame. */
function heatMap(rows, columns, told, shade) {
  const width = CELL.left + CELL.width * columns.length + 60, height = CELL.top + CELL.height * rows.length + 4;
  const cells = rows.flatMap(({ row, match, said }, line) => told.matrix[row].map((similarity, column) => {
    const share = shade(similarity), best = match.passage === column;
    if (share < 0.04 && !best) return null;
    return svg("rect", {
      class: best ? "cell best" : "cell", x: CELL.left + CELL.width * column + 1, y: CELL.top + CELL.height * line + 1,
      width: CELL.width - 2, height: CELL.height - 2, rx: 2, style: { "--share": share.toFixed(2) },
    }, svg("title", {}, `${said} × ${columns[column]}: ${similarity.toFixed(3)}`));
  }));
  const across = columns.map((said, column) => svg("text", {
    transform: `translate(${CELL.left + CELL.width * column + CELL.width / 2 + 3} ${CELL.top - 5}) rotate(-60)`,
  }, cut(said, 13)));
  const down = rows.map(({ said }, line) => svg("text", {
    x: CELL.left - 6, y: CELL.top + CELL.height * line + 14, "text-anchor": "end",
  }, cut(said, 13)));
  return make("div", { class: "scroll heatmap", role: "region", tabindex: "0", "aria-label": "Heat map, scrolls sideways" },
    svg("svg", {
      viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
      "aria-label": `Similarity of ${counted(rows.length, "token")} of the query with ${counted(columns.length, "vector")} of `
        + "the passage; the best matches are in the figures below",
    }, across, down, cells));
}

const cut = (said, most) => (said.length > most ? `${said.slice(0, most - 1)}…` : said);
