// Texts by the server's places: it counts code points, JavaScript counts UTF-16 units; and texts with parts of them marked.

import { make } from "./dom.js";

/** A text whose parts are found by code points. */
export class Points {
  constructor(text) {
    this.text = text;
    this.units = /[\ud800-\udfff]/.test(text) ? unitsOf(text) : null;
    this.length = this.units ? this.units.length - 1 : text.length;
  }

  slice(start, end = this.length) {
    return this.units ? this.text.slice(this._unit(start), this._unit(end)) : this.text.slice(start, end);
  }

  _unit(place) {
    return this.units[Math.max(0, Math.min(place, this.length))];
  }
}

/** Where each code point begins, and the end. */
function unitsOf(text) {
  const units = [];
  for (let unit = 0; unit < text.length; unit += text.codePointAt(unit) > 0xffff ? 2 : 1) units.push(unit);
  units.push(text.length);
  return units;
}

/** Nodes of `points` from `start` to `end`, what lies in `spans` (in order, apart) made by `inside`. */
export function parts(points, spans, inside, start = 0, end = points.length) {
  const made = [];
  let last = start;
  for (const [number, [from, to]] of spans.entries()) {
    const first = Math.max(from, last), until = Math.min(to, end);
    if (first >= until) continue;
    if (first > last) made.push(points.slice(last, first));
    made.push(inside(points.slice(first, until), number));
    last = until;
  }
  if (last < end) made.push(points.slice(last, end));
  return made;
}

/** A passage's snippet with the query's words marked. */
export function snippet(text, told) {
  const points = new Points(text), [start, end] = told?.snippet ?? [0, Math.min(points.length, 360)];
  return [start > 0 && "… ", marked(points, told?.marks ?? [], start, end), end < points.length && " …"];
}

export function marked(points, marks, start = 0, end = points.length) {
  return parts(points, marks, (part) => make("mark", {}, part), start, end);
}
