/** The self-test's result as a plot of error against bound, and as tables. */

import type { SelfTestModel, SelfTestReport, SelfTestRow } from "grok-wgpu";
import { el, svg } from "./dom.js";
import { short, whole } from "./format.js";

/** The rows of a kernel and their summary. */
export interface Summary {
  kernel: string;
  rows: SelfTestRow[];
  /** Largest error as a fraction of the bound; infinite if something was not finite. */
  worst: number;
  exact: boolean;
  failed: number;
}

/** Groups rows by kernel: failed kernels first, then by worst error. */
export function summarize(rows: SelfTestRow[]): Summary[] {
  const kernels = new Map<string, SelfTestRow[]>();
  for (const row of rows) {
    kernels.set(row.kernel, [...(kernels.get(row.kernel) ?? []), row]);
  }
  return [...kernels]
    .map(([kernel, own]) => ({
      kernel,
      rows: own,
      worst: Math.max(...own.map(errorOf)),
      exact: own.every(({ exact }) => exact),
      failed: own.filter(({ failure }) => failure !== undefined).length,
    }))
    .sort((a, b) => b.failed - a.failed || b.worst - a.worst || a.kernel.localeCompare(b.kernel));
}

function errorOf({ worst }: SelfTestRow): number {
  return worst ?? Number.POSITIVE_INFINITY;
}

const NAME = 176;
const ZERO = 196;
const LEFT = 222;
const WIDTH = 720;
const RIGHT = 40;
const ROW = 22;
const TOP = 26;
const LOW = -6;

/** The plot: a line for each kernel, a dot for each row. Rows to the right of the bound have failed. */
export function plot(summaries: Summary[]): SVGSVGElement {
  const finite = summaries.flatMap(({ rows }) => rows.map(errorOf)).filter(Number.isFinite);
  const high = Math.max(1, Math.ceil(Math.log10(Math.max(1, ...finite))) + 1);
  const scale = (log: number) =>
    LEFT + ((Math.min(Math.max(log, LOW), high) - LOW) / (high - LOW)) * (WIDTH - LEFT - RIGHT);
  const px = (error: number) =>
    error === 0 ? ZERO : scale(error === Number.POSITIVE_INFINITY ? high : Math.log10(error));
  const height = TOP + summaries.length * ROW + 34;
  const bottom = height - 28;
  const decades = Array.from({ length: high - LOW + 1 }, (_, i) => LOW + i);
  const failed = summaries.reduce((sum, kernel) => sum + kernel.failed, 0);
  const verdict = failed === 0 ? "all rows are within" : `${failed} rows are not within`;
  const errors = `Worst error of ${summaries.length} kernels against their bounds`;
  return svg(
    "svg",
    {
      class: "errors",
      viewBox: `0 0 ${WIDTH} ${height}`,
      role: "img",
      "aria-label": `${errors}; ${verdict}. The table below has the figures.`,
    },
    ...decades.map((log) => svg("line", { class: "grid", x1: scale(log), x2: scale(log), y1: TOP - 8, y2: bottom })),
    svg("line", { class: "bound", x1: scale(0), x2: scale(0), y1: TOP - 14, y2: bottom }),
    svg("text", { class: "bound-name", x: scale(0), y: TOP - 16, "text-anchor": "middle" }, "bound"),
    ...decades
      .filter((log) => log % 2 === 0)
      .map((log) =>
        svg(
          "text",
          { class: "tick", x: scale(log), y: bottom + 14, "text-anchor": "middle" },
          log === 0 ? "1" : log > 0 ? String(10 ** log) : `10${superscript(log)}`,
        ),
      ),
    svg("text", { class: "tick", x: ZERO, y: bottom + 14, "text-anchor": "middle" }, "0"),
    svg(
      "text",
      { class: "axis", x: WIDTH - RIGHT, y: bottom + 27, "text-anchor": "end" },
      "error as a fraction of the bound",
    ),
    ...summaries.map((kernel, i) => line(kernel, TOP + i * ROW + ROW / 2, px)),
  );
}

function line({ kernel, rows, worst, failed }: Summary, y: number, px: (error: number) => number): SVGGElement {
  const bad = failed > 0;
  const group = svg(
    "g",
    { class: bad ? "kernel bad" : "kernel" },
    svg("text", { class: "name", x: NAME, y: y + 4, "text-anchor": "end" }, `${bad ? "✗ " : ""}${kernel}`),
    svg("line", { class: "reach", x1: ZERO, x2: px(worst), y1: y, y2: y }),
  );
  for (const row of rows) {
    const title = svg("title", {}, `${row.kernel} ${row.case}: ${describe(row)}`);
    const x = px(errorOf(row));
    group.append(
      row.failure === undefined
        ? svg(
            "circle",
            { class: errorOf(row) === worst ? "dot worst" : "dot", cx: x, cy: y, r: errorOf(row) === worst ? 4 : 2.5 },
            title,
          )
        : svg("path", { class: "cross", d: `M${x - 4} ${y - 4}l8 8m0-8l-8 8` }, title),
    );
  }
  return group;
}

function superscript(value: number): string {
  return String(value).replace(/[-\d]/g, (sign) => (sign === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹".charAt(Number(sign))));
}

function describe({ worst, exact, failure, elements }: SelfTestRow): string {
  const error = worst === null ? "not finite" : worst === 0 ? "no error" : `${short(worst)} of the bound`;
  const rule = exact ? " (must be exact)" : "";
  const why = failure === undefined ? "" : `. ${failure}`;
  return `${error}${rule}, ${whole(elements)} values${why}`;
}

/** All failures with their reasons; undefined if there are none. */
export function failures({ rows, models, suspects }: SelfTestReport): HTMLElement | undefined {
  const bad = [
    ...rows
      .filter(({ failure }) => failure !== undefined)
      .map(({ kernel, case: name, failure }) => ({ name: `${kernel} ${name}`, failure: failure ?? "" })),
    ...models.filter(({ failure }) => failure !== null).map(({ name, failure }) => ({ name, failure: failure ?? "" })),
  ];
  if (bad.length === 0) {
    return undefined;
  }
  return el(
    "section",
    { class: "failures" },
    el("h3", {}, `${whole(bad.length)} failed`),
    ...(suspects.length > 0
      ? [
          el("p", { class: "note" }, "Where to look first, by how well it explains what failed:"),
          el(
            "ul",
            { class: "suspects" },
            ...suspects.map(({ file, failed, rows }) =>
              el(
                "li",
                {},
                el("code", {}, file),
                el("span", {}, `${whole(failed)} of ${whole(rows)} rows that link it failed`),
              ),
            ),
          ),
        ]
      : []),
    el("ul", {}, ...bad.map(({ name, failure }) => el("li", {}, el("code", {}, name), el("span", {}, failure)))),
  );
}

/** A column header. */
function column(text: string, number = true): HTMLElement {
  return el("th", { scope: "col", class: number && "number" }, text);
}

/** A table with a row for each model; undefined if there are none. */
export function models(all: SelfTestModel[]): HTMLElement | undefined {
  if (all.length === 0) {
    return undefined;
  }
  const cell = (value: number | null) =>
    el("td", { class: "number" }, value === null ? "not finite" : value.toExponential(1));
  return el(
    "section",
    {},
    el("h3", {}, "Whole models"),
    el("p", { class: "note" }, "Logits of small models against those of an independent program in f64."),
    el(
      "div",
      { class: "table-scroll" },
      el(
        "table",
        { class: "test-table models" },
        el("thead", {}, el("tr", {}, column("Model", false), column("Largest difference"), column("Allowed"))),
        el(
          "tbody",
          {},
          ...all.map(({ name, worst, most, failure }) =>
            el("tr", { class: failure !== null && "bad" }, el("th", { scope: "row" }, name), cell(worst), cell(most)),
          ),
        ),
      ),
    ),
  );
}

/** A table with a row for each kernel. */
export function table(summaries: Summary[]): HTMLElement {
  return el(
    "div",
    { class: "table-scroll" },
    el(
      "table",
      { class: "test-table kernels" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          column("Kernel", false),
          column("Rows"),
          column("Failed"),
          column("Worst error / bound"),
          column("Worst row", false),
        ),
      ),
      el(
        "tbody",
        {},
        ...summaries.map(({ kernel, rows, failed, worst, exact }) => {
          const row = rows.find((candidate) => errorOf(candidate) === worst);
          return el(
            "tr",
            { class: failed > 0 && "bad" },
            el("th", { scope: "row" }, el("code", {}, kernel)),
            el("td", { class: "number" }, whole(rows.length)),
            el("td", { class: "number" }, failed > 0 ? `✗ ${failed}` : "0"),
            el(
              "td",
              { class: "number" },
              worst === Number.POSITIVE_INFINITY ? "not finite" : exact && worst === 0 ? "exact" : short(worst),
            ),
            el("td", {}, worst === 0 ? "" : (row?.case ?? "")),
          );
        }),
      ),
    ),
  );
}
