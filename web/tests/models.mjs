// Test checkpoints, derived from the demo model.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { demo } from "./harness.mjs";

/** Reads the tensors of a safetensors file. */
function read(file) {
  const bytes = readFileSync(file);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const { __metadata__, ...header } = JSON.parse(bytes.subarray(8, start).toString());
  return Object.entries(header).map(
    ([
      name,
      {
        dtype,
        shape,
        data_offsets: [from, to],
      },
    ]) => ({
      name,
      dtype,
      shape,
      data: bytes.subarray(start + from, start + to),
    }),
  );
}

function write(file, tensors) {
  let at = 0;
  const header = {};
  for (const { name, dtype, shape, data } of tensors) {
    header[name] = { dtype, shape, data_offsets: [at, at + data.length] };
    at += data.length;
  }
  let text = JSON.stringify(header);
  text = text.padEnd(Math.ceil(text.length / 8) * 8);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(file, Buffer.concat([size, Buffer.from(text), ...tensors.map(({ data }) => data)]));
}

/** Slice `number` of `count` of a matrix, by columns or rows. */
function cut({ name, dtype, shape: [rows, columns], data }, axis, number, count) {
  if (axis === 0) {
    const size = data.length / count;
    return { name, dtype, shape: [rows / count, columns], data: data.subarray(number * size, (number + 1) * size) };
  }
  const row = data.length / rows;
  const part = row / count;
  const parts = Array.from({ length: rows }, (_, r) =>
    data.subarray(r * row + number * part, r * row + (number + 1) * part),
  );
  return { name, dtype, shape: [rows, columns / count], data: Buffer.concat(parts) };
}

/**
 * The demo model in the layout of the Grok-2 release: a file for each kind of tensor, experts in tensor-parallel
 * slices.
 */
export function tensorParallel(folder, slices = 2) {
  mkdirSync(folder, { recursive: true });
  const kinds = new Map();
  for (const tensor of read(path.join(demo, "model.safetensors"))) {
    const kind = tensor.name.replace(/layers\.\d+|experts\.\d+/g, "");
    kinds.set(kind, [...(kinds.get(kind) ?? []), tensor]);
  }
  let number = 0;
  for (const [kind, tensors] of kinds) {
    const base = `pytorch_model-${String(number++).padStart(5, "0")}-TP-`;
    const expert = /\.(w[123])\.weight$/.exec(kind);
    if (!expert) {
      write(path.join(folder, `${base}common.safetensors`), tensors);
      continue;
    }
    // Experts are sliced along their hidden width: rows of the first two matrices, columns of the last.
    const axis = expert[1] === "w2" ? 1 : 0;
    for (let slice = 0; slice < slices; slice += 1) {
      const own = tensors.map((tensor) => cut(tensor, axis, slice, slices));
      write(path.join(folder, `${base}${String(slice).padStart(3, "0")}.safetensors`), own);
    }
  }
  copy(folder, ["config.json", "tokenizer.tok.json"]);
  return folder;
}

function copy(folder, names) {
  for (const name of names) {
    writeFileSync(path.join(folder, name), readFileSync(path.join(demo, name)));
  }
}

/** The demo model with a tokenizer whose longer tokens are HTML with scripts, to test escaping. */
export function hostile(folder) {
  mkdirSync(folder, { recursive: true });
  copy(folder, ["config.json", "model.safetensors"]);
  const tokenizer = JSON.parse(readFileSync(path.join(demo, "tokenizer.tok.json"), "utf8"));
  tokenizer.regular_tokens = tokenizer.regular_tokens.map(({ bytes, token }) => ({
    bytes: bytes.length === 1 ? bytes : [...Buffer.from(`<img src=x onerror=hacked=${token}>`)],
    token,
  }));
  writeFileSync(path.join(folder, "tokenizer.tok.json"), JSON.stringify(tokenizer));
  return folder;
}

/** The demo model with truncated weights. */
export function truncated(folder) {
  mkdirSync(folder, { recursive: true });
  copy(folder, ["config.json", "tokenizer.tok.json"]);
  writeFileSync(
    path.join(folder, "model.safetensors"),
    readFileSync(path.join(demo, "model.safetensors")).subarray(0, 5_000_000),
  );
  return folder;
}

/** The PyTorch original's greedy answer to the question of its reference file. */
export function reference() {
  const { greedy } = JSON.parse(readFileSync(path.join(demo, "reference.json"), "utf8"));
  const { regular_tokens } = JSON.parse(readFileSync(path.join(demo, "tokenizer.tok.json"), "utf8"));
  const bytes = new Map(regular_tokens.map(({ token, bytes }) => [token, bytes]));
  const text = Buffer.from(greedy.ids.flatMap((id) => bytes.get(id))).toString();
  const question = /^Human: (.*)<\|separator\|>/.exec(greedy.prompt)[1];
  // The space after the speaker's name belongs to the chat format.
  return { question, ids: greedy.ids, text: text.replace(/^ /, "") };
}
