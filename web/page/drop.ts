/** Files and folders that are dropped on the page. */

import { find } from "./dom.js";

/** Maximum number of files, in case somebody drops a whole disk. */
const MOST = 5000;

/** Calls `take` with the files of each drop. */
export function onDrop(take: (files: File[]) => void, fail: (thrown: unknown) => void): void {
  const veil = find("drop", HTMLElement);
  // `dragenter` of a nested element comes before `dragleave` of the outer one.
  let depth = 0;
  const show = () => {
    veil.hidden = depth === 0;
  };
  addEventListener("dragenter", (event) => {
    if (hasFiles(event)) {
      event.preventDefault();
      depth += 1;
      show();
    }
  });
  addEventListener("dragleave", (event) => {
    if (hasFiles(event)) {
      depth = Math.max(depth - 1, 0);
      show();
    }
  });
  addEventListener("dragover", (event) => {
    if (hasFiles(event)) {
      event.preventDefault();
    }
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) {
      return;
    }
    event.preventDefault();
    depth = 0;
    show();
    // Entries can be read only during the event.
    const items = [...(event.dataTransfer?.items ?? [])].filter(({ kind }) => kind === "file");
    const entries = items.map((item) => item.webkitGetAsEntry());
    const plain = [...(event.dataTransfer?.files ?? [])];
    const folders = entries.some((entry) => entry?.isDirectory);
    (folders ? collect(entries.filter((entry) => entry !== null)) : Promise.resolve(plain)).then(take, fail);
  });
}

function hasFiles(event: DragEvent): boolean {
  return event.dataTransfer?.types.includes("Files") ?? false;
}

async function collect(entries: FileSystemEntry[]): Promise<File[]> {
  const files: File[] = [];
  const waiting = [...entries];
  for (let entry = waiting.shift(); entry && files.length < MOST; entry = waiting.shift()) {
    if (entry.isDirectory) {
      waiting.push(...(await list(entry as FileSystemDirectoryEntry)));
    } else {
      files.push(await open(entry as FileSystemFileEntry));
    }
  }
  return files;
}

/** The entries of a folder. `readEntries` returns them in batches; an empty batch ends the list. */
async function list(folder: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = folder.createReader();
  const all: FileSystemEntry[] = [];
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) {
      return all;
    }
    all.push(...some);
  }
}

/** A file with its `webkitRelativePath`, as a folder input would give it. */
async function open(entry: FileSystemFileEntry): Promise<File> {
  const file = await new Promise<File>((resolve, reject) => entry.file(resolve, reject));
  Object.defineProperty(file, "webkitRelativePath", { value: entry.fullPath.replace(/^\//, "") });
  return file;
}
