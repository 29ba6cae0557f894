/** The cache of model files in the origin private file system, as seen by the page. */

import { toError } from "./errors.js";

/** Folder of all models, in the root of the origin private file system. */
export const CACHE_FOLDER = "grok-wgpu";

/** The root of the origin private file system; undefined if the browser offers none. */
export async function privateRoot(): Promise<FileSystemDirectoryHandle | undefined> {
  try {
    return await navigator.storage.getDirectory();
  } catch {
    // Private windows and insecure contexts have none.
    return undefined;
  }
}

/** Deletes all cached model files. */
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

/** Size in bytes of all cached model files, partial downloads included. */
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
