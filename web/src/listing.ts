/** Lists the files of a model on a server: from its manifest, or by probing for the usual names. */

import { GrokWgpuError } from "./errors.js";
import { getHead, getText } from "./http.js";
import { ggufParts, indexFiles, isGguf, isModelFile, tokenizerFiles } from "./wasm/grok_wgpu.js";

/** A file on a server. */
export interface ListedFile {
  name: string;
  /** Size in bytes; may be unknown without a manifest. */
  size?: number | undefined;
  /** In hexadecimal digits, if the manifest gives it. */
  sha256?: string | undefined;
  /** The server's identifier of this version: ETag or modification time. */
  version?: string | undefined;
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
    return { name, size: size as number, sha256: (sha256 as string | undefined)?.toLowerCase() };
  });
}

/** The files that the engine needs; of several tokenizers only the preferred one. */
function wanted(files: ListedFile[]): ListedFile[] {
  const tokenizers = tokenizerFiles();
  const tokenizer = tokenizers.find((name) => files.some((file) => file.name === name));
  return files.filter(({ name }) => isModelFile(name) && (!tokenizers.includes(name) || name === tokenizer));
}

/** Lists a model's files; `tries` is the number of attempts for each request. */
export async function list(address: string, signal: AbortSignal | undefined, tries: number): Promise<Listing> {
  const { base, manifest, named, gguf } = locate(address);
  if (gguf !== undefined) {
    const files = ggufParts(gguf).map(async (name) => {
      const head = await getHead(fileUrl(base, name), signal, tries);
      if (!head) {
        throw new GrokWgpuError("network", `${fileUrl(base, name)}: there is no such file`, "Check the address.");
      }
      return { name, ...head };
    });
    return { base, files: await Promise.all(files) };
  }
  const text = await getText(manifest, signal, tries);
  if (text) {
    return { base, files: wanted(parseManifest(manifest, text.text)) };
  }
  if (named) {
    throw new GrokWgpuError("network", `${manifest}: there is no such manifest`, "Check the address.");
  }
  const look = async (name: string): Promise<ListedFile | undefined> => {
    const head = await getHead(fileUrl(base, name), signal, tries);
    return head && { name, ...head };
  };
  const files: (ListedFile | undefined)[] = [await look("config.json")];
  for (const name of tokenizerFiles()) {
    const tokenizer = await look(name);
    files.push(tokenizer);
    if (tokenizer) {
      break;
    }
  }
  const INDEX = "model.safetensors.index.json";
  const index = await getText(fileUrl(base, INDEX), signal, tries);
  if (index) {
    files.push({ name: INDEX, version: index.version });
    for (const name of indexFiles(INDEX, index.text)) {
      const file = await look(name);
      if (!file) {
        throw new GrokWgpuError("checkpoint", `${fileUrl(base, name)} is missing, though ${INDEX} names it`);
      }
      files.push(file);
    }
  } else {
    files.push(await look("model.safetensors"));
  }
  const there = files.filter((file) => file !== undefined);
  for (const what of ["config.json", ".safetensors"]) {
    if (!there.some(({ name }) => name.endsWith(what))) {
      const missing = what === "config.json" ? what : "model.safetensors or its index";
      throw new GrokWgpuError(
        "checkpoint",
        `${base}: there is no manifest.json, and no ${missing}`,
        "Check the address. A folder with other names of files needs a manifest: grok-wgpu-manifest FOLDER makes it.",
      );
    }
  }
  return { base, files: there };
}
