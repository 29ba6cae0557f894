/** The engine's worker as a thread of Node. It gives `worker.ts` what a page's worker has and Node has not. */

import { readFile } from "node:fs/promises";
import { parentPort } from "node:worker_threads";
import { readDisk } from "./disk.js";
import { GrokWgpuError, toPlain } from "./errors.js";
import type { ToWorker } from "./messages.js";

type Listener = (event: { data: ToWorker }) => void;

/** Sets globals that are missing. This thread has globals of its own, so the program keeps its. */
function provide(values: Record<string, unknown>): void {
  for (const [name, value] of Object.entries(values)) {
    if (!(name in globalThis)) {
      Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    }
  }
}

/** WebGPU for this thread. */
async function provideWebGpu(): Promise<void> {
  let dawn: typeof import("webgpu");
  try {
    dawn = await import("webgpu");
  } catch (error) {
    const missing = (error as { code?: unknown }).code === "ERR_MODULE_NOT_FOUND";
    const why = error instanceof Error ? error.message : String(error);
    throw new GrokWgpuError(
      "no_webgpu",
      missing ? "Node has no WebGPU, and the package webgpu is not installed" : `the package webgpu failed: ${why}`,
      "Install it with npm install webgpu.",
    );
  }
  provide(dawn.globals);
  const { process } = globalThis as unknown as { process: { version: string } };
  provide({ navigator: { userAgent: `Node.js/${process.version.slice(1)}` } });
  // The instance must outlive its devices, or they crash.
  Object.defineProperty(globalThis.navigator, "gpu", { value: dawn.create([]), configurable: true });
}

/** Node's `fetch` has no files, and the module and the self-test's models are some. */
function provideFiles(): void {
  const { fetch } = globalThis;
  globalThis.fetch = async (input, options) => {
    const url = new URL(input instanceof Request ? input.url : input);
    if (url.protocol !== "file:") {
      return fetch(input, options);
    }
    const type = url.pathname.endsWith(".wasm") ? "application/wasm" : "application/octet-stream";
    return new Response(await readFile(url), { headers: { "content-type": type } });
  };
}

const listeners: Listener[] = [];
provide({
  postMessage: (message: unknown) => parentPort.postMessage(message),
  // Other events need no listener here: unhandled rejections end a thread.
  addEventListener: (type: string, listener: Listener) => type === "message" && listeners.push(listener),
  // The module asks whether it is in a worker.
  WorkerGlobalScope: class WorkerGlobalScope {},
});

const started = (async () => {
  await provideWebGpu();
  provideFiles();
  readDisk();
  await import("./worker.js");
})();
// Each call reports a failure to start.
started.catch(() => {});

parentPort.on("message", async (data) => {
  const event = { data: data as ToWorker };
  try {
    await started;
    for (const listener of listeners) {
      listener(event);
    }
  } catch (error) {
    parentPort.postMessage({ call: event.data.call, error: toPlain(error) });
  }
});
