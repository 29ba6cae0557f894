/** The report of the self-test: a summary, and downloads. */

import type { SelfTestReport } from "grok-wgpu";
import { adapterName } from "./adapter.js";
import { el } from "./dom.js";
import { seconds, whole } from "./format.js";

/** Whether the self-test is complete and nothing failed. */
export function passed({ failed, unfinished }: SelfTestReport): boolean {
  return failed === 0 && unfinished === null;
}

/** A summary of one or two sentences. */
export function verdict({ failed, milliseconds, rows, models, unfinished }: SelfTestReport): string {
  const time = seconds(milliseconds);
  const what =
    models.length > 0
      ? `${whole(rows.length)} rows and ${models.length} runs of small models`
      : `${whole(rows.length)} rows`;
  if (unfinished !== null) {
    return `The test did not end: ${unfinished}. Until then ${whole(failed)} of ${what} failed, in ${time}.`;
  }
  return failed === 0
    ? `All ${what} are within their bounds, in ${time}.`
    : `${whole(failed)} of ${what} failed, in ${time}.`;
}

/** Properties of the run. */
export function facts(report: SelfTestReport): [string, string][] {
  const { name, software } = adapterName(report.adapter);
  return [
    ["Adapter", name + (software ? " (software)" : "")],
    ["Engine", `grok-wgpu ${report.engine}`],
    ["Browser", report.userAgent],
    ["Date", report.date],
  ];
}

/** The report as JSON, without the HTML. */
export function asJson({ html: _, ...report }: SelfTestReport): string {
  return `${JSON.stringify(report, undefined, 2)}\n`;
}

/** Offers a text as a download. */
export function save(name: string, type: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  // Revoke the URL only after the browser has started the download.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
