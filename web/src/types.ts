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
  /**
   * Bytes of the adapter's memory that the model may take. What does not fit is read from its files whenever a token
   * needs it. Default: all that the model needs.
   */
  deviceMemory?: number;
  /**
   * Keep finished parts of the key-value cache in the page's memory as well, so that after a lost device the text goes
   * on without being computed again. Default: only for models of which `deviceMemory` leaves something in the files.
   */
  keepCache?: boolean;
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
  /** Bytes of weights on the adapter and in the model's files, and what a token reads of those; `null` if all are on it. */
  placement: {
    deviceBytes: number;
    fileBytes: number;
    tokenFileBytes: number;
    /** How fast weights went from the files to the adapter while the model was loaded; `null` if too few did. */
    fileBytesPerSecond: number | null;
  } | null;
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
  /** A stop text or several: they end the generation and are not part of the result. */
  stop?: string | string[];
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

/** A part of a message's content. */
export interface ChatCompletionContentPartText {
  type: "text";
  text: string;
}

/** A message as OpenAI's API takes it. */
export interface ChatCompletionMessageParam {
  /** `"developer"` is the same as `"system"`. */
  role: "system" | "developer" | "user" | "assistant";
  /** A text, or its parts, which are joined with nothing between. */
  content: string | ChatCompletionContentPartText[];
  /** Does not reach the model; nor do fields that are not listed here. */
  name?: string;
  /** As in an answer that becomes a message again. */
  refusal?: null;
}

/** Options that may also be null, for the default. */
type OrNull<T> = { [K in keyof T]: T[K] | null };

/** Options of streams. */
export interface StreamOptions {
  /** Send a last chunk with the `usage`, and without choices. */
  include_usage?: boolean | null;
}

/** Options of an answer that have an effect. */
export interface OwnChatOptions extends OrNull<GenerateOptions> {
  /** Any name: the loaded model answers, and the answer says which that is. */
  model?: string | null;
  /** The same as `max_tokens`. */
  max_completion_tokens?: number | null;
  stream?: boolean | null;
  stream_options?: StreamOptions | null;
}

/** Options of OpenAI's API that are accepted, and have no effect. */
export interface IgnoredOptions {
  user?: unknown;
  store?: unknown;
  metadata?: unknown;
  safety_identifier?: unknown;
  prompt_cache_key?: unknown;
  service_tier?: unknown;
}

/** Options of OpenAI's API that are accepted if they ask for what the engine does anyway, and else refused. */
export interface DefaultOnlyOptions {
  n?: 1 | null;
  presence_penalty?: 0 | null;
  frequency_penalty?: 0 | null;
  logit_bias?: Record<string, never> | null;
  logprobs?: false | null;
  top_logprobs?: 0 | null;
  response_format?: { type: "text" } | null;
  tools?: [] | null;
  tool_choice?: "none" | "auto" | null;
  parallel_tool_calls?: boolean | null;
  functions?: [] | null;
  function_call?: "none" | "auto" | null;
  modalities?: "text"[] | null;
  audio?: null;
  prediction?: null;
  reasoning_effort?: "none" | null;
  verbosity?: "medium" | null;
  web_search_options?: null;
}

/** Options of `engine.chat`, in the shape of OpenAI's API. */
export interface ChatOptions extends OwnChatOptions, IgnoredOptions, DefaultOnlyOptions {}

/** A request of `engine.chat.completions.create`. */
export interface ChatCompletionCreateParams extends ChatOptions {
  messages: ChatCompletionMessageParam[];
}

/** The second argument of `engine.chat.completions.create`. */
export interface RequestOptions {
  signal?: AbortSignal | null;
}

/** Answers conversations. */
export interface Chat {
  /** Answers a conversation. Results have the shape of OpenAI's API; errors come where they are read. */
  (messages: ChatCompletionMessageParam[], options: ChatOptions & { stream: true }): ChatStream;
  (messages: ChatCompletionMessageParam[], options?: ChatOptions & { stream?: false | null }): Promise<ChatCompletion>;
  (messages: ChatCompletionMessageParam[], options: ChatOptions): Promise<ChatCompletion> | ChatStream;
  readonly completions: ChatCompletions;
}

/** Answers conversations as OpenAI's and WebLLM's libraries do. */
export interface ChatCompletions {
  /**
   * Answers a conversation: resolves to the answer, or with `stream: true` at once to its chunks.
   *
   * @throws {GrokWgpuError} `usage` for a request that makes no sense. Other errors of a stream come in its iteration.
   */
  create(request: ChatCompletionCreateParams & { stream: true }, options?: RequestOptions): Promise<ChatStream>;
  create(
    request: ChatCompletionCreateParams & { stream?: false | null },
    options?: RequestOptions,
  ): Promise<ChatCompletion>;
  create(request: ChatCompletionCreateParams, options?: RequestOptions): Promise<ChatCompletion | ChatStream>;
}

/** Why an answer ended. `"abort"` is an answer that was stopped: it holds what had been written until then. */
export type FinishReason = "stop" | "length" | "abort";

/** Numbers of tokens. */
export interface CompletionUsage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  /** Tokens of the prompt that were in the key-value cache already. */
  prompt_tokens_details: { cached_tokens: number };
}

/** A complete answer. */
export interface ChatCompletion {
  id: string;
  object: "chat.completion";
  /** Seconds since 1970. */
  created: number;
  /** The loaded model, whatever the request named. */
  model: string;
  choices: {
    index: 0;
    message: { role: "assistant"; content: string; refusal: null };
    logprobs: null;
    finish_reason: FinishReason;
  }[];
  usage: CompletionUsage;
  /** An extension to OpenAI's shape. */
  finish: Finish;
}

/** A chunk of a streamed answer. */
export interface ChatCompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  /** Seconds since 1970; the same in all chunks of an answer. */
  created: number;
  /** The loaded model, whatever the request named. */
  model: string;
  /** One, or none in the chunk with the usage. */
  choices: {
    index: 0;
    delta: { role?: "assistant"; content?: string };
    logprobs: null;
    finish_reason: FinishReason | null;
  }[];
  /** Only with `stream_options: { include_usage: true }`: the usage in the last chunk, null in all others. */
  usage?: CompletionUsage | null;
  /** Extensions to OpenAI's shape: the piece, and on the chunk with the reason the result. */
  piece?: Piece;
  finish?: Finish;
}

/** The chunks of an answer. Leaving the loop over them, or aborting `controller`, stops the answer. */
export interface ChatStream extends AsyncIterable<ChatCompletionChunk> {
  readonly controller: AbortController;
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
  /** Its full name: `KERNEL/CASE [TUNING]`. The command line program takes it as `selftest --row`. */
  row: string;
  kernel: string;
  case: string;
  /** The tuning: how the kernel's work was divided. */
  tuning: string;
  /** How the program that ran divides the work; `null` of kernels that have one way only. */
  variant: string | null;
  /** The program's label: kernel, variant and type of the weights. */
  program: string;
  /** Whether the result had to be exact. */
  exact: boolean;
  /** Number of elements compared. */
  elements: number;
  /** Largest error as a fraction of its bound; `null` if it was not finite. */
  worst: number | null;
  /**
   * Elements of a coarser type than f32 that were stored as the other neighbour of the exact value than the nearest.
   * They are right, as the f32 before was near the middle, and have no part in `worst`.
   */
  rounded: number;
  /** Time in seconds, with the reference on the host and, for the first row of a program, its compilation. */
  seconds: number;
  /** The first failure. */
  failure?: string;
  /** The wrong elements of the output that failed, if the failure is in values. */
  wrong?: SelfTestWrong;
}

/** The wrong elements of an output. */
export interface SelfTestWrong {
  /** Name of the output. */
  output: string;
  /** Its element type, as in `f32`. */
  type: string;
  /** Its extents, the slowest first. */
  shape: number[];
  /** Number of wrong elements. It includes elements that should not have been written. */
  count: number;
  /** Number of elements that should have been written. */
  of: number;
  /** Where the wrong elements lie. */
  place: SelfTestPlace;
  /** The first wrong element. */
  first: SelfTestElement;
  /** The wrong element with the largest error. */
  farthest: SelfTestElement;
}

/** Where the wrong elements of an output lie. */
export interface SelfTestPlace {
  /** Name of the pattern. */
  pattern: "all" | "one" | "rows" | "columns" | "first" | "last" | "run" | "every" | "stripe" | "lane" | "scattered";
  /** The pattern with its numbers, as a sentence. */
  text: string;
}

/** A wrong element. */
export interface SelfTestElement {
  /** Its coordinates, as many as the shape has extents. */
  at: number[];
  /** What the device wrote. */
  got: SelfTestNumber;
  /** What it should have written. */
  expected: SelfTestNumber;
  /** Largest error allowed, where that is a number. */
  bound: number | null;
  /** Distance in units in the last place of its type; `null` of integers, quantized elements, NaN and infinity. */
  ulps: number | null;
}

/** A value, and its bits. */
export interface SelfTestNumber {
  /** Decimal digits, or what there should be instead of a value. */
  value: string;
  /** The bits in the element's type, as in `0x3f800000`; `null` of quantized elements and of what is no value. */
  bits: string | null;
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
