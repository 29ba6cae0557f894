/** The files that this package keeps in the origin's private file system, seen from outside. */

import { toError } from "./errors.js";

/** Folder of all models, below the root of the private file system. */
export const CACHE_FOLDER = "grok-wgpu";

/** The private file system, or nothing where there is none. */
export async function privateRoot(): Promise<FileSystemDirectoryHandle | undefined> {
  try {
    return await navigator.storage.getDirectory();
  } catch {
    // Private windows and pages without https have none.
    return undefined;
  }
}

/** Deletes every file that was kept of models. */
export async function clearCache(): Promise<void> {
  const root = await privateRoot();
  try {
    await root?.removeEntry(CACHE_FOLDER, { recursive: true });
  } catch (error) {
    if (!(error instanceof DOMException && error.name === "NotFoundError")) {
      throw toError(error);
    }
  }
}

/** Bytes of all files that are kept of models, whole or not. */
export async function cachedBytes(): Promise<number> {
  const root = await privateRoot();
  try {
    const folder = await root?.getDirectoryHandle(CACHE_FOLDER);
    return folder ? await size(folder) : 0;
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotFoundError") {
      return 0;
    }
    throw toError(error);
  }
}

async function size(folder: FileSystemDirectoryHandle): Promise<number> {
  let bytes = 0;
  for await (const handle of folder.values()) {
    bytes +=
      handle.kind === "file"
        ? (await (handle as FileSystemFileHandle).getFile()).size
        : await size(handle as FileSystemDirectoryHandle);
  }
  return bytes;
}
