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

/**
 * Runs in the worker: tells which pipelines are made and used, and when the rest of them is there, in order with what
 * the page is told.
 */
function spy(Engine) {
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
  const rest = Engine.prototype.compileRest;
  Engine.prototype.compileRest = async function (goesOn) {
    const result = await rest.call(this, goesOn);
    channel.postMessage({ rest: JSON.parse(result).done });
    return result;
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
    const start = `import { Engine as Spied } from "./wasm/grok_wgpu.js";\n(${spy})(Spied);\n`;
    await route.fulfill({ response, body: start + (await response.text()) });
  });
  page = await context.newPage();
  await page.goto(`http://localhost:${server.address().port}/`);
  await page.waitForFunction(() => window.lib);
}

/** What was spied so far, with the worker's last answer: it comes to the page another way, which may be shorter. */
async function spiedUntil(answers) {
  await page.waitForFunction(
    (answers) => spied.filter(({ told }) => told?.result || told?.error).length === answers,
    answers,
  );
  return page.evaluate(() => spied);
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
  const spied = await spiedUntil(2);
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
  await page.waitForFunction(() => spied.some((step) => step.rest));
  const quiet = await page.evaluate(() => spied);
  const all = made(quiet).length;
  assert.ok(all > needed.length, JSON.stringify(made(quiet)));
  const text = await write({ max_tokens: 4 });
  assert.ok(text.startsWith(first) && text.length > first.length, `${first}; ${text}`);
  const later = (await spiedUntil(3)).slice(quiet.length);
  assert.deepEqual(made(later), [], "a text made pipelines that were there");
  const generating = new Set(later.flatMap((step) => step.used ?? []));
  for (let i = needed.length; i < all; i++) {
    assert.ok(generating.has(i), `${JSON.stringify(made(quiet)[i])} was compiled, but generated tokens do not use it`);
  }
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
  const count = made(await spiedUntil(1)).length;
  assert.ok(count === 2 || count === 3, `${count} pipelines`);
});
