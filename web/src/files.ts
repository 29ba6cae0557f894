/** Model files that the browser holds: dropped, chosen, or cached. */

import { abortedError, GrokWgpuError } from "./errors.js";
import type { OnDisk, SentFile } from "./messages.js";
import { isGguf, isModelFile, type SourceFile } from "./wasm/grok_wgpu.js";

/** The signal that stops reading; cleared once loading has ended. */
export interface Stop {
  signal: AbortSignal | undefined;
}

/** The part of `Blob` that is used. */
export interface Bytes {
  readonly size: number;
  slice(from: number, to: number): Bytes;
  arrayBuffer(): Promise<ArrayBuffer>;
}

/** Opens files that were sent. Workers outside of pages also have those on the disk. */
export const opener = {
  open(file: File | OnDisk): Bytes {
    if ("disk" in file) {
      throw new GrokWgpuError("internal", `a page cannot open ${file.disk}`);
    }
    return file;
  },
};

/** A model file that may be held open between reads. */
export interface ModelFile extends SourceFile {
  /** Lets go of it until it is read again. */
  close?(): void;
}

/** A model file in a `Blob`. */
export class BlobFile implements ModelFile {
  readonly size: number;

  constructor(
    readonly name: string,
    private readonly blob: Bytes,
    protected readonly stop: Stop,
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
      // The file on the disk was changed, moved or deleted after it was chosen.
      throw this.gone(error instanceof Error ? error.message : String(error));
    }
  }

  protected gone(why: string): GrokWgpuError {
    return new GrokWgpuError("checkpoint", `${this.name} can no longer be read: ${why}`, "Load the model again.");
  }
}

interface Found {
  folder: string;
  name: string;
  file: SentFile["file"];
}

function split({ path, file }: SentFile): Found {
  const at = path.lastIndexOf("/");
  return { folder: path.slice(0, Math.max(at, 0)), name: path.slice(at + 1), file };
}

/** The files of one model among the dropped files, which may be in several folders. */
export function droppedFiles(sent: SentFile[], stop: Stop): { name: string; files: ModelFile[] } {
  const found = sent.map(split).filter(({ name }) => isModelFile(name));
  const configs = found.filter(({ name }) => name === "config.json").sort((a, b) => a.folder.length - b.folder.length);
  // Without a config.json, look for a GGUF file, which includes the configuration.
  const config = configs[0] ?? found.find(({ name }) => isGguf(name));
  if (!config) {
    const names = sent.slice(0, 5).map(({ path }) => path);
    const listed = `${names.join(", ")}${sent.length > 5 ? ", …" : ""}`;
    throw new GrokWgpuError(
      "checkpoint",
      `there is no config.json and no *.gguf among the ${sent.length} files (${listed})`,
      "Drop the whole folder of a model: config.json, a tokenizer and all of its *.safetensors files; or a *.gguf.",
    );
  }
  // If names repeat, only files in the folder of the configuration count.
  const names = new Set(found.map(({ name }) => name));
  const chosen = names.size === found.length ? found : found.filter(({ folder }) => folder === config.folder);
  return {
    name:
      config.folder.slice(config.folder.lastIndexOf("/") + 1) || (isGguf(config.name) ? config.name : "dropped model"),
    files: chosen.map(({ name, file }) => new BlobFile(name, opener.open(file), stop)),
  };
}
