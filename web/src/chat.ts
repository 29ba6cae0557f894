/** Answers to conversations, as OpenAI's API has them. */

import { GrokWgpuError } from "./errors.js";
import { CHAT, OPENAI, type Problem, REQUEST, read, refuse, STREAM, show } from "./options.js";
import type {
  Chat,
  ChatCompletion,
  ChatCompletionChunk,
  ChatCompletionCreateParams,
  ChatCompletionMessageParam,
  ChatMessage,
  ChatOptions,
  ChatStream,
  CompletionUsage,
  Finish,
  GenerateOptions,
  Generation,
  RequestOptions,
} from "./types.js";

/** Starts an answer. */
type Start = (messages: ChatMessage[], options: GenerateOptions) => Generation;

/** A request that has been checked. */
interface Checked {
  messages: ChatMessage[];
  options: GenerateOptions;
  stream: boolean;
  /** Whether a last chunk has the usage. */
  usage: boolean;
}

interface Head {
  id: string;
  created: number;
  model: string;
}

/** The chat of an engine with a model of this name. */
export function chatOf(model: string, start: Start): Chat {
  const begin = ({ messages, options, stream, usage }: Checked) => {
    const id = `chatcmpl-${crypto.randomUUID?.() ?? Date.now().toString(36)}`;
    const head = { id, created: Math.floor(Date.now() / 1000), model };
    if (!stream) {
      return completion(head, start(messages, options));
    }
    const controller = new AbortController();
    const signal = joined(options.signal, controller.signal);
    const running = start(messages, { ...options, signal });
    return Object.assign(chunks(head, running, controller, usage), { controller });
  };

  const chat = (messages: ChatCompletionMessageParam[], options?: ChatOptions) => {
    try {
      return begin(check("engine.chat", messages, options));
    } catch (error) {
      // Errors come where the result is read.
      return options?.stream ? failed(error) : Promise.reject(error);
    }
  };
  const create = async (request: ChatCompletionCreateParams, more?: RequestOptions) => {
    if (typeof request !== "object" || request === null || Array.isArray(request)) {
      throw new GrokWgpuError("usage", `the request is ${show(request)}, expected an object`, CREATE);
    }
    const { messages, ...options } = request;
    const checked = check("chat.completions.create", messages, options);
    const { signal } = read("chat.completions.create's second argument", more, REQUEST);
    checked.options.signal = joined(checked.options.signal, signal);
    return begin(checked);
  };
  return Object.assign(chat, { completions: { create } }) as Chat;
}

const CREATE = 'Call engine.chat.completions.create({ messages: [{ role: "user", content: "…" }], … }).';
const CALL =
  'Call engine.chat([{ role: "user", content: "…" }], { … }), or engine.chat.completions.create({ messages, … }).';

function joined(...signals: (AbortSignal | undefined)[]): AbortSignal | undefined {
  const there = signals.filter((signal) => signal !== undefined);
  return there.length > 1 ? AbortSignal.any(there) : there[0];
}

/** A stream of a call that makes no sense. */
function failed(error: unknown): ChatStream {
  const next = () => Promise.reject(error);
  return { controller: new AbortController(), [Symbol.asyncIterator]: () => ({ next }) };
}

/** Checks a request: throws an error that names all that is wrong with it. */
function check(call: string, messages: unknown, options: unknown): Checked {
  const { stream, stream_options, max_tokens, max_completion_tokens, model, stop, ...rest } = read(
    call,
    options,
    CHAT,
    OPENAI,
  );
  // `include_obfuscation` pads chunks against listeners on a network, of which there is none.
  const { include_obfuscation: _, ...asked } = (stream_options ?? {}) as Record<string, unknown>;
  const { include_usage = false } = read("stream_options", asked, STREAM);
  if (max_tokens !== undefined && max_completion_tokens !== undefined && max_tokens !== max_completion_tokens) {
    throw new GrokWgpuError(
      "usage",
      `max_tokens is ${max_tokens}, and max_completion_tokens ${max_completion_tokens}: they are the same option`,
      "Give one of the two.",
    );
  }
  return {
    messages: turns(call, messages),
    options: { ...rest, stop, max_tokens: max_completion_tokens ?? max_tokens },
    stream: stream ?? false,
    usage: include_usage,
  };
}

/** Roles of OpenAI's API, as the engine has them. */
const ROLES = new Map<unknown, ChatMessage["role"]>([
  ["system", "system"],
  ["developer", "system"],
  ["user", "user"],
  ["assistant", "assistant"],
]);

/** Fields of a message that would change what the model reads. Others, such as ids of a page, do not reach it. */
const REFUSED_FIELDS = ["tool_calls", "tool_call_id", "function_call", "audio"];

/** The messages as the engine has them. */
function turns(call: string, messages: unknown): ChatMessage[] {
  if (!Array.isArray(messages)) {
    const create = call === "engine.chat" ? CALL : CREATE;
    throw new GrokWgpuError("usage", `messages is ${show(messages)}, expected a list of messages`, create);
  }
  const problems: Problem[] = [];
  const found = messages.map((message: unknown, i): ChatMessage => {
    const at = `messages[${i}]`;
    if (typeof message !== "object" || message === null) {
      problems.push({ message: `${at} is ${show(message)}, expected an object with role and content`, hint: CREATE });
      return { role: "user", content: "" };
    }
    const { role, content, ...others } = message as Record<string, unknown>;
    const known = ROLES.get(role);
    if (!known) {
      const tools = role === "tool" || role === "function" ? ", and the engine calls no tools" : "";
      problems.push({
        message: `${at}.role is ${show(role)}, expected system, developer (the same), user or assistant${tools}`,
        hint: "Correct the role.",
      });
    }
    for (const field of REFUSED_FIELDS) {
      const value = others[field];
      if (value !== undefined && value !== null && !(Array.isArray(value) && value.length === 0)) {
        problems.push({
          message: `${at}.${field} is not supported: the model reads text only, and the engine calls no tools`,
          hint: "Write what the model should know of it into content.",
        });
      }
    }
    return { role: known ?? "user", content: contentOf(at, content, problems) };
  });
  refuse(problems);
  return found;
}

/** The text of a message. Parts are joined with nothing between. */
function contentOf(at: string, content: unknown, problems: Problem[]): string {
  const hint = 'A content is a text, or a list of parts { type: "text", text: "…" }.';
  if (typeof content === "string") {
    return content;
  }
  if (!Array.isArray(content)) {
    problems.push({ message: `${at}.content is ${show(content)}, expected a text or a list of parts`, hint });
    return "";
  }
  const parts = content.map((part: unknown, i) => {
    const { type, text } = (part ?? {}) as { type?: unknown; text?: unknown };
    if (type === "text" && typeof text === "string") {
      return text;
    }
    const message =
      type === "text"
        ? `${at}.content[${i}].text is ${show(text)}, expected a text`
        : `${at}.content[${i}] has the type ${show(type)}, but the model reads text only`;
    problems.push({ message, hint });
    return "";
  });
  return parts.join("");
}

/** OpenAI's names of reasons, and `abort`, WebLLM's name for an answer that its caller stopped. */
function reasonOf({ reason }: Finish): "stop" | "length" | "abort" {
  return reason === "interrupted" ? "abort" : reason;
}

function usageOf({ promptTokens, reusedTokens, completionTokens }: Finish): CompletionUsage {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: reusedTokens },
  };
}

async function completion(head: Head, running: Generation): Promise<ChatCompletion> {
  const finish = await running.finish;
  const message = { role: "assistant", content: finish.text, refusal: null } as const;
  return {
    ...head,
    object: "chat.completion",
    choices: [{ index: 0, message, logprobs: null, finish_reason: reasonOf(finish) }],
    usage: usageOf(finish),
    finish,
  };
}

async function* chunks(
  head: Head,
  running: Generation,
  stop: AbortController,
  withUsage: boolean,
): AsyncGenerator<ChatCompletionChunk> {
  const chunk = (
    delta: ChatCompletionChunk["choices"][number]["delta"],
    finish_reason: "stop" | "length" | "abort" | null = null,
  ): ChatCompletionChunk => ({
    ...head,
    object: "chat.completion.chunk",
    choices: [{ index: 0, delta, logprobs: null, finish_reason }],
    ...(withUsage && { usage: null }),
  });
  let ended = false;
  try {
    yield chunk({ role: "assistant", content: "" });
    for await (const piece of running) {
      yield { ...chunk({ content: piece.text }), piece };
    }
    ended = true;
    const finish = await running.finish;
    yield { ...chunk({}, reasonOf(finish)), finish };
    if (withUsage) {
      yield { ...head, object: "chat.completion.chunk", choices: [], usage: usageOf(finish) };
    }
  } finally {
    // The loop over pieces stops the generation only if it was reached.
    if (!ended) {
      stop.abort();
    }
  }
}
