/** What the package's users see: options, results and events, without any code. */

/** Where a checkpoint is: the address of its folder or manifest, or its files. */
export type ModelSource = string | URL | Iterable<File>;

/** How far loading is. */
export interface LoadProgress {
  /** What is being done: files fetched or found in the cache, the module compiled, weights sent to the device. */
  phase: "engine" | "files" | "weights" | "pipelines";
  /** Bytes (or pipelines) done. */
  done: number;
  /** All of them; 0 if not known. */
  total: number;
  /** Bytes of `done` that came from the cache of an earlier visit. */
  cached: number;
}

/** Element types of the key-value cache. */
export type KvCache = "f32" | "f16" | "q8";

/** Options of `GrokWgpu.load`. */
export interface LoadOptions {
  onProgress?: (progress: LoadProgress) => void;
  signal?: AbortSignal;
  /** Positions of the key-value cache; the model's own, at most 4096, unless given. */
  context?: number;
  /** Rows of a prefill chunk; 128 unless given. */
  prefill?: number;
  /** Element type of the key-value cache: `"f32"`, or half or a quarter of its memory with `"f16"` or `"q8"`. */
  kvCache?: KvCache;
  /** Keep fetched files in this origin's private file system; on unless `false`. */
  cache?: boolean;
  /** Told when the device was lost and when the engine is whole again. */
  onDevice?: (event: DeviceEvent) => void;
}

/** What happened to the device. */
export interface DeviceEvent {
  kind: "lost" | "rebuilding" | "restored" | "failed";
  message: string;
}

/** The adapter that runs the model. */
export interface AdapterInfo {
  vendor: string;
  architecture: string;
  device: string;
  description: string;
  /** One line for people. */
  summary: string;
  /** Limits the engine's device was made with, by their WebGPU names. */
  limits: Record<string, number>;
  features: string[];
}

/** The model that is loaded. */
export interface ModelInfo {
  name: string;
  parameters: number;
  bytes: number;
  context: number;
  chat: boolean;
  /** Oddities of the files that do not stand in the way. */
  warnings: string[];
  /** Fields of `config.json`, by Hugging Face's names. */
  config: {
    vocab_size: number;
    hidden_size: number;
    num_hidden_layers: number;
    num_attention_heads: number;
    num_key_value_heads: number;
    head_dim: number;
    num_local_experts: number;
    num_experts_per_tok: number;
    rope_theta: number;
    scaling_factor: number;
    attn_temperature_len: number;
    attn_logit_softcapping: number;
    router_logit_softcapping: number;
    final_logit_softcapping: number;
    residual_moe: boolean;
    max_position_embeddings: number;
  };
}

/** How tokens are chosen. */
export interface SamplingOptions {
  /** 0 takes the likeliest token. */
  temperature?: number;
  top_k?: number;
  top_p?: number;
  min_p?: number;
  repetition_penalty?: number;
  seed?: number;
}

/** Options of `engine.generate`. */
export interface GenerateOptions extends SamplingOptions {
  max_tokens?: number;
  /** Texts that end the generation; they are not part of it. */
  stop?: string[];
  signal?: AbortSignal;
  /** Report the experts, the likeliest tokens and the attention temperature of each token. */
  inside?: boolean;
  /** How many of the likeliest tokens to report; 8 unless given. */
  top?: number;
  /** Told how much of the prompt has gone through the model. */
  onPrompt?: (done: number, total: number) => void;
}

/** A token that was likely at some place. */
export interface Likely {
  id: number;
  text: string;
  /** Probability before any sampling rule. */
  probability: number;
  /** Its logit after the soft cap. */
  logit: number;
}

/** One layer's choice of experts for a token. */
export interface Route {
  experts: number[];
  /** Router probabilities, as they are used. */
  probabilities: number[];
}

/** What went on inside while a token was made. */
export interface Inside {
  /** Position of the token that was read to make this one. */
  position: number;
  /** Factor on the attention logits at this position. */
  attentionTemperature: number;
  /** One entry a layer. */
  routes: Route[];
  top: Likely[];
}

/** A token of generated text. */
export interface Piece {
  /** Id of the token; -1 for text that was held back until the end. */
  id: number;
  /** The text it completes: empty inside a character. */
  text: string;
  inside?: Inside;
}

/** What a generation ended with. */
export interface Finish {
  reason: "stop" | "length" | "interrupted";
  text: string;
  promptTokens: number;
  /** Tokens of the prompt that were in the key-value cache. */
  reusedTokens: number;
  completionTokens: number;
  /** Milliseconds from the call to the first token. */
  timeToFirstToken: number;
  /** Milliseconds of the whole call. */
  time: number;
  /** Tokens a second after the first. */
  tokensPerSecond: number;
}

/** A generation: iterate over its pieces; `finish` settles when they have ended. */
export interface Generation extends AsyncIterable<Piece> {
  readonly finish: Promise<Finish>;
}

/** A message of a conversation. */
export interface ChatMessage {
  role: "system" | "user" | "assistant";
  content: string;
}

/** Options of `engine.chat`, in the shape of OpenAI's API. */
export interface ChatOptions extends GenerateOptions {
  stream?: boolean;
}

/** A whole answer. */
export interface ChatCompletion {
  id: string;
  object: "chat.completion";
  created: number;
  model: string;
  choices: { index: 0; message: ChatMessage; finish_reason: "stop" | "length" }[];
  usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number };
  finish: Finish;
}

/** A part of a streamed answer. */
export interface ChatCompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  choices: { index: 0; delta: Partial<ChatMessage>; finish_reason: "stop" | "length" | null }[];
  /** What is beyond OpenAI's shape: the piece itself, and on the last chunk the figures. */
  piece?: Piece;
  finish?: Finish;
}

/** Options of `selftest`. */
export interface SelfTestOptions {
  /** Only this kernel. */
  kernel?: string;
  /** Only rows whose `kernel/case` contains this text; capitals do not matter. */
  case?: string;
  /** Every how-manieth row; 1 runs all. */
  every?: number;
  signal?: AbortSignal;
  onRow?: (row: SelfTestRow, done: number, total: number) => void;
  /** Small models follow the rows, unless only some kernel or rows are meant. */
  onModel?: (model: SelfTestModel) => void;
}

/** One row of the table of kernels, run on this device. */
export interface SelfTestRow {
  kernel: string;
  case: string;
  /** How work was divided. */
  tuning: string;
  elements: number;
  /** Largest error as a fraction of what is allowed; `null` if it was not finite. */
  worst: number | null;
  exact: boolean;
  failure?: string;
}

/** A whole model, run on this device against logits of an independent program. */
export interface SelfTestModel {
  name: string;
  /** Largest difference of a logit; `null` if it was not finite. */
  worst: number | null;
  /** Largest difference that passes. */
  most: number;
  failure: string | null;
}

/** A file of WGSL that rows which failed have in common. */
export interface SelfTestSuspect {
  /** Its path in the engine's repository. */
  file: string;
  /** Rows that link it and failed. */
  failed: number;
  /** Rows that link it. */
  rows: number;
}

/** Result of `selftest`. */
export interface SelfTestReport {
  engine: string;
  adapter: AdapterInfo;
  userAgent: string;
  date: string;
  /** Rows and models. */
  passed: number;
  failed: number;
  milliseconds: number;
  rows: SelfTestRow[];
  models: SelfTestModel[];
  /** Why the test ended before it had run everything; `null` if it did not. */
  unfinished: string | null;
  /** Files by how well they explain what failed. */
  suspects: SelfTestSuspect[];
  /** All of this as one page that needs nothing else, to attach to a message. */
  html: string;
}

/** Stable names of what can go wrong. */
export type ErrorCode =
  | "no_webgpu"
  | "no_adapter"
  | "device_lost"
  | "out_of_memory"
  | "quota_exceeded"
  | "network"
  | "checksum"
  | "checkpoint"
  | "tokenizer"
  | "context_length_exceeded"
  | "usage"
  | "aborted"
  | "disposed"
  | "internal";
