/** Models on servers: downloaded once and cached, or streamed whenever they are needed. */

import { ChangedError, contentOf, differs, type Version, WrongAnswer } from "./answers.js";
import { abortedError, GrokWgpuError, toError } from "./errors.js";
import { BlobFile, type ModelFile, type Stop } from "./files.js";
import { getRange, getWhole, look, TRIES, type Wanted } from "./http.js";
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

/** Bytes of a file of unknown size that are kept in memory, where there is no other place. */
const MOST_KEPT = 8 << 20;

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
): Promise<{ name: string; files: ModelFile[] }> {
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
async function kept(address: string, store: Store, options: RemoteOptions): Promise<ModelFile[]> {
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
  for (const { file, have, done } of plan) {
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
      file.size = await fetchFile({ url, file, store, signal, more, have });
    }
  }
  await store.writeJson(listingName(address), listing);
  const files: ModelFile[] = [];
  for (const { name } of listing.files) {
    const file = await store.source(name, options.stop);
    if (!file) {
      throw new GrokWgpuError("internal", `${name} has vanished from the browser's storage`, "Load the model again.");
    }
    files.push(file);
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
  if (file.sha256 !== undefined) {
    return state.sha256 === file.sha256 && state.size === file.size;
  }
  return (file.size === undefined || file.size === state.size) && !differs(file.version, state.version);
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

/** A file to be kept. */
interface Task {
  url: string;
  file: ListedFile;
  store: Store;
  signal: AbortSignal | undefined;
  /** Hears of bytes that came, or, if negative, that are to come again. */
  more: (bytes: number) => void;
  /** Bytes that are here from an earlier visit, and count as come. */
  have: number;
}

/** Resumes or starts a download, verifies it and marks it as complete. Returns the size. */
async function fetchFile(task: Task): Promise<number> {
  const { url, file, store, signal } = task;
  let come = task.have;
  const more = (bytes: number) => {
    come += bytes;
    task.more(bytes);
  };
  for (let tries = 0; ; tries += 1) {
    const earlier = await store.state(file.name);
    try {
      return await store.write(file.name, async (writer) => {
        if (!earlier || earlier.done || !isSame(earlier, file)) {
          writer.handle.truncate(0);
        }
        if (file.size === undefined) {
          return await fetchUnsized({ ...task, more }, writer);
        }
        // After a change all comes in one answer, which is of one version even if the server's nodes name it each in
        // their own way.
        const piece = tries > 0 ? file.size : undefined;
        return await fetchSized({ ...task, more }, file.size, writer, piece);
      });
    } catch (error) {
      if (!(error instanceof ChangedError || error instanceof WrongAnswer)) {
        throw error;
      }
      // The partial download belongs to an earlier version of the file, or to another one.
      await store.setState(file.name, { size: -1, done: false });
      if (error instanceof WrongAnswer) {
        throw error;
      }
      if (file.bound && error.what === "size") {
        throw new GrokWgpuError("checksum", error.message);
      }
      if (tries > 0) {
        throw changed(error);
      }
      more(-come);
      file.version = undefined;
      if (file.bound) {
        continue;
      }
      const now = await look(url, contentOf(file.name), signal, TRIES);
      if ("absent" in now) {
        throw now.absent;
      }
      file.size = now.size;
    }
  }
}

/** The error of a file that goes on changing. */
function changed({ what, message }: ChangedError): GrokWgpuError {
  const hint =
    what === "size"
      ? "The server does not say the same of the file each time. Load the model again."
      : "Load the model again. If it stays, the servers behind the address name versions each in their own way " +
        "(ETag): with a manifest, whose hashes are checked, versions do not matter.";
  return new GrokWgpuError("network", `${message} while it was fetched`, hint);
}

/** Downloads a file of known size, or the rest of it. `piece` is the number of bytes in a request, if given. */
async function fetchSized(
  { url, file, store, signal, more }: Task,
  size: number,
  writer: Writer,
  piece: number | undefined,
): Promise<number> {
  const { name, sha256 } = file;
  const wanted = { url, size, version: file.version, hashed: sha256 !== undefined };
  await store.setState(name, { size, version: file.version, sha256, done: false });
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
    await getRange(wanted, { from: at, to: size, piece }, signal, (bytes) => {
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
  await store.setState(name, { size, version: wanted.version, sha256, done: true });
  return size;
}

/** Downloads a file of unknown size, from a server that sends it only whole. */
async function fetchUnsized({ url, file, store, signal, more }: Task, writer: Writer): Promise<number> {
  let size = 0;
  const begin = () => {
    more(-size);
    size = 0;
    writer.handle.truncate(0);
  };
  await getWhole(url, signal, begin, (bytes) => {
    writer.append(bytes, size);
    size += bytes.length;
    more(bytes.length);
  });
  writer.handle.flush();
  await store.setState(file.name, { size, version: file.version, done: true });
  return size;
}

/** Files that are streamed from their server. */
async function streamed(listing: Listing, { stop }: RemoteOptions): Promise<SourceFile[]> {
  const files: SourceFile[] = [];
  for (const { name, size, version } of listing.files) {
    const url = fileUrl(listing.base, name);
    files.push(
      size === undefined
        ? await sized(name, url, version, stop)
        : new ServedFile(name, size, { url, size, version }, stop),
    );
  }
  return files;
}

/** A file whose size only all of it tells. A short one stays in memory. */
async function sized(name: string, url: string, version: Version | undefined, stop: Stop): Promise<SourceFile> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  const begin = () => {
    parts.length = 0;
    size = 0;
  };
  await getWhole(url, stop.signal, begin, (bytes) => {
    size += bytes.length;
    if (size <= MOST_KEPT) {
      parts.push(bytes as Uint8Array<ArrayBuffer>);
    } else {
      parts.length = 0;
    }
  });
  return size <= MOST_KEPT
    ? new BlobFile(name, new Blob(parts), stop)
    : new ServedFile(name, size, { url, size, version, whole: true }, stop);
}

/** A file that is streamed from its server. Its hash is not checked, because it is not read in order. */
class ServedFile implements SourceFile {
  /** Recently used blocks, the latest at the end. */
  readonly #blocks = new Map<number, Promise<Uint8Array>>();

  constructor(
    readonly name: string,
    readonly size: number,
    private readonly wanted: Wanted & { size: number },
    private readonly stop: Stop,
  ) {}

  async read(offset: number, length: number): Promise<Uint8Array> {
    const into = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const index = Math.floor((offset + done) / BLOCK);
      const block = await this.#block(index);
      const part = block.subarray(offset + done - index * BLOCK).subarray(0, length - done);
      if (part.length === 0) {
        throw new GrokWgpuError("network", `${this.wanted.url} ends at ${this.size} bytes`);
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
    const { wanted, stop } = this;
    const from = index * BLOCK;
    const to = Math.min(from + BLOCK, this.size);
    const into = new Uint8Array(to - from);
    let at = 0;
    try {
      await getRange(wanted, { from, to }, stop.signal, (bytes) => {
        into.set(bytes, at);
        at += bytes.length;
      });
    } catch (error) {
      if (error instanceof ChangedError) {
        throw changed(error);
      }
      throw error;
    }
    return into;
  }
}
