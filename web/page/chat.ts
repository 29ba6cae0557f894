/** The conversation: asking, answering, stopping, and starting over. */

import {
  type ChatCompletionChunk,
  type Finish,
  type GenerateOptions,
  type Generation,
  GrokWgpuError,
  type Piece,
} from "grok-wgpu";
import { Answer, type AnswerActions } from "./answer.js";
import { type Archive, hold, release } from "./archive.js";
import { announce, button, el, find } from "./dom.js";
import { examples } from "./examples.js";
import { whole } from "./format.js";
import type { Inside } from "./inside.js";
import { Instructions } from "./instructions.js";
import type { Action, Notices } from "./notices.js";
import type { Sampling } from "./sampling.js";
import { asError, type Session, type Wish } from "./session.js";
import { recallHere, rememberHere } from "./store.js";
import { emptyTalk, type Mode, type Talk, titleOf } from "./talk.js";
import { LEFT_OUT, Thread } from "./thread.js";

const MODES: Mode[] = ["chat", "continue"];

/** Milliseconds between the times that a text is kept while it is written. */
const KEEP = 1000;

/** What a tab has open, for when it is loaded again. */
type Open = Partial<Record<Mode, string>> & { mode?: Mode };

/** The middle of the page: the conversation and its input. */
export class Chat {
  readonly #session: Session;
  readonly #sampling: Sampling;
  readonly #inside: Inside;
  readonly #notices: Notices;
  readonly #archive: Archive;
  readonly #instructions: Instructions;
  readonly #log = find("log", HTMLElement);
  readonly #prompt = find("prompt", HTMLTextAreaElement);
  readonly #send = find("send", HTMLButtonElement);
  readonly #threads: Record<Mode, Thread> = { chat: Thread.empty("chat"), continue: Thread.empty("continue") };
  /** The model that the threads are shown for. */
  #wish: Wish | undefined;
  #mode: Mode = "chat";
  /** Resolves when what was kept has been looked up, and whether it has. */
  readonly #restoring: Promise<void>;
  #restored = false;
  /** Stops the text in progress. */
  #running: AbortController | undefined;
  /** Resolves when the previous text has ended, so that the next one may start. */
  #ended: Promise<void> = Promise.resolve();

  constructor(session: Session, sampling: Sampling, inside: Inside, notices: Notices, archive: Archive) {
    this.#session = session;
    this.#sampling = sampling;
    this.#inside = inside;
    this.#notices = notices;
    this.#archive = archive;
    this.#instructions = new Instructions((wanted) => {
      Object.assign(this.#threads.chat.talk, wanted);
      this.#allow();
      this.#draw();
      this.#keep(this.#threads.chat);
    });
    sampling.onChange = () => this.#keep(this.#thread);
    session.listen({
      state: (state) => {
        this.#running?.abort();
        if (state === "ready" && this.#restored) {
          this.#arrive();
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
    this.#listen();
    this.#restoring = this.#restore();
  }

  #listen(): void {
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
      if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
        this.#running?.abort();
      }
    });
    // A page that is hidden may be gone without another word.
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden" && this.#isWriting()) {
        this.#keep(this.#thread);
      }
    });
  }

  get #thread(): Thread {
    return this.#threads[this.#mode];
  }

  /** Takes up what this tab had open; a new tab takes up the latest conversation, unless another tab has it. */
  async #restore(): Promise<void> {
    const open = opened(recallHere("open"));
    if (open) {
      this.#mode = open.mode ?? "chat";
    }
    for (const mode of MODES) {
      const id = open ? open[mode] : undefined;
      const talk = id === undefined ? undefined : await this.#archive.get(id);
      if (talk) {
        await this.#take(talk);
      }
    }
    const [latest] = open ? [] : await this.#archive.list();
    if (latest && (await hold(latest.id))) {
      const talk = await this.#archive.get(latest.id);
      if (talk) {
        this.#mode = talk.mode;
        this.#threads[talk.mode] = new Thread(talk);
      }
    }
    this.#restored = true;
    if (this.#session.state === "ready") {
      this.#arrive();
    } else {
      this.#sayKept();
    }
  }

  /** Makes this the conversation of its mode; a copy of it if another tab has it. Returns whether it is one. */
  async #take(talk: Talk): Promise<boolean> {
    const before = this.#threads[talk.mode];
    const same = before.talk.id === talk.id;
    const free = same || (await hold(talk.id));
    if (!same) {
      release(before.talk.id);
    }
    this.#threads[talk.mode] = new Thread(free ? talk : { ...talk, id: emptyTalk(talk.mode).id });
    return !free;
  }

  /** On the page without a model, says what comes back with one. */
  #sayKept(): void {
    const { turns } = this.#thread.talk;
    find("kept", HTMLElement).textContent =
      turns.length > 0 ? `Your conversation “${titleOf(this.#thread.talk)}” comes back with the model.` : "";
  }

  /** Shows the conversations for a model that was loaded. */
  #arrive(): void {
    const model = this.#session.engine?.model;
    // The same model comes back after another one failed to load, or after its device was lost.
    if (model && this.#session.wish !== this.#wish) {
      this.#wish = this.#session.wish;
      this.#inside.configure(model);
      this.#sampling.configure(model.sampling);
      for (const mode of MODES) {
        const thread = this.#threads[mode];
        const { talk } = thread;
        // What an earlier model showed of its inside does not fit this one.
        this.#threads[mode] = this.#revive(
          thread.entries.length > 0 ? thread.snapshot(talk.model, talk.sampling) : talk,
        );
      }
      this.#allow();
      this.#become(this.#mode);
      const { talk } = this.#thread;
      if (Object.keys(talk.sampling).length > 0) {
        this.#sampling.apply(talk.sampling);
      }
      if (talk.turns.length > 0 && talk.model !== "" && talk.model !== model.name) {
        this.#notices.news(
          "model",
          `The conversation goes on with ${model.name}`,
          `Until now it was with ${talk.model}. “New” begins another one.`,
        );
      }
    }
    // Where focus would open an on-screen keyboard, the user has to ask for it.
    if (!matchMedia("(pointer: coarse)").matches) {
      this.#prompt.focus({ preventScroll: true });
    }
  }

  #revive(talk: Talk): Thread {
    return Thread.of(talk, this.#inside, (thread, answer, given) => this.#actions(thread, answer, given));
  }

  /** Lets the user choose the modes that the model is able to. */
  #allow(): void {
    const model = this.#session.engine?.model;
    const { talk } = this.#threads.chat;
    const able = model?.chat || talk.template === "plain";
    this.#instructions.show(talk, model);
    for (const radio of document.querySelectorAll<HTMLInputElement>("input[name=mode]")) {
      radio.disabled = radio.value === "chat" && !able;
    }
    if (!able && this.#mode === "chat") {
      this.#become("continue");
    }
  }

  /** The conversation as it is now. */
  snapshot(thread: Thread = this.#thread): Talk {
    // Before a model is loaded, there are no entries.
    const model = this.#session.engine?.model.name;
    return model === undefined ? thread.talk : thread.snapshot(model, { ...this.#sampling.options() });
  }

  #keep(thread: Thread): void {
    const { id } = thread.talk;
    if (this.#session.engine && !thread.isEmpty) {
      void hold(id);
      void this.#archive.keep(this.snapshot(thread));
    }
    this.#remember();
  }

  /** Notes what this tab has open. */
  #remember(): void {
    const open: Open = { mode: this.#mode };
    for (const mode of MODES) {
      open[mode] = this.#threads[mode].talk.id;
    }
    rememberHere("open", JSON.stringify(open));
  }

  /** Goes on with another conversation; the one before is kept. */
  async goOn(talk: Talk): Promise<void> {
    // Otherwise what was kept could take the place of this one.
    await this.#restoring;
    if (this.#threads[talk.mode].talk.id === talk.id) {
      this.#become(talk.mode);
      return;
    }
    this.#running?.abort();
    const copied = await this.#take(talk);
    const model = this.#session.engine?.model;
    this.#mode = talk.mode;
    if (!model) {
      void this.#archive.keep(this.#thread.talk);
      this.#keep(this.#thread);
      this.#sayKept();
      this.#notices.news("talk", "The conversation is read", "It goes on when a model is loaded.");
      return;
    }
    this.#threads[talk.mode] = this.#revive(this.#thread.talk);
    this.#allow();
    this.#become(this.#mode);
    if (Object.keys(talk.sampling).length > 0) {
      this.#sampling.apply(talk.sampling);
    }
    void this.#archive.keep(this.#threads[talk.mode].talk);
    if (copied) {
      this.#notices.news("talk", "This is a copy", "The conversation itself is open in another tab.");
    }
  }

  /** Deletes a kept conversation, or all. */
  async forget(id?: string): Promise<void> {
    for (const mode of MODES) {
      if (id === undefined || this.#threads[mode].talk.id === id) {
        this.#running?.abort();
        await this.#ended;
        this.#threads[mode] = Thread.empty(mode);
      }
    }
    await this.#archive.remove(id);
    this.#allow();
    this.#become(this.#mode);
  }

  /** Begins a new conversation. The system text stays. */
  #anew(): void {
    this.#running?.abort();
    const { talk, entries } = this.#thread;
    if (entries.length === 0) {
      void this.#archive.remove(talk.id);
    }
    release(talk.id);
    const { system, template } = talk;
    this.#threads[this.#mode] = new Thread({ ...emptyTalk(this.#mode), system, template });
    this.#become(this.#mode);
    this.#keep(this.#thread);
    this.#prompt.focus();
  }

  #become(mode: Mode): void {
    this.#running?.abort();
    this.#mode = mode;
    for (const radio of document.querySelectorAll<HTMLInputElement>("input[name=mode]")) {
      radio.checked = radio.value === mode;
    }
    find("prompt-label", HTMLElement).textContent = mode === "chat" ? "Message" : "Text to continue";
    this.#placeholder();
    this.#remember();
    this.#room();
    this.#draw();
    const last = this.#thread.last;
    this.#inside.show(last?.kind === "answer" ? last.answer.trace : undefined);
    this.#log.scrollTop = last ? this.#log.scrollHeight : 0;
  }

  /** Fills the log. */
  #draw(): void {
    const { last } = this.#thread;
    this.#log.replaceChildren(...this.#thread.elements());
    if (!last) {
      this.#log.append(examples(this.#mode, this.#session.engine?.model, (text) => this.#ask(text)));
    } else if (last.kind === "question" && !this.#isWriting()) {
      const { text } = last;
      const answer = button("Answer it", () => this.#write(text));
      this.#log.append(el("p", { class: "unanswered" }, "This message has no answer. ", answer));
    }
  }

  #placeholder(): void {
    const later = this.#mode === "chat" && this.#thread.entries.length > 0;
    this.#prompt.placeholder =
      this.#mode === "continue"
        ? "The beginning of a text"
        : later
          ? "Ask about it, or ask for something else"
          : "Write a message";
  }

  #submit(): void {
    const text = this.#mode === "chat" ? this.#prompt.value.trim() : this.#prompt.value;
    if (text.trim() === "") {
      this.#prompt.focus();
      return;
    }
    if (this.#ask(text)) {
      this.#prompt.value = "";
    }
  }

  /** Sends a text to the model. Returns whether that was possible. */
  #ask(text: string): boolean {
    if (this.#isWriting() || !this.#wish || !this.#session.engine) {
      return false;
    }
    if (this.#mode === "chat") {
      this.#thread.question(text);
    }
    this.#write(text);
    return true;
  }

  /** Whether a text is in progress that has not been stopped. */
  #isWriting(): boolean {
    return this.#running !== undefined && !this.#running.signal.aborted;
  }

  /** Generates a text after the entries in the log. `cut` says that an earlier one had too little room. */
  #write(given: string, cut = false): void {
    if (!this.#isWriting()) {
      // A text that was stopped may still be ending.
      this.#ended = this.#ended.then(() => this.#run(given, cut));
    }
  }

  async #run(given: string, cut: boolean): Promise<void> {
    const engine = this.#session.engine;
    if (!engine) {
      return;
    }
    const thread = this.#thread;
    const { context } = engine.model;
    const running = new AbortController();
    this.#running = running;
    this.#busy(true);
    const isChat = thread.mode === "chat";
    const answer = new Answer(engine.model.name, this.#inside, isChat ? undefined : given);
    thread.entries.push({ kind: "answer", answer, given });
    const sampling = this.#sampling.options();
    const seen = thread.from;
    if (isChat) {
      thread.fit(context, sampling.max_tokens, cut);
    }
    this.#draw();
    this.#placeholder();
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#inside.show(answer.trace);
    announce(thread.from > 0 && seen === 0 ? `${LEFT_OUT} The model is writing.` : "The model is writing.");
    this.#keep(thread);
    let kept = performance.now();
    const options: GenerateOptions = {
      ...sampling,
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
      if (performance.now() - kept > KEEP) {
        kept = performance.now();
        this.#keep(thread);
      }
    };
    try {
      let finish: Finish | undefined;
      while (!finish) {
        try {
          finish = isChat
            ? await chat(
                engine.chat(thread.messages(), { ...options, template: thread.talk.template, stream: true }),
                add,
              )
            : await text(engine.generate(given, options), add);
        } catch (thrown) {
          const error = asError(thrown);
          const full = isChat && error.code === "context_length_exceeded";
          if (!full || !thread.shrink(error, context, sampling.max_tokens)) {
            thread.from = full ? seen : thread.from;
            throw error;
          }
          this.#draw();
        }
      }
      const full = thread.finished(finish, context);
      answer.finish(finish, full, this.#actions(thread, answer, given, full));
      if (thread === this.#thread) {
        this.#room();
      }
      announce(answer.text === "" ? "Nothing was written." : `${engine.model.name}: ${answer.text}`);
    } catch (thrown) {
      this.#fail(asError(thrown), thread, answer, given);
    } finally {
      if (this.#running === running) {
        this.#running = undefined;
        this.#busy(false);
      }
      this.#keep(thread);
    }
  }

  #actions(thread: Thread, answer: Answer, given: string, cut = false): AnswerActions {
    return {
      again: () => this.#again(thread, answer, given, cut),
      ...(thread.mode === "continue" ? { goOn: () => this.#write(given + answer.text) } : {}),
    };
  }

  #fail(error: GrokWgpuError, thread: Thread, answer: Answer, given: string): void {
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
  #again(thread: Thread, answer: Answer, given: string, cut = false): void {
    const { last } = thread;
    if (this.#isWriting() || thread !== this.#thread || last?.kind !== "answer" || last.answer !== answer) {
      return;
    }
    thread.entries.pop();
    answer.element.remove();
    this.#write(given, cut);
  }

  #busy(busy: boolean): void {
    this.#send.textContent = busy ? "Stop" : "Send";
    this.#send.classList.toggle("stop", busy);
  }

  /** Shows how much of the context is used. */
  #room(): void {
    const context = this.#session.engine?.model.context ?? 0;
    const { count, counted } = this.#thread.tokens;
    const share = context > 0 ? Math.min(count / context, 1) : 0;
    const meter = find("room-meter", HTMLMeterElement);
    meter.value = share;
    meter.dataset.full = String(share > 0.85);
    find("room-text", HTMLElement).textContent =
      `${counted ? "" : "about "}${whole(count)} of ${whole(context)} tokens`;
    find("room", HTMLElement).title =
      share > 0.85 && this.#mode === "chat"
        ? "The context is nearly full. Soon the model will no longer see the oldest messages."
        : "Tokens of this conversation, and how many the model can hold.";
  }
}

/** What a tab had open, from how it is remembered. */
function opened(json: string | undefined): Open | undefined {
  try {
    return json === undefined ? undefined : (JSON.parse(json) as Open);
  } catch {
    return undefined;
  }
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
