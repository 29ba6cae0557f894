/** What can go wrong, as an error with a stable code and a sentence on what to do. */

import type { ErrorCode } from "./types.js";

/** What to do about each kind of failure, unless the place where it happened knows better. */
const HINTS: Record<ErrorCode, string> = {
  no_webgpu:
    "Use a browser with WebGPU, up to date (Chrome, Edge, Safari 26, Firefox), and open the page over https or from localhost.",
  no_adapter:
    "Turn on hardware acceleration in the browser's settings and update the graphics driver; on Linux, Chrome may need chrome://flags/#enable-unsafe-webgpu.",
  device_lost:
    "The graphics driver reset and the engine could not start again. Close other heavy pages and load the model again.",
  out_of_memory: "Close other pages that use the graphics card, load with a smaller `context`, or use a smaller model.",
  quota_exceeded:
    "Free space in the browser (clearCache() empties this cache), or load with `cache: false`, which fetches the weights on every visit.",
  network: "Check the connection and load again: what has been fetched is kept.",
  checksum:
    "The file on the server does not fit its manifest. Load again; if it stays, the server's files are damaged.",
  checkpoint: "The files must be those of one model: config.json, a tokenizer and all of its *.safetensors files.",
  tokenizer: "Put the model's tokenizer.tok.json or tokenizer.json beside its weights.",
  context_length_exceeded: "Shorten the conversation, or load the model with a larger `context`.",
  usage: "Correct the call; the message says what was expected.",
  aborted: "It was stopped on request.",
  disposed: "The engine is gone. Load the model again.",
  internal: "Please report this with the message and the browser's version; reloading the page may help.",
};

/** An error of the engine: `code` for programs, `message` and `hint` for people. */
export class GrokWgpuError extends Error {
  override readonly name = "GrokWgpuError";
  /** Stable name of what went wrong. */
  readonly code: ErrorCode;
  /** What to do about it. */
  readonly hint: string;

  constructor(code: ErrorCode, message: string, hint: string = HINTS[code]) {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}

/** An error as it crosses from the worker to the page. */
export interface PlainError {
  code: ErrorCode;
  message: string;
  hint: string;
}

/** Codes of the Rust side, where they differ from the page's. */
const FROM_RUST: Record<string, ErrorCode> = {
  io: "network",
  format: "checkpoint",
  config: "checkpoint",
  limit: "out_of_memory",
  interrupted: "aborted",
};

function isCode(code: string): code is ErrorCode {
  return Object.hasOwn(HINTS, code);
}

/** Whatever was thrown, as an error of this package. */
export function toError(thrown: unknown): GrokWgpuError {
  if (thrown instanceof GrokWgpuError) {
    return thrown;
  }
  if (thrown instanceof DOMException) {
    if (thrown.name === "AbortError") {
      return new GrokWgpuError("aborted", thrown.message);
    }
    if (thrown.name === "QuotaExceededError") {
      return new GrokWgpuError("quota_exceeded", thrown.message);
    }
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const named = (thrown as { code?: unknown } | null | undefined)?.code;
  if (typeof named === "string") {
    const code = FROM_RUST[named] ?? named;
    return new GrokWgpuError(isCode(code) ? code : "internal", message);
  }
  return new GrokWgpuError("internal", message);
}

/** An error without its class, for `postMessage`. */
export function toPlain(thrown: unknown): PlainError {
  const { code, message, hint } = toError(thrown);
  return { code, message, hint };
}

/** The error that a worker sent. */
export function fromPlain({ code, message, hint }: PlainError): GrokWgpuError {
  return new GrokWgpuError(code, message, hint);
}

/** The error of work that a signal stopped. */
export function abortedError(what: string): GrokWgpuError {
  return new GrokWgpuError("aborted", `${what} was stopped`);
}
