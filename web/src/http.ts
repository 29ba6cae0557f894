/** Downloads in ranged requests, with retries that resume where a connection broke. */

import {
  ChangedError,
  type Content,
  check,
  differs,
  HttpError,
  isEncoded,
  isGuarded,
  lengthOf,
  mayPass,
  missing,
  otherThanFile,
  PEEK,
  partOf,
  sizeOfUnsatisfied,
  type Version,
  versionOf,
  type WrongAnswer,
  wrongRange,
} from "./answers.js";
import { abortedError, GrokWgpuError, toError } from "./errors.js";

/** Bytes in a ranged request. */
const PIECE = 8 << 20;

/** Bytes of the longest text that is read at once: a manifest or an index. */
const MAX_TEXT = 64 << 20;

/** Failures in a row, without a byte in between, after which the download fails. */
export const TRIES = 5;

/** Milliseconds before the first retry; doubled for each further one. */
const BACKOFF = 400;

/** Milliseconds without a byte after which a request counts as broken. */
const STALL = 30_000;

/** Milliseconds in which a server must answer when the cause of a failure is looked for. */
const PATIENCE = 5000;

/** There was no answer at all, or none that the page may see. */
class Unanswered extends Error {}

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
        (error instanceof HttpError ? !mayPass(error.status) : error instanceof GrokWgpuError);
      failures += 1;
      if (final || failures >= tries) {
        throw final || error instanceof HttpError ? error : await cut(url, error);
      }
      await wait(BACKOFF * 2 ** (failures - 1) * (0.75 + Math.random() / 2), signal);
    }
  }
}

/** The error of a failed connection. Browsers hide the cause, so it is found out. */
async function cut(url: string, error: unknown): Promise<GrokWgpuError> {
  const why = error instanceof Error ? error.message : String(error);
  const message = `${url} could not be fetched: ${why}`;
  const { host, origin, protocol } = new URL(url);
  const page = globalThis.location;
  if (globalThis.navigator?.onLine === false) {
    const hint = "The browser is offline. Connect and load again: what has been fetched is kept.";
    return new GrokWgpuError("network", message, hint);
  }
  if (!(error instanceof Unanswered) || !page || origin === page.origin) {
    return new GrokWgpuError("network", message);
  }
  if (page.protocol === "https:" && protocol === "http:" && !/^(localhost|127\.|\[::1\])/.test(host)) {
    const hint = "Browsers let pages that came over https fetch over https only. Use an https address.";
    return new GrokWgpuError("network", message, hint);
  }
  if (await answers(url, "cors")) {
    const hint =
      `${host} answers, but not when it is asked for a part of a file. Load again; if it stays, the server must ` +
      "allow the header Range, and must not compress parts.";
    return new GrokWgpuError("network", message, hint);
  }
  if (await answers(url, "no-cors")) {
    const hint =
      `${host} answers, but does not let pages of ${page.origin} read its files (CORS). It must send ` +
      "Access-Control-Allow-Origin with every answer; or put the files where the page is.";
    return new GrokWgpuError("network", message, hint);
  }
  const hint = "Check the address and the connection, and load again: what has been fetched is kept.";
  return new GrokWgpuError("network", message, hint);
}

/** Whether a server answers a request for a whole file; with `no-cors`, even if the page may not see what. */
async function answers(url: string, mode: RequestMode): Promise<boolean> {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), PATIENCE);
  try {
    await fetch(url, { mode, cache: "no-store", signal: stop.signal });
    return true;
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
}

/** A single request that is aborted when no bytes arrive for too long. What `use` leaves of the body is not fetched. */
async function request<T>(
  url: string,
  init: RequestInit,
  signal: AbortSignal | undefined,
  use: (response: Response, alive: () => void) => Promise<T>,
): Promise<T> {
  const stop = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stop.abort(new Error(`no bytes for ${STALL / 1000} seconds`)), STALL);
  };
  alive();
  try {
    const signals = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
    let response: Response;
    try {
      response = await fetch(url, { ...init, signal: signals });
    } catch (error) {
      throw new Unanswered(error instanceof Error ? error.message : String(error));
    }
    alive();
    return await use(response, alive);
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
}

/** The bytes of a body as they arrive. */
async function* bytesOf(response: Response, alive: () => void): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true };
    if (done || !value) {
      return;
    }
    alive();
    yield value;
  }
}

/** The size of a file that an answer holds whole, where no header of it is hidden and it is not compressed. */
function sizeOf(response: Response): number | undefined {
  return isGuarded(response) || isEncoded(response) ? undefined : lengthOf(response);
}

/** Up to `most` bytes from the beginning of a body; fewer only if it ends. */
async function beginning(response: Response, alive: () => void, most: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const bytes of bytesOf(response, alive)) {
    const part = bytes.subarray(0, most - size);
    parts.push(part);
    size += part.length;
    if (size === most) {
      break;
    }
  }
  return joined(parts);
}

function joined(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** What is at an address: a file, or none and the error if one is needed. */
export type Found = { size: number | undefined; version: Version } | { absent: HttpError | WrongAnswer };

/**
 * Looks for a file. Its size is undefined if only fetching it tells.
 *
 * The request is for a range: servers may refuse HEAD, and the length of a whole answer is that of its compressed form,
 * which is not to be seen from other origins.
 */
export function look(url: string, kind: Content, signal: AbortSignal | undefined, tries: number): Promise<Found> {
  return persist(
    url,
    signal,
    async (): Promise<Found> => {
      const first = await peek(url, kind, signal, { range: `bytes=0-${PEEK - 1}` }).catch(async (error: unknown) => {
        if (!(error instanceof Unanswered)) {
          throw error;
        }
        // Browsers refuse a compressed part, and servers the header. The whole file may come all the same.
        const whole = await peek(url, kind, signal, {});
        return "absent" in whole ? whole : { ...whole, size: undefined };
      });
      if ("absent" in first || first.size !== undefined || !first.ranges) {
        return first;
      }
      return { size: await measure(url, signal), version: first.version };
    },
    tries,
  );
}

/** Looks at the first bytes of a file. `ranges` says whether the server sends what is asked for. */
function peek(
  url: string,
  kind: Content,
  signal: AbortSignal | undefined,
  headers: HeadersInit,
): Promise<Found & { ranges?: boolean }> {
  return request(url, { headers, cache: "no-store" }, signal, async (response, alive) => {
    const absent = missing(response, url);
    if (absent) {
      return { absent };
    }
    const version = versionOf(response);
    const empty = response.status === 416 && (sizeOfUnsatisfied(response) ?? 0) === 0;
    if (!empty) {
      check(response, url);
    }
    const part = response.status === 206 ? partOf(response, url, 0, PEEK) : undefined;
    const start = empty ? new Uint8Array() : await beginning(response, alive, PEEK + 1);
    const other = otherThanFile(url, start, kind, response.headers.get("content-type"));
    if (other) {
      return { absent: other };
    }
    if (empty) {
      return { size: 0, version };
    }
    if (response.status !== 206) {
      // All of a short file is here. The length of a longer one is told only where nothing is hidden.
      return { size: start.length <= PEEK ? start.length : sizeOf(response), version, ranges: false };
    }
    // Ranges of a compressed answer are of no use: their bytes are not the file's.
    const told = lengthOf(response);
    const ranges =
      !isEncoded(response) &&
      start.length === Math.min(part?.to ?? start.length, PEEK) &&
      (told === undefined || told === start.length);
    // Without a word on the size, a part that is not full ends with the file.
    const whole = part === undefined && start.length < PEEK ? start.length : undefined;
    return { size: ranges ? (part?.total ?? whole) : undefined, version, ranges };
  });
}

/** The size of a file on a server that sends ranges but does not show it; undefined if it cannot be found out. */
async function measure(url: string, signal: AbortSignal | undefined): Promise<number | undefined> {
  const ask = <T>(from: number, use: (response: Response) => T) =>
    request(url, { headers: { range: `bytes=${from}-` }, cache: "no-store" }, signal, async (response) => {
      if (response.status !== 416) {
        check(response, url);
      }
      return use(response);
    });
  // Requests for ranges ask for no compression.
  const size = await ask(0, (response) => {
    if (response.status !== 206 || isEncoded(response)) {
      return undefined;
    }
    return partOf(response, url, 0, Number.POSITIVE_INFINITY)?.to ?? lengthOf(response);
  });
  if (size === undefined) {
    return undefined;
  }
  // The length is believed if nothing comes after it.
  return (await ask(size, ({ status }) => status === 416)) ? size : undefined;
}

/** A JSON text; `absent` if there is none, or something else in its place. */
export function getJson(
  url: string,
  signal: AbortSignal | undefined,
  tries: number,
): Promise<{ text: string } | { absent: HttpError | WrongAnswer }> {
  const get = () =>
    request(url, { cache: "no-cache" }, signal, async (response, alive) => {
      const absent = missing(response, url);
      if (absent) {
        return { absent };
      }
      check(response, url);
      const bytes = await beginning(response, alive, MAX_TEXT + 1);
      if (bytes.length > MAX_TEXT) {
        const what = `the file has more than ${MAX_TEXT} bytes, which a list of files never has`;
        throw new GrokWgpuError("checkpoint", `${url}: ${what}`);
      }
      const other = otherThanFile(url, bytes.subarray(0, PEEK), "json", response.headers.get("content-type"));
      return other ? { absent: other } : { text: new TextDecoder().decode(bytes) };
    });
  return persist(url, signal, get, tries);
}

/** A file that is downloaded. What the first answer tells is what later ones must fit. */
export interface Wanted {
  url: string;
  /** Size in bytes, if it is known. */
  size: number | undefined;
  version: Version | undefined;
  /** Whether a hash is checked at the end, so that versions do not matter. */
  hashed?: boolean;
  /** Whether the server's ranges are of no use, so that it is asked for the whole file. */
  whole?: boolean;
}

/** Throws if an answer is of another version of the file, or of one of another size. */
function match(wanted: Wanted, version: Version, total: number | undefined): void {
  const { url, size } = wanted;
  if (total !== undefined && size !== undefined && total !== size) {
    throw new ChangedError("size", `${url} has ${total} bytes, not the ${size} that were expected`);
  }
  if (!wanted.hashed && differs(wanted.version, version)) {
    throw new ChangedError("version", `${url} has changed`);
  }
  wanted.version ??= version;
}

/** Calls `take`; what it throws is no failure of the network, which a retry could mend. */
function hand(take: (bytes: Uint8Array) => void, bytes: Uint8Array): void {
  try {
    take(bytes);
  } catch (error) {
    throw toError(error);
  }
}

/**
 * Downloads a whole file of unknown size. `take` receives the bytes in order; `begin` is called first, and again
 * whenever they come anew.
 */
export function getWhole(
  url: string,
  signal: AbortSignal | undefined,
  begin: () => void,
  take: (bytes: Uint8Array) => void,
): Promise<void> {
  return persist(url, signal, () =>
    request(url, { cache: "no-store" }, signal, async (response, alive) => {
      check(response, url);
      begin();
      let size = 0;
      for await (const bytes of bytesOf(response, alive)) {
        hand(take, bytes);
        size += bytes.length;
      }
      const told = sizeOf(response);
      if (told !== undefined && told !== size) {
        throw new Error(`the answer has ${size} of ${told} bytes`);
      }
    }),
  );
}

/** A whole file of the package itself. */
export async function getBytes(url: string, signal?: AbortSignal): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  const begin = () => {
    parts.length = 0;
  };
  await getWhole(url, signal, begin, (bytes) => parts.push(bytes));
  return joined(parts);
}

/** A range of a file to download. */
export interface Range {
  from: number;
  /** End of the range, exclusive. */
  to: number;
  /** Bytes in a request; several mebibytes unless given. */
  piece?: number;
}

/** Downloads a range of a file in pieces. `take` receives the bytes in order, without repeats. */
export async function getRange(
  wanted: Wanted & { size: number },
  { from, to, piece = PIECE }: Range,
  signal: AbortSignal | undefined,
  take: (bytes: Uint8Array) => void,
): Promise<void> {
  const { url, size } = wanted;
  let at = from;
  while (at < to) {
    await persist(url, signal, async (progressed) => {
      const end = Math.min(at + piece, to);
      const range = `bytes=${at}-${end - 1}`;
      // The browser's own cache of parts may answer with the headers of another version.
      const headers: HeadersInit = wanted.whole ? {} : { range };
      await request(url, { headers, cache: "no-store" }, signal, async (response, alive) => {
        if (response.status === 416) {
          throw new ChangedError("size", `${url} has fewer than the ${size} bytes that were expected`);
        }
        check(response, url);
        const partial = response.status === 206;
        const part = partial ? partOf(response, url, at, end) : undefined;
        match(wanted, versionOf(response), partial ? part?.total : sizeOf(response));
        // A server without support for ranges sends the whole file; skip the bytes that are here.
        let skip = partial ? 0 : at;
        const told = lengthOf(response);
        // A part may be shorter than asked for. Where no header says so, its length does.
        const last = partial ? (part?.to ?? Math.min(at + (told ?? Number.POSITIVE_INFINITY), end)) : to;
        if (partial && isEncoded(response)) {
          throw wrongRange(url, "a compressed part", range);
        }
        if (partial && told !== undefined && (told !== last - at || told === 0)) {
          throw wrongRange(url, `${told} bytes`, range);
        }
        let first = true;
        for await (const got of bytesOf(response, alive)) {
          if (first && (at === 0 || !partial)) {
            const type = response.headers.get("content-type");
            const other = otherThanFile(url, got.subarray(0, PEEK), "any", type);
            if (other) {
              throw other;
            }
          }
          first = false;
          const fresh = got.subarray(Math.min(skip, got.length));
          skip -= got.length - fresh.length;
          if (fresh.length > last - at && (partial || last === size)) {
            throw partial
              ? wrongRange(url, `more than ${last - at} bytes`, range)
              : new ChangedError("size", `${url} has more than the ${size} bytes that were expected`);
          }
          const bytes = fresh.subarray(0, last - at);
          if (bytes.length > 0) {
            hand(take, bytes);
            at += bytes.length;
            progressed();
          }
          if (at === last && last !== size && !partial) {
            return;
          }
        }
        if (at < last) {
          throw new Error(`the answer ended ${last - at} bytes early`);
        }
      });
    });
  }
}
