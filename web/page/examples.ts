/** What an empty conversation offers to begin with. */

import type { ModelInfo } from "grok-wgpu";
import { button, el } from "./dom.js";
import type { Mode } from "./talk.js";

/** For the demo model, which knows only the world of its stories. */
const DEMO: Record<Mode, string[]> = {
  chat: [
    "Tell me a story about a fox who lost her hat.",
    "Tell me a story about a brave knight and a dragon.",
    "Can you tell me a story about a penguin who wants to learn to sing?",
    "Tell me a story about a robot and a red kite.",
  ],
  continue: ["Once upon a time", "Lily was a brave mouse", "One day", "In the forest"],
};

const OTHERS: Record<Mode, string[]> = {
  chat: ["Tell me a short story.", "What is a mixture of experts?", "Why is the sky blue?"],
  continue: ["Once upon a time", "The first rule of", "Dear reader,"],
};

/** Whether this is the demo model or a copy of it in another format: nothing else has such a vocabulary and size. */
export function isDemo({ config, parameters }: ModelInfo): boolean {
  return config.vocab_size === 2560 && parameters > 5e6 && parameters < 2e7;
}

/** The examples for this model. `ask` sends one. */
export function examples(mode: Mode, model: ModelInfo | undefined, ask: (text: string) => void): HTMLElement {
  const demo = model !== undefined && isDemo(model);
  const texts = (demo ? DEMO : OTHERS)[mode];
  const title = mode === "continue" ? "Begin a text" : demo ? "Ask for a story" : "Say something";
  const about = demo
    ? "This small model was trained on stories only. It knows about 2,000 words, and nothing of the world. " +
      "When it has told one, ask about it."
    : "What you write goes to your own graphics adapter, and nowhere else.";
  return el(
    "div",
    { class: "examples" },
    el("h2", {}, title),
    el("p", { class: "lead" }, about),
    el("div", { class: "example-list" }, ...texts.map((text) => button(text, () => ask(text), { class: "example" }))),
  );
}
