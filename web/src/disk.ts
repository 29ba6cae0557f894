/** Models on a disk, for programs that run outside of pages. */

import { readdirSync, statSync } from "node:fs";
import { open } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { GrokWgpuError } from "./errors.js";
import { type Bytes, opener } from "./files.js";
import type { SentFile } from "./messages.js";

/** A file on the disk, or a range of it, which is read when it is asked for. */
class DiskFile implements Bytes {
  constructor(
    private readonly path: string,
    readonly size: number,
    private readonly from = 0,
  ) {}

  slice(from: number, to: number): DiskFile {
    const end = Math.min(to, this.size);
    return new DiskFile(this.path, Math.max(end - from, 0), this.from + from);
  }

  async arrayBuffer(): Promise<ArrayBuffer> {
    const into = new Uint8Array(this.size);
    const file = await open(this.path);
    try {
      for (let done = 0; done < this.size; ) {
        const { bytesRead } = await file.read(into, done, this.size - done, this.from + done);
        if (bytesRead === 0) {
          throw new Error(`it ends at ${this.from + done} bytes`);
        }
        done += bytesRead;
      }
    } finally {
      await file.close();
    }
    return into.buffer;
  }
}

/** Lets a worker read the files that `filesAt` names. */
export function readDisk(): void {
  opener.open = (file) => ("disk" in file ? new DiskFile(file.disk, file.size) : file);
}

function why(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The files at a path: those of a folder, or the one that it names. */
export function filesAt(path: string): SentFile[] {
  const whole = resolve(path);
  try {
    const isFolder = statSync(whole).isDirectory();
    // The last folder's name is that of the model.
    const within = isFolder ? `${basename(whole)}/` : "";
    const paths = isFolder ? readdirSync(whole).map((name) => join(whole, name)) : [whole];
    const files = paths.flatMap((file) => {
      const info = statSync(file);
      return info.isFile() ? [{ path: within + basename(file), file: { disk: file, size: info.size } }] : [];
    });
    if (!files.some(({ path }) => /(^|\/)config\.json$|\.gguf$/i.test(path))) {
      throw new GrokWgpuError(
        "checkpoint",
        isFolder ? `${whole} has no config.json and no *.gguf` : `${whole} is no *.gguf`,
        "Give the path of a model's folder (config.json, a tokenizer, *.safetensors), or of a *.gguf.",
      );
    }
    return files;
  } catch (error) {
    if (error instanceof GrokWgpuError) {
      throw error;
    }
    const hint = "Give the path of a model's folder or of a *.gguf, or an address that begins with https://.";
    throw new GrokWgpuError("checkpoint", `${path} cannot be read: ${why(error)}`, hint);
  }
}
