/** A text of the model on the page, while it is generated and afterwards. */

import type { Finish, GrokWgpuError, Piece } from "grok-wgpu";
import { button, el } from "./dom.js";
import { seconds, whole } from "./format.js";
import type { Inside } from "./inside.js";
import { type Action, errorCard } from "./notices.js";
import type { Turn } from "./talk.js";
import { Trace } from "./trace.js";

const REASONS: Record<Finish["reason"], string> = {
  stop: "",
  length: "ended at the limit of tokens",
  interrupted: "stopped by you",
};

/** What is kept of an answer while it is written; it shows if the page is gone before the end. */
const CUT = "cut off when the page was left";

/** Actions on a finished text. */
export interface AnswerActions {
  again(): void;
  /** Only for texts in the mode "continue". */
  goOn?(): void;
}

/** A text of the model, its tokens and its statistics. */
export class Answer {
  readonly element: HTMLElement;
  readonly trace = new Trace();
  /** The text so far. */
  text = "";
  /** Whether it counts as part of the conversation. */
  valid = true;
  /** Tokens of the conversation up to the end of this text, once it is known. */
  tokens: number | undefined;
  readonly #name: string;
  #figures = CUT;
  readonly #text: HTMLElement;
  readonly #written: HTMLElement;
  readonly #foot: HTMLElement;
  readonly #inside: Inside;
  /** Time of the first token, number of tokens, and time of the last update of the speed. */
  #first = 0;
  #count = 0;
  #said = 0;

  /** `given` is the text to continue; chat answers have none. */
  constructor(name: string, inside: Inside, given?: string) {
    this.#inside = inside;
    this.#name = name;
    this.#written = el("span", { class: "written" });
    this.#text = el("div", { class: "text", "aria-busy": "true" });
    if (given !== undefined) {
      this.#text.append(el("span", { class: "given" }, given));
    }
    this.#text.append(this.#written, el("span", { class: "caret", "aria-hidden": "true" }));
    this.#foot = el("footer", {}, el("span", { class: "figures" }, "Reading the prompt"));
    this.element = el(
      "article",
      { class: "message assistant", "aria-label": name },
      el("h3", {}, name),
      this.#text,
      this.#foot,
    );
    this.#listen();
  }

  /** Shows progress of the prompt. */
  reading(done: number, total: number): void {
    this.#say(done < total ? `Reading the prompt: ${whole(done)} of ${whole(total)} tokens` : "Writing");
  }

  /** Appends a piece of text. */
  add(piece: Piece): void {
    this.text += piece.text;
    this.#speed(piece);
    // The leading space is outside of the token's element, so that highlights do not extend past line ends.
    const blank = /^ *(?=[^ ])/.exec(piece.text)?.[0] ?? "";
    const span = piece.text === "" ? undefined : el("span", {}, piece.text.slice(blank.length));
    if (span) {
      this.#written.append(blank, span);
    }
    const number = this.trace.add(piece, span);
    if (number !== undefined) {
      if (span) {
        span.dataset.token = String(number);
      }
      this.#inside.grew(this.trace);
    }
  }

  /** Updates the displayed speed twice a second. */
  #speed({ id }: Piece): void {
    const now = performance.now();
    this.#first ||= now;
    this.#count += id < 0 ? 0 : 1;
    if (now - this.#said > 500 && now - this.#first > 500) {
      this.#said = now;
      const speed = ((this.#count - 1) / (now - this.#first)) * 1000;
      this.#say(`Writing · ${whole(this.#count)} tokens · ${speed.toFixed(1)} tokens/s`);
    }
  }

  /** Shows a text that was kept. */
  restore({ content, figures = "", tokens }: Turn, actions: AnswerActions): void {
    this.text = content;
    this.tokens = tokens;
    this.#written.textContent = content;
    this.#end();
    this.#figures = figures;
    this.#say(figures);
    this.#buttons(actions);
  }

  /** The text as it is kept. */
  turn(): Turn {
    return {
      role: "assistant",
      content: this.text,
      model: this.#name,
      figures: this.#figures,
      ...(this.tokens === undefined ? {} : { tokens: this.tokens }),
    };
  }

  /** Ends the text and shows its statistics. `full` says that the context has no room for a longer one. */
  finish(finish: Finish, full: boolean, actions: AnswerActions): void {
    this.#end();
    this.tokens = finish.promptTokens + finish.completionTokens;
    const tokens = finish.completionTokens;
    const parts = [`${whole(tokens)} ${tokens === 1 ? "token" : "tokens"}`];
    if (finish.tokensPerSecond > 0) {
      parts.push(`${finish.tokensPerSecond.toFixed(1)} tokens/s`);
    }
    if (tokens > 0) {
      parts.push(`first after ${seconds(finish.timeToFirstToken)}`);
    }
    const reason = full ? "ended because the context is full" : REASONS[finish.reason];
    if (reason !== "") {
      parts.push(reason);
    }
    this.#figures = parts.join(" · ");
    this.#say(this.#figures);
    const figures = this.#foot.querySelector<HTMLElement>(".figures");
    if (figures) {
      const [prompt, reused] = [whole(finish.promptTokens), whole(finish.reusedTokens)];
      figures.title = `${prompt} tokens of prompt, ${reused} of them read before; ${seconds(finish.time)} in all`;
    }
    this.#buttons(actions);
  }

  #buttons(actions: AnswerActions): void {
    const copy = button(
      "Copy",
      () => {
        navigator.clipboard.writeText(this.text).then(
          () => {
            copy.textContent = "Copied";
          },
          () => {
            copy.textContent = "Not allowed";
          },
        );
      },
      { class: "quiet" },
    );
    const buttons = el("span", { class: "foot-buttons" });
    if (actions.goOn && this.text !== "") {
      buttons.append(button("Go on", actions.goOn, { class: "quiet last-only" }));
    }
    buttons.append(button("Again", actions.again, { class: "quiet last-only", title: "Write it again" }), copy);
    this.#foot.append(buttons);
  }

  /** Ends the text with an error. */
  fail(error: GrokWgpuError, actions: Action[]): void {
    this.valid = false;
    this.#end();
    this.#foot.replaceWith(errorCard(error, actions));
  }

  #end(): void {
    this.#text.setAttribute("aria-busy", "false");
    this.#text.querySelector(".caret")?.remove();
    if (this.trace.tokens.length > 0) {
      this.#text.tabIndex = 0;
      this.#text.classList.add("tokens");
      this.#text.setAttribute("role", "group");
      this.#text.setAttribute(
        "aria-label",
        `${this.element.getAttribute("aria-label")}. Arrow keys go through the tokens.`,
      );
    }
  }

  #say(text: string): void {
    const figures = this.#foot.querySelector(".figures");
    if (figures && figures.textContent !== text) {
      figures.textContent = text;
    }
  }

  /** Tokens are inspected by hovering, clicking, or with the arrow keys. */
  #listen(): void {
    const numberOf = (event: Event): number | undefined => {
      const token = event.target instanceof HTMLElement ? event.target.dataset.token : undefined;
      return token === undefined ? undefined : Number(token);
    };
    this.#written.addEventListener("pointerover", (event) => {
      const number = numberOf(event);
      if (number !== undefined && event.pointerType === "mouse") {
        this.#inside.glance(this.trace, number);
      }
    });
    this.#written.addEventListener("pointerleave", () => this.#inside.glance(undefined, 0));
    this.#written.addEventListener("click", (event) => {
      const number = numberOf(event);
      // A click that ends a text selection does not select a token.
      if (number !== undefined && getSelection()?.isCollapsed !== false) {
        this.#inside.select(this.trace, number);
      }
    });
    this.#text.addEventListener("keydown", (event) => {
      const last = this.trace.tokens.length - 1;
      if (last < 0 || event.ctrlKey || event.metaKey || event.altKey) {
        return;
      }
      const at = this.#inside.selected(this.trace);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: last }[event.key];
      if (to !== undefined) {
        event.preventDefault();
        this.#inside.select(this.trace, Math.max(0, Math.min(to, last)));
      }
    });
    this.#text.addEventListener("focus", () => {
      if (
        this.trace.tokens.length > 0 &&
        this.#text.matches(":focus-visible") &&
        this.#inside.selected(this.trace) < 0
      ) {
        this.#inside.select(this.trace, 0);
      }
    });
  }
}
