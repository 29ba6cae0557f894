/** The public types of the package: options, results and events. */

/** Where a checkpoint is: the address of its folder or manifest, or its files. */
export type ModelSource = string | URL | Iterable<File>;

/** Progress of loading. */
export interface LoadProgress {
  /**
   * Starting the engine, fetching files or finding them in the cache, uploading weights, compiling the pipelines that a
   * prompt and its first token need. The others follow while the engine is idle, or when a text needs them.
   */
  phase: "engine" | "files" | "weights" | "pipelines";
  /** Bytes (or pipelines) done. */
  done: number;
  /** The total; 0 if unknown. */
  total: number;
  /** Bytes of `done` that were in the cache. */
  cached: number;
}

/** Element types of the key-value cache. */
export type KvCache = "f32" | "f16" | "q8";

/** Options of `GrokWgpu.load`. */
export interface LoadOptions {
  onProgress?: (progress: LoadProgress) => void;
  signal?: AbortSignal;
  /** Positions of the key-value cache. Default: the model's own, at most 4096. */
  context?: number;
  /** Rows of a prefill chunk. Default: 128. */
  prefill?: number;
  /** Element type of the key-value cache. `"f16"` takes half of the memory of `"f32"`, `"q8"` about a quarter. */
  kvCache?: KvCache;
  /** Take weights that are NaN or infinite, which are refused otherwise. Default: false. */
  allowNonFinite?: boolean;
  /** Longest time that the adapter should work at once, in milliseconds; 0 for no limit. Default: 1000. */
  submissionMs?: number;
  /** Cache downloaded files in the origin private file system. Default: true. */
  cache?: boolean;
  /** Called when the device was lost, and about its recovery. */
  onDevice?: (event: DeviceEvent) => void;
}

/** A change of the device. */
export interface DeviceEvent {
  kind: "lost" | "rebuilding" | "restored" | "failed";
  message: string;
}

/** The adapter that runs the model. */
export interface AdapterInfo {
  vendor: string;
  architecture: string;
  device: string;
  /** Its name, or of what kind it is; `"unnamed adapter"` where the host tells neither, as Firefox does not. */
  description: string;
  /** A one-line description. */
  summary: string;
  /** Whether the CPU does its work, as far as the host or its name tells. */
  software: boolean;
  /** What its user should know of the adapter. */
  note?: string;
  /** Limits of the engine's device, by their WebGPU names. */
  limits: Record<string, number>;
  features: string[];
}

/** The loaded model. */
export interface ModelInfo {
  name: string;
  parameters: number;
  bytes: number;
  context: number;
  chat: boolean;
  /** How conversations are written where `chat` is not told. */
  template: Template;
  /** Oddities of the files that do not prevent loading. */
  warnings: string[];
  /** How tokens are sampled where `generate` is not told: the usual, or as the model's `generation_config.json` says. */
  sampling: Required<Omit<SamplingOptions, "seed">>;
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

/** Ways to write a conversation for a model; `"plain"` writes the messages as they are. */
export type Template = "grok-2" | "plain";

/** Sampling parameters. */
export interface SamplingOptions {
  /** 0 means greedy decoding. */
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
  /** Stop texts: they end the generation and are not part of the result. */
  stop?: string[];
  signal?: AbortSignal;
  /** Report the experts, the likeliest tokens and the attention temperature for each token. */
  inside?: boolean;
  /** The number of likeliest tokens to report. Default: 8. */
  top?: number;
  /** How a conversation is written for the model. Default: as its files say, or as Grok-2's. */
  template?: Template;
  /** Called with the number of prompt tokens that have been processed. */
  onPrompt?: (done: number, total: number) => void;
}

/** A candidate for the next token. */
export interface Likely {
  id: number;
  text: string;
  /** Probability before sampling parameters apply. */
  probability: number;
  /** Logit after the soft cap. */
  logit: number;
}

/** A layer's choice of experts for a token. */
export interface Route {
  experts: number[];
  /** Router probabilities of these experts, as they are used. */
  probabilities: number[];
}

/** Internals of the model for one generated token. */
export interface Inside {
  /** Position of the input token, whose logits gave this one. */
  position: number;
  /** Factor on attention logits at this position. */
  attentionTemperature: number;
  /** One entry for each layer. */
  routes: Route[];
  top: Likely[];
}

/** A token of generated text. */
export interface Piece {
  /** Token id; -1 for text that was held back until the end. */
  id: number;
  /** The text that the token completes; empty if it ends inside of a character. */
  text: string;
  inside?: Inside;
}

/** The result of a generation. */
export interface Finish {
  reason: "stop" | "length" | "interrupted";
  text: string;
  promptTokens: number;
  /** Prompt tokens that were in the key-value cache already. */
  reusedTokens: number;
  completionTokens: number;
  /** Milliseconds from the call to the first token. */
  timeToFirstToken: number;
  /** Milliseconds from the call to its end. */
  time: number;
  /** Generated tokens per second, counted after the first. */
  tokensPerSecond: number;
}

/** A generation: iterate over its pieces; `finish` settles at the end. */
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

/** A complete answer. */
export interface ChatCompletion {
  id: string;
  object: "chat.completion";
  created: number;
  model: string;
  choices: { index: 0; message: ChatMessage; finish_reason: "stop" | "length" }[];
  usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number };
  finish: Finish;
}

/** A chunk of a streamed answer. */
export interface ChatCompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  choices: { index: 0; delta: Partial<ChatMessage>; finish_reason: "stop" | "length" | null }[];
  /** Extensions to OpenAI's shape: the piece, and on the last chunk the result. */
  piece?: Piece;
  finish?: Finish;
}

/** Options of `selftest`. */
export interface SelfTestOptions {
  /** Only this kernel. */
  kernel?: string;
  /** Only rows whose `kernel/case` contains this text, ignoring case. */
  case?: string;
  /** Run only every n-th row. Default: 1, which runs all. */
  every?: number;
  signal?: AbortSignal;
  onRow?: (row: SelfTestRow, done: number, total: number) => void;
  /** Called for each small model; these run after the rows unless `kernel` or `case` is given. */
  onModel?: (model: SelfTestModel) => void;
}

/** The result for one row of the kernel table. */
export interface SelfTestRow {
  kernel: string;
  case: string;
  /** The tuning: how the kernel's work was divided. */
  tuning: string;
  elements: number;
  /** Largest error as a fraction of its bound; `null` if it was not finite. */
  worst: number | null;
  exact: boolean;
  failure?: string;
}

/** The result for a model, against golden logits of an independent program. */
export interface SelfTestModel {
  name: string;
  /** Largest difference of a logit; `null` if it was not finite. */
  worst: number | null;
  /** The largest difference that is allowed. */
  most: number;
  failure: string | null;
}

/** A WGSL file that failed rows have in common. */
export interface SelfTestSuspect {
  /** Path in the engine's repository. */
  file: string;
  /** Failed rows that link it. */
  failed: number;
  /** Rows that link it. */
  rows: number;
}

/** The result of `selftest`. */
export interface SelfTestReport {
  engine: string;
  adapter: AdapterInfo;
  userAgent: string;
  date: string;
  /** Number of rows and models that passed. */
  passed: number;
  failed: number;
  milliseconds: number;
  rows: SelfTestRow[];
  models: SelfTestModel[];
  /** Why the self-test ended early; `null` if it did not. */
  unfinished: string | null;
  /** Suspect files; the best explanation of the failures comes first. */
  suspects: SelfTestSuspect[];
  /** The report as a self-contained HTML page, to attach to a bug report. */
  html: string;
}

/** Stable error codes. */
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
