/** Files of a model that are on the page's side: dropped, chosen, or kept from an earlier visit. */

import { abortedError, GrokWgpuError } from "./errors.js";
import type { SentFile } from "./messages.js";
import { isGguf, isModelFile, type SourceFile } from "./wasm/grok_wgpu.js";

/** What stops the reading of files, while there is somebody who can. */
export interface Stop {
  signal: AbortSignal | undefined;
}

/** A file whose bytes the browser has. */
export class BlobFile implements SourceFile {
  readonly size: number;

  constructor(
    readonly name: string,
    private readonly blob: Blob,
    private readonly stop: Stop,
  ) {
    this.size = blob.size;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    if (this.stop.signal?.aborted) {
      throw abortedError("loading");
    }
    try {
      return new Uint8Array(await this.blob.slice(offset, offset + length).arrayBuffer());
    } catch (error) {
      // A file on a disk that was changed, moved or deleted after it was chosen.
      const why = error instanceof Error ? error.message : String(error);
      throw new GrokWgpuError("checkpoint", `${this.name} can no longer be read: ${why}`, "Load the model again.");
    }
  }
}

interface Found {
  folder: string;
  name: string;
  file: File;
}

function split({ path, file }: SentFile): Found {
  const at = path.lastIndexOf("/");
  return { folder: path.slice(0, Math.max(at, 0)), name: path.slice(at + 1), file };
}

/** The files of the one model among those that were dropped, in whatever folders they are. */
export function droppedFiles(sent: SentFile[], stop: Stop): { name: string; files: SourceFile[] } {
  const found = sent.map(split).filter(({ name }) => isModelFile(name));
  const configs = found.filter(({ name }) => name === "config.json").sort((a, b) => a.folder.length - b.folder.length);
  // Without a configuration the model is in GGUF, which has everything.
  const config = configs[0] ?? found.find(({ name }) => isGguf(name));
  if (!config) {
    const names = sent.slice(0, 5).map(({ path }) => path);
    throw new GrokWgpuError(
      "checkpoint",
      `there is no config.json and no *.gguf among the ${sent.length} files (${names.join(", ")}${sent.length > 5 ? ", …" : ""})`,
      "Drop the whole folder of a model: config.json, a tokenizer and all of its *.safetensors files; or a *.gguf.",
    );
  }
  // Where several files have one name, it is the folder of the configuration that counts.
  const names = new Set(found.map(({ name }) => name));
  const chosen = names.size === found.length ? found : found.filter(({ folder }) => folder === config.folder);
  return {
    name:
      config.folder.slice(config.folder.lastIndexOf("/") + 1) || (isGguf(config.name) ? config.name : "dropped model"),
    files: chosen.map(({ name, file }) => new BlobFile(name, file, stop)),
  };
}
