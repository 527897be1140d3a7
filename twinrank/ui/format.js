// Figures for people.

export const count = (number) => Number(number).toLocaleString("en");

export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

export const score = (number) => (number === null || number === undefined ? "–" : Number(number).toFixed(3));

export const signed = (number, places = 3) => `${number < 0 ? "−" : "+"}${Math.abs(number).toFixed(places)}`;

/** A probability as a person says it; never 0 % or 100 % of what is not certain. */
export function percent(share) {
  if (share > 0.99 && share < 1) return "> 99 %";
  if (share < 0.01 && share > 0) return "< 1 %";
  return `${Math.round(100 * share)} %`;
}

export function milliseconds(time) {
  if (time === null || time === undefined) return "–";
  return `${time >= 100 ? count(Math.round(time)) : time.toFixed(1)} ms`;
}

export function bytes(size) {
  for (const unit of ["bytes", "kB", "MB"]) {
    if (size < 1000) return unit === "bytes" ? `${size} bytes` : `${size.toFixed(1)} ${unit}`;
    size /= 1000;
  }
  return `${size.toFixed(1)} GB`;
}

export function value(field) {
  if (Array.isArray(field)) return field.map(value).join(", ");
  if (field === true) return "yes";
  if (field === false) return "no";
  return field === null || field === undefined ? "–" : String(field);
}
