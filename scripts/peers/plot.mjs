// Bar charts of rates that differ by orders of magnitude, for terminals and as SVG, with logarithmic axes.

/** Formats tokens per second with three digits. */
export function rate(value) {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** The powers of ten that enclose the values. */
export function decades(values) {
  const low = Math.floor(Math.log10(Math.min(...values)));
  return [low, Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))))];
}

/** Relative position of a value on a logarithmic axis, from 0 to 1. */
export function place(value, [low, high]) {
  return (Math.log10(value) - low) / (high - low);
}

function powers([low, high]) {
  return Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
}

/** Charts as lines of text. A chart has a title, and rows with a name and a value. */
export function text(charts, width = 48) {
  const axis = decades(charts.flatMap((chart) => chart.rows.map((row) => row.value)));
  const names = Math.max(...charts.flatMap((chart) => chart.rows.map((row) => row.name.length)));
  const lines = [];
  for (const { title, rows } of charts) {
    lines.push(title);
    for (const { name, value } of rows) {
      // Terminals can draw eighths of a character.
      const eighths = Math.max(1, Math.round(place(value, axis) * width * 8));
      const part = eighths % 8 ? String.fromCodePoint(0x2590 - (eighths % 8)) : "";
      lines.push(`  ${name.padEnd(names)}  ${"█".repeat(eighths >> 3)}${part} ${rate(value)}`);
    }
  }
  const ends = powers(axis).map((power) => `${power}`);
  lines.push(`  ${" ".repeat(names)}  logarithmic, from ${ends[0]} to ${ends.at(-1)}`);
  return lines.join("\n");
}

const escaped = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.codePointAt(0)};`);

/** Charts as SVG. */
export function svg(title, charts) {
  const axis = decades(charts.flatMap((chart) => chart.rows.map((row) => row.value)));
  const [left, right, row] = [230, 60, 26];
  const inner = 760 - left - right;
  const x = (value) => left + place(value, axis) * inner;
  const parts = [];
  let y = 34;
  for (const chart of charts) {
    y += 26;
    parts.push(`<text x="16" y="${y}" class="head">${escaped(chart.title)}</text>`);
    const top = y + 8;
    const bottom = top + row * chart.rows.length;
    for (const power of powers(axis)) {
      parts.push(`<line x1="${x(power)}" x2="${x(power)}" y1="${top}" y2="${bottom}"/>`);
      parts.push(`<text x="${x(power)}" y="${bottom + 14}" class="tick">${power}</text>`);
    }
    chart.rows.forEach(({ name, value, ours }, i) => {
      const middle = top + row * (i + 0.5);
      const length = Math.max(1, x(value) - left).toFixed(1);
      parts.push(`<text x="${left - 10}" y="${middle + 4}" class="name">${escaped(name)}</text>`);
      parts.push(
        `<rect x="${left}" y="${middle - 8}" width="${length}" height="16" rx="2" class="${ours ? "ours" : "peer"}"/>`,
      );
      parts.push(`<text x="${(x(value) + 6).toFixed(1)}" y="${middle + 4}">${rate(value)}</text>`);
    });
    y = bottom + 22;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 ${y + 8}" role="img" aria-label="${escaped(title)}">
<style>
svg { background: #fff; font: 13px system-ui, sans-serif; }
text { fill: #222; } .title, .head { font-weight: 600; } .name { text-anchor: end; }
.tick { fill: #777; font-size: 11px; text-anchor: middle; } line { stroke: #ddd; }
.ours { fill: #2563eb; } .peer { fill: #9ca3af; }
</style>
<text x="16" y="26" class="title">${escaped(title)}</text>
${parts.join("\n")}
</svg>
`;
}
