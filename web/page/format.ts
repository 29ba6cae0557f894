/** Formats numbers and tokens for display. */

/** Bytes, as `15.1 MB`. */
export function bytes(count: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let value = count;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 99.95 ? value.toFixed(0) : value.toFixed(1)} ${units[unit]}`;
}

/** A large count, as `7.5 million`. */
export function count(value: number): string {
  for (const [size, word] of [
    [1e12, "trillion"],
    [1e9, "billion"],
    [1e6, "million"],
  ] as const) {
    if (value >= size) {
      return `${(value / size).toFixed(1)} ${word}`;
    }
  }
  return whole(value);
}

/** A whole number with groups of digits. */
export function whole(value: number): string {
  return value.toLocaleString("en-US");
}

/** A fraction, as `12 %`. */
export function percent(share: number, digits = 0): string {
  const value = share * 100;
  if (value > 0 && value < 0.5 * 10 ** -digits) {
    return `< ${digits === 0 ? 1 : 10 ** -digits} %`;
  }
  return `${value.toFixed(digits)} %`;
}

/** A time in milliseconds, as `0.41 s`. */
export function seconds(milliseconds: number): string {
  const value = milliseconds / 1000;
  if (value >= 90) {
    return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  }
  return `${value >= 10 ? value.toFixed(1) : value.toFixed(2)} s`;
}

/** A number with about three significant digits. */
export function short(value: number): string {
  if (value === 0) {
    return "0";
  }
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) {
    return value.toExponential(1).replace("e+", "e");
  }
  return String(Number(value.toPrecision(3)));
}

/** A token's text with invisible characters made visible. */
export function visible(text: string): string {
  return text.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/\r/g, "␍") || "(no text)";
}
