#!/usr/bin/env node
// Writes the manifest.json of a model's folder: the names, sizes and hashes of its files. With it a
// page knows which files there are, and that they came whole:
//
//     npx grok-wgpu-manifest FOLDER
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, rename, stat, writeFile } from "node:fs/promises";
import path from "node:path";

/** What a page may need of a folder. */
function belongs(name) {
  return (
    !name.startsWith(".") &&
    (["config.json", "tokenizer.tok.json", "tokenizer.json", "tokenizer.model"].includes(name) ||
      name.endsWith(".safetensors") ||
      name.endsWith(".index.json"))
  );
}

async function sha256(file) {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file)) {
    hash.update(chunk);
  }
  return hash.digest("hex");
}

/** The manifest of a folder. */
export async function manifest(folder) {
  const files = [];
  for (const name of (await readdir(folder)).filter(belongs).sort()) {
    const file = path.join(folder, name);
    files.push({ name, size: (await stat(file)).size, sha256: await sha256(file) });
  }
  if (!files.some(({ name }) => name.endsWith(".safetensors"))) {
    throw new Error(`${folder} holds no *.safetensors file`);
  }
  return { files };
}

if (process.argv[1]?.match(/(manifest\.mjs|grok-wgpu-manifest)$/)) {
  const [folder, out = path.join(folder ?? "", "manifest.json")] = process.argv.slice(2);
  if (!folder) {
    console.error("usage: grok-wgpu-manifest FOLDER [FILE]");
    process.exit(2);
  }
  try {
    const text = `${JSON.stringify(await manifest(folder), undefined, 2)}\n`;
    // The file gets its name when it is whole.
    await writeFile(`${out}.part`, text);
    await rename(`${out}.part`, out);
    console.log(out);
  } catch (error) {
    console.error(`error: ${error.message}`);
    process.exit(1);
  }
}
