/** The conversation: asking, answering, stopping, and starting over. */

import {
  type ChatCompletionChunk,
  type ChatMessage,
  type Finish,
  type GenerateOptions,
  type Generation,
  GrokWgpuError,
  type Piece,
} from "grok-wgpu";
import { Answer } from "./answer.js";
import { announce, button, el, find } from "./dom.js";
import { whole } from "./format.js";
import type { Inside } from "./inside.js";
import type { Action, Notices } from "./notices.js";
import type { Sampling } from "./sampling.js";
import { asError, type Session, type Wish } from "./session.js";

type Mode = "chat" | "continue";

/** An entry of the log, by the user or the model. `given` is the prompt of an answer. */
type Entry =
  | { kind: "question"; text: string; element: HTMLElement }
  | { kind: "answer"; answer: Answer; given: string };

/** Example prompts for the demo model, which knows only the world of its stories. */
const DEMO_EXAMPLES: Record<Mode, string[]> = {
  chat: [
    "Tell me a story about a fox who lost her hat.",
    "Tell me a story about a brave knight and a dragon.",
    "Can you tell me a story about a penguin who wants to learn to sing?",
    "Tell me a story about a robot and a red kite.",
  ],
  continue: ["Once upon a time", "Lily was a brave mouse", "One day", "In the forest"],
};

const EXAMPLES: Record<Mode, string[]> = {
  chat: ["Tell me a short story.", "What is a mixture of experts?", "Why is the sky blue?"],
  continue: ["Once upon a time", "The first rule of", "Dear reader,"],
};

/** The middle of the page: the conversation and its input. */
export class Chat {
  readonly #session: Session;
  readonly #sampling: Sampling;
  readonly #inside: Inside;
  readonly #log = find("log", HTMLElement);
  readonly #prompt = find("prompt", HTMLTextAreaElement);
  readonly #send = find("send", HTMLButtonElement);
  readonly #threads: Record<Mode, Entry[]> = { chat: [], continue: [] };
  /** The model of the conversation. */
  #wish: Wish | undefined;
  #mode: Mode = "chat";
  /** Stops the text in progress. */
  #running: AbortController | undefined;
  /** Resolves when the previous text has ended, so that the next one may start. */
  #ended: Promise<void> = Promise.resolve();

  constructor(session: Session, sampling: Sampling, inside: Inside, notices: Notices) {
    this.#session = session;
    this.#sampling = sampling;
    this.#inside = inside;
    session.listen({
      state: (state) => {
        this.#running?.abort();
        if (state === "ready") {
          // The same model comes back after another one failed to load, or after its device was lost.
          if (session.wish !== this.#wish) {
            this.#wish = session.wish;
            this.#welcome();
          }
          // Where focus would open an on-screen keyboard, the user has to ask for it.
          if (!matchMedia("(pointer: coarse)").matches) {
            this.#prompt.focus({ preventScroll: true });
          }
        }
      },
      device: ({ kind, message }) => {
        if (kind === "failed") {
          const wish = session.wish;
          const code = message.startsWith("out of device memory") ? "out_of_memory" : "device_lost";
          notices.error(
            new GrokWgpuError(code, message),
            wish ? [{ text: "Load again", act: () => void session.load(wish) }] : [],
          );
        } else if (kind === "restored") {
          notices.news(
            "device",
            "The graphics device was lost, and is back",
            "The weights are on the adapter again. The conversation goes on where it was.",
          );
        } else {
          notices.news(
            "device",
            "The graphics device was lost",
            "The engine makes itself whole again. This takes a moment; nothing of the conversation is lost.",
          );
        }
      },
    });
    for (const radio of document.querySelectorAll<HTMLInputElement>("input[name=mode]")) {
      radio.addEventListener("change", () => this.#become(radio.value === "continue" ? "continue" : "chat"));
    }
    find("new", HTMLElement).addEventListener("click", () => this.#anew());
    find("composer", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#isWriting()) {
        this.#running?.abort();
      } else {
        this.#submit();
      }
    });
    this.#prompt.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        if (!this.#isWriting()) {
          this.#submit();
        }
      }
    });
    addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        this.#running?.abort();
      }
    });
  }

  get #thread(): Entry[] {
    return this.#threads[this.#mode];
  }

  /** Resets the conversation for a newly loaded model. */
  #welcome(): void {
    const chat = this.#session.engine?.model.chat ?? false;
    this.#threads.chat = [];
    this.#threads.continue = [];
    if (this.#session.engine) {
      this.#inside.configure(this.#session.engine.model);
    }
    for (const radio of document.querySelectorAll<HTMLInputElement>("input[name=mode]")) {
      radio.checked = radio.value === (chat ? "chat" : "continue");
      radio.disabled = radio.value === "chat" && !chat;
    }
    this.#become(chat ? "chat" : "continue");
  }

  #anew(): void {
    this.#running?.abort();
    this.#threads[this.#mode] = [];
    this.#become(this.#mode);
    this.#prompt.focus();
  }

  #become(mode: Mode): void {
    this.#running?.abort();
    this.#mode = mode;
    find("prompt-label", HTMLElement).textContent = mode === "chat" ? "Message" : "Text to continue";
    this.#placeholder();
    this.#room(undefined);
    this.#inside.show(undefined);
    this.#log.replaceChildren(
      ...this.#thread.map((entry) => (entry.kind === "answer" ? entry.answer.element : entry.element)),
    );
    const last = this.#thread.at(-1);
    if (last?.kind === "answer") {
      this.#inside.show(last.answer.trace);
    } else {
      this.#log.append(this.#examples());
    }
  }

  #placeholder(): void {
    const later = this.#mode === "chat" && this.#thread.length > 0;
    this.#prompt.placeholder =
      this.#mode === "continue"
        ? "The beginning of a text"
        : later
          ? "Ask about it, or ask for something else"
          : "Write a message";
  }

  #examples(): HTMLElement {
    const model = this.#session.engine?.model;
    // The demo model, recognized by name and vocabulary.
    const demo = model?.name === "demo" && model.config.vocab_size === 2560;
    const texts = (demo ? DEMO_EXAMPLES : EXAMPLES)[this.#mode];
    const title = this.#mode === "continue" ? "Begin a text" : demo ? "Ask for a story" : "Say something";
    const about = demo
      ? "This small model was trained on stories only. It knows about 2,000 words, and nothing of the world. " +
        "When it has told one, ask about it."
      : "What you write goes to your own graphics adapter, and nowhere else.";
    return el(
      "div",
      { class: "examples" },
      el("h2", {}, title),
      el("p", { class: "lead" }, about),
      el(
        "div",
        { class: "example-list" },
        ...texts.map((text) => button(text, () => this.#ask(text), { class: "example" })),
      ),
    );
  }

  #submit(): void {
    const text = this.#mode === "chat" ? this.#prompt.value.trim() : this.#prompt.value;
    if (text.trim() === "") {
      this.#prompt.focus();
      return;
    }
    this.#prompt.value = "";
    this.#ask(text);
  }

  #ask(text: string): void {
    if (this.#isWriting() || !this.#session.engine) {
      return;
    }
    if (this.#thread.length === 0) {
      this.#log.replaceChildren();
    }
    if (this.#mode === "chat") {
      const element = el(
        "article",
        { class: "message user", "aria-label": "You" },
        el("h3", {}, "You"),
        el("div", { class: "text" }, text),
      );
      this.#thread.push({ kind: "question", text, element });
      this.#log.append(element);
    }
    this.#write(text);
  }

  /** Whether a text is in progress that has not been stopped. */
  #isWriting(): boolean {
    return this.#running !== undefined && !this.#running.signal.aborted;
  }

  /** Generates a text after the entries in the log. */
  #write(given: string): void {
    if (!this.#isWriting()) {
      // A text that was stopped may still be ending.
      this.#ended = this.#ended.then(() => this.#run(given));
    }
  }

  async #run(given: string): Promise<void> {
    const engine = this.#session.engine;
    if (!engine) {
      return;
    }
    const mode = this.#mode;
    const thread = this.#thread;
    const running = new AbortController();
    this.#running = running;
    this.#busy(true);
    const answer = new Answer(engine.model.name, this.#inside, mode === "continue" ? given : undefined);
    thread.push({ kind: "answer", answer, given });
    this.#placeholder();
    this.#log.append(answer.element);
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#inside.show(answer.trace);
    announce("The model is writing.");
    const options: GenerateOptions = {
      ...this.#sampling.options(),
      inside: find("record", HTMLInputElement).checked,
      signal: running.signal,
      onPrompt: (done, total) => answer.reading(done, total),
    };
    const add = (piece: Piece) => {
      const close = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < 80;
      answer.add(piece);
      if (close) {
        this.#log.scrollTop = this.#log.scrollHeight;
      }
    };
    try {
      let finish: Finish;
      if (mode === "chat") {
        finish = await chat(engine.chat(messages(thread), { ...options, stream: true }), add);
      } else {
        finish = await text(engine.generate(given, options), add);
      }
      answer.finish(finish, {
        again: () => this.#again(thread, answer, given),
        ...(mode === "continue" ? { goOn: () => this.#write(given + answer.text) } : {}),
      });
      this.#room(finish);
      announce(answer.text === "" ? "Nothing was written." : `${engine.model.name}: ${answer.text}`);
    } catch (thrown) {
      this.#fail(asError(thrown), thread, answer, given);
    } finally {
      if (this.#running === running) {
        this.#running = undefined;
        this.#busy(false);
      }
    }
  }

  #fail(error: GrokWgpuError, thread: Entry[], answer: Answer, given: string): void {
    const actions: Action[] = [];
    if (error.code === "context_length_exceeded") {
      actions.push({ text: "Start anew", act: () => this.#anew() });
    } else if (error.code === "device_lost" || error.code === "disposed") {
      const wish = this.#session.wish;
      if (wish && this.#session.state !== "loading") {
        actions.push({ text: "Load the model again", act: () => void this.#session.load(wish) });
      }
    } else {
      actions.push({ text: "Try again", act: () => this.#again(thread, answer, given) });
    }
    answer.fail(error, actions);
    this.#log.scrollTop = this.#log.scrollHeight;
  }

  /** Generates the last answer again. */
  #again(thread: Entry[], answer: Answer, given: string): void {
    const last = thread.at(-1);
    if (this.#isWriting() || thread !== this.#thread || last?.kind !== "answer" || last.answer !== answer) {
      return;
    }
    thread.pop();
    answer.element.remove();
    this.#write(given);
  }

  #busy(busy: boolean): void {
    this.#send.textContent = busy ? "Stop" : "Send";
    this.#send.classList.toggle("stop", busy);
  }

  /** Shows how much of the context is used. */
  #room(finish: Finish | undefined): void {
    const context = this.#session.engine?.model.context ?? 0;
    const used = finish ? finish.promptTokens + finish.completionTokens : 0;
    const share = context > 0 ? Math.min(used / context, 1) : 0;
    const meter = find("room-meter", HTMLMeterElement);
    meter.value = share;
    meter.dataset.full = String(share > 0.85);
    find("room-text", HTMLElement).textContent = `${whole(used)} of ${whole(context)} tokens`;
    find("room", HTMLElement).title =
      share > 0.85
        ? "The context is nearly full. A new conversation makes room."
        : "Tokens of this conversation, and how many the model can hold.";
  }
}

/** The conversation as messages for the engine, without failed answers. */
function messages(thread: Entry[]): ChatMessage[] {
  return thread.flatMap((entry): ChatMessage[] => {
    if (entry.kind === "question") {
      return [{ role: "user", content: entry.text }];
    }
    return entry.answer.valid && entry.answer.text !== "" ? [{ role: "assistant", content: entry.answer.text }] : [];
  });
}

async function chat(chunks: AsyncIterable<ChatCompletionChunk>, add: (piece: Piece) => void): Promise<Finish> {
  let finish: Finish | undefined;
  for await (const chunk of chunks) {
    if (chunk.piece) {
      add(chunk.piece);
    }
    finish = chunk.finish ?? finish;
  }
  if (!finish) {
    throw new GrokWgpuError("internal", "the answer ended without its figures");
  }
  return finish;
}

async function text(generation: Generation, add: (piece: Piece) => void): Promise<Finish> {
  for await (const piece of generation) {
    add(piece);
  }
  return generation.finish;
}
