/** Errors with a stable code and a hint on what to do. */

import type { ErrorCode } from "./types.js";

/** The hint for each code, unless the error has a better one. */
const HINTS: Record<ErrorCode, string> = {
  no_webgpu:
    "Use a browser with WebGPU, up to date (Chrome, Edge, Safari 26, Firefox), " +
    "and open the page over https or from localhost.",
  no_adapter:
    "Turn on hardware acceleration in the browser's settings and update the graphics driver; " +
    "on Linux, Chrome may need chrome://flags/#enable-unsafe-webgpu.",
  device_lost:
    "The graphics driver reset and the engine could not start again. Close other heavy pages and load the model again.",
  out_of_memory: "Close other pages that use the graphics card, load with a smaller `context`, or use a smaller model.",
  quota_exceeded:
    "Free space in the browser (clearCache() empties this cache), " +
    "or load with `cache: false`, which fetches the weights on every visit.",
  network: "Check the connection and load again: what has been fetched is kept.",
  checksum:
    "The file on the server does not fit its manifest. Load again; if it stays, the file is damaged or was changed: " +
    "send it to the server again, or make the manifest again (grok-wgpu-manifest FOLDER).",
  checkpoint: "The files must be those of one model: config.json, a tokenizer and all of its *.safetensors files.",
  tokenizer: "Put the model's tokenizer.tok.json, tokenizer.json or tokenizer.model beside its weights.",
  context_length_exceeded: "Shorten the conversation, or load the model with a larger `context`.",
  usage: "Correct the call; the message says what was expected.",
  aborted: "It was stopped on request.",
  disposed: "The engine is gone. Load the model again.",
  internal: "Please report this with the message and the browser's version; reloading the page may help.",
};

/** The hint for a trap of the module: mostly, its memory could not grow. */
const STOPPED =
  "Load the model again. If it stops again, there may be too little memory: close other pages, or use a smaller model.";

/** An error of the engine: `code` for programs, `message` and `hint` for users. */
export class GrokWgpuError extends Error {
  override readonly name = "GrokWgpuError";
  /** Stable code of the error. */
  readonly code: ErrorCode;
  /** What the user can do about it. */
  readonly hint: string;

  constructor(code: ErrorCode, message: string, hint: string = HINTS[code]) {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}

/** An error as a plain object, for `postMessage`. */
export interface PlainError {
  code: ErrorCode;
  message: string;
  hint: string;
}

/** Error codes of the Rust library that are named differently here. */
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

/** Converts anything that was thrown. */
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
  if (thrown instanceof WebAssembly.RuntimeError) {
    return new GrokWgpuError("internal", `the WebAssembly module stopped: ${thrown.message}`, STOPPED);
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const given = thrown as { code?: unknown; hint?: unknown } | null | undefined;
  const named = given?.code;
  if (typeof named === "string") {
    const code = FROM_RUST[named] ?? named;
    const hint = typeof given?.hint === "string" ? given.hint : undefined;
    return new GrokWgpuError(isCode(code) ? code : "internal", message, hint);
  }
  return new GrokWgpuError("internal", message);
}

/** Converts anything that was thrown to a plain object, for `postMessage`. */
export function toPlain(thrown: unknown): PlainError {
  const { code, message, hint } = toError(thrown);
  return { code, message, hint };
}

/** Restores an error that a worker sent. */
export function fromPlain({ code, message, hint }: PlainError): GrokWgpuError {
  return new GrokWgpuError(code, message, hint);
}

/** The error of a call that its signal aborted. */
export function abortedError(what: string): GrokWgpuError {
  return new GrokWgpuError("aborted", `${what} was stopped`);
}
