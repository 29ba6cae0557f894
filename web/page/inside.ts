/** The inspector: shows the model's internals for the latest token or a selected one. */

import type { ModelInfo } from "grok-wgpu";
import { button, el, find } from "./dom.js";
import { Experts } from "./experts.js";
import { visible, whole } from "./format.js";
import { Candidates, Caps, Temperature } from "./inside-parts.js";
import { Trace } from "./trace.js";

const NOTHING = new Trace();

/** Shows one token of one answer at a time. */
export class Inside {
  readonly #experts = new Experts();
  readonly #candidates = new Candidates();
  readonly #temperature = new Temperature();
  readonly #caps = new Caps();
  readonly #range = el("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "Token" });
  readonly #place = el("span", { class: "token-place" });
  readonly #token = el("code", { class: "token-text" });
  readonly #lead = el("p", { class: "note" });
  #trace: Trace | undefined;
  #at = -1;
  /** The token under the pointer, or -1. */
  #glance = -1;
  /** Whether to show new tokens as they come. */
  #follow = true;
  #due = false;
  #lit: HTMLElement | undefined;

  constructor() {
    this.#range.addEventListener("input", () => this.#move(this.#range.valueAsNumber));
    const nav = el(
      "div",
      { class: "token-nav" },
      el("p", { class: "token-line" }, this.#place, this.#token),
      el(
        "div",
        { class: "token-steps" },
        button("‹", () => this.#move(this.#at - 1), { "aria-label": "Token before" }),
        this.#range,
        button("›", () => this.#move(this.#at + 1), { "aria-label": "Next token" }),
      ),
    );
    find("inside-body", HTMLElement).append(
      nav,
      el("section", { class: "experts-part" }, el("h3", {}, "Experts"), this.#lead, this.#experts.element, legend()),
      this.#candidates.element,
      this.#temperature.element,
      this.#caps.element,
    );
  }

  /** Adapts to a newly loaded model. */
  configure(model: ModelInfo): void {
    const { num_hidden_layers, num_local_experts, num_experts_per_tok } = model.config;
    this.#experts.build(num_hidden_layers, num_local_experts);
    const experts = `${num_experts_per_tok} of ${num_local_experts} experts`;
    this.#lead.textContent = `In each of ${num_hidden_layers} layers a router asks ${experts} about the token.`;
    this.#temperature.configure(model);
    this.#caps.configure(model);
    this.show(undefined);
  }

  /** Shows an answer and follows its new tokens. */
  show(trace: Trace | undefined): void {
    this.#trace = trace;
    this.#follow = true;
    this.#glance = -1;
    this.#at = (trace?.tokens.length ?? 0) - 1;
    this.#draw();
  }

  /** Called after a token was added. */
  grew(trace: Trace): void {
    if (trace === this.#trace) {
      if (this.#follow) {
        this.#at = trace.tokens.length - 1;
      }
      this.#draw();
    }
  }

  /** Selects a token. */
  select(trace: Trace, at: number): void {
    this.#trace = trace;
    this.#move(at);
  }

  /** Shows a token while the pointer is over it; `undefined` ends that. */
  glance(trace: Trace | undefined, at: number): void {
    if (trace === undefined || trace === this.#trace) {
      this.#glance = trace ? at : -1;
      this.#draw();
    }
  }

  /** The selected token of an answer, or -1. */
  selected(trace: Trace): number {
    return trace === this.#trace ? this.#at : -1;
  }

  #move(to: number): void {
    const last = (this.#trace?.tokens.length ?? 0) - 1;
    this.#at = Math.max(0, Math.min(to, last));
    this.#glance = -1;
    this.#follow = this.#at === last;
    this.#draw();
  }

  /** Redraws at most once for each animation frame. */
  #draw(): void {
    if (!this.#due) {
      this.#due = true;
      requestAnimationFrame(() => {
        this.#due = false;
        this.#now();
      });
    }
  }

  #now(): void {
    const trace = this.#trace;
    const at = this.#glance >= 0 ? this.#glance : this.#at;
    const made = trace?.tokens[at];
    find("inside-empty", HTMLElement).hidden = made !== undefined;
    // Without a token, the table of experts is shown empty.
    find("inside-body", HTMLElement).classList.toggle("blank", made === undefined);
    this.#lit?.classList.remove("lit");
    this.#lit = made?.span;
    this.#lit?.classList.add("lit");
    if (!trace || !made) {
      this.#experts.show([], NOTHING);
      return;
    }
    const { inside } = made;
    const total = trace.tokens.length;
    const name = inside.top.find(({ id }) => id === made.id)?.text ?? made.text;
    this.#range.max = String(total - 1);
    this.#range.value = String(at);
    this.#range.setAttribute("aria-valuetext", `${at + 1} of ${total}: ${name}`);
    this.#place.textContent = `Token ${whole(at + 1)} of ${whole(total)}`;
    this.#token.textContent = visible(name);
    this.#token.title = `Id ${made.id}`;
    this.#experts.show(inside.routes, trace);
    this.#candidates.show(made.id, name, inside.top);
    this.#temperature.show(inside.position, inside.attentionTemperature);
    this.#caps.show(made.id, inside.top);
  }
}

function legend(): HTMLElement {
  const scale = el("span", { class: "scale", "aria-hidden": "true" });
  for (const step of [0, 2, 4, 6, 8]) {
    scale.append(el("i", { "data-load": step }));
  }
  return el(
    "p",
    { class: "legend" },
    el("span", { class: "legend-asked" }, "0.42"),
    " asked for this token, with its weight.",
    " Small numbers and shades: percent of this text's tokens that asked the expert ",
    scale,
  );
}
