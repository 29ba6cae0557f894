/** A conversation on the page: its texts as elements, and what of it goes to the model. */

import type { ChatMessage, Finish, GrokWgpuError } from "grok-wgpu";
import { Answer, type AnswerActions } from "./answer.js";
import { el } from "./dom.js";
import type { Inside } from "./inside.js";
import { emptyTalk, leaveOut, lengthOf, type Mode, roomForAnswer, type Talk, type Turn } from "./talk.js";

/** An entry of the log, by the user or the model. `given` is the prompt of an answer. */
export type Entry =
  | { kind: "question"; text: string; element: HTMLElement }
  | { kind: "answer"; answer: Answer; given: string };

/** Tokens for a character of English text, until the model has counted. */
const TOKENS = 0.3;

/** What is said where the model begins to see. */
export const LEFT_OUT = "The context is full: the model no longer sees what is above. It is kept all the same.";

/** A message of the user. */
function questionElement(text: string): HTMLElement {
  return el(
    "article",
    { class: "message user", "aria-label": "You" },
    el("h3", {}, "You"),
    el("div", { class: "text" }, text),
  );
}

/** The conversation of one mode. */
export class Thread {
  /** Its settings, and the state that was kept last. */
  readonly talk: Talk;
  entries: Entry[] = [];
  /** The first of the entries that the model sees. */
  from = 0;
  /** Tokens for a character, as far as it is known. */
  #perCharacter = TOKENS;

  constructor(talk: Talk) {
    this.talk = talk;
  }

  static empty(mode: Mode): Thread {
    return new Thread(emptyTalk(mode));
  }

  /** Makes the entries of a conversation that was kept. */
  static of(talk: Talk, inside: Inside, actions: (thread: Thread, answer: Answer, given: string) => AnswerActions) {
    const thread = new Thread(talk);
    let given = "";
    for (const [i, turn] of talk.turns.entries()) {
      if (i === talk.from) {
        thread.from = thread.entries.length;
      }
      if (turn.role === "user") {
        given = turn.content;
        if (talk.mode === "chat") {
          thread.question(given);
        }
      } else {
        const begin = talk.mode === "continue" ? given : undefined;
        const answer = new Answer(turn.model || talk.model || "The model", inside, begin);
        answer.restore(turn, actions(thread, answer, given));
        thread.entries.push({ kind: "answer", answer, given });
      }
    }
    thread.#learn(talk.turns.findLast(({ tokens }) => tokens !== undefined)?.tokens);
    return thread;
  }

  get mode(): Mode {
    return this.talk.mode;
  }

  /** Whether there is nothing to lose. */
  get isEmpty(): boolean {
    return this.entries.length === 0 && this.talk.system === "";
  }

  get last(): Entry | undefined {
    return this.entries.at(-1);
  }

  /** Adds a message of the user. */
  question(text: string): HTMLElement {
    const element = questionElement(text);
    this.entries.push({ kind: "question", text, element });
    return element;
  }

  /** Tokens of what the model sees, and whether that is an estimate. */
  get tokens(): { count: number; counted: boolean } {
    const { last } = this;
    const count = last?.kind === "answer" ? last.answer.tokens : last ? undefined : 0;
    return { count: count ?? this.#estimate(), counted: count !== undefined };
  }

  /** About how many tokens the model sees, with the entries from this one on. */
  #estimate(from = this.from): number {
    return Math.ceil(lengthOf(this.messages(from)) * this.#perCharacter);
  }

  /** The state to keep. */
  snapshot(model: string, sampling: Record<string, unknown>): Talk {
    const turns = this.#turns(this.entries);
    const from = this.#turns(this.entries.slice(0, this.from)).length;
    Object.assign(this.talk, { turns, from, model, sampling, changed: Date.now() });
    return { ...this.talk };
  }

  #turns(entries: Entry[]): Turn[] {
    return entries.flatMap((entry): Turn[] => {
      if (entry.kind === "question") {
        return [{ role: "user", content: entry.text }];
      }
      const { answer, given } = entry;
      const before: Turn[] = this.mode === "continue" ? [{ role: "user", content: given }] : [];
      return answer.text === "" ? before : [...before, answer.turn()];
    });
  }

  /** What the model sees with the entries from this one on. Failed answers are left out. */
  messages(from: number = this.from): ChatMessage[] {
    const system: ChatMessage[] = this.talk.system === "" ? [] : [{ role: "system", content: this.talk.system }];
    return this.entries.slice(from).reduce<ChatMessage[]>((all, entry) => {
      if (entry.kind === "question") {
        all.push({ role: "user", content: entry.text });
      } else if (entry.answer.valid && entry.answer.text !== "") {
        all.push({ role: "assistant", content: entry.answer.text });
      }
      return all;
    }, system);
  }

  /** Leaves the oldest exchanges out if the last, and an answer, have no room otherwise. */
  fit(context: number, answer: number, cut = false): void {
    const from = (start: number) => this.#estimate(start);
    this.from = leaveOut(this.#starts(), { context, ...roomForAnswer(context, answer, cut), from });
  }

  /** After the engine said that there is no room: leaves out more. Returns whether there was more. */
  shrink(error: GrokWgpuError, context: number, answer: number): boolean {
    const next = this.#starts()[1];
    if (next === undefined) {
      return false;
    }
    const before = this.from;
    const [, counted] = /prompt has (\d+) tokens/.exec(error.message) ?? [];
    this.#learn(counted === undefined ? undefined : Number(counted));
    this.fit(context, answer);
    this.from = this.from > before ? this.from : next;
    return true;
  }

  /** Learns the size of texts from what the model counted. */
  #learn(tokens: number | undefined): void {
    const length = lengthOf(this.messages());
    if (tokens && length > 0) {
      this.#perCharacter = tokens / length;
    }
  }

  /** Ends the last answer. Returns whether the context has no room for a longer one. */
  finished({ reason, promptTokens, completionTokens }: Finish, context: number): boolean {
    const tokens = promptTokens + completionTokens;
    this.#learn(tokens);
    return reason === "length" && tokens >= context;
  }

  /** Where exchanges begin, from the one on that the model sees now. */
  #starts(): number[] {
    return this.entries.flatMap((entry, i) =>
      i === this.from || (i > this.from && entry.kind === "question") ? [i] : [],
    );
  }

  /** The elements of the log, with a line between what the model does not see and what it sees. */
  elements(): HTMLElement[] {
    const all = this.entries.map((entry) => (entry.kind === "answer" ? entry.answer.element : entry.element));
    all.forEach((element, i) => {
      element.classList.toggle("left-out", i < this.from);
    });
    if (this.from > 0) {
      all.splice(this.from, 0, el("p", { class: "divider" }, LEFT_OUT));
    }
    if (this.mode === "chat" && this.talk.system !== "") {
      all.unshift(
        el(
          "article",
          { class: "message system", "aria-label": "System text" },
          el("h3", {}, "System text"),
          el("div", { class: "text" }, this.talk.system),
        ),
      );
    }
    return all;
  }
}
