/** A model's files in the origin private file system, complete or partial. Works only in workers. */

import type { Version } from "./answers.js";
import { CACHE_FOLDER, privateRoot } from "./cache.js";
import { abortedError } from "./errors.js";
import { BlobFile, type Stop } from "./files.js";

/** State of a cached file. */
export interface FileState {
  size: number;
  version?: Version | undefined;
  sha256?: string | undefined;
  /** Whether the file is complete and verified. */
  done: boolean;
}

/** The part of `FileSystemSyncAccessHandle` that is used; not every TypeScript library has the type. */
interface SyncHandle {
  /** Only in browsers that let several readers have the file open. */
  readonly mode?: string;
  getSize(): number;
  read(into: Uint8Array, options: { at: number }): number;
  write(bytes: Uint8Array, options: { at: number }): number;
  truncate(size: number): void;
  flush(): void;
  close(): void;
}

type FileHandle = FileSystemFileHandle & {
  createSyncAccessHandle?: (options?: { mode: string }) => Promise<SyncHandle>;
};

function isMissing(error: unknown): boolean {
  return error instanceof DOMException && error.name === "NotFoundError";
}

/** Exclusive write access to a file. */
export class Writer {
  constructor(readonly handle: SyncHandle) {}

  get size(): number {
    return this.handle.getSize();
  }

  append(bytes: Uint8Array, at: number): void {
    // On a full disk, `write` may report only a smaller count.
    if (this.handle.write(bytes, { at }) !== bytes.length) {
      throw new DOMException("the browser has no room left for this site's files", "QuotaExceededError");
    }
  }
}

/** The cache folder of one model. */
export class Store {
  private constructor(
    private readonly folder: FileSystemDirectoryHandle,
    /** Identifies the model's folder: a hash of the address. */
    readonly key: string,
  ) {}

  /** Opens the folder for the model at an address; undefined without a private file system. */
  static async open(address: string): Promise<Store | undefined> {
    const root = await privateRoot();
    if (!root || !globalThis.crypto?.subtle) {
      return undefined;
    }
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(address)));
    const key = Array.from(hash.subarray(0, 12), (byte) => byte.toString(16).padStart(2, "0")).join("");
    try {
      const all = await root.getDirectoryHandle(CACHE_FOLDER, { create: true });
      return new Store(await all.getDirectoryHandle(key, { create: true }), key);
    } catch {
      // Some browsers have the interface in private windows but refuse to use it.
      return undefined;
    }
  }

  /** Reads a value that was saved as JSON; undefined if it is missing or incomplete. */
  async readJson<T>(name: string): Promise<T | undefined> {
    try {
      const handle = await this.folder.getFileHandle(name);
      return JSON.parse(await (await handle.getFile()).text()) as T;
    } catch {
      // Missing, or cut off while it was written.
      return undefined;
    }
  }

  /** Saves a value as JSON. */
  async writeJson(name: string, value: unknown): Promise<void> {
    await this.write(name, async (writer) => {
      writer.handle.truncate(0);
      writer.append(new TextEncoder().encode(JSON.stringify(value)), 0);
    });
  }

  /** The state of a file; undefined if the file does not have the recorded size. */
  async state(name: string): Promise<FileState | undefined> {
    const state = await this.readJson<FileState>(`${name}.state`);
    if (state?.done && (await this.file(name))?.size !== state.size) {
      return undefined;
    }
    return state;
  }

  /** Records the state of a file. */
  setState(name: string, state: FileState): Promise<void> {
    return this.writeJson(`${name}.state`, state);
  }

  /** The file's current content; undefined if it does not exist. */
  async file(name: string): Promise<File | undefined> {
    try {
      return await (await this.folder.getFileHandle(name)).getFile();
    } catch (error) {
      if (isMissing(error)) {
        return undefined;
      }
      throw error;
    }
  }

  /** The file as a model file; undefined if it does not exist. */
  async source(name: string, stop: Stop): Promise<PrivateFile | undefined> {
    const file = await this.file(name);
    return file && new PrivateFile(name, await this.folder.getFileHandle(name), file, stop);
  }

  /** Opens a file for writing, and always closes it. */
  async write<T>(name: string, work: (writer: Writer) => Promise<T>): Promise<T> {
    const file: FileHandle = await this.folder.getFileHandle(name, { create: true });
    const open = file.createSyncAccessHandle;
    if (!open) {
      throw new DOMException("files cannot be written in this browser", "NotSupportedError");
    }
    const handle = await open.call(file);
    try {
      const result = await work(new Writer(handle));
      handle.flush();
      return result;
    } finally {
      handle.close();
    }
  }
}

/**
 * A cached file that is read straight into the engine's memory, several times as fast as through a `Blob`. It is open
 * from the first read until `close`, and others may read it meanwhile. Where that cannot be, it is read as a `Blob`.
 */
export class PrivateFile extends BlobFile {
  readonly #handle: FileHandle;
  readonly #modified: number;
  #open: SyncHandle | undefined;
  #opening: Promise<void> | undefined;
  /** Whether this browser, or another tab, keeps it from being opened. */
  #refused = false;

  constructor(name: string, handle: FileHandle, file: File, stop: Stop) {
    super(name, file, stop);
    this.#handle = handle;
    this.#modified = file.lastModified;
  }

  override async read(offset: number, length: number): Promise<Uint8Array> {
    if (!this.#open && !this.#refused) {
      this.#opening ??= this.#opened().finally(() => {
        this.#opening = undefined;
      });
      await this.#opening;
    }
    const bytes = new Uint8Array(length);
    return this.readInto(offset, bytes) ? bytes : super.read(offset, length);
  }

  readInto(offset: number, into: Uint8Array): boolean {
    if (!this.#open) {
      return false;
    }
    if (this.stop.signal?.aborted) {
      throw abortedError("loading");
    }
    for (let done = 0; done < into.length; ) {
      const count = this.#open.read(into.subarray(done), { at: offset + done });
      if (count <= 0) {
        throw this.gone(`it ends at byte ${offset + done}`);
      }
      done += count;
    }
    return true;
  }

  /** Lets others write to the file until it is read again. */
  close(): void {
    this.#open?.close();
    this.#open = undefined;
    this.#refused = false;
  }

  async #opened(): Promise<void> {
    let open: SyncHandle | undefined;
    try {
      open = await this.#handle.createSyncAccessHandle?.({ mode: "read-only" });
    } catch {
      // A tab that has the file open alone: what can still be read of it, a `Blob` reads.
    }
    // Browsers that do not know the mode would lock the file.
    if (open?.mode !== "read-only") {
      open?.close();
      this.#refused = true;
      return;
    }
    const { size, lastModified } = await this.#handle.getFile();
    if (size !== this.size || lastModified !== this.#modified) {
      open.close();
      throw this.gone("it was replaced");
    }
    this.#open = open;
  }
}
