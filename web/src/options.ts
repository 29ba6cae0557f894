/**
 * Options of calls, by name. What a call does not know is refused, not passed over: a text that was sampled otherwise
 * than asked looks like any other.
 */

import { GrokWgpuError } from "./errors.js";
import type {
  DefaultOnlyOptions,
  GenerateOptions,
  IgnoredOptions,
  KvCache,
  LoadOptions,
  OwnChatOptions,
  RequestOptions,
  SelfTestOptions,
  StreamOptions,
  Template,
} from "./types.js";

/** What the value of an option must be. */
interface Kind {
  expected: string;
  holds(value: unknown): boolean;
}

/** The kinds of all options of a call. */
export type Kinds<T> = { [K in keyof T]-?: Kind };

/** Options that were given: neither undefined nor null, which mean the default. */
export type Given<T> = { [K in keyof T]?: Exclude<T[K], null | undefined> };

/** An option of other programs that this engine cannot follow. */
interface Refusal {
  /** Whether a value asks for what the engine does anyway. */
  isDefault(value: unknown): boolean;
  why: string;
  hint: string;
}

/** Options of other programs, that this engine has not. */
interface Foreign {
  refused: Record<string, Refusal>;
  ignored: Record<string, true>;
}

/** What is wrong with a call, and what to do. */
export interface Problem {
  message: string;
  hint: string;
}

/** Throws one error for all problems, if there are any. */
export function refuse(problems: Problem[]): void {
  if (problems.length > 0) {
    const hints = new Set(problems.map(({ hint }) => hint));
    throw new GrokWgpuError("usage", problems.map(({ message }) => message).join("; "), [...hints].join(" "));
  }
}

const isNumber = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value);

const number: Kind = { expected: "a number", holds: isNumber };

function integer(least: number, most: number): Kind {
  return {
    expected: `a whole number from ${least} to ${most}`,
    holds: (value) => Number.isInteger(value) && Number(value) >= least && Number(value) <= most,
  };
}

/** Most of a number that the module keeps in 32 bits. */
const MOST = 2 ** 32 - 1;
const whole = integer(0, MOST);
/** Bytes, which the module keeps in 64 bits. */
const bytes = integer(0, Number.MAX_SAFE_INTEGER);
const flag: Kind = { expected: "true or false", holds: (value) => typeof value === "boolean" };
const text: Kind = { expected: "a text", holds: (value) => typeof value === "string" };
const texts: Kind = {
  expected: "a text, or a list of texts",
  holds: (value) => text.holds(value) || (Array.isArray(value) && value.every(text.holds)),
};
const callback: Kind = { expected: "a function", holds: (value) => typeof value === "function" };
const object: Kind = { expected: "an object", holds: (value) => typeof value === "object" && !Array.isArray(value) };
const signal: Kind = {
  expected: "an AbortSignal",
  holds: (value) => typeof (value as { aborted?: unknown }).aborted === "boolean",
};

/** One of some names. */
function oneOf<T extends string>(names: Record<T, true>): Kind {
  const expected = Object.keys(names)
    .map((name) => `"${name}"`)
    .join(", ");
  return { expected: `one of ${expected}`, holds: (value) => text.holds(value) && Object.hasOwn(names, String(value)) };
}

export const GENERATE: Kinds<GenerateOptions> = {
  temperature: number,
  top_k: whole,
  top_p: number,
  min_p: number,
  repetition_penalty: number,
  seed: integer(0, Number.MAX_SAFE_INTEGER),
  max_tokens: whole,
  stop: texts,
  signal,
  inside: flag,
  top: whole,
  template: oneOf<Template>({ "grok-2": true, plain: true }),
  onPrompt: callback,
};

export const CHAT: Kinds<OwnChatOptions> = {
  ...GENERATE,
  model: text,
  max_completion_tokens: whole,
  stream: flag,
  stream_options: object,
};

export const STREAM: Kinds<StreamOptions> = { include_usage: flag };

export const REQUEST: Kinds<RequestOptions> = { signal };

export const LOAD: Kinds<LoadOptions> = {
  onProgress: callback,
  signal,
  context: whole,
  prefill: whole,
  kvCache: oneOf<KvCache>({ f32: true, f16: true, q8: true }),
  allowNonFinite: flag,
  submissionMs: whole,
  deviceMemory: bytes,
  keepCache: flag,
  cache: flag,
  onDevice: callback,
};

export const SELFTEST: Kinds<SelfTestOptions> = {
  kernel: text,
  case: text,
  every: integer(1, MOST),
  signal,
  onRow: callback,
  onModel: callback,
};

const isOneOf = (...values: unknown[]) => ({ isDefault: (value: unknown) => values.includes(value) });
const isEmpty = {
  isDefault: (value: unknown) => typeof value === "object" && value !== null && Object.keys(value).length === 0,
};

const TOOLS = {
  why: "the engine calls no tools",
  hint: "Describe in a system message what the model should write, and read it in the answer.",
};
const PENALTY = {
  why: "the sampler has one penalty, repetition_penalty",
  hint: "Give repetition_penalty, from 1, which is none, to 2.",
};
const LOGPROBS = {
  why: "probabilities do not come in OpenAI's form",
  hint: "With inside: true, each piece has the likeliest tokens and their probabilities in piece.inside.top.",
};
const TEXT_ONLY = { why: "the model reads and writes text only", hint: "Leave it out." };
const NO_SUCH = { why: "the engine has nothing of the kind", hint: "Leave it out." };

/** Options of OpenAI's API, and of WebLLM, that would change the answer. */
const REFUSED: Record<keyof DefaultOnlyOptions, Refusal> = {
  n: {
    ...isOneOf(1),
    why: "the engine writes one answer to a call",
    hint: "Call again, with another seed, for another answer.",
  },
  presence_penalty: { ...isOneOf(0), ...PENALTY },
  frequency_penalty: { ...isOneOf(0), ...PENALTY },
  logit_bias: {
    ...isEmpty,
    why: "the sampler changes no single logits",
    hint: "To end at certain words, give them as stop.",
  },
  logprobs: { ...isOneOf(false), ...LOGPROBS },
  top_logprobs: { ...isOneOf(0), ...LOGPROBS },
  response_format: {
    isDefault: (value) => (value as { type?: unknown } | null)?.type === "text",
    why: "the engine does not constrain what a model writes, so it cannot promise JSON",
    hint: "Ask for JSON in a message, and check the answer as you parse it.",
  },
  tools: { ...isEmpty, ...TOOLS },
  tool_choice: { ...isOneOf("none", "auto"), ...TOOLS },
  parallel_tool_calls: { ...isOneOf(true, false), ...TOOLS },
  functions: { ...isEmpty, ...TOOLS },
  function_call: { ...isOneOf("none", "auto"), ...TOOLS },
  modalities: {
    isDefault: (value) => Array.isArray(value) && value.every((one) => one === "text"),
    ...TEXT_ONLY,
  },
  audio: { ...isOneOf(), ...TEXT_ONLY },
  prediction: { ...isOneOf(), ...NO_SUCH },
  reasoning_effort: { ...isOneOf("none"), ...NO_SUCH },
  verbosity: { ...isOneOf("medium"), ...NO_SUCH },
  web_search_options: { ...isOneOf(), why: "the engine reads no web", hint: "Leave it out." },
};

/** Options of OpenAI's API that are about its service, and do not change an answer. */
const IGNORED: Record<keyof IgnoredOptions, true> = {
  user: true,
  store: true,
  metadata: true,
  safety_identifier: true,
  prompt_cache_key: true,
  service_tier: true,
};

export const OPENAI: Foreign = { refused: REFUSED, ignored: IGNORED };
const NONE: Foreign = { refused: {}, ignored: {} };

/** Names that other programs have for options of this one, without signs and capitals. */
const OTHER_NAMES: Record<string, string> = {
  maxnewtokens: "max_tokens",
  maxlength: "max_tokens",
  maxoutputtokens: "max_tokens",
  npredict: "max_tokens",
  numpredict: "max_tokens",
  repeatpenalty: "repetition_penalty",
  stopsequences: "stop",
  stopstrings: "stop",
  abortsignal: "signal",
  chattemplate: "template",
  initprogresscallback: "onProgress",
  progresscallback: "onProgress",
  contextlength: "context",
  contextsize: "context",
  contextwindowsize: "context",
  nctx: "context",
  numctx: "context",
  maxseqlen: "context",
  prefillchunksize: "prefill",
  usecache: "cache",
  cachetype: "kvCache",
  row: "case",
  usage: "include_usage",
};

const plain = (name: string) => name.toLowerCase().replace(/[^a-z0-9]/g, "");

/** Fewest letters to insert, delete, replace or swap with their neighbour, to make one word of another. */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const [up = 0, left = 0, corner = 0] = [last[j], row[j - 1], last[j - 1]];
      let least = Math.min(up + 1, left + 1, corner + (a[i - 1] === b[j - 1] ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        least = Math.min(least, (before[j - 2] ?? 0) + 1);
      }
      row.push(least);
    }
    before = last;
    last = row;
  }
  return last[b.length] ?? 0;
}

/** The name that was probably meant. */
export function near(name: string, names: string[]): string | undefined {
  // A long name is no slip of a short one, and takes long to compare.
  const word = plain(name).slice(0, 40);
  const other = Object.hasOwn(OTHER_NAMES, word) ? OTHER_NAMES[word] : undefined;
  if (other !== undefined && names.includes(other)) {
    return other;
  }
  const ranked = names.map((known) => ({ known, off: distance(word, plain(known)) })).sort((a, b) => a.off - b.off);
  const best = ranked[0];
  return best && best.off <= Math.max(1, Math.floor(word.length / 4)) ? best.known : undefined;
}

/** A value in a message. */
export function show(value: unknown): string {
  if (typeof value === "string") {
    return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  }
  if (Array.isArray(value)) {
    return "a list";
  }
  if (typeof value === "object" && value !== null) {
    return "an object";
  }
  return typeof value === "function" ? "a function" : String(value);
}

/** The options of a call that were given; refuses, by name, what it has not and what they cannot be. */
export function read<T>(call: string, options: unknown, kinds: Kinds<T>, foreign: Foreign = NONE): Given<T> {
  if (options === undefined || options === null) {
    return {};
  }
  if (typeof options !== "object" || Array.isArray(options)) {
    throw new GrokWgpuError("usage", `the options of ${call} are ${show(options)}, expected an object`);
  }
  const known = kinds as Record<string, Kind>;
  const names = Object.keys(known);
  const list = names.join(", ");
  const correct = `Correct the options of ${call}.`;
  const given: Record<string, unknown> = {};
  const problems: Problem[] = [];
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) {
      continue;
    }
    const kind = Object.hasOwn(known, name) ? known[name] : undefined;
    const refusal = Object.hasOwn(foreign.refused, name) ? foreign.refused[name] : undefined;
    if (kind) {
      if (kind.holds(value)) {
        given[name] = value;
      } else {
        problems.push({ message: `${name} is ${show(value)}, expected ${kind.expected}`, hint: correct });
      }
    } else if (refusal) {
      if (!refusal.isDefault(value)) {
        problems.push({ message: `${name} is not supported: ${refusal.why}`, hint: refusal.hint });
      }
    } else if (!Object.hasOwn(foreign.ignored, name)) {
      const meant = near(name, names);
      const unknown = `${show(name)} is no option of ${call}`;
      problems.push(
        meant
          ? { message: `${unknown}; did you mean ${meant}?`, hint: `The options of ${call} are ${list}.` }
          : { message: `${unknown}, whose options are ${list}`, hint: correct },
      );
    }
  }
  refuse(problems);
  return given as Given<T>;
}
