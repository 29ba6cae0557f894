// Shared by the browser tests: a server for the built page, the installed Chromium, and a page on which every
// unexpected error is recorded.
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before } from "node:test";
import { chromium } from "playwright-core";
import { manifest } from "../bin/manifest.mjs";
import { serve } from "../bin/serve.mjs";

export const web = path.resolve(import.meta.dirname, "..");
export const root = path.dirname(web);
export const demo = path.join(root, "models/demo");

/** Where Chromium may be; the variable CHROMIUM overrides this. */
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

/** Milliseconds that a test waits for something: compiling is slow on a busy machine without a GPU. */
const PATIENCE = 180_000;

/** A browser on the software adapter, for the same results on every machine. */
const started = () => ({
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

/** Starts the browser. Each context is a private window of its own. */
export async function launch() {
  const browser = await chromium.launch(started());
  browser.on("context", (context) => context.setDefaultTimeout(PATIENCE));
  return browser;
}

/**
 * Starts the browser with a profile of its own and returns its context, a usual window. Private windows keep files in
 * the browser's memory, and workers read them through another process, several times as slowly.
 */
export function launchUsual() {
  return chromium.launchPersistentContext(scratch(), started());
}

/** A temporary folder that is deleted at exit. */
export function scratch() {
  const folder = mkdtempSync(path.join(tmpdir(), "grok-wgpu-web-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Serves the built page and the demo model. */
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

/** The server of `servePage` and a browser, for the tests of one file: they are there once its tests run. */
export function stage() {
  const stage = {};
  before(async () => {
    stage.server = await servePage();
    stage.browser = await launch();
  });
  after(async () => {
    await stage.browser?.close();
    await stage.server?.close();
  });
  return stage;
}

/**
 * Opens a page and records what goes wrong on it: console errors and warnings, uncaught exceptions, requests to other
 * servers. `meant` has patterns of expected errors.
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

/** Waits until a model is loaded; throws the page's error if that fails. */
export async function ready(page) {
  const error = page.locator("#notices .error");
  await page.locator("html[data-model=ready]").or(error).first().waitFor({ state: "attached" });
  if ((await error.count()) > 0) {
    throw new Error(`the model was not loaded: ${await error.innerText()}`);
  }
}

/** Loads the demo model. */
export async function loadDemo(page) {
  await page.locator("#start").click();
  await ready(page);
}

/** Opens the part of the page where another model is chosen; it is open while there is none. */
export async function chooseOther(page) {
  await page.locator("#other").evaluate((details) => {
    details.open = true;
  });
}

/** Sets the sampling controls by their labels. */
export async function sample(page, settings) {
  for (const [label, value] of Object.entries(settings)) {
    const field = page.getByRole("spinbutton", { name: label, exact: true, includeHidden: true });
    // On narrow screens the controls are in another view, but work all the same.
    await field.evaluate((input, to) => {
      input.value = to;
      input.dispatchEvent(new Event("change"));
    }, String(value));
  }
}

/** Greedy decoding, of limited length. */
export const GREEDY = { Temperature: 0, "Most tokens": 64 };

/** Sends a message. */
export async function ask(page, text) {
  await page.locator("#prompt").fill(text);
  await page.locator("#send").click();
}

/** The latest answer, once it has ended. */
export async function lastAnswer(page) {
  const answer = page.locator("#log .message.assistant").last();
  const figures = answer.locator(".figures").filter({ hasText: /^[\d,]+ tokens?/ });
  const error = answer.locator(".error");
  await figures.or(error).first().waitFor();
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

/** Waits until there are so many tokens. */
export async function tokens(page, count) {
  await page
    .locator("#log .message.assistant")
    .last()
    .locator(".written span")
    .nth(count - 1)
    .waitFor();
}

/** Drops a local folder or file on the page, as a user would. */
export async function drop(page, file) {
  const session = await page.context().newCDPSession(page);
  const at = { x: 200, y: 200, data: { items: [], files: [file], dragOperationsMask: 1 } };
  for (const type of ["dragEnter", "dragOver", "drop"]) {
    await session.send("Input.dispatchDragEvent", { type, ...at });
  }
  await session.detach();
}

/**
 * A function that runs the native program and returns its output; falsy if there is no such program. GROK_WGPU_BINARY
 * may name it.
 */
export function native() {
  const target = process.env.CARGO_TARGET_DIR ?? path.join(root, "target");
  const built = ["release", "debug"].map((profile) => path.join(target, profile, "grok-wgpu"));
  const program = process.env.GROK_WGPU_BINARY ?? built.find(existsSync);
  return (
    program && ((...args) => execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }))
  );
}
