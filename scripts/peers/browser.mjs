// Engines in Chromium: a server whose pages may have threads, the browser, and what runs in its pages.

import { createReadStream, existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";

import { chromium } from "playwright-core";

/** Where Chromium may be; the variable CHROMIUM overrides this. */
const BROWSERS = [
  "/usr/bin/chromium",
  "/usr/bin/google-chrome",
  "/usr/bin/google-chrome-stable",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
];
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm" };
const HEADERS = {
  // Without these two a page has no shared memory, and so no threads.
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
  "cache-control": "no-store",
};
const ARGS = [
  "--enable-unsafe-webgpu",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-sandbox",
  // Containers often have little shared memory.
  "--disable-dev-shm-usage",
];
/** Devices of WebGPU, in the order in which they are tried: a GPU, and SwiftShader, which is part of Chromium. */
const DEVICES = [
  ["--enable-features=Vulkan", "--use-angle=vulkan", "--disable-vulkan-surface"],
  ["--use-webgpu-adapter=swiftshader"],
];

/** Serves an empty page, the model, and folders by the beginning of an address. */
function serve(model, folders) {
  const file = (pathname) => {
    if (pathname === "/model.gguf") return model;
    const prefix = Object.keys(folders).find((prefix) => pathname.startsWith(prefix));
    // A normal path from the root does not lead out of it.
    return prefix && join(folders[prefix], normalize(`/${pathname.slice(prefix.length)}`));
  };
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname === "/") {
      response.writeHead(200, { ...HEADERS, "content-type": "text/html" }).end("<!doctype html>");
      return;
    }
    const path = file(pathname);
    const info = path && (await stat(path).catch(() => undefined));
    if (!info?.isFile()) {
      response.writeHead(404, HEADERS).end();
      return;
    }
    const type = TYPES[extname(path)] ?? "application/octet-stream";
    response.writeHead(200, { ...HEADERS, "content-type": type, "content-length": info.size });
    createReadStream(path)
      .on("error", () => response.destroy())
      .pipe(response);
  });
  return new Promise((resolve, reject) => {
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => resolve(server));
  });
}

/** A browser with the first device that there is, and a server of what its pages need. */
export class Browser {
  static async open(model, folders) {
    const executablePath = process.env.CHROMIUM ?? BROWSERS.find(existsSync);
    if (!executablePath) throw new Error("there is no Chromium or Chrome; CHROMIUM can name one");
    const it = new Browser();
    it.server = await serve(model, folders);
    for (const device of DEVICES) {
      it.chromium = await chromium.launch({ executablePath, args: [...ARGS, ...device] });
      const page = await it.page();
      it.adapter = await page.evaluate(async () => {
        const info = (await navigator.gpu?.requestAdapter())?.info;
        return info && [info.vendor, info.architecture, info.description].filter(Boolean).join(" ");
      });
      await page.close();
      if (it.adapter) break;
      await it.chromium.close();
    }
    if (!it.adapter) throw new Error("Chromium has no adapter for WebGPU");
    it.name = `Chromium ${it.chromium.version().split(".")[0]}`;
    return it;
  }

  /** An empty page that may use shared memory. */
  async page() {
    const page = await this.chromium.newPage();
    page.setDefaultTimeout(0);
    await page.goto(`http://localhost:${this.server.address().port}/`);
    return page;
  }

  async close() {
    this.server?.closeAllConnections();
    this.server?.close();
    await this.chromium?.close();
  }
}

/** wllama, llama.cpp as WebAssembly: on WebGPU, or on the CPU with threads. */
export class Wllama {
  constructor(key, name, onGpu, browser, job) {
    Object.assign(this, { key, name, onGpu, browser, job });
  }

  async start() {
    const browser = await this.browser();
    this.page = await browser.page();
    const { device, release } = await this.page.evaluate(load, { onGpu: this.onGpu, ...this.job });
    this.device = this.onGpu ? `${browser.name}, ${browser.adapter}` : `${browser.name}, ${device}`;
    this.release = release;
    await this.page.evaluate(complete, { count: this.job.warmUp, tokens: 1, round: 0 });
  }

  async measure(round) {
    return await this.page.evaluate(complete, { count: this.job.prompt, tokens: this.job.tokens, round });
  }

  stop() {
    this.page?.close().catch(() => {});
  }
}

/** In the page: loads the model. */
async function load({ onGpu, prompt, tokens }) {
  const { Wllama } = await import("/wllama/index.js");
  const said = [];
  const hear = (...words) => said.push(words.join(" "));
  const logger = { debug: hear, log: hear, warn: hear, error: hear };
  const wllama = new Wllama({ default: "/wllama/wasm/wllama.wasm" }, { logger });
  const file = await (await fetch("/model.gguf")).blob();
  try {
    await wllama.loadModel([new File([file], "model.gguf")], {
      // A token more, which the last one of a prompt leads to.
      n_ctx: prompt + tokens + 8,
      n_batch: prompt,
      n_ubatch: prompt,
      n_parallel: 1,
      n_gpu_layers: onGpu ? 99999 : 0,
      n_threads: navigator.hardwareConcurrency,
      warmup: false,
    });
  } catch (error) {
    const line = said.findLast((line) => /error|fail/i.test(line));
    throw new Error(line ? `${error.message}: ${line}` : error.message);
  }
  globalThis.wllama = wllama;
  // Without a device that it can use, llama.cpp takes the CPU, and says so in its log only.
  const offloaded = said.some((line) => /offloaded [1-9]\d*\/\d+ layers to GPU/.test(line));
  if (onGpu && !offloaded) {
    const why = said.findLast((line) => /webgpu/i.test(line));
    throw new Error(`it computes on the CPU${why ? `: ${why}` : ""}`);
  }
  const threads = wllama.isMultithread() ? wllama.getNumThreads() : 1;
  return { device: threads === 1 ? "1 thread" : `${threads} threads`, release: Wllama.getLibllamaVersion() };
}

/** In the page: seconds of a prompt of `count` tokens, and of each of `tokens` after its first. */
async function complete({ count, tokens, round }) {
  const vocab = wllama.getLoadedContextInfo().n_vocab;
  const ids = Array.from({ length: count }, (_, i) => {
    const mixed = Math.imul(i, 0x9e3779b9) >>> 0;
    return (((mixed << 15) | (mixed >>> 17)) >>> 0) % vocab;
  });
  // Another beginning each time: nothing of an earlier prompt may be used again.
  ids[0] = round % vocab;
  const begin = performance.now();
  const times = [];
  let used;
  const options = { prompt: ids, max_tokens: tokens + 1, temperature: 0, ignore_eos: true, cache_prompt: false };
  for await (const chunk of await wllama.createCompletion({ ...options, stream: true })) {
    used = chunk.timings ?? used;
    if (chunk.choices?.[0]?.finish_reason == null) times.push((performance.now() - begin) / 1000);
  }
  if (times.length < 2) throw new Error(`it made ${times.length} tokens`);
  if (used && used.prompt_n !== count) throw new Error(`it computed ${used.prompt_n} of ${count} tokens of the prompt`);
  return { prefill: times[0], decode: times.slice(1).map((time, i) => time - times[i]) };
}
