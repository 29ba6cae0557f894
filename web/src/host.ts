/** What differs between the programs that the engine runs in. Pages and Deno are the default; `node.ts` is another. */

import { GrokWgpuError } from "./errors.js";
import type { SentSource } from "./messages.js";

/** The part of `Worker` that is used. */
export type WorkerLike = Pick<Worker, "postMessage" | "terminate" | "onmessage" | "onerror" | "onmessageerror">;

/** A program that the engine runs in. */
export interface Host {
  /** Throws early, with the reason, if there is no WebGPU. */
  requireWebGpu(): void;
  /** Starts a worker that answers calls. */
  startWorker(): WorkerLike;
  /** A model's address, as the worker wants it. */
  locate(source: string | URL): SentSource;
}

/** The host of all engines in this program. */
export const host: Host = {
  requireWebGpu() {
    const { isSecureContext, navigator } = globalThis as {
      isSecureContext?: boolean;
      navigator?: { gpu?: unknown; userAgent?: string };
    };
    if (navigator?.gpu) {
      return;
    }
    if (isSecureContext === false) {
      throw new GrokWgpuError(
        "no_webgpu",
        "browsers give WebGPU only to pages that come over https or from localhost, and this one does not",
        "Open the page over https, or from localhost.",
      );
    }
    const where = (globalThis as { process?: { release?: { name?: string } } }).process?.release?.name;
    if (/^Deno\//.test(navigator?.userAgent ?? "")) {
      throw new GrokWgpuError("no_webgpu", "this Deno has no WebGPU", "Use Deno 2.9 or later, or --unstable-webgpu.");
    }
    if (where === "node" && !globalThis.document) {
      throw new GrokWgpuError(
        "no_webgpu",
        "Node has no WebGPU of its own",
        'Install one (npm install webgpu), and import from "grok-wgpu/node". ' +
          "Where a server renders pages, load the model in the browser, once a page is shown.",
      );
    }
    throw new GrokWgpuError(
      "no_webgpu",
      "this browser has no WebGPU",
      /Firefox\//.test(navigator?.userAgent ?? "")
        ? "Update Firefox, and on Linux set dom.webgpu.enabled to true in about:config; or use Chrome or Edge."
        : undefined,
    );
  },

  // Bundlers need all of this expression in one place.
  startWorker: () => new Worker(new URL("./worker.js", import.meta.url), { type: "module" }),

  locate(source) {
    // There is no `document` in workers, and neither it nor `location` in Deno.
    const here = globalThis.document?.baseURI ?? globalThis.location?.href;
    try {
      return { url: new URL(source, here).href };
    } catch {
      throw new GrokWgpuError(
        "usage",
        `"${source}" is not the address of a model`,
        here === undefined
          ? 'Without a page, an address must be whole: https://…. "grok-wgpu/node" also takes the path of a folder.'
          : undefined,
      );
    }
  },
};
