/** Lists the files of a model on a server: from its manifest, or by probing for the usual names. */

import { contentOf, HttpError, type Version, type WrongAnswer } from "./answers.js";
import { GrokWgpuError } from "./errors.js";
import { getJson, look } from "./http.js";
import { ggufParts, indexFiles, isGguf, isModelFile, tokenizerFiles, usualFiles } from "./wasm/grok_wgpu.js";

/** A file on a server. */
export interface ListedFile {
  name: string;
  /** Size in bytes; may be unknown without a manifest. */
  size?: number | undefined;
  /** In hexadecimal digits, if the manifest gives it. */
  sha256?: string | undefined;
  /** The server's identifiers of this version. */
  version?: Version | undefined;
  /** Whether a manifest gives the size, so that no other will do. */
  bound?: boolean | undefined;
}

/** The files of a model. */
export interface Listing {
  /** The folder's address, with a trailing slash. */
  base: string;
  files: ListedFile[];
}

/** Interprets an address: a folder, a manifest, or a GGUF file. */
export function locate(address: string): { base: string; manifest: string; named: boolean; gguf?: string } {
  const url = new URL(address);
  const file = decodeURIComponent(url.pathname.slice(url.pathname.lastIndexOf("/") + 1));
  if (isGguf(file)) {
    const base = new URL(".", url);
    base.search = url.search;
    return { base: base.href, manifest: url.href, named: true, gguf: file };
  }
  if (url.pathname.endsWith(".json")) {
    return { base: new URL(".", url).href, manifest: url.href, named: true };
  }
  if (!url.pathname.endsWith("/")) {
    url.pathname += "/";
  }
  const manifest = new URL("manifest.json", url);
  manifest.search = url.search;
  return { base: url.href, manifest: manifest.href, named: false };
}

/** The address of a file in a folder. Keeps the folder's query, which may hold an access key. */
export function fileUrl(base: string, name: string): string {
  const url = new URL(base);
  url.pathname += encodeURIComponent(name);
  return url.href;
}

function wrong(url: string, what: string): GrokWgpuError {
  return new GrokWgpuError(
    "checkpoint",
    `${url}: ${what}`,
    "The manifest must be made again: grok-wgpu-manifest FOLDER.",
  );
}

/** Parses a manifest: `{ "files": [{ "name", "size", "sha256" }] }`. */
export function parseManifest(url: string, text: string): ListedFile[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw wrong(url, `this is no JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  const files = (parsed as { files?: unknown } | null)?.files;
  if (!Array.isArray(files)) {
    throw wrong(url, "there is no list of files");
  }
  return files.map((entry: unknown, i) => {
    const { name, size, sha256 } = (entry ?? {}) as Record<string, unknown>;
    if (typeof name !== "string" || name === "" || /[/\\]|^\.\.?$/.test(name)) {
      throw wrong(url, `the name of file ${i} is ${JSON.stringify(name)}, expected that of a file beside it`);
    }
    if (!Number.isSafeInteger(size) || (size as number) < 0) {
      throw wrong(url, `the size of ${name} is ${JSON.stringify(size)}, expected a number of bytes`);
    }
    if (sha256 !== undefined && (typeof sha256 !== "string" || !/^[0-9a-f]{64}$/i.test(sha256))) {
      throw wrong(url, `sha256 of ${name} is ${JSON.stringify(sha256)}, expected 64 hexadecimal digits`);
    }
    return { name, size: size as number, sha256: (sha256 as string | undefined)?.toLowerCase(), bound: true };
  });
}

/** The files that the engine needs; of several tokenizers only the preferred one. */
function wanted(files: ListedFile[]): ListedFile[] {
  const tokenizers = tokenizerFiles();
  const tokenizer = tokenizers.find((name) => files.some((file) => file.name === name));
  return files.filter(({ name }) => isModelFile(name) && (!tokenizers.includes(name) || name === tokenizer));
}

/** The names under which a folder without a manifest may have weights. */
const INDEX = "model.safetensors.index.json";
const WEIGHTS = "model.safetensors";

/** Looks for files in a folder, and remembers why one was not found. */
class Folder {
  readonly absent = new Map<string, HttpError | WrongAnswer>();

  constructor(
    readonly base: string,
    private readonly signal: AbortSignal | undefined,
    private readonly tries: number,
  ) {}

  async find(name: string): Promise<ListedFile | undefined> {
    const found = await look(fileUrl(this.base, name), contentOf(name), this.signal, this.tries);
    if ("absent" in found) {
      this.absent.set(name, found.absent);
      return undefined;
    }
    return { name, size: found.size, version: found.version };
  }

  /** A file that the model cannot do without. */
  async need(name: string): Promise<ListedFile> {
    const file = await this.find(name);
    const error = this.absent.get(name);
    if (!file) {
      throw error;
    }
    return file;
  }

  /** The first of several files that is there. */
  async first(names: string[]): Promise<ListedFile | undefined> {
    for (const name of names) {
      const file = await this.find(name);
      if (file) {
        return file;
      }
    }
    return undefined;
  }

  /** The error of the first of these files that may be there but was refused, or had something else in its place. */
  withheld(names: string[]): HttpError | WrongAnswer | undefined {
    const errors = names.map((name) => this.absent.get(name));
    return errors.find((error) => error && !isPlainlyMissing(error));
  }
}

/** Whether the server said that there is no such file, not that it is withheld. */
function isPlainlyMissing(error: HttpError | WrongAnswer): boolean {
  return error instanceof HttpError && (error.status === 404 || error.status === 410);
}

/** Lists a model's files; `tries` is the number of attempts for each request. */
export async function list(address: string, signal: AbortSignal | undefined, tries: number): Promise<Listing> {
  const { base, manifest, named, gguf } = locate(address);
  const folder = new Folder(base, signal, tries);
  if (gguf !== undefined) {
    return { base, files: await Promise.all(ggufParts(gguf).map((name) => folder.need(name))) };
  }
  const text = await getJson(manifest, signal, tries);
  if ("text" in text) {
    return { base, files: wanted(parseManifest(manifest, text.text)) };
  }
  if (named) {
    throw text.absent;
  }
  const config = await folder.find("config.json");
  const tokenizer = await folder.first(tokenizerFiles());
  const weights = await listWeights(folder, signal, tries);
  for (const [missing, names] of [
    [!config, ["config.json"]],
    [weights.length === 0, [INDEX, WEIGHTS]],
    [!tokenizer, tokenizerFiles()],
  ] as const) {
    const withheld = missing && folder.withheld([...names]);
    if (withheld) {
      throw withheld;
    }
  }
  if (!config || weights.length === 0) {
    throw new GrokWgpuError(
      "checkpoint",
      `${base}: there is no manifest.json, and no ${config ? `${WEIGHTS} or its index` : "config.json"}`,
      "Check the address. A folder with other names of files needs a manifest: grok-wgpu-manifest FOLDER makes it.",
    );
  }
  const usual = await Promise.all(usualFiles().map((name) => folder.find(name)));
  const files = [config, tokenizer, ...usual, ...weights];
  return { base, files: files.filter((file) => file !== undefined) };
}

/** The weights in a folder: the files that an index names, and the index; or one file; or none. */
async function listWeights(folder: Folder, signal: AbortSignal | undefined, tries: number): Promise<ListedFile[]> {
  const index = await folder.find(INDEX);
  if (!index) {
    const whole = await folder.find(WEIGHTS);
    return whole ? [whole] : [];
  }
  const text = await getJson(fileUrl(folder.base, INDEX), signal, tries);
  if ("absent" in text) {
    throw text.absent;
  }
  const files = [index];
  // One after another: an index may name any number of files.
  for (const name of indexFiles(INDEX, text.text)) {
    const file = await folder.find(name);
    const error = folder.absent.get(name);
    if (error && isPlainlyMissing(error)) {
      const url = fileUrl(folder.base, name);
      throw new GrokWgpuError("checkpoint", `${url} is missing, though ${INDEX} names it`);
    }
    if (!file) {
      throw error;
    }
    files.push(file);
  }
  return files;
}
