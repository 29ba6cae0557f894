/** The engine's worker. It owns the model and answers calls one after another. */

import { describeAdapter, findAdapter, start } from "./adapter.js";
import { abortedError, GrokWgpuError, toError, toPlain } from "./errors.js";
import { droppedFiles, type ModelFile, type Stop } from "./files.js";
import type {
  FromWorker,
  Loaded,
  News,
  Request,
  SentGenerateOptions,
  SentLoadOptions,
  SentPrompt,
  SentSource,
  ToWorker,
} from "./messages.js";
import { remoteFiles } from "./remote.js";
import { selftest } from "./selftest.js";
import type { DeviceEvent, Finish, LoadProgress, ModelInfo, Piece } from "./types.js";
import { Engine, type SourceFile } from "./wasm/grok_wgpu.js";

let engine: Engine | undefined;
let files: Watched | undefined;
let disposed = false;

/** Calls in progress, with the controllers that abort them. */
const calls = new Map<number, AbortController>();

/** Resolves when all queued work has ended. */
let work: Promise<unknown> = Promise.resolve();

function post(message: FromWorker): void {
  postMessage(message);
}

/** Tasks that have not ended. */
let queued = 0;

/** Milliseconds without a task after which pipelines are compiled: a page that asks at once does not wait for them. */
const IDLE = 500;

let idle: ReturnType<typeof setTimeout> | undefined;

/** Whether pipelines may be missing that a text will need. */
let missing = false;

/** Queues a task after the earlier ones. */
function enqueue<T>(task: () => Promise<T>): Promise<T> {
  queued += 1;
  clearTimeout(idle);
  const result = work.then(task);
  work = result
    .catch(() => {})
    .then(() => {
      queued -= 1;
      if (queued === 0 && missing && !disposed) {
        idle = setTimeout(compileRest, IDLE);
      }
    });
  return result;
}

/** Compiles the pipelines that the first token did not need, until another task waits. */
function compileRest(): void {
  const task = async () => {
    missing = false;
    if (engine && files) {
      const writer = engine;
      // Weights are read again if the device was lost.
      const result = await files.during(() => writer.compileRest(() => queued === 1 && !disposed));
      const { done, warnings } = JSON.parse(result) as { done: boolean; warnings: string[] };
      missing = !done;
      for (const warning of warnings) {
        console.warn(warning);
      }
    }
  };
  // A text that needs what could not be compiled fails with the same error.
  enqueue(task).catch(() => {});
}

async function load(
  source: SentSource,
  { context, prefill, kvCache, allowNonFinite, submissionMs, deviceMemory, keepCache, cache }: SentLoadOptions,
  signal: AbortSignal,
  emit: (news: News) => void,
): Promise<Loaded> {
  const onProgress = (progress: LoadProgress) => emit({ kind: "progress", progress });
  onProgress({ phase: "engine", done: 0, total: 1, cached: 0 });
  await start();
  await findAdapter();
  onProgress({ phase: "engine", done: 1, total: 1, cached: 0 });
  // Aborting must not affect reads after a device loss, so the signal is cleared after loading.
  const stop: Stop = { signal };
  const found =
    "url" in source ? await remoteFiles(source.url, { cache, stop, onProgress }) : droppedFiles(source.files, stop);
  if (signal.aborted) {
    throw abortedError("loading");
  }
  const pace = new Pace();
  const onEvent = (json: string): boolean => {
    const news = JSON.parse(json) as { progress?: [LoadProgress["phase"], number, number]; device?: DeviceEvent };
    if (news.progress) {
      const [phase, done, total] = news.progress;
      if (phase === "weights") {
        pace.note(done);
      }
      onProgress({ phase, done, total, cached: 0 });
      return !signal.aborted;
    }
    if (news.device) {
      void deviceChanged(news.device);
    }
    return true;
  };
  const watched = new Watched(found.files);
  files = watched;
  const sent = JSON.stringify({
    context,
    prefill,
    kv_cache: kvCache,
    allow_non_finite: allowNonFinite,
    submission_ms: submissionMs,
    device_memory: deviceMemory,
    keep_cache: keepCache,
  });
  engine = await watched.during(() => Engine.load(watched.files, sent, onEvent));
  stop.signal = undefined;
  missing = true;
  const model = JSON.parse(engine.info()) as Omit<ModelInfo, "name">;
  if (model.placement) {
    model.placement.fileBytesPerSecond = pace.rate;
  }
  return { model: { name: found.name, ...model }, adapter: await describeAdapter(engine.caps()) };
}

/** How fast weights go from the files to the adapter. */
class Pace {
  #first: { done: number; time: number } | undefined;
  #last = { done: 0, time: 0 };

  /** So many bytes are there; with 0 the adapter only begins to make its buffers. */
  note(done: number): void {
    if (done > 0) {
      this.#last = { done, time: performance.now() };
      this.#first ??= this.#last;
    }
  }

  /** Bytes a second; null if too few came to tell. */
  get rate(): number | null {
    const seconds = (this.#last.time - (this.#first?.time ?? 0)) / 1000;
    const came = this.#last.done - (this.#first?.done ?? 0);
    return came > 0 && seconds > 0 ? came / seconds : null;
  }
}

/** Keeps the error of a failed read, since the Rust library only learns that reading failed. */
class Watched {
  readonly files: SourceFile[];
  readonly #given: ModelFile[];
  #failure: GrokWgpuError | undefined;

  constructor(files: ModelFile[]) {
    this.#given = files;
    this.files = files.map((file) => {
      const failed = (error: unknown) => {
        this.#failure = toError(error);
        return error;
      };
      const read = async (offset: number, length: number) => {
        try {
          return await file.read(offset, length);
        } catch (error) {
          throw failed(error);
        }
      };
      const readInto = (offset: number, into: Uint8Array) => {
        try {
          return file.readInto?.(offset, into) ?? false;
        } catch (error) {
          throw failed(error);
        }
      };
      return { name: file.name, size: file.size, read, ...(file.readInto && { readInto }) };
    });
  }

  /** Does work that may read the files, which are open only meanwhile. */
  async during<T>(task: () => Promise<T>): Promise<T> {
    this.#failure = undefined;
    try {
      return await task();
    } catch (error) {
      throw this.#failure ?? error;
    } finally {
      for (const file of this.#given) {
        file.close?.();
      }
    }
  }
}

/** Informs the page, and repairs an idle engine after a loss. */
async function deviceChanged(device: DeviceEvent): Promise<void> {
  const whole = engine;
  if (disposed || !whole) {
    return;
  }
  if (device.kind === "restored") {
    missing = true;
    post({ device, adapter: await describeAdapter(whole.caps()) });
    return;
  }
  post({ device });
  if (device.kind === "lost") {
    // A running generation repairs the engine itself, and then this does nothing. The page hears of failures through
    // device events.
    enqueue(async () => {
      if (!disposed) {
        await files?.during(() => whole.heal());
      }
    }).catch(() => {});
  }
}

async function generate(
  prompt: SentPrompt,
  options: SentGenerateOptions,
  signal: AbortSignal,
  emit: (news: News) => void,
  called: number,
): Promise<Finish> {
  const nothing = { text: "", promptTokens: 0, reusedTokens: 0, completionTokens: 0 };
  const times = { first: 0, last: 0 };
  let made: Omit<Finish, "timeToFirstToken" | "time" | "tokensPerSecond">;
  if (signal.aborted) {
    made = { reason: "interrupted", ...nothing };
  } else {
    const writer = engine;
    if (!writer || !files) {
      throw new GrokWgpuError("usage", "no model is loaded");
    }
    const onEvent = (json: string): boolean => {
      const news = JSON.parse(json) as { prompt?: [number, number]; piece?: Piece };
      if (news.prompt) {
        emit({ kind: "prompt", done: news.prompt[0], total: news.prompt[1] });
      } else if (news.piece) {
        times.last = performance.now();
        times.first ||= times.last;
        emit({ kind: "piece", piece: news.piece });
      }
      return !signal.aborted;
    };
    const seed = options.seed ?? crypto.getRandomValues(new Uint32Array(1))[0];
    const request = { prompt, options: { ...options, seed } };
    // Weights are read again if the device was lost.
    const result = await files.during(() => writer.generate(JSON.stringify(request), onEvent));
    made = JSON.parse(result) as typeof made;
  }
  const seconds = (times.last - times.first) / 1000;
  return {
    ...made,
    timeToFirstToken: times.first ? times.first - called : 0,
    time: performance.now() - called,
    tokensPerSecond: seconds > 0 ? Math.max(made.completionTokens - 1, 0) / seconds : 0,
  };
}

/** Destroys the device; the page terminates the worker afterwards. */
function dispose(): void {
  disposed = true;
  for (const call of calls.values()) {
    call.abort();
  }
  engine?.loseDevice();
}

function answer(request: Request, signal: AbortSignal, emit: (news: News) => void): unknown {
  const called = performance.now();
  switch (request.kind) {
    case "load":
      return enqueue(() => load(request.source, request.options, signal, emit));
    case "generate":
      return enqueue(() => generate(request.prompt, request.options, signal, emit, called));
    case "selftest":
      return enqueue(() => selftest(request.options, signal, emit));
    case "loseDevice":
      return engine?.loseDevice();
    case "dispose":
      return dispose();
  }
}

addEventListener("message", ({ data }: MessageEvent<ToWorker>) => {
  const { call } = data;
  if ("abort" in data) {
    calls.get(call)?.abort();
    return;
  }
  const controller = new AbortController();
  calls.set(call, controller);
  const emit = (news: News) => post({ call, news });
  void (async () => {
    try {
      post({ call, result: await answer(data.request, controller.signal, emit) });
    } catch (error) {
      post({ call, error: toPlain(error) });
    } finally {
      calls.delete(call);
    }
  })();
});

// Forward unhandled rejections, such as a panic of the module, to the page's `error` handler.
addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  setTimeout(() => {
    throw event.reason;
  });
});
