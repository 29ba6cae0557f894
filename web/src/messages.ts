/** What the page and the engine's worker say to each other. */

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
} from "./types.js";

/** A checkpoint, in a form that can be sent to a worker. */
export type SentSource = { url: string } | { files: SentFile[] };

/** A file of a dropped folder and its path in it. */
export interface SentFile {
  path: string;
  file: File;
}

/** Options of loading that are plain data. */
export interface SentLoadOptions {
  context?: number;
  prefill?: number;
  kvCache?: KvCache;
  cache: boolean;
}

/** What a generation starts from. */
export type SentPrompt = { text: string } | { messages: ChatMessage[] };

/** Options of a generation that are plain data. */
export interface SentGenerateOptions extends SamplingOptions {
  max_tokens?: number;
  stop?: string[];
  inside?: boolean;
  top?: number;
}

/** Which rows of the self-test to run. */
export interface SentSelfTestOptions {
  kernel?: string;
  case?: string;
  every?: number;
}

/** What can be asked of a worker. Each call has a number, which its answers carry. */
export type Request =
  | { kind: "load"; source: SentSource; options: SentLoadOptions }
  | { kind: "generate"; prompt: SentPrompt; options: SentGenerateOptions }
  | { kind: "selftest"; options: SentSelfTestOptions }
  | { kind: "loseDevice" }
  | { kind: "dispose" };

/** From the page to the worker. */
export type ToWorker = { call: number; request: Request } | { call: number; abort: true };

/** What a loaded engine is. */
export interface Loaded {
  model: ModelInfo;
  adapter: AdapterInfo;
}

/** News of a call that has not ended. */
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
