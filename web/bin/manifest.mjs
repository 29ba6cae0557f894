#!/usr/bin/env node
// Writes the manifest.json of a model's folder: the names, sizes and hashes of its files. With it a
// page knows which files there are, and that they came whole:
//
//     npx grok-wgpu-manifest FOLDER
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, rename, stat, writeFile } from "node:fs/promises";
import path from "node:path";

/** Files with one name. */
const NAMES = [
  "chat_template.jinja",
  "chat_template.json",
  "config.json",
  "generation_config.json",
  "special_tokens_map.json",
  "tokenizer.json",
  "tokenizer.model",
  "tokenizer.tok.json",
  "tokenizer_config.json",
];

/** What a page may need of these files of a folder. Weights are safetensors, or else GGUF. */
function chosen(names) {
  const shown = names.filter((name) => !name.startsWith("."));
  const end = shown.some((name) => name.endsWith(".safetensors")) ? /\.(safetensors|index\.json)$/ : /\.gguf$/i;
  return shown.filter((name) => NAMES.includes(name) || end.test(name)).sort();
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
  for (const name of chosen(await readdir(folder))) {
    const file = path.join(folder, name);
    files.push({ name, size: (await stat(file)).size, sha256: await sha256(file) });
  }
  if (!files.some(({ name }) => /\.(safetensors|gguf)$/i.test(name))) {
    throw new Error(`${folder} holds no *.safetensors and no *.gguf`);
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
