// Reads rows of the kernel table, as written by `tools/src/bin/export_cases.rs`, runs them through Dawn and checks the
// results by the rules of `src/selftest/mod.rs`.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Guard bytes before and after each operand, which no kernel may touch. */
const GUARD = 256;
/** WebGPU's default alignment of binding offsets. */
const ALIGN = 256;
/** Runs of a row: two with guards and different poison, one with bindings that end with the data. */
const RUNS = [{ guard: GUARD }, { guard: GUARD }, { guard: 0 }];
/** Limits on the contents of a submission. */
const BATCH_BYTES = 24 << 20;
const BATCH_RUNS = 256;

const roundUp = (n, to) => Math.ceil(n / to) * to;

/** All rows of a folder, kernel by kernel. */
export function readRows(folder) {
  const names = readdirSync(folder)
    .filter((name) => name.endsWith(".json"))
    .sort();
  return names.flatMap((name) => {
    const index = JSON.parse(readFileSync(join(folder, name), "utf8"));
    const file = readFileSync(join(folder, `${index.kernel}.bin`));
    const blob = file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
    const bytes = ([at, length]) => new Uint8Array(blob, at, length);
    return index.rows.map((row) => ({
      ...row,
      kernel: index.kernel,
      poison: index.poison,
      code: index.programs[row.program],
      params: bytes(row.params),
      operands: row.operands.map((operand) => readOperand(operand, bytes)),
    }));
  });
}

function readOperand(operand, bytes) {
  const { dtype, access } = operand;
  const read = { ...operand, initial: bytes(operand.initial) };
  if (access !== "write") return read;
  const Values = dtype === "U32" ? Uint32Array : Float64Array;
  const numbers = (range, Type) => {
    const { buffer, byteOffset, length } = bytes(range);
    return new Type(buffer, byteOffset, length / Type.BYTES_PER_ELEMENT);
  };
  read.expected = numbers(operand.expected, Values);
  read.bounds = dtype === "U32" ? null : numbers(operand.bounds, Float64Array);
  read.kept = new Set(operand.kept);
  read.also = new Map(operand.also ?? []);
  return read;
}

/** The poison value of a run, as in `src/selftest/mod.rs`. */
const poisonOf = (row, run) => (row.poison ^ (run << 4)) >>> 0;

/** A growing buffer image, filled with poison between the operands. */
class Arena {
  length = 0;
  parts = [];

  /**
   * Reserves space for `bytes` with a guard on both sides; `tail` bytes of the one after them are bound with them.
   * Offsets are relative to the arena.
   */
  place(bytes, guard, poison, tail = guard) {
    const start = roundUp(this.length, ALIGN);
    const offset = start + guard;
    // A binding holds at least one element, and the largest elements have 32 bytes.
    const size = bytes.length || 32;
    const end = roundUp(offset + size + guard, ALIGN);
    const part = { start, offset, length: bytes.length, size: size + tail, end, bytes, poison };
    this.parts.push(part);
    this.length = end;
    return part;
  }

  /** The bytes to upload. */
  image() {
    const image = new Uint8Array(this.length);
    const words = new Uint32Array(image.buffer);
    for (const { start, offset, end, bytes, poison } of this.parts) {
      words.fill(poison, start / 4, end / 4);
      image.set(bytes, offset);
    }
    return image;
  }
}

/** Equal for rows that have one pipeline. */
export const pipelineKey = ({ code, constants }) => JSON.stringify([code, constants]);

/** Runs rows on a device and caches its pipelines. */
export class Runner {
  #pipelines = new Map();
  #errors = [];

  constructor(device) {
    this.device = device;
    device.lost.then((info) => this.#errors.push(`the device was lost: ${info.message}`));
  }

  /**
   * Runs each row as often as `RUNS` says and judges the results. `damage` may change results before that, to test this
   * file.
   */
  async run(rows, done, damage = null) {
    let batch = this.#batch();
    const flush = async () => {
      if (batch.rows.length === 0) return;
      await this.#execute(batch, done, damage);
      batch = this.#batch();
    };
    for (const row of rows) {
      this.#add(batch, row);
      const bytes = batch.read.length + batch.write.length;
      if (bytes > BATCH_BYTES || batch.rows.length * RUNS.length > BATCH_RUNS) await flush();
    }
    await flush();
  }

  #batch() {
    return { read: new Arena(), write: new Arena(), rows: [] };
  }

  #add(batch, row) {
    const runs = RUNS.map(({ guard }, run) => {
      const poison = poisonOf(row, run);
      const params = new Uint8Array(roundUp(row.params.length, 16));
      params.set(row.params);
      const operands = row.operands.map((operand) => {
        let { initial } = operand;
        if (operand.access === "write") {
          // Poison in the file becomes this run's poison; other initial values stay.
          initial = initial.slice();
          const words = new Uint32Array(initial.buffer, 0, initial.length / 4);
          words.forEach((word, i) => {
            if (word === row.poison) words[i] = poison;
          });
        }
        const arena = operand.access === "write" ? batch.write : batch.read;
        // A uniform may be as large as a device can bind.
        return arena.place(initial, guard, poison, operand.access === "uniform" ? 0 : guard);
      });
      return { poison, parts: [batch.read.place(params, guard, poison), ...operands] };
    });
    batch.rows.push({ row, runs });
  }

  async #execute(batch, done, damage) {
    const { device } = this;
    device.pushErrorScope("validation");
    const buffers = ["read", "write"].map((name) => {
      const arena = batch[name];
      const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
      const uniform = name === "read" ? GPUBufferUsage.UNIFORM : 0;
      const buffer = device.createBuffer({ size: arena.length, usage: usage | uniform });
      const image = arena.image();
      device.queue.writeBuffer(buffer, 0, image);
      return { arena, image, buffer };
    });
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const job of batch.rows) {
      const built = await this.#pipeline(job.row);
      if (built.error) {
        job.failure = built.error;
        continue;
      }
      pass.setPipeline(built.pipeline);
      for (const { parts } of job.runs) {
        const entries = parts.map(({ offset, size }, binding) => {
          const written = binding > 0 && job.row.operands[binding - 1].access === "write";
          return { binding, resource: { buffer: buffers[written ? 1 : 0].buffer, offset, size } };
        });
        pass.setBindGroup(0, device.createBindGroup({ layout: built.layout, entries }));
        pass.dispatchWorkgroups(...job.row.workgroups);
      }
    }
    pass.end();
    for (const part of buffers) {
      const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
      part.staging = device.createBuffer({ size: part.arena.length, usage });
      encoder.copyBufferToBuffer(part.buffer, 0, part.staging, 0, part.arena.length);
    }
    device.queue.submit([encoder.finish()]);
    const refused = await device.popErrorScope();
    if (refused) this.#errors.push(refused.message);
    for (const part of buffers) {
      await part.staging.mapAsync(GPUMapMode.READ);
      part.got = new Uint8Array(part.staging.getMappedRange().slice(0));
      part.staging.destroy();
      part.buffer.destroy();
    }
    if (this.#errors.length > 0) throw new Error(this.#errors.join("; "));
    const [read, write] = buffers;
    for (const job of batch.rows) {
      damage?.(job, read.got, write.got);
      done(job.row, job.failure ? failed(job.failure) : judge(job, read, write));
    }
  }

  async #pipeline(row) {
    const key = pipelineKey(row);
    let built = this.#pipelines.get(key);
    if (!built) {
      built = await this.#build(row);
      this.#pipelines.set(key, built);
    }
    return built;
  }

  async #build(row) {
    const { device } = this;
    const types = { read: "read-only-storage", write: "storage", uniform: "uniform" };
    const kinds = ["uniform", ...row.operands.map((operand) => types[operand.access])];
    const layout = device.createBindGroupLayout({
      entries: kinds.map((type, binding) => ({
        binding,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type },
      })),
    });
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ label: row.kernel, code: row.code });
    try {
      const pipeline = await device.createComputePipelineAsync({
        label: row.kernel,
        layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: {
          module,
          entryPoint: "main",
          constants: row.constants,
        },
      });
      return { pipeline, layout };
    } catch (error) {
      const { messages } = await module.getCompilationInfo();
      const first = messages.find(({ type }) => type === "error");
      const where = first ? `${first.lineNum}:${first.linePos}: ${first.message}` : error.message;
      return { error: `Dawn refuses the program: ${where}` };
    } finally {
      await device.popErrorScope();
    }
  }
}

const failed = (failure) => ({ elements: 0, worst: Infinity, failure });

/** Compares the runs of a row with the expected values. */
function judge({ row, runs }, read, write) {
  const report = { elements: 0, worst: 0, failure: null };
  const fail = (text) => (report.failure ??= text);
  let first = null;
  runs.forEach(({ poison, parts }, run) => {
    const bits = [];
    parts.forEach((part, binding) => {
      const operand = row.operands[binding - 1];
      const name = operand?.name ?? "params";
      if (operand?.access !== "write") {
        const stray = difference(read, part.start, part.end);
        if (stray !== null) {
          const inside = stray >= part.offset && stray < part.offset + part.length;
          const what = inside ? `the input \`${name}\` was changed` : outside(name);
          fail(`${what} (byte ${stray - part.offset})`);
        }
        return;
      }
      const end = part.offset + part.length;
      const stray = difference(write, part.start, part.offset) ?? difference(write, end, part.end);
      if (stray !== null) fail(`${outside(name)} (byte ${stray - part.offset})`);
      const got = write.got.slice(part.offset, end);
      if (run === 0) report.elements += operand.expected.length;
      compare(operand, got, poison, report, fail);
      // Written elements must have the same bits in all runs; poison differs by run, so map it back.
      const settled = new Uint32Array(got.buffer).map((w) => (w === poison ? row.poison : w));
      bits.push(new Uint8Array(settled.buffer));
    });
    first ??= bits;
    if (bits.some((bytes, i) => Buffer.compare(bytes, first[i]) !== 0)) {
      fail(`run ${run} gave other bits than the first`);
    }
  });
  return report;
}

const outside = (name) => `a byte outside \`${name}\` was overwritten`;

/** The first byte of a range that differs from what was uploaded. */
function difference({ got, image }, start, end) {
  const same = Buffer.compare(got.subarray(start, end), image.subarray(start, end)) === 0;
  if (same) return null;
  for (let i = start; i < end; i += 1) if (got[i] !== image[i]) return i;
  return null;
}

/**
 * Compares an output with the oracle's values. NaN is never within a bound. Where the oracle has NaN or an infinity,
 * any value that is not finite passes.
 */
function compare(operand, bytes, poison, report, fail) {
  const { expected, bounds, kept, dtype } = operand;
  const words = new Uint32Array(bytes.buffer);
  const { floats, untouched } = elements(operand, bytes, poison);
  const wrong = (i, got, want) => fail(`\`${operand.name}\` ${place(i, operand.shape)}: got ${got}, expected ${want}`);
  for (let i = 0; i < expected.length; i += 1) {
    if (kept.has(i)) {
      if (!untouched(i)) wrong(i, dtype === "U32" ? words[i] : floats[i], "no write at all");
    } else if (dtype === "U32") {
      const allowed = words[i] === expected[i] || operand.also.get(i)?.includes(words[i]);
      if (!allowed) wrong(i, words[i], expected[i]);
    } else if (!Number.isFinite(expected[i])) {
      if (Number.isFinite(floats[i]) || untouched(i)) {
        report.worst = Infinity;
        wrong(i, untouched(i) ? "nothing at all" : floats[i], expected[i]);
      }
    } else {
      const error = Math.abs(floats[i] - expected[i]);
      if (error <= bounds[i]) {
        if (bounds[i] > 0) report.worst = Math.max(report.worst, error / bounds[i]);
      } else {
        const ratio = error / bounds[i];
        report.worst = Math.max(report.worst, Number.isNaN(ratio) ? Infinity : ratio);
        wrong(i, floats[i], `${expected[i]} within ${bounds[i]}`);
      }
    }
  }
}

/** Decodes an output; `untouched` says whether an element still has the bytes of the poison. */
function elements({ dtype, shape }, bytes, poison) {
  const fresh = (at, length) => {
    for (let i = at; i < at + length; i += 1) {
      if (bytes[i] !== ((poison >>> (8 * (i % 4))) & 0xff)) return false;
    }
    return true;
  };
  const halves = () => Float64Array.from(new Uint16Array(bytes.buffer), halfToNumber);
  if (dtype === "F16") return { floats: halves(), untouched: (i) => fresh(2 * i, 2) };
  if (dtype !== "Q8") {
    return { floats: new Float32Array(bytes.buffer), untouched: (i) => fresh(4 * i, 4) };
  }
  // Each row has its bytes, then a scale for each 32 of them, padded to 16 bytes.
  const cols = shape.at(-1);
  const stride = cols + roundUp(cols / 16, 16);
  const row = (i) => stride * Math.floor(i / cols);
  const scale = (i) => row(i) + cols + 2 * Math.floor((i % cols) / 32);
  const numbers = halves();
  const count = shape.reduce((product, extent) => product * extent, 1);
  const integers = new Int8Array(bytes.buffer);
  const value = (_, i) => integers[row(i) + (i % cols)] * numbers[scale(i) / 2];
  return {
    floats: Float64Array.from({ length: count }, value),
    untouched: (i) => fresh(row(i) + (i % cols), 1) && fresh(scale(i), 2),
  };
}

/** Converts the bits of an f16. */
function halfToNumber(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 0x3ff;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  return sign * (1024 + mantissa) * 2 ** (exponent - 25);
}

function place(index, shape) {
  const coordinates = [];
  for (const extent of [...shape].reverse()) {
    coordinates.unshift(index % extent);
    index = Math.floor(index / extent);
  }
  return `element [${coordinates.join(", ")}] of [${shape.join(", ")}]`;
}
