// Measures how fast the weights of a kept model go from the browser's files to the adapter: median of several visits.
// With MEMORY bytes for the model on the adapter, what generated tokens read is measured as well. What prompts read is left
// out: it comes while the adapter still computes, and waits for that. See measure-files.mjs for files alone.
//
//     node tests/measure-loading.mjs FOLDER [VISITS] [MEMORY]
import path from "node:path";
import { serve } from "../bin/serve.mjs";
import { launchUsual, web } from "./harness.mjs";

const [folder, visits = "5", memory] = process.argv.slice(2);
if (!folder) {
  console.error("usage: node tests/measure-loading.mjs FOLDER [VISITS] [MEMORY]");
  process.exit(2);
}
const server = await serve(0, [
  ["/dist", path.join(web, "dist")],
  ["/model", path.resolve(folder)],
]);
const address = `http://localhost:${server.address().port}`;
const browser = await launchUsual();
const page = await browser.newPage();
await page.route(`${address}/`, (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html>" }));

/**
 * Loads the model; returns its bytes, and the seconds in which they go to the adapter: those from the first weights on, and
 * those before, in which the adapter makes its buffers.
 */
async function load() {
  await page.goto(`${address}/`);
  return page.evaluate(async () => {
    const { GrokWgpu } = await import("/dist/index.js");
    const times = [];
    const onProgress = ({ phase, done }) => {
      if (phase === "weights") {
        times.push({ done, time: performance.now() });
      }
    };
    const engine = await GrokWgpu.load("/model/", { context: 128, prefill: 16, onProgress });
    await engine.dispose();
    const [asked, first] = times;
    const last = times.at(-1);
    return {
      bytes: last.done - first.done,
      seconds: (last.time - first.time) / 1000,
      before: (first.time - asked.time) / 1000,
    };
  });
}

const { bytes } = await load();
const rates = [];
const whole = [];
for (let visit = 0; visit < Number(visits); visit += 1) {
  const { seconds, before } = await load();
  rates.push(bytes / seconds / 1e9);
  whole.push(bytes / (before + seconds) / 1e9);
}
rates.sort((a, b) => a - b);
whole.sort((a, b) => a - b);
const show = (rate) => `${rate.toFixed(3)} GB/s`;
console.log(`${(bytes / 1e6).toFixed(0)} MB of weights, ${visits} visits: median ${show(rates[rates.length >> 1])}`);
console.log(
  `from ${show(rates[0])} to ${show(rates.at(-1))}; with making the buffers ${show(whole[whole.length >> 1])}`,
);

/** Has the worker note when weights are asked for and when they came, in each part, from the first piece of a text on. */
const noting = `
  const read = { bytes: 0, time: 0, last: undefined };
  globalThis.noted = read;
  const note = (news) => {
    if (news.piece && !read.text) {
      Object.assign(read, { text: true, bytes: 0, time: 0, last: undefined });
    }
    if (news.read !== undefined) {
      const now = performance.now();
      if (news.read > 0 && read.last) {
        read.bytes += news.read - read.last.read;
        read.time += now - read.last.now;
      }
      read.last = { read: news.read, now };
    }
    return news;
  };
`;

/** Generates tokens; returns the bytes a second that came for them, without the time of everything else. */
async function generate(deviceMemory) {
  await page.goto(`${address}/`);
  await page.evaluate(async (deviceMemory) => {
    const { GrokWgpu } = await import("/dist/index.js");
    globalThis.engine = await GrokWgpu.load("/model/", { context: 128, prefill: 16, deviceMemory });
    await globalThis.engine.generate("a", { max_tokens: 9, temperature: 0 }).finish;
  }, deviceMemory);
  const [worker] = page.workers();
  const { bytes, time } = await worker.evaluate(() => globalThis.noted);
  await page.evaluate(() => globalThis.engine.dispose());
  return { bytes, rate: bytes / time / 1e6 };
}

if (memory) {
  await page.route("**/dist/worker.js", async (route) => {
    const response = await route.fetch();
    const text = await response.text();
    const body = noting + text.replaceAll("= JSON.parse(json)", "= note(JSON.parse(json))");
    await route.fulfill({ response, body });
  });
  const streamed = [];
  for (let visit = 0; visit < Number(visits); visit += 1) {
    streamed.push(await generate(Number(memory)));
  }
  streamed.sort((a, b) => a.rate - b.rate);
  const [slowest, fastest, usual] = [streamed[0], streamed.at(-1), streamed[streamed.length >> 1]];
  console.log(
    `${(usual.bytes / 1e6).toFixed(0)} MB read by generated tokens in ${memory} bytes: median ${show(usual.rate)}`,
  );
  console.log(`from ${show(slowest.rate)} to ${show(fastest.rate)}`);
}
await browser.close();
server.close();
server.closeAllConnections();
