/** Downloads in ranged requests, with retries that resume where a connection broke. */

import { abortedError, GrokWgpuError, toError } from "./errors.js";

/** Bytes in a ranged request. */
const PIECE = 8 << 20;

/** Failures in a row, without a byte in between, after which the download fails. */
export const TRIES = 5;

/** Milliseconds before the first retry; doubled for each further one. */
const BACKOFF = 400;

/** Milliseconds without a byte after which a request counts as broken. */
const STALL = 30_000;

/** The server answered with an error status or an unusable response. */
export class HttpError extends GrokWgpuError {
  constructor(
    readonly status: number,
    url: string,
    what: string,
    hint?: string,
  ) {
    super("network", `${url}: ${what}`, hint);
  }
}

/** The file on the server differs from the one whose beginning was downloaded. */
export class ChangedError extends Error {}

/** Metadata of a file, from the response headers. */
export interface Head {
  /** Size in bytes, if the server sends it. */
  size: number | undefined;
  /** An identifier that changes when the file does: the ETag, or else the modification time. */
  version: string | undefined;
}

function versionOf(response: Response): string | undefined {
  // Without `Access-Control-Expose-Headers`, other origins show `last-modified` but not `etag`.
  return response.headers.get("etag") ?? response.headers.get("last-modified") ?? undefined;
}

/** Whether a retry may help. */
function passes(status: number): boolean {
  return status === 408 || status === 425 || status === 429 || status >= 500;
}

function wait(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(abortedError("loading"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Performs network requests, with retries after failures that may be temporary. */
async function persist<T>(
  url: string,
  signal: AbortSignal | undefined,
  work: (progressed: () => void) => Promise<T>,
  tries = TRIES,
): Promise<T> {
  let failures = 0;
  for (;;) {
    if (signal?.aborted) {
      throw abortedError("loading");
    }
    try {
      return await work(() => {
        failures = 0;
      });
    } catch (error) {
      if (signal?.aborted) {
        throw abortedError("loading");
      }
      const final =
        error instanceof ChangedError ||
        (error instanceof HttpError ? !passes(error.status) : error instanceof GrokWgpuError);
      failures += 1;
      if (final || failures >= tries) {
        throw final || error instanceof HttpError ? error : cut(url, error);
      }
      await wait(BACKOFF * 2 ** (failures - 1) * (0.75 + Math.random() / 2), signal);
    }
  }
}

/** The error of a failed connection. */
function cut(url: string, error: unknown): GrokWgpuError {
  const why = error instanceof Error ? error.message : String(error);
  return new GrokWgpuError("network", `${url} could not be fetched: ${why}`);
}

/** A single request that is aborted when no bytes arrive for too long. */
async function request<T>(
  url: string,
  init: RequestInit,
  signal: AbortSignal | undefined,
  use: (response: Response, alive: () => void) => Promise<T>,
): Promise<T> {
  const stalled = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stalled.abort(new Error(`no bytes for ${STALL / 1000} seconds`)), STALL);
  };
  alive();
  try {
    const signals = signal ? AbortSignal.any([signal, stalled.signal]) : stalled.signal;
    const response = await fetch(url, { ...init, signal: signals });
    alive();
    return await use(response, alive);
  } finally {
    clearTimeout(timer);
  }
}

function check(response: Response, url: string): void {
  if (response.ok) {
    return;
  }
  const what = `the server says ${response.status} ${response.statusText}`.trim();
  const hint =
    response.status === 404 ? "Check the address: it must be that of a folder with a model's files." : undefined;
  throw new HttpError(response.status, url, what, hint);
}

/** Servers of single-page applications answer unknown addresses with their HTML page. */
function isPage(response: Response): boolean {
  return (response.headers.get("content-type") ?? "").includes("text/html");
}

/** A small text file; undefined if it does not exist. */
export function getText(
  url: string,
  signal: AbortSignal | undefined,
  tries: number,
): Promise<{ text: string; version: string | undefined } | undefined> {
  const get = () =>
    request(url, { cache: "no-cache" }, signal, async (response) => {
      if (response.status === 404 || (response.ok && isPage(response))) {
        return undefined;
      }
      check(response, url);
      return { text: await response.text(), version: versionOf(response) };
    });
  return persist(url, signal, get, tries);
}

/** Metadata of a file; undefined if it does not exist. */
export function getHead(url: string, signal: AbortSignal | undefined, tries: number): Promise<Head | undefined> {
  const get = () =>
    request(url, { method: "HEAD", cache: "no-cache" }, signal, async (response) => {
      if (response.status === 404 || (response.ok && isPage(response))) {
        return undefined;
      }
      check(response, url);
      const length = Number(response.headers.get("content-length") ?? Number.NaN);
      // The content length of a compressed response is not the file's size.
      const plain = !response.headers.get("content-encoding");
      const size = plain && Number.isSafeInteger(length) ? length : undefined;
      return { size, version: versionOf(response) };
    });
  return persist(url, signal, get, tries);
}

/** Downloads a whole file of unknown size. */
export function getBytes(url: string, signal?: AbortSignal): Promise<Uint8Array> {
  return persist(url, signal, () =>
    request(url, {}, signal, async (response) => {
      check(response, url);
      return new Uint8Array(await response.arrayBuffer());
    }),
  );
}

/** A range of a file to download. */
export interface Range {
  url: string;
  from: number;
  /** End of the range, exclusive. */
  to: number;
  /** The version that the file must still have, or `ChangedError` is thrown. */
  version: string | undefined;
  signal: AbortSignal | undefined;
}

/** Downloads a range in pieces. `take` receives the bytes in order, without repeats. */
export async function getRange(range: Range, take: (bytes: Uint8Array) => void): Promise<void> {
  const { url, to, version, signal } = range;
  let at = range.from;
  while (at < to) {
    await persist(url, signal, async (progressed) => {
      const end = Math.min(at + PIECE, to);
      const headers = { range: `bytes=${at}-${end - 1}` };
      await request(url, { headers }, signal, async (response, alive) => {
        if (response.status === 416) {
          throw new ChangedError(`${url} has become shorter`);
        }
        check(response, url);
        const now = versionOf(response);
        if (version !== undefined && now !== undefined && now !== version) {
          throw new ChangedError(`${url} has changed`);
        }
        // A server without support for ranges sends the whole file; skip the bytes that are here.
        let skip = response.status === 206 ? 0 : at;
        const last = response.status === 206 ? end : to;
        const reader = response.body?.getReader();
        if (!reader) {
          throw new HttpError(response.status, url, "the answer has no body");
        }
        while (at < last) {
          const { done, value } = await reader.read();
          if (done) {
            throw new Error(`the answer ended ${last - at} bytes early`);
          }
          alive();
          const bytes = value.subarray(Math.min(skip, value.length)).subarray(0, last - at);
          skip -= Math.min(skip, value.length);
          if (bytes.length > 0) {
            try {
              take(bytes);
            } catch (error) {
              // Not a network failure: a retry would not help.
              throw toError(error);
            }
            at += bytes.length;
            progressed();
          }
        }
        // Drop any bytes after the range.
        await reader.cancel().catch(() => {});
      });
    });
  }
}
