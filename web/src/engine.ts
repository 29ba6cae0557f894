/** The engine for pages: a model in a worker. */

import { chatOf } from "./chat.js";
import { Client } from "./client.js";
import { GrokWgpuError, toError } from "./errors.js";
import { RunningGeneration } from "./generation.js";
import { host } from "./host.js";
import type { Loaded, News, SentGenerateOptions, SentPrompt, SentSource } from "./messages.js";
import { GENERATE, LOAD, OPENAI, read, SELFTEST, show } from "./options.js";
import type {
  AdapterInfo,
  Chat,
  Finish,
  GenerateOptions,
  Generation,
  LoadOptions,
  ModelInfo,
  ModelSource,
  SelfTestOptions,
  SelfTestReport,
} from "./types.js";

/** Milliseconds that a worker gets to free its memory before it is terminated. */
const GRACE = 2000;

/** A loaded model that generates text. */
export class GrokWgpu {
  /** The model. */
  readonly model: ModelInfo;
  /** Answers conversations: `engine.chat(messages, options)`, or `engine.chat.completions.create(request)`. */
  readonly chat: Chat;
  readonly #client: Client;
  #adapter: AdapterInfo;

  private constructor(client: Client, loaded: Loaded) {
    this.#client = client;
    this.model = loaded.model;
    this.#adapter = loaded.adapter;
    this.chat = chatOf(this.model.name, (messages, options) => this.#start({ messages }, options));
  }

  /** The adapter that runs the model. It may change after the device was lost. */
  get adapter(): AdapterInfo {
    return this.#adapter;
  }

  /**
   * Loads a model: from the address of its folder or manifest, or from its files.
   *
   * @throws {GrokWgpuError} with the cause and a hint on what to do.
   */
  static async load(source: ModelSource, options: LoadOptions = {}): Promise<GrokWgpu> {
    const given = read("GrokWgpu.load", options, LOAD);
    const { onProgress, signal, onDevice, cache = true } = given;
    const { context, prefill, kvCache, allowNonFinite, submissionMs, deviceMemory, keepCache } = given;
    host.requireWebGpu();
    const sent = sendable(source);
    const client = new Client();
    let engine: GrokWgpu | undefined;
    client.onDevice = (event, adapter) => {
      if (engine && adapter) {
        engine.#adapter = adapter;
      }
      onDevice?.(event);
    };
    const onNews = (news: News) => {
      if (news.kind === "progress") {
        onProgress?.(news.progress);
      }
    };
    try {
      const loaded = await client.call<Loaded>(
        {
          kind: "load",
          source: sent,
          options: { context, prefill, kvCache, allowNonFinite, submissionMs, deviceMemory, keepCache, cache },
        },
        { onNews, signal, what: "loading" },
      );
      engine = new GrokWgpu(client, loaded);
      return engine;
    } catch (error) {
      client.close(new GrokWgpuError("disposed", "the model was not loaded"));
      throw toError(error);
    }
  }

  /** Checks the kernels on this device against their oracles, then small models against golden logits. */
  static async selftest(options: SelfTestOptions = {}): Promise<SelfTestReport> {
    const { kernel, case: name, every, signal, onRow, onModel } = read("GrokWgpu.selftest", options, SELFTEST);
    host.requireWebGpu();
    const client = new Client();
    try {
      return await client.call<SelfTestReport>(
        { kind: "selftest", options: { kernel, case: name, every } },
        {
          signal,
          what: "the self-test",
          onNews: (news) => {
            if (news.kind === "row") {
              onRow?.(news.row, news.done, news.total);
            } else if (news.kind === "model") {
              onModel?.(news.model);
            }
          },
        },
      );
    } finally {
      client.close(new GrokWgpuError("disposed", "the self-test has ended"));
    }
  }

  /**
   * Continues a text. Yields pieces as they are generated; `finish` resolves to the statistics. Leaving the loop or
   * aborting the signal stops the generation.
   */
  generate(prompt: string, options: GenerateOptions = {}): Generation {
    try {
      if (typeof prompt !== "string") {
        const hint = "engine.chat answers a list of messages.";
        throw new GrokWgpuError("usage", `the prompt is ${show(prompt)}, expected a text`, hint);
      }
      return this.#start({ text: prompt }, read("engine.generate", options, GENERATE, OPENAI));
    } catch (error) {
      // Errors come where the result is read.
      return new RunningGeneration(
        () => Promise.reject(error),
        () => {},
      );
    }
  }

  /** Runs the self-test on another device, beside the model. */
  selftest(options: SelfTestOptions = {}): Promise<SelfTestReport> {
    return GrokWgpu.selftest(options);
  }

  /** Destroys the device as a driver reset would, to test or demonstrate recovery. */
  async loseDevice(): Promise<void> {
    await this.#client.call<void>({ kind: "loseDevice" }, { what: "losing the device" });
  }

  /** Ends the engine and frees its memory. Calls in progress are rejected with `disposed`. */
  async dispose(): Promise<void> {
    const gone = this.#client.call<void>({ kind: "dispose" }, { what: "disposing" }).catch(() => {});
    await Promise.race([gone, new Promise((resolve) => setTimeout(resolve, GRACE))]);
    this.#client.close(new GrokWgpuError("disposed", "the engine was disposed"));
  }

  #start(prompt: SentPrompt, options: GenerateOptions): Generation {
    const { signal, onPrompt } = options;
    const stop = new AbortController();
    const signals = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
    return new RunningGeneration(
      async (push) => {
        if (signals.aborted) {
          return interrupted();
        }
        return this.#client.call<Finish>(
          { kind: "generate", prompt, options: plainOptions(options) },
          {
            signal: signals,
            what: "the generation",
            onNews: (news) => {
              if (news.kind === "piece") {
                push(news.piece);
              } else if (news.kind === "prompt") {
                onPrompt?.(news.done, news.total);
              }
            },
          },
        );
      },
      () => stop.abort(),
    );
  }
}

/** The options that `postMessage` can clone: no functions and no signals. */
function plainOptions(options: GenerateOptions): SentGenerateOptions {
  const { temperature, top_k, top_p, min_p, repetition_penalty, seed, max_tokens, inside, top, template } = options;
  const stop = typeof options.stop === "string" ? [options.stop] : options.stop;
  return { temperature, top_k, top_p, min_p, repetition_penalty, seed, max_tokens, stop, inside, top, template };
}

function interrupted(): Finish {
  return {
    reason: "interrupted",
    text: "",
    promptTokens: 0,
    reusedTokens: 0,
    completionTokens: 0,
    timeToFirstToken: 0,
    time: 0,
    tokensPerSecond: 0,
  };
}

function sendable(source: ModelSource): SentSource {
  if (typeof source === "string" || source instanceof URL) {
    return host.locate(source);
  }
  const files = Array.from(source, (file) => ({ path: file.webkitRelativePath || file.name, file }));
  if (files.length === 0) {
    throw new GrokWgpuError("usage", "there are no files to load a model from");
  }
  return { files };
}
