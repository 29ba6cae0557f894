/**
 * The package for Node, with WebGPU of the package `webgpu` (Dawn). It has what `index.ts` has, and loads models from
 * paths too. In Deno, which has WebGPU, only the paths are new.
 */

import { fileURLToPath } from "node:url";
import { Worker as Thread } from "node:worker_threads";
import { filesAt } from "./disk.js";
import { host, type WorkerLike } from "./host.js";
import type { ToWorker } from "./messages.js";

export * from "./index.js";

/** A thread with the interface of a page's worker. */
class ThreadWorker implements WorkerLike {
  onmessage: WorkerLike["onmessage"] = null;
  onerror: WorkerLike["onerror"] = null;
  onmessageerror: WorkerLike["onmessageerror"] = null;
  readonly #thread = new Thread(new URL("./node-worker.js", import.meta.url));
  /** Calls in progress. An idle engine does not keep the program from ending. */
  readonly #calls = new Set<number>();

  constructor() {
    this.#thread.unref();
    this.#thread.on("message", (data) => {
      const { call, ...rest } = data as { call?: number };
      if (call !== undefined && !("news" in rest)) {
        this.#calls.delete(call);
        this.#hold();
      }
      this.onmessage?.call(this as unknown as Worker, { data } as MessageEvent);
    });
    this.#thread.on("messageerror", () => this.onmessageerror?.call(this as unknown as Worker, {} as MessageEvent));
    this.#thread.on("error", (error) => this.#fail(error.message));
    this.#thread.on("exit", (code) => this.#fail(`its thread ended with ${code}`));
  }

  postMessage(message: ToWorker): void {
    if ("request" in message) {
      this.#calls.add(message.call);
      this.#hold();
    }
    this.#thread.postMessage(message);
  }

  terminate(): void {
    this.onerror = null;
    void this.#thread.terminate();
  }

  #hold(): void {
    if (this.#calls.size > 0) {
      this.#thread.ref();
    } else {
      this.#thread.unref();
    }
  }

  #fail(message: string): void {
    this.onerror?.call(this as unknown as Worker, { message, preventDefault() {} } as ErrorEvent);
  }
}

/** Addresses, as opposed to paths. A letter and a colon begin a path of Windows. */
const ADDRESS = /^[a-z][a-z0-9+.-]+:/i;

const { locate } = host;

host.locate = (source) => {
  const text = String(source);
  if (/^file:/i.test(text)) {
    return { files: filesAt(fileURLToPath(text)) };
  }
  return ADDRESS.test(text) ? locate(text) : { files: filesAt(text) };
};

if ((globalThis.navigator as { gpu?: unknown } | undefined)?.gpu && "Worker" in globalThis) {
  host.startWorker = () => new Worker(new URL("./disk-worker.js", import.meta.url), { type: "module" });
} else {
  // The thread finds out whether there is WebGPU, and says it.
  host.requireWebGpu = () => {};
  host.startWorker = () => new ThreadWorker();
}
