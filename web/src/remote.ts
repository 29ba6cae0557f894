/** Models on servers: downloaded once and cached, or streamed whenever they are needed. */

import { abortedError, GrokWgpuError, toError } from "./errors.js";
import { BlobFile, type Stop } from "./files.js";
import { ChangedError, getBytes, getRange, TRIES } from "./http.js";
import { fileUrl, type ListedFile, type Listing, list, locate } from "./listing.js";
import { type FileState, Store, type Writer } from "./store.js";
import type { LoadProgress } from "./types.js";
import { Sha256, type SourceFile } from "./wasm/grok_wgpu.js";

/** Chunk size in bytes for hashing a partial download, and for flushing. */
const WINDOW = 4 << 20;

/** Block size in bytes for files that are streamed. */
const BLOCK = 4 << 20;

/** Blocks that stay in memory; consecutive reads of a checkpoint are close together. */
const BLOCKS = 3;

/** Storage in bytes that the browser may need in addition to the files. */
const MARGIN = 16 << 20;

/** Options for loading from a server. */
export interface RemoteOptions {
  cache: boolean;
  stop: Stop;
  onProgress: (progress: LoadProgress) => void;
}

/** The files of the model at an address, downloaded and cached if allowed. */
export async function remoteFiles(
  address: string,
  options: RemoteOptions,
): Promise<{ name: string; files: SourceFile[] }> {
  const { base } = locate(address);
  const name = decodeURIComponent(new URL(base).pathname.split("/").filter(Boolean).pop() ?? "model");
  const store = options.cache ? await Store.open(base) : undefined;
  if (!store) {
    return { name, files: await streamed(await list(address, options.stop.signal, TRIES), options) };
  }
  const { signal } = options.stop;
  // With a lock, two pages that load the same model share one download.
  const keep = () => kept(address, store, options);
  const files = navigator.locks
    ? await navigator.locks.request(`grok-wgpu/${store.key}`, signal ? { signal } : {}, keep)
    : await keep();
  return { name, files };
}

/** Name under which the list of files at an address is cached. A folder may hold several models. */
function listingName(address: string): string {
  const { manifest, gguf } = locate(address);
  const { pathname } = new URL(manifest);
  return `listing of ${gguf ?? pathname.slice(pathname.lastIndexOf("/") + 1)}`;
}

/** Downloads the files that are missing and opens the cached files. */
async function kept(address: string, store: Store, options: RemoteOptions): Promise<SourceFile[]> {
  const { signal } = options.stop;
  const earlier = await store.readJson<Listing>(listingName(address));
  const complete = earlier !== undefined && (await whole(store, earlier));
  let listing: Listing;
  try {
    // With a complete copy in the cache, one attempt to reach the server is enough.
    listing = await list(address, signal, complete ? 1 : TRIES);
  } catch (error) {
    if (toError(error).code !== "network" || !complete) {
      throw error;
    }
    // Offline, the cached copy is used.
    listing = earlier;
  }
  const plan = await Promise.all(
    listing.files.map(async (file) => {
      const state = await store.state(file.name);
      const same = state !== undefined && isSame(state, file);
      const have = same ? ((await store.file(file.name))?.size ?? 0) : 0;
      return { file, done: same && state.done, have, size: file.size ?? (same ? state.size : 0) };
    }),
  );
  const sum = (numbers: number[]) => numbers.reduce((total, number) => total + number, 0);
  const total = sum(plan.map(({ size }) => size));
  const cached = sum(plan.map(({ have }) => have));
  await checkQuota(total - cached);
  const progress = { phase: "files" as const, done: cached, total, cached };
  options.onProgress({ ...progress });
  for (const { file, done } of plan) {
    if (signal?.aborted) {
      throw abortedError("loading");
    }
    if (!done) {
      const url = fileUrl(listing.base, file.name);
      const more = (bytes: number) => {
        progress.done += bytes;
        // The total does not include files of unknown size.
        progress.total = Math.max(progress.total, progress.done);
        options.onProgress({ ...progress });
      };
      file.size = await fetchFile(url, file, store, signal, more);
    }
  }
  await store.writeJson(listingName(address), listing);
  const files: SourceFile[] = [];
  for (const { name } of listing.files) {
    const file = await store.file(name);
    if (!file) {
      throw new GrokWgpuError("internal", `${name} has vanished from the browser's storage`, "Load the model again.");
    }
    files.push(new BlobFile(name, file, options.stop));
  }
  return files;
}

/** Whether all files of a list are completely cached. */
async function whole(store: Store, listing: Listing): Promise<boolean> {
  const states = await Promise.all(listing.files.map(({ name }) => store.state(name)));
  return states.every((state) => state?.done);
}

/** Whether the cached file, or the part of it so far, is of the file on the server. */
function isSame(state: FileState, file: ListedFile): boolean {
  const differs = (a: unknown, b: unknown) => a !== undefined && b !== undefined && a !== b;
  if (file.sha256 !== undefined) {
    return state.sha256 === file.sha256 && state.size === file.size;
  }
  return !differs(file.size, state.size) && !differs(file.version, state.version);
}

async function checkQuota(need: number): Promise<void> {
  if (need <= 0) {
    return;
  }
  let estimate: StorageEstimate;
  try {
    estimate = await navigator.storage.estimate();
  } catch {
    // Without an estimate, writing fails once the storage is full.
    return;
  }
  const { quota, usage } = estimate;
  if (quota !== undefined && need + MARGIN > quota - (usage ?? 0)) {
    const mb = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
    const left = mb(Math.max(quota - (usage ?? 0), 0));
    throw new GrokWgpuError(
      "quota_exceeded",
      `the model needs ${mb(need)} of storage, but the browser has ${left} left for this site`,
    );
  }
}

/** Resumes or starts a download, verifies it and marks it as complete. Returns the size. */
async function fetchFile(
  url: string,
  file: ListedFile,
  store: Store,
  signal: AbortSignal | undefined,
  more: (bytes: number) => void,
): Promise<number> {
  for (let tries = 0; ; tries += 1) {
    const earlier = await store.state(file.name);
    try {
      return await store.write(file.name, async (writer) => {
        if (!earlier || earlier.done || !isSame(earlier, file)) {
          writer.handle.truncate(0);
        }
        return file.size === undefined
          ? await fetchUnsized(url, file, store, writer, signal, more)
          : await fetchSized(url, file, file.size, store, writer, signal, more);
      });
    } catch (error) {
      if (!(error instanceof ChangedError)) {
        throw error;
      }
      // The partial download belongs to an earlier version of the file.
      await store.setState(file.name, { size: -1, done: false });
      if (tries > 0) {
        throw new GrokWgpuError("network", `${error.message} while it was fetched`, "Load the model again.");
      }
      file.version = undefined;
    }
  }
}

async function fetchSized(
  url: string,
  file: ListedFile,
  size: number,
  store: Store,
  writer: Writer,
  signal: AbortSignal | undefined,
  more: (bytes: number) => void,
): Promise<number> {
  const { name, sha256, version } = file;
  const state = { size, version, sha256 };
  await store.setState(name, { ...state, done: false });
  const hash = sha256 === undefined ? undefined : new Sha256();
  let at = Math.min(writer.size, size);
  if (hash) {
    const window = new Uint8Array(Math.min(WINDOW, at));
    for (let done = 0; done < at; ) {
      const read = writer.handle.read(window.subarray(0, Math.min(WINDOW, at - done)), { at: done });
      hash.update(window.subarray(0, read));
      done += read;
    }
  }
  let unflushed = 0;
  try {
    await getRange({ url, from: at, to: size, version, signal }, (bytes) => {
      writer.append(bytes, at);
      hash?.update(bytes);
      at += bytes.length;
      unflushed += bytes.length;
      if (unflushed >= WINDOW) {
        // Flushed bytes survive closing the page.
        writer.handle.flush();
        unflushed = 0;
      }
      more(bytes.length);
    });
  } catch (error) {
    writer.handle.flush();
    hash?.free();
    throw error;
  }
  const got = hash?.finish();
  if (got !== sha256) {
    writer.handle.truncate(0);
    await store.setState(name, { size: -1, done: false });
    throw new GrokWgpuError("checksum", `${url}: SHA-256 is ${got}, the manifest says ${sha256}`);
  }
  writer.handle.truncate(size);
  writer.handle.flush();
  await store.setState(name, { ...state, done: true });
  return size;
}

/** Downloads a file of unknown size: a small one that the server sends compressed. */
async function fetchUnsized(
  url: string,
  file: ListedFile,
  store: Store,
  writer: Writer,
  signal: AbortSignal | undefined,
  more: (bytes: number) => void,
): Promise<number> {
  const bytes = await getBytes(url, signal);
  writer.handle.truncate(0);
  writer.append(bytes, 0);
  writer.handle.flush();
  await store.setState(file.name, { size: bytes.length, version: file.version, done: true });
  more(bytes.length);
  return bytes.length;
}

/** Files that are streamed from their server. */
function streamed(listing: Listing, options: RemoteOptions): Promise<SourceFile[]> {
  return Promise.all(
    listing.files.map(async (file): Promise<SourceFile> => {
      const url = fileUrl(listing.base, file.name);
      if (file.size === undefined) {
        const bytes = await getBytes(url, options.stop.signal);
        return new BlobFile(file.name, new Blob([bytes as Uint8Array<ArrayBuffer>]), options.stop);
      }
      return new ServedFile(file.name, file.size, url, file.version, options.stop);
    }),
  );
}

/** A file that is streamed from its server. Its hash is not checked, because it is not read in order. */
class ServedFile implements SourceFile {
  /** Recently used blocks, the latest at the end. */
  readonly #blocks = new Map<number, Promise<Uint8Array>>();

  constructor(
    readonly name: string,
    readonly size: number,
    private readonly url: string,
    private readonly version: string | undefined,
    private readonly stop: Stop,
  ) {}

  async read(offset: number, length: number): Promise<Uint8Array> {
    const into = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const index = Math.floor((offset + done) / BLOCK);
      const block = await this.#block(index);
      const part = block.subarray(offset + done - index * BLOCK).subarray(0, length - done);
      if (part.length === 0) {
        throw new GrokWgpuError("network", `${this.url} ends at ${this.size} bytes`);
      }
      into.set(part, done);
      done += part.length;
    }
    return into;
  }

  async #block(index: number): Promise<Uint8Array> {
    const block = this.#blocks.get(index) ?? this.#fetch(index);
    this.#blocks.delete(index);
    this.#blocks.set(index, block);
    for (const oldest of this.#blocks.keys()) {
      if (this.#blocks.size <= BLOCKS) {
        break;
      }
      this.#blocks.delete(oldest);
    }
    try {
      return await block;
    } catch (error) {
      this.#blocks.delete(index);
      throw error;
    }
  }

  async #fetch(index: number): Promise<Uint8Array> {
    const { url, version, stop } = this;
    const from = index * BLOCK;
    const to = Math.min(from + BLOCK, this.size);
    const into = new Uint8Array(to - from);
    let at = 0;
    try {
      await getRange({ url, from, to, version, signal: stop.signal }, (bytes) => {
        into.set(bytes, at);
        at += bytes.length;
      });
    } catch (error) {
      if (error instanceof ChangedError) {
        throw new GrokWgpuError("network", error.message, "Load the model again.");
      }
      throw error;
    }
    return into;
  }
}
