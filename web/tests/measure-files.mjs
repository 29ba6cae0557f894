// Measures what of the way from the browser's files to the adapter takes how long, without the engine: reading, writing
// through mapped staging buffers, and both, in a usual window and in a private one. Best of several rounds.
//
//     node tests/measure-files.mjs [MEBIBYTES] [ROUNDS]
import { serve } from "../bin/serve.mjs";
import { launch, launchUsual, web } from "./harness.mjs";

const [size = "256", rounds = "5"] = process.argv.slice(2);
const server = await serve(0, [["/dist", web]]);
const address = `http://localhost:${server.address().port}/`;

/** Runs in a worker: the rates in GB/s, by name. */
async function measure(total, rounds) {
  const MIB = 1 << 20;
  const root = await navigator.storage.getDirectory();
  const file = await root.getFileHandle("measured", { create: true });
  const writer = await file.createSyncAccessHandle();
  const some = Uint8Array.from({ length: 8 * MIB }, (_, i) => (i * 2654435761) >>> 13);
  for (let at = 0; at < total; at += some.length) {
    writer.write(some, { at });
  }
  writer.flush();
  writer.close();
  const handle = await file.createSyncAccessHandle({ mode: "read-only" });
  const device = await (await navigator.gpu.requestAdapter()).requestDevice();
  const target = (size) =>
    device.createBuffer({ size, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC | GPUBufferUsage.STORAGE });
  // As the engine's memory.
  const memory = new Uint8Array(new WebAssembly.Memory({ initial: 256 }).buffer, MIB, 8 * MIB);
  const rates = {};
  const time = async (name, work) => {
    for (let round = 0; round < rounds; round += 1) {
      const start = performance.now();
      await work(round);
      const rate = total / (performance.now() - start) / 1e6;
      rates[name] = Math.max(rates[name] ?? 0, rate);
    }
  };
  for (const part of [64 << 10, MIB, 8 * MIB]) {
    await time(`reading alone, ${part >> 10} KiB at once`, () => {
      for (let at = 0; at < total; at += part) {
        handle.read(memory.subarray(0, part), { at });
      }
    });
  }
  const blob = await file.getFile();
  const written = target(8 * MIB);
  await time("through a Blob and writeBuffer, 8 MiB at once", async () => {
    for (let at = 0; at < total; at += 8 * MIB) {
      device.queue.writeBuffer(written, 0, await blob.slice(at, at + 8 * MIB).arrayBuffer());
    }
    await device.queue.onSubmittedWorkDone();
  });
  written.destroy();
  for (const [count, size] of [
    [8, 2 * MIB],
    [4, 4 * MIB],
    [4, 8 * MIB],
  ]) {
    const usage = GPUBufferUsage.MAP_WRITE | GPUBufferUsage.COPY_SRC;
    const made = Array.from({ length: count }, () => device.createBuffer({ size, usage, mappedAtCreation: true }));
    const ring = made.map((buffer) => ({ buffer, mapped: Promise.resolve() }));
    // Each target takes `each` bytes, and the first one more after the last one.
    const upload = async (targets, fill, each = size) => {
      for (let at = 0; at < total; at += size) {
        const { buffer, mapped } = ring.shift();
        await mapped;
        fill(new Uint8Array(buffer.getMappedRange()), at);
        buffer.unmap();
        const encoder = device.createCommandEncoder();
        encoder.copyBufferToBuffer(buffer, 0, targets[Math.floor(at / each) % targets.length], at % each, size);
        device.queue.submit([encoder.finish()]);
        ring.push({ buffer, mapped: buffer.mapAsync(GPUMapMode.WRITE) });
      }
      await device.queue.onSubmittedWorkDone();
    };
    const copy = (into) => into.set(memory.subarray(0, size));
    const read = (into, at) => {
      handle.read(memory.subarray(0, size), { at });
      copy(into);
    };
    const direct = (into, at) => handle.read(into, { at });
    const used = [target(size), target(size)];
    const name = `${count} staging buffers of ${size / MIB} MiB`;
    await time(`writing alone, ${name}`, () => upload(used, copy));
    await time(`reading and writing, ${name}`, () => upload(used, read));
    await time(`reading into staging, ${name}`, () => upload(used, direct));
    await time(`reading and writing to new memory, ${name}`, async () => {
      const fresh = Array.from({ length: total / size }, () => target(size));
      await upload(fresh, read);
      for (const buffer of fresh) {
        buffer.destroy();
      }
    });
    // As experts of a layer, which are in one buffer: the adapter clears all of it before the first part is written.
    const large = 32 * MIB;
    await time(`reading and writing to new memory of ${large / MIB} MiB, ${name}`, async () => {
      const fresh = Array.from({ length: Math.ceil(total / large) }, () => target(large));
      await upload(fresh, read, large);
      for (const buffer of fresh) {
        buffer.destroy();
      }
    });
    await Promise.all(ring.map(({ mapped }) => mapped));
    for (const { buffer } of [...ring, ...used.map((buffer) => ({ buffer }))]) {
      buffer.destroy();
    }
  }
  return rates;
}

/** The rates in a window of this context. */
async function rates(context) {
  const page = await context.newPage();
  const body = `onmessage = ({ data }) => (${measure})(...data).then(postMessage);`;
  await page.route(address, (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html>" }));
  await page.goto(address);
  return page.evaluate(
    ([body, ...given]) =>
      new Promise((done, failed) => {
        const worker = new Worker(URL.createObjectURL(new Blob([body], { type: "text/javascript" })));
        worker.onmessage = ({ data }) => done(data);
        worker.onerror = ({ message }) => failed(new Error(message));
        worker.postMessage(given);
      }),
    [body, Number(size) << 20, Number(rounds)],
  );
}

const usual = await launchUsual();
const inUsual = await rates(usual);
await usual.close();
const browser = await launch();
const inPrivate = await rates(await browser.newContext());
await browser.close();
console.log("GB/s: in a usual window, in a private one");
for (const [name, rate] of Object.entries(inUsual)) {
  console.log(`${name.padEnd(64)} ${rate.toFixed(2).padStart(6)} ${inPrivate[name].toFixed(2).padStart(6)}`);
}
server.close();
server.closeAllConnections();
