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

/** llama.cpp's names for what is in a layer and, at the end, for the rest. */
const LLAMA_CPP = {
  pre_attn_norm: "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  post_attn_norm: "attn_output_norm",
  pre_moe_norm: "ffn_norm",
  "block_sparse_moe.gate": "ffn_gate_inp",
  "block_sparse_moe.experts.w1": "ffn_gate_exps",
  "block_sparse_moe.experts.w2": "ffn_down_exps",
  "block_sparse_moe.experts.w3": "ffn_up_exps",
  "mlp.gate_proj": "ffn_gate",
  "mlp.down_proj": "ffn_down",
  "mlp.up_proj": "ffn_up",
  post_moe_norm: "post_ffw_norm",
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  lm_head: "output",
};

const u32 = (value) => Buffer.from(Uint32Array.of(value).buffer);
const u64 = (value) => Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
const f32 = (value) => Buffer.from(Float32Array.of(value).buffer);
const text = (value) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);

/** Values of GGUF's metadata: the number of a type, and the bytes. */
const ggufInt = (value) => [u32(4), u32(value)];
const ggufFloat = (value) => [u32(6), f32(value)];
const ggufText = (value) => [u32(8), text(value)];
const ggufInts = (values) => [u32(9), u32(5), u64(values.length), ...values.map(u32)];
const ggufTexts = (values) => [u32(9), u32(8), u64(values.length), ...values.map(text)];

/** The demo model's configuration in GGUF's metadata. */
function ggufConfig() {
  const config = JSON.parse(readFileSync(path.join(demo, "config.json"), "utf8"));
  return {
    "general.architecture": ggufText("grok"),
    "grok.block_count": ggufInt(config.num_hidden_layers),
    "grok.context_length": ggufInt(config.max_position_embeddings),
    "grok.embedding_length": ggufInt(config.hidden_size),
    "grok.feed_forward_length": ggufInt(config.intermediate_size),
    "grok.expert_feed_forward_length": ggufInt(config.moe_intermediate_size),
    "grok.vocab_size": ggufInt(config.vocab_size),
    "grok.expert_count": ggufInt(config.num_local_experts),
    "grok.expert_used_count": ggufInt(config.num_experts_per_tok),
    "grok.attention.head_count": ggufInt(config.num_attention_heads),
    "grok.attention.head_count_kv": ggufInt(config.num_key_value_heads),
    "grok.attention.key_length": ggufInt(config.head_dim),
    "grok.attention.value_length": ggufInt(config.head_dim),
    "grok.attention.temperature_length": ggufInt(config.attn_temperature_len),
    "grok.attention.output_scale": ggufFloat(config.head_dim ** -0.5),
    "grok.attention.layer_norm_rms_epsilon": ggufFloat(config.rms_norm_eps),
    "grok.attn_logit_softcapping": ggufFloat(config.attn_logit_softcapping),
    "grok.router_logit_softcapping": ggufFloat(config.router_logit_softcapping),
    "grok.final_logit_softcapping": ggufFloat(config.final_logit_softcapping),
    "grok.embedding_scale": ggufFloat(config.embedding_multiplier_scale),
    "grok.logit_scale": ggufFloat(config.output_multiplier_scale),
    "grok.rope.dimension_count": ggufInt(config.head_dim),
    "grok.rope.freq_base": ggufFloat(config.rope_theta),
    // llama.cpp's converter writes "yarn" for "original".
    "grok.rope.scaling.type": ggufText(config.rope_type === "original" ? "yarn" : config.rope_type),
    "grok.rope.scaling.factor": ggufFloat(config.scaling_factor),
    "grok.rope.scaling.original_context_length": ggufInt(config.original_max_position_embeddings),
  };
}

/** The demo model's tokenizer in GGUF's metadata: byte-pair encoding with merges. */
function ggufTokenizer() {
  const { regular_tokens, special_tokens } = JSON.parse(readFileSync(path.join(demo, "tokenizer.tok.json"), "utf8"));
  // Bytes that are not printable in Latin-1 are written as characters from U+0100 on.
  let other = 0x100;
  const letters = Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    return String.fromCharCode(printable ? byte : other++);
  });
  const tokens = [];
  for (const { bytes, token } of special_tokens) {
    tokens[token] = Buffer.from(bytes).toString();
  }
  const special = new Set(tokens);
  for (const { bytes, token } of regular_tokens) {
    tokens[token] = bytes.map((byte) => letters[byte]).join("");
  }
  // The rank of a merge is that of the token it makes.
  const regular = new Set(tokens.filter((token) => !special.has(token)));
  const merges = [...regular].flatMap((token) =>
    Array.from({ length: token.length - 1 }, (_, i) => [token.slice(0, i + 1), token.slice(i + 1)])
      .filter((pair) => pair.every((part) => regular.has(part)))
      .map((pair) => pair.join(" ")),
  );
  return {
    "tokenizer.ggml.model": ggufText("gpt2"),
    "tokenizer.ggml.pre": ggufText("grok-2"),
    "tokenizer.ggml.tokens": ggufTexts(tokens),
    "tokenizer.ggml.merges": ggufTexts(merges),
    // 3 is a control token, 1 a normal one.
    "tokenizer.ggml.token_type": ggufInts(tokens.map((token) => (special.has(token) ? 3 : 1))),
    "tokenizer.ggml.eos_token_id": ggufInt(tokens.indexOf("<|eos|>")),
  };
}

/** BF16 as F32, which has two more bytes for the fraction. */
function widened(data) {
  const wide = Buffer.alloc(2 * data.length);
  for (let at = 0; at < data.length; at += 2) {
    data.copy(wide, 2 * at + 2, at, at + 2);
  }
  return wide;
}

/** The demo model as a GGUF file, as llama.cpp's converter writes it: norms and routers in F32, the rest in BF16. */
export function gguf(file) {
  const tensors = new Map();
  for (const { name, shape, data } of read(path.join(demo, "model.safetensors"))) {
    const [, layer, part] = /^(?:model\.layers\.(\d+)\.)?(.+)\.weight$/.exec(name.replace(/experts\.\d+/, "experts"));
    const own = `${layer ? `blk.${layer}.` : ""}${LLAMA_CPP[part]}.weight`;
    // The experts of a layer, which the safetensors file has in order, are stacked.
    const parts = [...(tensors.get(own)?.parts ?? []), data];
    const extents = own.includes("_exps.") ? [parts.length, ...shape] : shape;
    tensors.set(own, { extents, parts, wide: shape.length === 1 || own.includes("ffn_gate_inp") });
  }
  const padded = (bytes) => Buffer.concat([bytes, Buffer.alloc(-bytes.length & 31)]);
  const keys = Object.entries({ ...ggufConfig(), ...ggufTokenizer() });
  const header = [Buffer.from("GGUF"), u32(3), u64(tensors.size), u64(keys.length)];
  header.push(...keys.flatMap(([key, value]) => [text(key), ...value]));
  const contents = [];
  let offset = 0;
  for (const [name, { extents, parts, wide }] of tensors) {
    const data = Buffer.concat(parts);
    const stored = padded(wide ? widened(data) : data);
    // The innermost extent comes first. Type 0 is F32, 30 is BF16.
    header.push(text(name), u32(extents.length), ...extents.toReversed().map(u64), u32(wide ? 0 : 30), u64(offset));
    contents.push(stored);
    offset += stored.length;
  }
  writeFileSync(file, Buffer.concat([padded(Buffer.concat(header)), ...contents]));
  return file;
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
