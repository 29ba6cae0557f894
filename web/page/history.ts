/** The dialog with the kept conversations, and conversations from and to files. */

import { GrokWgpuError } from "grok-wgpu";
import { type Archive, type Head, MOST } from "./archive.js";
import type { Chat } from "./chat.js";
import { announce, button, el, find } from "./dom.js";
import { bytes, whole } from "./format.js";
import type { Notices } from "./notices.js";
import { save } from "./report.js";
import { fileName, fromJson, type Talk, toJson, toMarkdown } from "./talk.js";

/** The largest file that is read as a conversation, in bytes. The terminal has the same limit. */
const LARGEST = 64 << 20;

/** Whether the files are one that may hold a conversation. No single JSON file is a model. */
export function isConversation(files: File[]): boolean {
  const [file] = files;
  return files.length === 1 && !!file && /\.json$/i.test(file.name) && !file.webkitRelativePath.includes("/");
}

/** The dialog. */
export class History {
  readonly #chat: Chat;
  readonly #archive: Archive;
  readonly #notices: Notices;
  readonly #dialog = find("history", HTMLDialogElement);
  readonly #list = find("history-list", HTMLElement);

  constructor(chat: Chat, archive: Archive, notices: Notices) {
    this.#chat = chat;
    this.#archive = archive;
    this.#notices = notices;
    const on = (id: string, act: () => void) => find(id, HTMLElement).addEventListener("click", act);
    const file = find("talk-file", HTMLInputElement);
    on("open-history", () => void this.#open());
    on("close-history", () => this.#dialog.close());
    on("read-talk", () => file.click());
    file.addEventListener("change", () => {
      const [chosen] = file.files ?? [];
      if (chosen) {
        void this.read(chosen);
      }
      file.value = "";
    });
    on("save-json", () => this.#save("json", "application/json", toJson));
    on("save-text", () => this.#save("md", "text/markdown", toMarkdown));
    twice(find("forget-all", HTMLButtonElement), () => this.#forget());
    this.#dialog.addEventListener("click", (event) => {
      // The dialog's own area is filled by its content, so this is the ground behind it.
      if (event.target === this.#dialog) {
        this.#dialog.close();
      }
    });
  }

  /** Reads a conversation from a file, and goes on with it. */
  async read(file: File): Promise<void> {
    this.#dialog.close();
    let talk: Talk;
    try {
      if (file.size > LARGEST) {
        throw new Error(`it has ${bytes(file.size)}, and a conversation at most ${bytes(LARGEST)}`);
      }
      talk = fromJson(await file.text());
    } catch (thrown) {
      const what = thrown instanceof Error ? thrown.message : String(thrown);
      const hint =
        "Choose a file that this page saved as JSON, or that the terminal's /save wrote. " +
        "To load a model, choose or drop its whole folder. The model and the conversation here are as they were.";
      this.#notices.error(new GrokWgpuError("usage", `${file.name}: ${what}`, hint), [], "This is no conversation");
      return;
    }
    this.#notices.clear();
    await this.#chat.goOn(talk);
    announce(`${file.name} is opened, with ${whole(talk.turns.length)} messages.`);
  }

  #save(extension: string, type: string, write: (talk: Talk) => string): void {
    const talk = this.#chat.snapshot();
    save(fileName(talk, extension), type, write(talk));
  }

  async #open(): Promise<void> {
    const now = this.#chat.snapshot();
    for (const id of ["save-json", "save-text"]) {
      find(id, HTMLButtonElement).disabled = now.turns.length === 0;
    }
    await this.#draw();
    this.#dialog.showModal();
  }

  async #draw(): Promise<void> {
    const now = this.#chat.snapshot();
    const heads = (await this.#archive.list()).filter(({ messages }) => messages > 0);
    this.#list.replaceChildren(...heads.map((head) => this.#row(head, head.id === now.id)));
    find("history-empty", HTMLElement).hidden = heads.length > 0;
    find("forget-all", HTMLElement).hidden = heads.length === 0;
    find("history-limit", HTMLElement).textContent =
      `Kept in this browser and nowhere else: the latest ${MOST}, up to 10 million characters.`;
  }

  #row(head: Head, isNow: boolean): HTMLElement {
    const when = new Date(head.changed).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
    const count = `${whole(head.messages)} ${head.messages === 1 ? "message" : "messages"}`;
    const about = [head.model, count, when].filter(Boolean).join(" · ");
    const forget = button("Delete", () => {}, { class: "quiet", "aria-label": `Delete: ${head.title}` });
    twice(forget, () => this.#forget(head.id));
    const open = button("", () => void this.#goOn(head.id), { class: "history-open", "aria-current": isNow });
    open.append(el("strong", {}, head.title), el("small", {}, isNow ? `Open now · ${about}` : about));
    return el("li", {}, open, forget);
  }

  async #goOn(id: string): Promise<void> {
    this.#dialog.close();
    const talk = await this.#archive.get(id);
    if (talk) {
      await this.#chat.goOn(talk);
    }
  }

  async #forget(id?: string): Promise<void> {
    await this.#chat.forget(id);
    announce(id === undefined ? "All conversations are deleted." : "The conversation is deleted.");
    await this.#draw();
    find("close-history", HTMLElement).focus();
  }
}

/** A button that acts when it is pressed a second time. */
function twice(pressed: HTMLButtonElement, act: () => Promise<void>): void {
  const { textContent: text, ariaLabel: label } = pressed;
  const rest = () => {
    pressed.classList.remove("sure");
    pressed.textContent = text;
    pressed.ariaLabel = label;
  };
  pressed.addEventListener("blur", rest);
  pressed.addEventListener("click", () => {
    if (pressed.classList.contains("sure")) {
      rest();
      void act();
    } else {
      pressed.classList.add("sure");
      pressed.textContent = "Delete?";
      pressed.ariaLabel = `${label ?? text}? Press again to delete`;
      // Safari does not focus buttons that are clicked.
      pressed.focus();
    }
  });
}
