/** Messages between the page and the engine's worker. */

import type { PlainError } from "./errors.js";
import type {
  AdapterInfo,
  ChatMessage,
  DeviceEvent,
  KvCache,
  LoadProgress,
  ModelInfo,
  Piece,
  SamplingOptions,
  SelfTestModel,
  SelfTestRow,
  Template,
} from "./types.js";

/** A model source that `postMessage` can clone. */
export type SentSource = { url: string } | { files: SentFile[] };

/** A file and its path in the dropped folder. */
export interface SentFile {
  path: string;
  file: File | OnDisk;
}

/** A file that the worker reads from the disk. */
export interface OnDisk {
  disk: string;
  size: number;
}

/** Load options that `postMessage` can clone. */
export interface SentLoadOptions {
  context?: number;
  prefill?: number;
  kvCache?: KvCache;
  allowNonFinite?: boolean;
  submissionMs?: number;
  deviceMemory?: number;
  keepCache?: boolean;
  cache: boolean;
}

/** The prompt of a generation. */
export type SentPrompt = { text: string } | { messages: ChatMessage[] };

/** Generation options that `postMessage` can clone. */
export interface SentGenerateOptions extends SamplingOptions {
  max_tokens?: number;
  stop?: string[];
  inside?: boolean;
  top?: number;
  template?: Template;
}

/** Options that select rows of the self-test. */
export interface SentSelfTestOptions {
  kernel?: string;
  case?: string;
  every?: number;
}

/** Requests to the worker. Each call has a number, which its answers repeat. */
export type Request =
  | { kind: "load"; source: SentSource; options: SentLoadOptions }
  | { kind: "generate"; prompt: SentPrompt; options: SentGenerateOptions }
  | { kind: "selftest"; options: SentSelfTestOptions }
  | { kind: "loseDevice" }
  | { kind: "dispose" };

/** From the page to the worker. */
export type ToWorker = { call: number; request: Request } | { call: number; abort: true };

/** The result of loading. */
export interface Loaded {
  model: ModelInfo;
  adapter: AdapterInfo;
}

/** News of a call in progress. */
export type News =
  | { kind: "progress"; progress: LoadProgress }
  | { kind: "prompt"; done: number; total: number }
  | { kind: "piece"; piece: Piece }
  | { kind: "row"; row: SelfTestRow; done: number; total: number }
  | { kind: "model"; model: SelfTestModel };

/** From the worker to the page. */
export type FromWorker =
  | { call: number; news: News }
  | { call: number; result: unknown }
  | { call: number; error: PlainError }
  | { device: DeviceEvent; adapter?: AdapterInfo };
