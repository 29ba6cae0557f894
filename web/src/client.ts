/** Calls to a worker. A call has a number; it may send news, and ends with one result or error. */

import { abortedError, fromPlain, GrokWgpuError } from "./errors.js";
import { host, type WorkerLike } from "./host.js";
import type { FromWorker, News, Request, ToWorker } from "./messages.js";
import type { AdapterInfo, DeviceEvent } from "./types.js";

interface Call {
  onNews: (news: News) => void;
  resolve: (result: unknown) => void;
  reject: (error: GrokWgpuError) => void;
  release: () => void;
}

/** Options of a call. */
export interface CallOptions {
  onNews?: (news: News) => void;
  signal?: AbortSignal | undefined;
  /** Names the call in the error if its signal was aborted before it began. */
  what: string;
}

/** The page's side of the worker. */
export class Client {
  readonly #worker: WorkerLike;
  readonly #calls = new Map<number, Call>();
  #next = 0;
  #closed: GrokWgpuError | undefined;
  /** Called when the worker's device is lost, rebuilt, restored, or cannot be restored. */
  onDevice: (event: DeviceEvent, adapter: AdapterInfo | undefined) => void = () => {};

  constructor() {
    this.#worker = host.startWorker();
    this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#onMessage(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.close(
        event.message
          ? new GrokWgpuError("internal", `the engine's worker failed: ${event.message}`)
          : // A script that fails to load gives an event without a message.
            new GrokWgpuError(
              "network",
              "the script of the engine's worker could not be loaded",
              "Check the connection and load again. " +
                "A page without a network needs worker.js and what it imports in a cache of its own.",
            ),
      );
    };
    this.#worker.onmessageerror = () =>
      this.close(new GrokWgpuError("internal", "a message of the engine's worker could not be read"));
  }

  /** Starts a call. Aborting the signal sends a request to stop; the call itself decides how it ends. */
  call<T>(request: Request, { onNews = () => {}, signal, what }: CallOptions): Promise<T> {
    if (this.#closed) {
      return Promise.reject(this.#closed);
    }
    if (signal?.aborted) {
      return Promise.reject(abortedError(what));
    }
    const call = this.#next++;
    const abort = () => this.#send({ call, abort: true });
    signal?.addEventListener("abort", abort, { once: true });
    const release = () => signal?.removeEventListener("abort", abort);
    return new Promise<T>((resolve, reject) => {
      this.#calls.set(call, { onNews, resolve: resolve as (result: unknown) => void, reject, release });
      this.#send({ call, request });
    });
  }

  /** Terminates the worker; calls in progress are rejected with this error. */
  close(error: GrokWgpuError): void {
    if (this.#closed) {
      return;
    }
    this.#closed = error;
    this.#worker.terminate();
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    for (const call of calls) {
      call.release();
      call.reject(error);
    }
  }

  #send(message: ToWorker): void {
    if (!this.#closed) {
      this.#worker.postMessage(message);
    }
  }

  #onMessage(message: FromWorker): void {
    if ("device" in message) {
      this.onDevice(message.device, message.adapter);
      return;
    }
    const call = this.#calls.get(message.call);
    if (!call) {
      return;
    }
    if ("news" in message) {
      call.onNews(message.news);
      return;
    }
    this.#calls.delete(message.call);
    call.release();
    if ("error" in message) {
      call.reject(fromPlain(message.error));
    } else {
      call.resolve(message.result);
    }
  }
}
