/** A conversation as it is kept, saved and read, and what of it the model sees when the context is full. */

import type { ChatMessage, Template } from "grok-wgpu";

export type Mode = "chat" | "continue";

/** A text of the user or the model. In the mode "continue", each text of the model follows the one it continues. */
export interface Turn {
  role: "user" | "assistant";
  content: string;
  /** Of a text of the model: its model, its statistics, and the tokens up to its end. */
  model?: string | undefined;
  figures?: string | undefined;
  tokens?: number | undefined;
}

/** Everything of a conversation that outlives the page. */
export interface Talk {
  id: string;
  mode: Mode;
  /** Instructions for the whole conversation; empty for none. */
  system: string;
  /** How it is written for the model; undefined is as the model says. */
  template: Template | undefined;
  turns: Turn[];
  /** The first of the turns that the model sees. */
  from: number;
  sampling: Record<string, unknown>;
  /** Name of the latest model. */
  model: string;
  /** Milliseconds since 1970 of the last change. */
  changed: number;
}

export const TEMPLATES: Template[] = ["grok-2", "plain"];

/** A new conversation. */
export function emptyTalk(mode: Mode): Talk {
  return {
    id: crypto.randomUUID(),
    mode,
    system: "",
    template: undefined,
    turns: [],
    from: 0,
    sampling: {},
    model: "",
    changed: Date.now(),
  };
}

/** What a list of conversations calls this one. */
export function titleOf({ turns, system }: Talk): string {
  const text = (turns.find(({ role }) => role === "user") ?? turns[0])?.content ?? system;
  const line = text.trim().split("\n", 1)[0] ?? "";
  return line.length > 80 ? `${line.slice(0, 79)}…` : line || "Without words";
}

/** The name of a file for a conversation. */
export function fileName({ changed }: Talk, extension: string): string {
  return `grok-wgpu-chat-${new Date(changed).toISOString().slice(0, 16).replace(/[T:]/g, "-")}.${extension}`;
}

/**
 * The conversation as JSON: `{"messages": [{"role": …, "content": …}]}` with the system text first, which the terminal's
 * `/load` reads too. That ignores the other fields.
 */
export function toJson({ mode, system, template, turns, sampling, model }: Talk): string {
  const messages: ChatMessage[] = turns.map(({ role, content }) => ({ role, content }));
  if (system !== "") {
    messages.unshift({ role: "system", content: system });
  }
  return `${JSON.stringify({ messages, model, mode, template, sampling }, undefined, 2)}\n`;
}

/** The conversation as text for people. */
export function toMarkdown(talk: Talk): string {
  const { mode, system, turns, model, changed } = talk;
  const parts = [
    `# ${titleOf(talk)}`,
    [model, new Date(changed).toISOString().slice(0, 10)].filter(Boolean).join(", "),
  ];
  if (system !== "") {
    parts.push("## System", system);
  }
  turns.forEach((turn, i) => {
    if (mode === "chat") {
      parts.push(`## ${turn.role === "user" ? "You" : turn.model || model || "The model"}`, turn.content);
    } else if (turn.role === "assistant") {
      parts.push("---", `${turns[i - 1]?.content ?? ""}${turn.content}`);
    }
  });
  return `${parts.join("\n\n")}\n`;
}

/** The conversation in a file that the page or the terminal saved. Throws an `Error` that says what is wrong. */
export function fromJson(text: string): Talk {
  const object = fields(parse(text));
  const messages = object?.messages;
  if (!object || !Array.isArray(messages)) {
    const part = ["architectures", "weight_map", "files", "regular_tokens"].some((name) => object && name in object);
    throw new Error(
      part
        ? "this is a file of a model, not a conversation"
        : 'there is no list `messages`, expected {"messages": [{"role": …, "content": …}]}',
    );
  }
  const talk = emptyTalk(object.mode === "continue" ? "continue" : "chat");
  messages.forEach((item: unknown, i) => {
    const message = fields(item);
    if (!message) {
      throw new Error(`messages[${i}]: it is no object`);
    }
    const { role, content } = message;
    if (role !== "system" && role !== "user" && role !== "assistant") {
      const got = role === undefined ? "missing" : quoted(role);
      throw new Error(`messages[${i}]: \`role\` is ${got}, expected system, user or assistant`);
    }
    if (typeof content !== "string") {
      const got = content === undefined ? "missing" : quoted(content);
      throw new Error(`messages[${i}]: \`content\` is ${got}, expected a text`);
    }
    if (role !== "system") {
      talk.turns.push({ role, content });
    } else if (i === 0) {
      talk.system = content;
    } else {
      throw new Error(`messages[${i}]: only the first message has role system`);
    }
  });
  talk.template = TEMPLATES.find((name) => name === object.template);
  talk.sampling = fields(object.sampling) ?? {};
  talk.model = typeof object.model === "string" ? object.model : "";
  return talk;
}

function parse(text: string): unknown {
  try {
    // Editors on Windows begin files with a byte order mark.
    return JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch (thrown) {
    throw new Error(`it is no JSON: ${thrown instanceof Error ? thrown.message : thrown}`);
  }
}

function fields(value: unknown): Record<string, unknown> | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined;
}

function quoted(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}

/** The size of a conversation for the model, in tokens. */
export interface Sizes {
  /** Positions of the context. */
  context: number;
  /** What should be free for an answer, and what must be. */
  wanted: number;
  least: number;
  /** What the model sees with the turns from this one on. */
  from(start: number): number;
}

/** Tokens for an answer of at most `most` tokens. An answer that was cut short at the end of the context gets more. */
export function roomForAnswer(context: number, most: number, cut: boolean): Pick<Sizes, "wanted" | "least"> {
  const wanted = Math.min(most, Math.floor(context / 4));
  return { wanted, least: cut ? wanted : Math.min(most, Math.floor(context / 16)) };
}

/**
 * The first turn that the model is to see. `starts` are where exchanges begin, from the one on that it sees now. The
 * oldest are left out whole: as many as must be, and then more, but not the exchange before the last, until an eighth of
 * the context is free. Otherwise each message would have all of the context processed anew. This is the rule of the
 * engine's `Talk`, except that this one makes room for an answer before it begins: an answer ends with its context. The
 * last exchange always stays.
 */
export function leaveOut(starts: number[], { context, wanted, least, from }: Sizes): number {
  const last = starts.length - 1;
  const first = (free: number) => {
    const found = starts.findIndex((start) => from(start) + free < context);
    return found < 0 ? last : found;
  };
  const spare = first(wanted) === 0 ? 0 : Math.min(first(wanted + context / 8), last - 1);
  return starts[Math.max(first(least), spare, 0)] ?? 0;
}

/** Characters that the labels and ends of a turn count for. */
const LABELS = 12;

/** The length of messages in characters, to be multiplied with tokens per character. */
export function lengthOf(messages: { content: string }[]): number {
  return messages.reduce((sum, { content }) => sum + content.length + LABELS, 0);
}
