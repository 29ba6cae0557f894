// What the browser's programs share: a server of the built page, the system's Chromium, and a page that
// forgives no error.
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";
import { manifest } from "../bin/manifest.mjs";
import { serve } from "../bin/serve.mjs";

export const web = path.resolve(import.meta.dirname, "..");
export const root = path.dirname(web);
export const demo = path.join(root, "models/demo");

/** Where Chromium may be; CHROMIUM names another. */
const BROWSERS = [
  "/usr/bin/chromium",
  "/usr/bin/google-chrome",
  "/usr/bin/google-chrome-stable",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
];

function browserPath() {
  const found = process.env.CHROMIUM ?? BROWSERS.find(existsSync);
  if (!found) {
    throw new Error("there is no Chromium or Chrome; CHROMIUM can name one");
  }
  return found;
}

/** A browser on its software adapter, so that every machine gives the same. */
export function launch() {
  return chromium.launch({
    executablePath: browserPath(),
    args: [
      "--enable-unsafe-webgpu",
      "--use-webgpu-adapter=swiftshader",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--no-sandbox",
      // Containers often have little shared memory.
      "--disable-dev-shm-usage",
    ],
  });
}

/** A folder that is gone when the process ends. */
export function scratch() {
  const folder = mkdtempSync(path.join(tmpdir(), "grok-wgpu-web-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Serves the built page and the model that ships. */
export async function servePage() {
  const site = path.join(web, "site");
  if (!existsSync(path.join(site, "index.html"))) {
    throw new Error("the page is not built: scripts/web builds it");
  }
  const list = path.join(scratch(), "manifest.json");
  writeFileSync(list, JSON.stringify(await manifest(demo)));
  const server = await serve(0, [
    ["/", site],
    ["/models/demo", demo],
    ["/models/demo/manifest.json", list],
  ]);
  const close = () =>
    new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    });
  return { address: `http://localhost:${server.address().port}/`, close };
}

/**
 * A page, and the list of what went wrong on it: messages of errors and warnings, what nobody
 * caught, requests to other servers. `meant` are patterns of what is meant to go wrong.
 */
export async function open(context, address, { meant = [], hosts = [] } = {}) {
  const page = await context.newPage();
  const errors = [];
  const note = (text) => {
    if (!meant.some((pattern) => pattern.test(text))) {
      errors.push(text);
    }
  };
  const own = new Set([new URL(address).host, ...hosts]);
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") {
      note(`${message.type()}: ${message.text()} (${message.location().url})`);
    }
  });
  page.on("pageerror", (error) => note(`uncaught: ${error.stack ?? error.message}`));
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol.startsWith("http") && !own.has(url.host)) {
      note(`a request to ${url}`);
    }
  });
  await page.goto(address);
  return { page, errors };
}

/** Waits until a model is loaded, or fails with what the page says. */
export async function ready(page) {
  const error = page.locator("#notices .error");
  await page.locator("html[data-model=ready]").or(error).first().waitFor({ state: "attached", timeout: 60_000 });
  if ((await error.count()) > 0) {
    throw new Error(`the model was not loaded: ${await error.innerText()}`);
  }
}

/** Loads the model that ships. */
export async function loadDemo(page) {
  await page.locator("#start").click();
  await ready(page);
}

/** Sets the sampling controls by their labels. */
export async function sample(page, settings) {
  for (const [label, value] of Object.entries(settings)) {
    const field = page.getByRole("spinbutton", { name: label, exact: true, includeHidden: true });
    // On narrow screens the controls are in another view, but they work all the same.
    await field.evaluate((input, to) => {
      input.value = to;
      input.dispatchEvent(new Event("change"));
    }, String(value));
  }
}

/** Greedy, and not too long. */
export const GREEDY = { Temperature: 0, "Most tokens": 64 };

/** Sends a message. */
export async function ask(page, text) {
  await page.locator("#prompt").fill(text);
  await page.locator("#send").click();
}

/** The newest answer, when it has its figures. */
export async function lastAnswer(page) {
  const answer = page.locator("#log .message.assistant").last();
  const figures = answer.locator(".figures").filter({ hasText: /^[\d,]+ tokens?/ });
  const error = answer.locator(".error");
  await figures.or(error).first().waitFor({ timeout: 90_000 });
  if ((await error.count()) > 0) {
    throw new Error(`there was no answer: ${await error.innerText()}`);
  }
  return {
    answer,
    text: await answer.locator(".written").textContent(),
    figures: await figures.innerText(),
    more: await figures.getAttribute("title"),
  };
}

/** Waits until so many tokens are there. */
export async function tokens(page, count) {
  await page
    .locator("#log .message.assistant")
    .last()
    .locator(".written span")
    .nth(count - 1)
    .waitFor({ timeout: 60_000 });
}

/** Drops a folder or file of this computer on the page, as a person does. */
export async function drop(page, file) {
  const session = await page.context().newCDPSession(page);
  const at = { x: 200, y: 200, data: { items: [], files: [file], dragOperationsMask: 1 } };
  for (const type of ["dragEnter", "dragOver", "drop"]) {
    await session.send("Input.dispatchDragEvent", { type, ...at });
  }
  await session.detach();
}

/** The native program, if it is built or GROK_WGPU_BINARY names it: runs it and gives what it prints. */
export function native() {
  const target = process.env.CARGO_TARGET_DIR ?? path.join(root, "target");
  const built = ["release", "debug"].map((profile) => path.join(target, profile, "grok-wgpu"));
  const program = process.env.GROK_WGPU_BINARY ?? built.find(existsSync);
  return (
    program && ((...args) => execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }))
  );
}
