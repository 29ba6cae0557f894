/** What a server's answer says of a file, and whether it is an answer to what was asked. */

import { GrokWgpuError } from "./errors.js";

/** The server answered with an error status. */
export class HttpError extends GrokWgpuError {
  constructor(
    readonly status: number,
    url: string,
    what: string,
  ) {
    super("network", `${url}: ${what}`, remedy(status));
  }
}

/** The answer is not to what was asked: nothing of it may be used, and a retry would not help. */
export class WrongAnswer extends GrokWgpuError {
  constructor(url: string, what: string, hint: string) {
    super("network", `${url}: ${what}`, hint);
  }
}

/** The file on the server differs from the one whose beginning was downloaded. */
export class ChangedError extends Error {
  constructor(
    /** What is another one. */
    readonly what: "size" | "version",
    message: string,
  ) {
    super(message);
  }
}

const ADDRESS = "Check the address: it must be that of a folder with a model's files, of its manifest, or of a *.gguf.";

/** What to do about an error status. */
function remedy(status: number): string {
  switch (status) {
    case 401:
    case 403:
      return (
        "The server does not permit it. A signed address may have expired, the files may be private, or " +
        "there is no such file: some servers answer so for what is not there."
      );
    case 407:
      return "A proxy on the way wants a login. Log in there and load again.";
    case 404:
    case 410:
      return ADDRESS;
    default:
      return mayPass(status)
        ? "The server is overloaded or out of order. Load again later: what has been fetched is kept."
        : "Check the address, and the access key in it, if there is one.";
  }
}

/** Whether the reason of a status may pass. */
export function mayPass(status: number): boolean {
  return status === 408 || status === 425 || status === 429 || status >= 500;
}

function statusError(response: Response, url: string): HttpError {
  const { status } = response;
  const missing = status === 404 || status === 410;
  const said = `the server says ${status} ${response.statusText}`.trim();
  return new HttpError(status, url, missing ? `there is no such file: ${said}` : said);
}

/** Throws if the status is that of an error. */
export function check(response: Response, url: string): void {
  if (!response.ok) {
    throw statusError(response, url);
  }
}

/**
 * The error if the status means that a file is not there. Private folders and S3 hide what is missing behind 401 and
 * 403.
 */
export function missing(response: Response, url: string): HttpError | undefined {
  return [401, 403, 404, 410].includes(response.status) ? statusError(response, url) : undefined;
}

/** Identifies what a file held when it was sent. */
export interface Version {
  etag?: string | undefined;
  modified?: string | undefined;
}

/** The version of a file. Other origins may show neither header. */
export function versionOf(response: Response): Version {
  return {
    // Weak and strong tags with the same text are of the same file, in other encodings.
    etag: response.headers.get("etag")?.replace(/^W\//, ""),
    modified: response.headers.get("last-modified") ?? undefined,
  };
}

/** Whether two versions are of different files, as far as can be told. */
export function differs(a: Version | undefined, b: Version | undefined): boolean {
  if (a?.etag !== undefined && b?.etag !== undefined) {
    return a.etag !== b.etag;
  }
  return a?.modified !== undefined && b?.modified !== undefined && a.modified !== b.modified;
}

/** Whether the page may not see all headers of an answer. */
export function isGuarded(response: Response): boolean {
  return response.type === "cors";
}

/** Whether the body is known to have been sent in another form, such as compressed. */
export function isEncoded(response: Response): boolean {
  return !["", "identity"].includes((response.headers.get("content-encoding") ?? "").trim().toLowerCase());
}

/** The `content-length`; undefined if it is not shown. It is not the file's size if the answer is compressed. */
export function lengthOf(response: Response): number | undefined {
  const length = Number.parseInt(response.headers.get("content-length") ?? "", 10);
  return Number.isSafeInteger(length) && length >= 0 ? length : undefined;
}

/** A range of a file, as a server gives it. */
export interface Part {
  from: number;
  /** End of the range, exclusive. */
  to: number;
  /** Size of the file, if the server knows it. */
  total: number | undefined;
}

const OTHER_RANGE =
  "The server, or a cache before it, does not answer ranged requests as HTTP wants. " +
  "It must send the range that was asked for, or the whole file with status 200.";

/** The error of a range that is not the one that was asked for. */
export function wrongRange(url: string, got: string, wanted: string): WrongAnswer {
  return new WrongAnswer(url, `the server sent ${got}, not ${wanted} as asked`, OTHER_RANGE);
}

/**
 * The range in an answer with status 206 to a request for `from` up to `to`. It may end earlier. Undefined if
 * `content-range` is not shown to other origins.
 */
export function partOf(response: Response, url: string, from: number, to: number): Part | undefined {
  const wanted = `bytes=${from}-${to === Number.POSITIVE_INFINITY ? "" : to - 1}`;
  const text = response.headers.get("content-range");
  if (text === null) {
    const several = /^multipart\//i.test(response.headers.get("content-type") ?? "");
    if (several || !isGuarded(response)) {
      throw wrongRange(url, `a part ${several ? "in parts" : "without a content-range"}`, wanted);
    }
    return undefined;
  }
  const match = /^\s*bytes\s+(\d+)-(\d+)\/(\d+|\*)\s*$/i.exec(text);
  const [first, last] = [Number(match?.[1]), Number(match?.[2])];
  const total = match?.[3] === "*" ? undefined : Number(match?.[3]);
  const inFile = total === undefined || (Number.isSafeInteger(total) && last < total);
  if (!match || first !== from || !(last >= first && last < to) || !inFile) {
    throw wrongRange(url, quote(text), wanted);
  }
  return { from, to: last + 1, total };
}

/** The size in an answer with status 416: `bytes *` + `/SIZE`. */
export function sizeOfUnsatisfied(response: Response): number | undefined {
  const match = /^\s*bytes\s+\*\/(\d+)\s*$/i.exec(response.headers.get("content-range") ?? "");
  return match ? Number(match[1]) : undefined;
}

/** The beginning of a text from a server, to be quoted. */
function quote(text: string): string {
  const plain = text.replace(/[^\x20-\x7e]+/g, " ").trim();
  return JSON.stringify(plain.length > 40 ? `${plain.slice(0, 40)}…` : plain);
}

/** What a file holds, as its name says: JSON, a Jinja template, or anything. */
export type Content = "json" | "template" | "any";

export function contentOf(name: string): Content {
  if (name.endsWith(".json")) {
    return "json";
  }
  return name.endsWith(".jinja") ? "template" : "any";
}

/** The first bytes of a file by which it is told from other answers. */
export const PEEK = 512;

/**
 * The error if an answer begins as no file of a model does. Servers of single-page applications answer with their page
 * for what is not there, and some with a few words, or none. No JSON file of a model begins with anything but `{`, and
 * no template does without one.
 */
export function otherThanFile(
  url: string,
  start: Uint8Array,
  wanted: Content,
  type: string | null,
): WrongAnswer | undefined {
  // UTF-16 is left to the reader of the file, which names it.
  const wide = (start[0] === 0xff && start[1] === 0xfe) || (start[0] === 0xfe && start[1] === 0xff);
  const text = new TextDecoder().decode(start).trimStart();
  const isPage =
    /^<(!doctype|!--|html|head|body|\?xml)/i.test(text) ||
    (/^text\/html\b/i.test(type ?? "") && /^<[a-z!]/i.test(text));
  if (isPage) {
    return new WrongAnswer(
      url,
      `the server answered with a page instead of the file: ${quote(text)}`,
      "Check the address: some servers answer with a page for what is not there. " +
        "So do networks that want a login first.",
    );
  }
  if (wanted === "json" && !wide && !text.startsWith("{")) {
    return new WrongAnswer(url, `the server's answer is no JSON file of a model: ${quote(text)}`, ADDRESS);
  }
  if (wanted === "template" && start.length < PEEK && !text.includes("{")) {
    return new WrongAnswer(url, `the server's answer is no chat template: ${quote(text)}`, ADDRESS);
  }
  return undefined;
}
