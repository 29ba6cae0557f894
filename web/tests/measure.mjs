// Measures the time from opening the page to the first token, with a model that was kept: median of several visits.
//
//     node tests/measure.mjs [VISITS]
import { GREEDY, lastAnswer, launch, loadDemo, open, ready, sample, servePage } from "./harness.mjs";

const visits = Number(process.argv[2] ?? 5);
const server = await servePage();
const browser = await launch();
const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
const { page } = await open(context, server.address);
await loadDemo(page);
await page.evaluate(() => navigator.serviceWorker.ready);
await sample(page, { ...GREEDY, "Most tokens": 4 });

const times = [];
for (let visit = 0; visit < visits; visit += 1) {
  await page.goto("about:blank");
  await page.goto(server.address);
  await ready(page);
  const loaded = await page.evaluate(() => performance.now());
  await page.locator("#prompt").fill("Tell me a story.");
  const asked = await page.evaluate(() => {
    const now = performance.now();
    document.getElementById("send").click();
    return now;
  });
  const first = await page.evaluate(
    () =>
      new Promise((resolve) => {
        const look = () =>
          document.querySelector(".written span") ? resolve(performance.now()) : requestAnimationFrame(look);
        look();
      }),
  );
  await lastAnswer(page);
  // The time to type is not counted.
  times.push({ load: loaded, token: first - asked, all: loaded + first - asked });
}
const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
const line = (name, key) => {
  const own = times.map((time) => time[key]);
  const show = (value) => `${(value / 1000).toFixed(2)} s`;
  console.log(`${name}: median ${show(median(own))}, from ${show(Math.min(...own))} to ${show(Math.max(...own))}`);
};
console.log(`${await page.locator("#adapter").textContent()}, ${visits} visits with a kept demo model`);
line("page opened to model ready", "load");
line("question sent to first token", "token");
line("page opened to first token", "all");
await browser.close();
await server.close();
