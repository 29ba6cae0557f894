/** The controls of the sampling parameters. */

import type { SamplingOptions } from "grok-wgpu";
import { el, find } from "./dom.js";
import { recall, remember } from "./store.js";

interface Control {
  name: "temperature" | "top_k" | "top_p" | "min_p" | "repetition_penalty" | "max_tokens";
  label: string;
  min: number;
  max: number;
  step: number;
  /** The default; a model may have another. */
  usual: number;
  help: string;
}

const CONTROLS: Control[] = [
  {
    name: "temperature",
    label: "Temperature",
    min: 0,
    max: 2,
    step: 0.05,
    usual: 0.8,
    help: "Higher is more surprising. 0 always takes the likeliest token.",
  },
  {
    name: "top_k",
    label: "Top-k",
    min: 0,
    max: 200,
    step: 1,
    usual: 40,
    help: "Only the k likeliest tokens. 0 is all of them.",
  },
  {
    name: "top_p",
    label: "Top-p",
    min: 0.05,
    max: 1,
    step: 0.01,
    usual: 0.95,
    help: "The likeliest tokens that together have this probability.",
  },
  {
    name: "min_p",
    label: "Min-p",
    min: 0,
    max: 1,
    step: 0.01,
    usual: 0,
    help: "Leaves out tokens that are less likely than this share of the likeliest.",
  },
  {
    name: "repetition_penalty",
    label: "Repetition penalty",
    min: 1,
    max: 2,
    step: 0.01,
    usual: 1,
    help: "Above 1, tokens that occurred before become less likely.",
  },
  {
    name: "max_tokens",
    label: "Most tokens",
    min: 1,
    max: 1024,
    step: 1,
    usual: 320,
    help: "The answer ends here at the latest.",
  },
];

/** All controls. */
export class Sampling {
  /** Called after a change by the user. */
  onChange: () => void = () => {};
  /** The controls that were changed; the others follow the model. */
  readonly #changed = new Set<Control["name"]>();
  readonly #inputs = new Map<
    Control["name"],
    { control: Control; range: HTMLInputElement; number: HTMLInputElement }
  >();
  readonly #seed: HTMLInputElement;

  constructor() {
    const place = find("sampling", HTMLElement);
    for (const control of CONTROLS.map((each) => ({ ...each }))) {
      const id = `sampling-${control.name}`;
      const limits = { min: control.min, max: control.max, step: control.step };
      const range = el("input", { type: "range", id, ...limits, "aria-describedby": `${id}-help` });
      const number = el("input", { type: "number", ...limits, "aria-label": control.label, inputmode: "decimal" });
      range.addEventListener("input", () => this.#change(control.name, range.valueAsNumber));
      number.addEventListener("change", () => this.#change(control.name, number.valueAsNumber));
      this.#inputs.set(control.name, { control, range, number });
      place.append(
        el(
          "div",
          { class: "control" },
          el("label", { for: id }, control.label),
          number,
          range,
          el("p", { id: `${id}-help`, class: "note" }, control.help),
        ),
      );
    }
    this.#seed = el("input", {
      type: "text",
      id: "sampling-seed",
      inputmode: "numeric",
      pattern: "[0-9]*",
      placeholder: "random",
      autocomplete: "off",
    });
    this.#seed.addEventListener("change", () => {
      this.#seed.value = this.#seed.value.replace(/\D/g, "").slice(0, 15);
      this.#save();
      this.onChange();
    });
    place.append(
      el(
        "div",
        { class: "control" },
        el("label", { for: "sampling-seed" }, "Seed"),
        this.#seed,
        el("p", { class: "note" }, "The same seed and settings give the same text."),
      ),
    );
    find("sampling-reset", HTMLButtonElement).addEventListener("click", () => {
      this.apply({});
      this.onChange();
    });
    this.#follow();
    this.#restore(recall("sampling") ?? "{}");
  }

  /** Takes the defaults of a model. What the user changed stays. */
  configure(usual: SamplingOptions): void {
    for (const { control } of this.#inputs.values()) {
      if (control.name !== "max_tokens") {
        control.usual = usual[control.name] ?? control.usual;
      }
    }
    this.#follow();
  }

  #follow(): void {
    for (const { control } of this.#inputs.values()) {
      if (!this.#changed.has(control.name)) {
        this.#set(control.name, control.usual);
      }
    }
  }

  /** Sets all values: those that are given, and else the defaults. What is no number in range is left out. */
  apply(values: Record<string, unknown>): void {
    const { seed } = values;
    this.#seed.value = typeof seed === "number" && Number.isSafeInteger(seed) && seed >= 0 ? String(seed) : "";
    this.#changed.clear();
    for (const { control, range } of this.#inputs.values()) {
      const value = values[control.name];
      const given = typeof value === "number" && Number.isFinite(value);
      this.#set(control.name, given ? value : control.usual);
      if (range.valueAsNumber !== control.usual) {
        this.#changed.add(control.name);
      }
    }
    this.#save();
  }

  /** The current values. */
  options(): SamplingOptions & { max_tokens: number } {
    const value = (name: Control["name"]) => this.#input(name).range.valueAsNumber;
    return {
      temperature: value("temperature"),
      top_k: value("top_k"),
      top_p: value("top_p"),
      min_p: value("min_p"),
      repetition_penalty: value("repetition_penalty"),
      max_tokens: value("max_tokens"),
      ...(this.#seed.value === "" ? {} : { seed: Number(this.#seed.value) }),
    };
  }

  #input(name: Control["name"]) {
    const found = this.#inputs.get(name);
    if (!found) {
      throw new Error(`there is no control for ${name}`);
    }
    return found;
  }

  /** Sets a value as the user wants it. */
  #change(name: Control["name"], value: number): void {
    this.#changed.add(name);
    this.#set(name, value);
    this.#save();
    this.onChange();
  }

  #set(name: Control["name"], value: number): void {
    const { control, range, number } = this.#input(name);
    range.value = String(Number.isFinite(value) ? value : control.usual);
    number.value = range.value;
  }

  /** Remembers what was changed, for conversations to come. */
  #save(): void {
    const { seed = "", ...all } = this.options();
    const changed = Object.entries(all).filter(([name]) => this.#changed.has(name as Control["name"]));
    remember("sampling", JSON.stringify({ ...Object.fromEntries(changed), seed: String(seed) }));
  }

  #restore(text: string): void {
    let saved: Record<string, unknown>;
    try {
      saved = { ...(JSON.parse(text) as Record<string, unknown>) };
    } catch {
      // Malformed data: keep the defaults.
      return;
    }
    if (typeof saved.seed === "string") {
      this.#seed.value = saved.seed.replace(/\D/g, "");
    }
    for (const name of this.#inputs.keys()) {
      if (typeof saved[name] === "number") {
        this.#changed.add(name);
        this.#set(name, saved[name]);
      }
    }
  }
}
