/** Notices: what happened and what to do about it. */

import type { ErrorCode, GrokWgpuError } from "grok-wgpu";
import { button, el, find } from "./dom.js";

const TITLES: Record<ErrorCode, string> = {
  no_webgpu: "This browser has no WebGPU",
  no_adapter: "No graphics adapter",
  device_lost: "The graphics device was lost",
  out_of_memory: "Not enough memory",
  quota_exceeded: "The browser's storage is full",
  network: "The files could not be fetched",
  checksum: "A file is damaged",
  checkpoint: "These files do not fit together",
  tokenizer: "The tokenizer cannot be used",
  context_length_exceeded: "The text is too long for this model",
  usage: "This is not possible",
  aborted: "Stopped",
  disposed: "The model is gone",
  internal: "Something went wrong in the engine",
};

/** An action that a notice offers. */
export interface Action {
  text: string;
  act(): void;
}

/** A container of notices. */
export class Notices {
  readonly #place: HTMLElement;

  constructor(id: string) {
    this.#place = find(id, HTMLElement);
  }

  /** Removes all notices. */
  clear(): void {
    this.#place.replaceChildren();
  }

  /** Shows an error and its hint; replaces the previous error. */
  error(error: GrokWgpuError, actions: Action[] = [], title?: string): void {
    this.#put("error", errorCard(error, actions, { title, onDismiss: () => this.#remove("error") }));
  }

  /** Shows information that is no error; replaces the previous one of its kind. */
  news(kind: string, title: string, text: string): void {
    const card = el("div", { class: "notice news", role: "status" }, el("strong", {}, title), el("p", {}, text));
    card.append(dismiss(() => this.#remove(kind)));
    this.#put(kind, card);
  }

  #put(kind: string, card: HTMLElement): void {
    this.#remove(kind);
    card.dataset.kind = kind;
    this.#place.append(card);
  }

  #remove(kind: string): void {
    for (const card of [...this.#place.children]) {
      if (card instanceof HTMLElement && card.dataset.kind === kind) {
        card.remove();
      }
    }
  }
}

function dismiss(act: () => void): HTMLButtonElement {
  return button("×", act, { class: "dismiss quiet", "aria-label": "Dismiss" });
}

/** An error as an element. */
export function errorCard(
  error: GrokWgpuError,
  actions: Action[] = [],
  { title, onDismiss }: { title?: string | undefined; onDismiss?: () => void } = {},
): HTMLElement {
  const card = el(
    "div",
    { class: "notice error", role: "alert", "data-code": error.code },
    el("strong", {}, title ?? TITLES[error.code]),
    el("p", { class: "what" }, sentence(error.message)),
    el("p", { class: "hint" }, error.hint),
  );
  if (actions.length > 0) {
    card.append(el("div", { class: "actions" }, ...actions.map(({ text, act }) => button(text, act))));
  }
  if (onDismiss) {
    card.append(dismiss(onDismiss));
  }
  return card;
}

/** A text as a sentence. */
export function sentence(text: string): string {
  // Capitalize sentences, but not addresses and file names.
  const begun = /^[a-z]+( |$)/.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}
