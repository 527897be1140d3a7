// Conditions over fields: what the controls say as a `where` expression, with everything quoted, and back from one.
//
// A clause is {field, kind: "range", low, high} (either may be null), {field, kind: "choice", values},
// {field, kind: "contains", text}, or {kind: "other", expression}: whatever somebody wrote that no control can show.

const BARE = /^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$/;
const KEYWORDS = new Set(["and", "or", "not", "in", "between", "like", "is", "null", "true", "false"]);

export function write(clauses) {
  const written = clauses.map(clause).filter(Boolean);
  const alone = written.length === 1 && clauses.find((one) => clause(one))?.kind === "other";
  return alone ? written[0].slice(1, -1) : written.join(" and ");
}

function clause(one) {
  if (one.kind === "other") {
    const expression = one.expression.trim();
    return expression && `(${expression})`;
  }
  const field = name(one.field);
  if (one.kind === "contains") return one.text && `${field} like ${literal(`%${one.text}%`)}`;
  if (one.kind === "choice") return one.values.length ? `${field} in (${one.values.map(literal).join(", ")})` : "";
  if (one.low !== null && one.high !== null) return `${field} between ${literal(one.low)} and ${literal(one.high)}`;
  if (one.low !== null) return `${field} >= ${literal(one.low)}`;
  return one.high === null ? "" : `${field} <= ${literal(one.high)}`;
}

export function name(field) {
  return BARE.test(field) && !isKeyword(field) ? field : `\`${field.replaceAll("`", "``")}\``;
}

/** Whether a name begins as a keyword does: `in` as well as `in.print`. */
const isKeyword = (word) => KEYWORDS.has(word.split(".")[0].toLowerCase());

export function literal(value) {
  if (typeof value === "boolean") return String(value);
  if (typeof value === "number") return Number.isFinite(value) ? String(value) : "0";
  return `'${value.replaceAll("'", "''")}'`;
}

/** The clauses of an expression; one "other" of the whole where it is not made of such as `write` writes. */
export function parse(expression) {
  if (!expression.trim()) return [];
  try {
    return new Reader(expression).clauses();
  } catch (error) {
    if (!(error instanceof NoClause)) throw error;
    return [{ kind: "other", expression }];
  }
}

class NoClause extends Error {}

const TOKEN = new RegExp([
  "\\s*(?:(`(?:[^`]|``)+`)", // a quoted name
  "('(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")", // text
  "([+-]?(?:\\d+(?:\\.\\d*)?|\\.\\d+)(?:e[+-]?\\d+)?)(?![\\p{L}\\p{N}_.])", // a number
  "([\\p{L}_][\\p{L}\\p{N}_]*(?:\\.[\\p{L}\\p{N}_]+)*)", // a name or a keyword
  "(>=|<=|==|!=|<>|[<>=(),]))",
].join("|"), "iuy");

class Reader {
  constructor(expression) {
    this.expression = expression;
    this.at = 0;
    this.token = null;
    this._next();
  }

  clauses() {
    const found = [this._clause()];
    while (this._takes("and")) found.push(this._clause());
    if (this.token) throw new NoClause();
    return found;
  }

  _clause() {
    if (this.token?.text === "(") return this._other();
    const field = this._field();
    if (this._takes("between")) {
      const low = this._value();
      this._need("and");
      return { field, kind: "range", low, high: this._value() };
    }
    if (this._takes(">=")) return { field, kind: "range", low: this._value(), high: null };
    if (this._takes("<=")) return { field, kind: "range", low: null, high: this._value() };
    if (this._takes("=")) return { field, kind: "choice", values: [this._value()] };
    if (this._takes("like")) return { field, kind: "contains", text: this._contained() };
    this._need("in");
    this._need("(");
    const values = [this._value()];
    while (this._takes(",")) values.push(this._value());
    this._need(")");
    return { field, kind: "choice", values };
  }

  /** What stands between the parenthesis here and the one that closes it. */
  _other() {
    const start = this.at;
    let depth = 1, end = start;
    while (depth) {
      end = this.at;
      this._next();
      if (!this.token) throw new NoClause();
      if (this.token.text === "(") depth += 1;
      if (this.token.text === ")") depth -= 1;
    }
    const expression = this.expression.slice(start, this.token.start).trim();
    this._next();
    return { kind: "other", expression };
  }

  _field() {
    const { quoted, word } = this.token ?? {};
    if (quoted) return this._taken(quoted.slice(1, -1).replaceAll("``", "`"));
    if (!word || isKeyword(word)) throw new NoClause();
    return this._taken(word);
  }

  _value() {
    const { text, number, word } = this.token ?? {};
    if (number !== undefined) return this._taken(Number(number));
    if (word && /^(true|false)$/i.test(word)) return this._taken(word.toLowerCase() === "true");
    if (!text?.startsWith("'")) throw new NoClause();
    return this._taken(text.slice(1, -1).replaceAll("''", "'"));
  }

  _contained() {
    const pattern = this._value();
    if (typeof pattern !== "string" || !/^%[^%]+%$/.test(pattern)) throw new NoClause();
    return pattern.slice(1, -1);
  }

  _takes(word) {
    if (this.token?.text.toLowerCase() !== word || this.token.quoted) return false;
    this._next();
    return true;
  }

  _need(word) {
    if (!this._takes(word)) throw new NoClause();
  }

  _taken(value) {
    this._next();
    return value;
  }

  _next() {
    if (!this.expression.slice(this.at).trim()) {
      this.token = null;
      return;
    }
    TOKEN.lastIndex = this.at;
    const found = TOKEN.exec(this.expression);
    if (!found) throw new NoClause();
    const [whole, quoted, , number, word] = found, text = whole.trim();
    this.token = { text, quoted, number, word, start: this.at + whole.length - text.length };
    this.at = TOKEN.lastIndex;
  }
}
