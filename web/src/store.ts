/** A model's files in the origin's private file system, whole or begun. Runs in workers only. */

import { CACHE_FOLDER, privateRoot } from "./cache.js";

/** What is known of a kept file. */
export interface FileState {
  size: number;
  version?: string | undefined;
  sha256?: string | undefined;
  /** Whether all of it is there and was checked. */
  done: boolean;
}

/** The part of the file system's interface that not every compiler knows. */
interface SyncHandle {
  getSize(): number;
  read(into: Uint8Array, options: { at: number }): number;
  write(bytes: Uint8Array, options: { at: number }): number;
  truncate(size: number): void;
  flush(): void;
  close(): void;
}

type FileHandle = FileSystemFileHandle & { createSyncAccessHandle?: () => Promise<SyncHandle> };

function isMissing(error: unknown): boolean {
  return error instanceof DOMException && error.name === "NotFoundError";
}

/** A file that is being written. Nobody else can write it meanwhile. */
export class Writer {
  constructor(readonly handle: SyncHandle) {}

  get size(): number {
    return this.handle.getSize();
  }

  append(bytes: Uint8Array, at: number): void {
    // A full disk shows in the count alone.
    if (this.handle.write(bytes, { at }) !== bytes.length) {
      throw new DOMException("the browser has no room left for this site's files", "QuotaExceededError");
    }
  }
}

/** The folder of one model. */
export class Store {
  private constructor(
    private readonly folder: FileSystemDirectoryHandle,
    /** What tells this model's folder from others. */
    readonly key: string,
  ) {}

  /** The folder of the model at an address; nothing where there is no private file system. */
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
      // Some browsers have the interface in private windows, and refuse every use.
      return undefined;
    }
  }

  /** The text that was saved under a name, if it is all there. */
  async readJson<T>(name: string): Promise<T | undefined> {
    try {
      const handle = await this.folder.getFileHandle(name);
      return JSON.parse(await (await handle.getFile()).text()) as T;
    } catch {
      // A text that was not written to its end is as good as none.
      return undefined;
    }
  }

  /** Saves a text. */
  async writeJson(name: string, value: unknown): Promise<void> {
    await this.write(name, async (writer) => {
      writer.handle.truncate(0);
      writer.append(new TextEncoder().encode(JSON.stringify(value)), 0);
    });
  }

  /** What is known of a file. */
  async state(name: string): Promise<FileState | undefined> {
    const state = await this.readJson<FileState>(`${name}.state`);
    if (state?.done && (await this.file(name))?.size !== state.size) {
      return undefined;
    }
    return state;
  }

  /** Notes what is known of a file. */
  setState(name: string, state: FileState): Promise<void> {
    return this.writeJson(`${name}.state`, state);
  }

  /** A file as it is. */
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

  /** Opens a file to write to it, and closes it whatever happens. */
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
