/** The engine's worker. It owns the model and answers calls one after another. */

import { abortedError, GrokWgpuError, toError, toPlain } from "./errors.js";
import { droppedFiles, type Stop } from "./files.js";
import { getBytes } from "./http.js";
import type {
  FromWorker,
  Loaded,
  News,
  Request,
  SentGenerateOptions,
  SentLoadOptions,
  SentPrompt,
  SentSelfTestOptions,
  SentSource,
  ToWorker,
} from "./messages.js";
import { remoteFiles } from "./remote.js";
import type {
  AdapterInfo,
  DeviceEvent,
  Finish,
  LoadProgress,
  ModelInfo,
  Piece,
  SelfTestModel,
  SelfTestReport,
  SelfTestRow,
} from "./types.js";
import init, { Engine, SelfTest, type SourceFile, version } from "./wasm/grok_wgpu.js";

/** The part of WebGPU's types that is used; not every TypeScript library has them. */
interface Gpu {
  requestAdapter(options: { powerPreference: string }): Promise<GpuAdapter | null>;
}
interface GpuAdapter {
  info: { vendor: string; architecture: string; device: string; description: string };
}

/** What the WebAssembly module reports about the device. */
type Caps = Pick<AdapterInfo, "limits" | "features">;

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

/** Queues a task after the earlier ones. */
function enqueue<T>(task: () => Promise<T>): Promise<T> {
  const result = work.then(task);
  work = result.catch(() => {});
  return result;
}

/** The pending or finished start of the WebAssembly module. */
let ready: Promise<unknown> | undefined;
function start(): Promise<unknown> {
  ready ??= init({ module_or_path: new URL("./wasm/grok_wgpu_bg.wasm", import.meta.url) }).catch((error: unknown) => {
    ready = undefined;
    throw new GrokWgpuError("network", `the engine's module could not be loaded: ${toError(error).message}`);
  });
  return ready;
}

/** An adapter; throws with the reason if there is none. */
async function findAdapter(): Promise<GpuAdapter> {
  const gpu = (navigator as { gpu?: Gpu }).gpu;
  if (!gpu) {
    throw new GrokWgpuError(
      "no_webgpu",
      "this browser has WebGPU, but not in workers, where the engine runs",
      "Use a browser that has WebGPU in workers: Chrome, Edge, Safari 26, or an up-to-date Firefox.",
    );
  }
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    throw new GrokWgpuError("no_adapter", "this browser has WebGPU, but gives no graphics adapter");
  }
  return adapter;
}

async function describeAdapter(caps: string): Promise<AdapterInfo> {
  const { vendor, architecture, device, description } = (await findAdapter()).info;
  const words = [description, vendor, architecture, device].filter((word, i, all) => word && all.indexOf(word) === i);
  return {
    vendor,
    architecture,
    device,
    description,
    summary: words.join(", ") || "a graphics adapter without a name",
    ...(JSON.parse(caps) as Caps),
  };
}

async function load(
  source: SentSource,
  { context, prefill, kvCache, cache }: SentLoadOptions,
  signal: AbortSignal,
  tell: (news: News) => void,
): Promise<Loaded> {
  const onProgress = (progress: LoadProgress) => tell({ kind: "progress", progress });
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
  const hear = (json: string): boolean => {
    const news = JSON.parse(json) as { progress?: [LoadProgress["phase"], number, number]; device?: DeviceEvent };
    if (news.progress) {
      const [phase, done, total] = news.progress;
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
  engine = await watched.during(() =>
    Engine.load(watched.files, JSON.stringify({ context, prefill, kv_cache: kvCache }), hear),
  );
  stop.signal = undefined;
  const model = JSON.parse(engine.info()) as Omit<ModelInfo, "name">;
  return { model: { name: found.name, ...model }, adapter: await describeAdapter(engine.caps()) };
}

/** Keeps the error of a failed read, since the Rust library only learns that reading failed. */
class Watched {
  readonly files: SourceFile[];
  #failure: GrokWgpuError | undefined;

  constructor(files: SourceFile[]) {
    this.files = files.map((file) => ({
      name: file.name,
      size: file.size,
      read: async (offset: number, length: number) => {
        try {
          return await file.read(offset, length);
        } catch (error) {
          this.#failure = toError(error);
          throw error;
        }
      },
    }));
  }

  async during<T>(task: () => Promise<T>): Promise<T> {
    this.#failure = undefined;
    try {
      return await task();
    } catch (error) {
      throw this.#failure ?? error;
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
    post({ device, adapter: await describeAdapter(whole.caps()) });
    return;
  }
  post({ device });
  if (device.kind === "lost") {
    // A running generation repairs the engine itself, and then this does nothing. The page hears of failures through
    // device events.
    enqueue(async () => {
      if (!disposed) {
        await whole.heal();
      }
    }).catch(() => {});
  }
}

async function generate(
  prompt: SentPrompt,
  options: SentGenerateOptions,
  signal: AbortSignal,
  tell: (news: News) => void,
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
    const hear = (json: string): boolean => {
      const news = JSON.parse(json) as { prompt?: [number, number]; piece?: Piece };
      if (news.prompt) {
        tell({ kind: "prompt", done: news.prompt[0], total: news.prompt[1] });
      } else if (news.piece) {
        times.last = performance.now();
        times.first ||= times.last;
        tell({ kind: "piece", piece: news.piece });
      }
      return !signal.aborted;
    };
    const seed = options.seed ?? crypto.getRandomValues(new Uint32Array(1))[0];
    const request = { prompt, options: { ...options, seed } };
    // Weights are read again if the device was lost.
    const result = await files.during(() => writer.generate(JSON.stringify(request), hear));
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

/** Small models for the self-test and their golden logits. Bundlers need literal addresses. */
const SMALL_MODELS: [string, URL][] = [
  ["grok2_40", new URL("./golden/grok2_40.safetensors", import.meta.url)],
  ["grok1_12", new URL("./golden/grok1_12.safetensors", import.meta.url)],
];

async function selftest(
  { kernel, case: name, every = 1 }: SentSelfTestOptions,
  signal: AbortSignal,
  tell: (news: News) => void,
): Promise<SelfTestReport> {
  if (!Number.isInteger(every) || every < 1) {
    throw new GrokWgpuError("usage", `every is ${every}, expected a whole number from 1 on`);
  }
  await start();
  await findAdapter();
  const started = performance.now();
  const test = await SelfTest.open();
  try {
    const all = JSON.parse(test.rows()) as { kernel: string; case: string }[];
    const chosen = all
      .map((row, index) => ({ ...row, index }))
      .filter((row) => kernel === undefined || row.kernel === kernel)
      .filter((row) => name === undefined || test.isMeantBy(row.index, name))
      .filter((_, i) => i % every === 0);
    if (chosen.length === 0) {
      const kernels = [...new Set(all.map((row) => row.kernel))].join(", ");
      throw new GrokWgpuError("usage", `no row of the self-test is meant; the kernels are ${kernels}`);
    }
    const rows: SelfTestRow[] = [];
    const models: SelfTestModel[] = [];
    const unlessStopped = () => {
      if (signal.aborted) {
        throw abortedError("the self-test");
      }
    };
    let unfinished: string | null = null;
    try {
      for (const { index } of chosen) {
        unlessStopped();
        const row = JSON.parse(await test.run(index)) as SelfTestRow;
        rows.push(row);
        tell({ kind: "row", row, done: rows.length, total: chosen.length });
      }
      for (const [file, url] of kernel === undefined && name === undefined ? SMALL_MODELS : []) {
        unlessStopped();
        for (const model of JSON.parse(
          await test.runModel(file, await getBytes(url.href, signal)),
        ) as SelfTestModel[]) {
          models.push(model);
          tell({ kind: "model", model });
        }
      }
    } catch (thrown) {
      // The report includes the results before the failure.
      unlessStopped();
      unfinished = toError(thrown).message;
    }
    const failed = [...rows, ...models].filter(({ failure }) => typeof failure === "string").length;
    const adapter = await describeAdapter(test.caps());
    const { userAgent } = navigator;
    const date = new Date().toISOString();
    const milliseconds = performance.now() - started;
    const command = `GrokWgpu.selftest(${JSON.stringify({ kernel, case: name, every })})`;
    return {
      engine: version(),
      adapter,
      userAgent,
      date,
      passed: rows.length + models.length - failed,
      failed,
      milliseconds,
      rows,
      models,
      unfinished,
      ...(JSON.parse(test.report(adapter.summary, userAgent, command, date, milliseconds / 1000, unfinished)) as Pick<
        SelfTestReport,
        "html" | "suspects"
      >),
    };
  } finally {
    test.close();
  }
}

/** Destroys the device; the page terminates the worker afterwards. */
function dispose(): void {
  disposed = true;
  for (const call of calls.values()) {
    call.abort();
  }
  engine?.loseDevice();
}

function answer(request: Request, signal: AbortSignal, tell: (news: News) => void): unknown {
  const called = performance.now();
  switch (request.kind) {
    case "load":
      return enqueue(() => load(request.source, request.options, signal, tell));
    case "generate":
      return enqueue(() => generate(request.prompt, request.options, signal, tell, called));
    case "selftest":
      return enqueue(() => selftest(request.options, signal, tell));
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
  const tell = (news: News) => post({ call, news });
  void (async () => {
    try {
      post({ call, result: await answer(data.request, controller.signal, tell) });
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
