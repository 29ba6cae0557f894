// Measures how fast the weights of a kept model go from the browser's files to the adapter: median of several visits.
// With MEMORY bytes for the model on the adapter, what its tokens read is measured as well: the
// time of a token is compared with that of a model which is on the adapter whole.
//
//     node tests/measure-loading.mjs FOLDER [VISITS] [MEMORY]
import path from "node:path";
import { serve } from "../bin/serve.mjs";
import { launch, web } from "./harness.mjs";

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
const browser = await launch();
const page = await (await browser.newContext()).newPage();
await page.route(`${address}/`, (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html>" }));

/** Loads the model; returns its bytes, and the seconds of the phase in which they go to the adapter. */
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
    const [first] = times;
    const last = times.at(-1);
    return { bytes: last.done - first.done, seconds: (last.time - first.time) / 1000 };
  });
}

const { bytes } = await load();
const rates = [];
for (let visit = 0; visit < Number(visits); visit += 1) {
  const { seconds } = await load();
  rates.push(bytes / seconds / 1e9);
}
rates.sort((a, b) => a - b);
const show = (rate) => `${rate.toFixed(3)} GB/s`;
console.log(`${(bytes / 1e6).toFixed(0)} MB of weights, ${visits} visits: median ${show(rates[rates.length >> 1])}`);
console.log(`from ${show(rates[0])} to ${show(rates.at(-1))}`);

/** Generates tokens; returns the seconds of one and the bytes that it reads. */
async function generate(deviceMemory) {
  await page.goto(`${address}/`);
  return page.evaluate(async (deviceMemory) => {
    const { GrokWgpu } = await import("/dist/index.js");
    const options = { context: 128, prefill: 16, ...(deviceMemory && { deviceMemory }) };
    const engine = await GrokWgpu.load("/model/", options);
    const { tokensPerSecond } = await engine.generate("a", { max_tokens: 17, temperature: 0 }).finish;
    const { placement } = engine.model;
    await engine.dispose();
    return { seconds: 1 / tokensPerSecond, bytes: placement?.tokenFileBytes ?? 0 };
  }, deviceMemory);
}

if (memory) {
  const streamed = [];
  for (let visit = 0; visit < Number(visits); visit += 1) {
    const whole = await generate(undefined);
    const { seconds, bytes } = await generate(Number(memory));
    streamed.push(bytes / (seconds - whole.seconds) / 1e9);
    console.log(
      `a token: ${(1e3 * whole.seconds).toFixed(0)} ms whole, ${(1e3 * seconds).toFixed(0)} ms in ${memory} bytes, ` +
        `of which it reads ${(bytes / 1e6).toFixed(1)} MB`,
    );
  }
  streamed.sort((a, b) => a - b);
  console.log(`read by tokens: median ${show(streamed[streamed.length >> 1])}`);
  console.log(`from ${show(streamed[0])} to ${show(streamed.at(-1))}`);
}
await browser.close();
server.close();
server.closeAllConnections();
