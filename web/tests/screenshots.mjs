// Takes screenshots of the page for the README: wide, narrow and dark.
import { mkdirSync, statSync } from "node:fs";
import path from "node:path";
import { ask, lastAnswer, launch, loadDemo, open, root, sample, servePage } from "./harness.mjs";

const folder = path.join(root, "docs/images");
mkdirSync(folder, { recursive: true });
const server = await servePage();
const browser = await launch();
const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, reducedMotion: "reduce" });
const { page, errors } = await open(context, server.address);

/** A screenshot smaller than 300 KB. */
async function shoot(name) {
  const file = path.join(folder, name);
  await page.screenshot({ path: file });
  const { size } = statSync(file);
  console.log(`${path.relative(root, file)}: ${size} bytes`);
  if (size > 300_000) {
    throw new Error(`${name} is too large`);
  }
}

/** Selects a token for which the model had several good candidates. */
async function chooseToken(answer) {
  await answer.locator("[data-token='2']").click();
  await page.getByText(/^Token 3 of/).waitFor();
  const number = await page.evaluate(async () => {
    const range = document.querySelector(".token-steps input");
    let best = [2, 100];
    for (let i = 2; i <= Number(range.max); i += 1) {
      range.value = String(i);
      range.dispatchEvent(new Event("input"));
      await new Promise(requestAnimationFrame);
      const share = Number.parseFloat(document.querySelector(".candidates .share").textContent);
      if (Math.abs(share - 45) < Math.abs(best[1] - 45)) {
        best = [i, share];
      }
    }
    return best[0];
  });
  await answer.locator(`[data-token='${number}']`).click();
  await page.mouse.move(700, 790);
  await page.locator(".written .lit").evaluate((token) => token.scrollIntoView({ block: "center" }));
}

await loadDemo(page);
await sample(page, { Temperature: 0.5, "Most tokens": 320 });
await page.locator("#sampling-seed").fill("4");
await page.locator("#sampling-seed").blur();
await ask(page, "Tell me a story about a fox who lost her hat.");
await lastAnswer(page);
await ask(page, "What was the name of the fox?");
await lastAnswer(page);
await ask(page, "What happened next?");
await lastAnswer(page);
await page.locator("#model").evaluate((pane) => pane.scrollTo(0, 0));
const answers = page.locator("#log .message.assistant");
await chooseToken(answers.first());
await shoot("web-wide.png");
// The text is long enough for the attention temperature to apply.
await chooseToken(answers.last());
await page.emulateMedia({ colorScheme: "dark" });
await page.locator("#inside").evaluate((pane) => pane.scrollTo(0, 10_000));
await shoot("web-dark.png");
await page.emulateMedia({ colorScheme: "light" });
await chooseToken(answers.first());
await page.setViewportSize({ width: 360, height: 740 });
await page.getByRole("link", { name: "Inside", exact: true }).click();
await page.locator("#inside").evaluate((pane) => pane.scrollTo(0, 0));
await shoot("web-narrow.png");
if (errors.length > 0) {
  throw new Error(errors.join("\n"));
}
await browser.close();
await server.close();
