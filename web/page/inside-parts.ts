/** Parts of the inspector: the likeliest tokens, the attention temperature, and the soft caps. */

import type { Likely, ModelInfo } from "grok-wgpu";
import { Chart, sample } from "./curves.js";
import { el } from "./dom.js";
import { percent, short, visible, whole } from "./format.js";

/** The likeliest next tokens. */
export class Candidates {
  readonly #list = el("ol", { class: "candidates" });
  readonly element = el(
    "section",
    {},
    el("h3", {}, "What it could have said"),
    el("p", { class: "note" }, "The likeliest tokens here, before sampling. The check marks the one that was taken."),
    this.#list,
  );

  show(taken: number, name: string, top: Likely[]): void {
    const rows = top.map(({ id, text, probability }) =>
      row(text, percent(probability, 1), probability, id === taken, id),
    );
    if (!top.some(({ id }) => id === taken)) {
      rows.push(row(name, "below", 0, true, taken));
    }
    this.#list.replaceChildren(...rows);
  }
}

function row(text: string, share: string, probability: number, taken: boolean, id: number): HTMLElement {
  const bar = el("i");
  bar.style.setProperty("transform", `scaleX(${probability})`);
  return el(
    "li",
    { class: taken ? "taken" : false, title: `Id ${id}` },
    el("span", { class: "check-mark" }, taken ? "✓" : "", taken && el("span", { class: "hidden-text" }, "taken: ")),
    el("code", {}, visible(text)),
    el("span", { class: "candidate-bar", "aria-hidden": "true" }, bar),
    el("span", { class: "share" }, share),
  );
}

/** The attention temperature: a factor on attention logits that grows with the position. */
export class Temperature {
  readonly #chart = new Chart();
  readonly #text = el("p", { class: "note" });
  readonly element = el("section", {}, el("h3", {}, "Attention temperature"), this.#text, this.#chart.element);
  #length = -1;
  #context = 0;

  configure({ config, context }: ModelInfo): void {
    this.#length = config.attn_temperature_len;
    this.#context = context;
  }

  show(position: number, factor: number): void {
    const length = this.#length;
    const on = length > 1;
    (this.#chart.element as SVGElement).toggleAttribute("hidden", !on);
    if (!on) {
      this.#text.textContent = "This model has none: attention logits stay as they are at every position.";
      return;
    }
    const of = (p: number) => (p > length ? Math.log2(p) / Math.log2(length) : 1);
    const end = Math.max(this.#context, length * 2);
    const acts = position > length;
    this.#text.replaceChildren(
      `At position ${whole(position)} attention logits are multiplied by `,
      el("strong", {}, short(Number(factor.toFixed(4)))),
      acts
        ? `: log₂ ${whole(position)} / log₂ ${whole(length)}. It keeps attention sharp in long texts.`
        : `. After position ${whole(length)} the factor grows, and keeps attention sharp in long texts.`,
    );
    const top = Math.max(of(end), factor, 1.05);
    this.#chart.draw(
      `Attention temperature over positions 0 to ${end}; at position ${position} it is ${factor.toFixed(4)}`,
      {
        x: [0, end],
        y: [1 - (top - 1) * 0.15, top + (top - 1) * 0.1],
        xTicks: [0, length, end],
        yTicks: [1, Number(((1 + top) / 2).toFixed(2)), Number(top.toFixed(2))],
        xName: "",
        lines: [{ kind: "main", points: sample(0, end, of, 160) }],
        marks: [{ x: position, y: factor, kind: "chosen", title: `Position ${position}: ${factor.toFixed(4)}` }],
      },
    );
  }
}

type CapName = "logits" | "router" | "attention";

const CAP_TEXTS: Record<CapName, string> = {
  logits: "The last values before a token is chosen. The points are the tokens above; the full one was taken.",
  router:
    "The router's values for each expert, before they become weights. " +
    "Their sizes stay on the adapter, so there are no points here.",
  attention: "How well each earlier token fits, before the temperature above. There are too many to show as points.",
};

/** The three soft caps, `c · tanh(x / c)`. */
export class Caps {
  readonly #chart = new Chart();
  readonly #text = el("p", { class: "note" });
  readonly #figures = el("p", { class: "note figures" });
  readonly #choice: HTMLElement;
  readonly element: HTMLElement;
  #caps: Record<CapName, number> = { logits: 0, router: 0, attention: 0 };
  #shown: CapName = "logits";
  #last: [number, Likely[]] | undefined;

  constructor() {
    this.#choice = el(
      "fieldset",
      { class: "segments small" },
      el("legend", { class: "hidden-text" }, "Which soft cap"),
    );
    for (const [name, label] of [
      ["logits", "Logits"],
      ["router", "Router"],
      ["attention", "Attention"],
    ] as const) {
      const radio = el("input", { type: "radio", name: "cap", value: name, checked: name === "logits" });
      radio.addEventListener("change", () => {
        this.#shown = name;
        if (this.#last) {
          this.show(...this.#last);
        }
      });
      this.#choice.append(el("label", {}, radio, el("span", {}, label)));
    }
    this.element = el(
      "section",
      {},
      el("h3", {}, "Soft caps"),
      el(
        "p",
        { class: "note" },
        "Large values are bent, never cut: c · tanh(x / c) stays below c. The dashed line is where nothing happens.",
      ),
      this.#choice,
      this.#text,
      this.#chart.element,
      this.#figures,
    );
  }

  configure({ config }: ModelInfo): void {
    this.#caps = {
      logits: config.final_logit_softcapping,
      router: config.router_logit_softcapping,
      attention: config.attn_logit_softcapping,
    };
  }

  show(taken: number, top: Likely[]): void {
    this.#last = [taken, top];
    const cap = this.#caps[this.#shown];
    const on = cap > 0;
    this.#chart.element.toggleAttribute("hidden", !on);
    this.#figures.textContent = "";
    if (!on) {
      this.#text.textContent = "This model has no such cap.";
      return;
    }
    this.#text.textContent = `c = ${cap}. ${CAP_TEXTS[this.#shown]}`;
    // The inverse of the soft cap; clamped, because values at the cap itself cannot be inverted.
    const before = (after: number) => cap * Math.atanh(Math.max(-0.999999, Math.min(after / cap, 0.999999)));
    const marks =
      this.#shown === "logits" ? top.map(({ id, text, logit }) => ({ id, text, x: before(logit), y: logit })) : [];
    const values = marks.map(({ x }) => x * 1.1);
    const reach = Math.max(cap * 1.6, ...values);
    // Likely tokens seldom have negative logits, so the plot omits most of the negative range.
    const least = marks.length > 0 ? Math.min(-cap * 0.1, ...values) : -reach;
    const ticks = [-cap, 0, cap].filter((tick) => tick >= least);
    const low = Math.max(least, -cap * 1.15);
    this.#chart.draw(`Soft cap of ${cap}: values up to ${short(reach)} and what becomes of them`, {
      x: [least, reach],
      y: [low, cap * 1.15],
      xTicks: ticks,
      yTicks: ticks,
      xName: "",
      lines: [
        {
          kind: "same",
          points: [
            [low, low],
            [cap * 1.15, cap * 1.15],
          ],
        },
        { kind: "main", points: sample(least, reach, (x) => cap * Math.tanh(x / cap)) },
      ],
      marks: marks.map(({ id, text, x, y }) => ({
        x,
        y,
        kind: id === taken ? "chosen" : "other",
        title: `${visible(text)}: ${short(x)} becomes ${short(y)}`,
      })),
    });
    const chosen = marks.find(({ id }) => id === taken);
    if (chosen) {
      this.#figures.textContent = `${visible(chosen.text)}: ${short(chosen.x)} became ${short(chosen.y)}.`;
    }
  }
}
