/** What goes before a chat, and how it is written for the model: the system text and the template. */

import type { ModelInfo, Template } from "grok-wgpu";
import { el, find } from "./dom.js";
import { sentence } from "./notices.js";
import { type Talk, TEMPLATES } from "./talk.js";

const ABOUT: Record<Template, string> = {
  "grok-2": "Grok-2's: labels, and a separator after each message",
  plain: "The messages alone, for models that know only texts",
};

/** The controls of both. */
export class Instructions {
  readonly #system = find("system", HTMLTextAreaElement);
  readonly #template = find("template", HTMLSelectElement);

  /** Calls `onChange` with what the user wants. */
  constructor(onChange: (wanted: Pick<Talk, "system" | "template">) => void) {
    const change = () =>
      onChange({
        system: this.#system.value.trim(),
        template: TEMPLATES.find((name) => name === this.#template.value),
      });
    this.#system.addEventListener("change", change);
    this.#template.addEventListener("change", change);
    this.#template.append(
      el("option", { value: "" }, "Automatic"),
      ...TEMPLATES.map((name) => el("option", { value: name }, name)),
    );
  }

  /** Shows those of a chat. */
  show({ system, template }: Pick<Talk, "system" | "template">, model: ModelInfo | undefined): void {
    if (this.#system.value.trim() !== system) {
      this.#system.value = system;
    }
    this.#template.value = template ?? "";
    const used = template ?? model?.template;
    const automatic = this.#template.options[0];
    if (automatic && model) {
      automatic.textContent = `Automatic: ${model.template}`;
    }
    // Who chooses knows; the warning is about the choice of the engine.
    const warning = template ? undefined : model?.warnings.find(isAboutTemplate);
    const note = find("template-note", HTMLElement);
    note.classList.toggle("warning", warning !== undefined);
    note.textContent = warning ? sentence(warning) : used ? `${ABOUT[used]}.` : "";
  }
}

/** Whether a warning of a model belongs to the choice of its template. */
export function isAboutTemplate(warning: string): boolean {
  return warning.includes("option `template`");
}
