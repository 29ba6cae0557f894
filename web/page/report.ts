/** The self-test's report as files: JSON, and one page of HTML that needs nothing else. */

import type { SelfTestReport } from "grok-wgpu";
import { el } from "./dom.js";
import { seconds, whole } from "./format.js";
import { failures, plot, summarize, table } from "./testplot.js";

const STYLE = `
:root { color-scheme: light dark; --ink: light-dark(#1d2524, #e6ebe9); --soft: light-dark(#5c6866, #9aa7a4); --line: light-dark(#d9dfdd, #34403e);
  --ground: light-dark(#fbfbf9, #131917); --accent: light-dark(#0f5f5c, #5cc4bc); --bad: light-dark(#b3261e, #ff8a80); }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); }
h1 { font-size: 1.6rem; } h2, h3 { font-size: 1.1rem; margin-top: 2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; } th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; } .bad, .bad th { color: var(--bad); } .table-scroll { overflow-x: auto; }
li { margin: .4rem 0; } li span { display: block; color: var(--soft); }
svg { width: 100%; height: auto; font: 11px system-ui, sans-serif; } svg text { fill: var(--soft); } svg .name { fill: var(--ink); font-family: ui-monospace, monospace; }
.grid { stroke: var(--line); } .bound { stroke: var(--bad); stroke-dasharray: 4 3; } .bound-name { fill: var(--bad); } .reach { stroke: var(--line); stroke-width: 2; }
.dot { fill: var(--accent); opacity: .5; } .dot.worst { opacity: 1; } .cross { stroke: var(--bad); stroke-width: 2; fill: none; } svg .bad .name { fill: var(--bad); }
`;

/** The verdict in one sentence. */
export function verdict({ passed, failed, milliseconds }: SelfTestReport): string {
  const rows = passed + failed;
  const time = seconds(milliseconds);
  return failed === 0
    ? `All ${whole(rows)} rows are within their bounds, in ${time}.`
    : `${whole(failed)} of ${whole(rows)} rows failed, in ${time}.`;
}

/** What the report is about. */
export function facts(report: SelfTestReport): [string, string][] {
  return [
    ["Adapter", report.adapter.summary],
    ["Engine", `grok-wgpu ${report.engine}`],
    ["Browser", report.userAgent],
    ["Date", report.date],
  ];
}

/** The report as a page. All text in it went through the DOM, so none of it is markup. */
export function asHtml(report: SelfTestReport): string {
  const summaries = summarize(report.rows);
  const body = el(
    "main",
    {},
    el("h1", {}, "Self-test of grok-wgpu"),
    el("p", {}, verdict(report)),
    el("dl", {}, ...facts(report).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    failures(report.rows),
    el("h2", {}, "Error against bound"),
    plot(summaries),
    el("h2", {}, "Kernels"),
    table(summaries),
    el("h2", {}, "Limits of the device"),
    el("dl", {}, ...Object.entries(report.adapter.limits).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))])),
  );
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Self-test of grok-wgpu</title><style>${STYLE}</style></head>
<body>${body.outerHTML}</body>
</html>
`;
}

/** Gives a text to the reader as a file. */
export function save(name: string, type: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  // The browser has to have taken it first.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
