// What is compiled when: a page gets its first token with the pipelines that this takes, hears of each, and may stop in
// between; the rest follows while nothing else is done.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { serve } from "../bin/serve.mjs";
import { demo, launch, scratch, web } from "./harness.mjs";

const PAGE = `<!doctype html><title>pipelines</title><link rel="icon" href="data:,"><script type="module">
import * as package_ from "/dist/index.js";
window.lib = package_;
window.spied = [];
new BroadcastChannel("spy").onmessage = ({ data }) => spied.push(data);
</script>`;

/** Runs in the worker: tells which pipelines are made and used, in order with what the page is told. */
function spy() {
  const channel = new BroadcastChannel("spy");
  const numbers = new WeakMap();
  let count = 0;
  const create = GPUDevice.prototype.createComputePipeline;
  GPUDevice.prototype.createComputePipeline = function (description) {
    const pipeline = create.call(this, description);
    numbers.set(pipeline, count++);
    channel.postMessage({ made: description.label });
    return pipeline;
  };
  const set = GPUComputePassEncoder.prototype.setPipeline;
  GPUComputePassEncoder.prototype.setPipeline = function (pipeline) {
    channel.postMessage({ used: numbers.get(pipeline) });
    set.call(this, pipeline);
  };
  const post = globalThis.postMessage;
  globalThis.postMessage = (message) => {
    channel.postMessage({ told: message });
    post.call(globalThis, message);
  };
}

let browser;
let server;
let page;

before(async () => {
  const folder = scratch();
  writeFileSync(path.join(folder, "index.html"), PAGE);
  server = await serve(0, [
    ["/", folder],
    ["/dist", path.join(web, "dist")],
    ["/models/demo", demo],
  ]);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  server?.close();
  server?.closeAllConnections();
});

async function fresh() {
  await page?.context().close();
  const context = await browser.newContext();
  await context.route(/\/dist\/worker\.js$/, async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: `(${spy})();\n${await response.text()}` });
  });
  page = await context.newPage();
  await page.goto(`http://localhost:${server.address().port}/`);
  await page.waitForFunction(() => window.lib);
}

const made = (spied) => spied.filter((step) => step.made);

test("the first token takes the pipelines that it uses, each is told, and the rest follows", async () => {
  await fresh();
  /** The text after a prompt of several chunks. */
  const write = (options) =>
    page.evaluate(async (options) => {
      const prompt = "Once upon a time there was a dog. ".repeat(6);
      return (await engine.generate(prompt, { seed: 1, ...options }).finish).text;
    }, options);
  await page.evaluate(async () => {
    window.engine = await lib.GrokWgpu.load("/models/demo", { cache: false, context: 256, prefill: 32 });
  });
  const first = await write({ max_tokens: 1 });
  const spied = await page.evaluate(() => spied);
  const loaded = spied.findIndex(({ told }) => told?.result?.model);
  const token = spied.findIndex(({ told }) => told?.news?.kind === "piece");
  assert.ok(loaded > 0 && token > loaded, `${loaded}, ${token}`);
  const needed = made(spied.slice(0, loaded));
  const used = spied.slice(loaded, token).filter((step) => "used" in step);
  assert.equal(new Set(used.map((step) => step.used)).size, needed.length, JSON.stringify(needed));
  assert.equal(made(spied.slice(0, token)).length, needed.length);
  const progress = spied.flatMap(({ told }) =>
    told?.news?.progress?.phase === "pipelines" ? [told.news.progress] : [],
  );
  assert.deepEqual(
    progress.map(({ done, total }) => [done, total]),
    [...Array(needed.length + 1).keys()].map((done) => [done, needed.length]),
  );
  // The program that only generated tokens use, and the last of theirs.
  await page.waitForFunction(() => spied.some((step) => step.made === "rms_norm_add"), undefined, { timeout: 180_000 });
  const before = made(await page.evaluate(() => spied)).length;
  assert.ok(before > needed.length);
  const text = await write({ max_tokens: 4 });
  assert.ok(text.startsWith(first) && text.length > first.length, `${first}; ${text}`);
  assert.equal(made(await page.evaluate(() => spied)).length, before, "a text made pipelines that were there");
});

test("a page that stops while pipelines are compiled waits for no more than one of them", async () => {
  await fresh();
  const code = await page.evaluate(async () => {
    const stop = new AbortController();
    const onProgress = ({ phase, done }) => phase === "pipelines" && done === 1 && stop.abort();
    try {
      await lib.GrokWgpu.load("/models/demo", { cache: false, signal: stop.signal, onProgress });
      return "it was loaded";
    } catch (error) {
      return error.code;
    }
  });
  assert.equal(code, "aborted");
  const count = made(await page.evaluate(() => spied)).length;
  assert.ok(count === 2 || count === 3, `${count} pipelines`);
});
