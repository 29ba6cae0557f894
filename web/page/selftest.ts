/** The self-test's view: runs kernel rows in this browser and shows the results. */

import { GrokWgpu, type SelfTestReport, type SelfTestRow } from "grok-wgpu";
import { announce, button, el, find } from "./dom.js";
import { whole } from "./format.js";
import { showAdapter } from "./model.js";
import { Notices } from "./notices.js";
import { asJson, facts, passed, save, verdict } from "./report.js";
import { asError } from "./session.js";
import { failures, models, plot, summarize, table } from "./testplot.js";

/** The quick run takes every n-th row. Best coprime to the sizes of groups of similar rows. */
const SOME = 12;

/** The view and its buttons. */
export class SelfTest {
  readonly #notices = new Notices("test-notices");
  readonly #result = find("test-result", HTMLElement);
  readonly #bar = find("test-bar", HTMLProgressElement);
  readonly #line = find("test-line", HTMLElement);
  #running: AbortController | undefined;

  constructor() {
    const on = (id: string, act: () => void) => find(id, HTMLButtonElement).addEventListener("click", act);
    on("test-all", () => void this.#run(1));
    on("test-some", () => void this.#run(SOME));
    on("test-stop", () => this.#running?.abort());
  }

  async #run(every: number): Promise<void> {
    if (this.#running) {
      return;
    }
    const running = new AbortController();
    this.#running = running;
    this.#busy(true);
    this.#notices.clear();
    this.#result.replaceChildren();
    this.#bar.removeAttribute("value");
    this.#line.textContent = "Starting the engine";
    announce("The self-test runs.");
    const rows: SelfTestRow[] = [];
    let failed = 0;
    let drawn = performance.now();
    try {
      const report = await GrokWgpu.selftest({
        every,
        signal: running.signal,
        onRow: (row, done, total) => {
          rows.push(row);
          failed += row.failure === undefined ? 0 : 1;
          this.#bar.max = total;
          this.#bar.value = done;
          this.#line.textContent = `${whole(done)} of ${whole(total)} rows, ${whole(failed)} failed: ${row.kernel}`;
          // Redraws the plot about once a second.
          if (performance.now() - drawn > 1000) {
            drawn = performance.now();
            this.#result.replaceChildren(figure(rows));
          }
        },
        onModel: (model) => {
          failed += model.failure === null ? 0 : 1;
          this.#bar.removeAttribute("value");
          this.#line.textContent = `${whole(rows.length)} rows, ${whole(failed)} failed: ${model.name}`;
        },
      });
      this.#show(report);
      showAdapter(report.adapter);
      announce(verdict(report));
    } catch (thrown) {
      const error = asError(thrown);
      if (error.code === "aborted") {
        this.#line.textContent = `Stopped after ${whole(rows.length)} rows, ${whole(failed)} failed.`;
        this.#result.replaceChildren(...(rows.length > 0 ? [figure(rows)] : []));
      } else {
        this.#notices.error(error, [{ text: "Try again", act: () => void this.#run(every) }]);
      }
    } finally {
      this.#running = undefined;
      this.#busy(false);
    }
  }

  #busy(busy: boolean): void {
    find("test-all", HTMLElement).hidden = busy;
    find("test-some", HTMLElement).hidden = busy;
    find("test-stop", HTMLElement).hidden = !busy;
    find("test-progress", HTMLElement).hidden =
      !busy && this.#result.childElementCount === 0 && this.#line.textContent === "";
    this.#bar.hidden = !busy;
  }

  #show(report: SelfTestReport): void {
    const summaries = summarize(report.rows);
    const name = `grok-wgpu-selftest-${report.date.slice(0, 10)}`;
    this.#line.textContent = "";
    this.#result.replaceChildren(
      el(
        "div",
        { class: passed(report) ? "verdict good" : "verdict bad" },
        el("strong", {}, passed(report) ? "✓ Passed" : "✗ Failed"),
        el("p", {}, verdict(report)),
        el(
          "div",
          { class: "actions" },
          button("Save as HTML", () => save(`${name}.html`, "text/html", report.html)),
          button("Save as JSON", () => save(`${name}.json`, "application/json", asJson(report))),
        ),
      ),
      failures(report) ?? "",
      figure(report.rows),
      el("section", {}, el("h3", {}, "Kernels"), table(summaries)),
      models(report.models) ?? "",
      el(
        "section",
        {},
        el("h3", {}, "Where it ran"),
        el(
          "dl",
          { class: "facts" },
          ...facts(report).flatMap(([fact, value]) => [el("dt", {}, fact), el("dd", {}, value)]),
        ),
      ),
    );
  }
}

/** The plot with its heading. */
function figure(rows: SelfTestRow[]): HTMLElement {
  const scroll = el(
    "div",
    { class: "plot-scroll", tabindex: "0", role: "region", "aria-label": "Plot" },
    plot(summarize(rows)),
  );
  return el(
    "section",
    {},
    el("h3", {}, "Error against bound"),
    el(
      "p",
      { class: "note" },
      "A dot is a row of the table; the large one is the worst of its kernel. " +
        "What lies right of the dashed line has failed, and is a cross. The scale is logarithmic.",
    ),
    scroll,
  );
}
