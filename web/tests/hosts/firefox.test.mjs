// The package in Firefox. A page runs the essentials and sends what it found to this program, so nothing has to drive the
// browser.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { homedir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { serve } from "../../bin/serve.mjs";
import { demo, scratch, web } from "../harness.mjs";
import { check, checkSoftware, lavapipe, question } from "./common.mjs";

/** Where Firefox may be, as in scripts/common.sh; the variable FIREFOX overrides this. */
const BROWSERS = [
  "/usr/bin/firefox-esr",
  "/usr/lib/firefox/firefox",
  "/usr/lib64/firefox/firefox",
  "/opt/firefox/firefox",
  "/Applications/Firefox.app/Contents/MacOS/firefox",
];

/** Milliseconds for all of it. */
const PATIENCE = 400_000;

/** WebGPU on any adapter, and none of what a first start does. */
const PREFERENCES = {
  "dom.webgpu.enabled": true,
  "dom.webgpu.workers.enabled": true,
  "gfx.webgpu.ignore-blocklist": true,
  "app.normandy.enabled": false,
  "app.update.enabled": false,
  "browser.aboutwelcome.enabled": false,
  "browser.shell.checkDefaultBrowser": false,
  "browser.startup.homepage_override.mstone": "ignore",
  "datareporting.policy.dataSubmissionEnabled": false,
  "extensions.getAddons.cache.enabled": false,
  "extensions.update.enabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "services.settings.server": "",
  "toolkit.telemetry.enabled": false,
};

const PAGE = (to) => `<!doctype html><meta charset="utf-8"><title>Firefox</title><link rel="icon" href="data:,">
<script type="module">
const send = (what) => fetch("${to}", { method: "POST", mode: "no-cors", body: JSON.stringify(what) });
addEventListener("error", ({ message }) => send({ error: message }));
addEventListener("unhandledrejection", ({ reason }) => send({ error: String(reason) }));
try {
  const lib = await import("/dist/index.js");
  const { essentials } = await import("/tests/essentials.mjs");
  const found = await essentials(lib, "/models/demo", ${JSON.stringify(question)}, (step) => send({ step }));
  await send({ found });
} catch ({ message, code, hint }) {
  await send({ error: [code, message, hint].filter(Boolean).join("; ") });
}
</script>`;

/** The browser's program. */
function firefox() {
  const found = process.env.FIREFOX ?? BROWSERS.find(existsSync);
  assert.ok(
    found && existsSync(found),
    `${found ? `there is no ${found}` : "there is no Firefox"}: scripts/setup --test --web installs it ` +
      "on Debian (apt-get install firefox-esr), and says what to do elsewhere; FIREFOX can name one",
  );
  return found;
}

/** Listens for what the page sends; resolves to what it found. */
function listener() {
  let resolve;
  let reject;
  const result = new Promise((...both) => {
    [resolve, reject] = both;
  });
  const steps = ["the page was not opened"];
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const piece of request.setEncoding("utf8")) {
      text += piece;
    }
    response.end();
    const { step, error, found } = JSON.parse(text);
    if (step) {
      steps.push(step);
    } else if (found) {
      resolve(found);
    } else {
      reject(new Error(`${steps.at(-1)}: ${error}`));
    }
  });
  return { server, steps, result, reject };
}

test("a page does what it does in Chromium", async () => {
  const program = firefox();
  const { server: results, steps, result, reject } = listener();
  await new Promise((done) => results.listen(0, "127.0.0.1", done));
  const folder = scratch();
  const profile = scratch();
  writeFileSync(path.join(folder, "index.html"), PAGE(`http://localhost:${results.address().port}/`));
  const lines = Object.entries(PREFERENCES).map(
    ([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});`,
  );
  writeFileSync(path.join(profile, "user.js"), lines.join("\n"));
  const pages = await serve(0, [
    ["/", folder],
    ["/dist", path.join(web, "dist")],
    ["/models/demo", demo],
    ["/tests", import.meta.dirname],
  ]);
  const args = ["--headless", "--no-remote", "--profile", profile, `http://localhost:${pages.address().port}/`];
  const driver = lavapipe();
  const env = {
    ...process.env,
    ...driver,
    // Firefox writes to its user's home, and refuses to start in another's. Mesa keeps what it has compiled.
    HOME: profile,
    MESA_SHADER_CACHE_DIR: process.env.MESA_SHADER_CACHE_DIR ?? path.join(homedir(), ".cache"),
    MOZ_CRASHREPORTER_DISABLE: "1",
  };
  // A group of its own, since the browser has several processes.
  const browser = spawn(program, args, { env, stdio: ["ignore", "ignore", "pipe"], detached: true });
  const said = [];
  browser.stderr.setEncoding("utf8").on("data", (text) => said.push(text));
  const why = (text) => reject(new Error(`${text}; its last step was: ${steps.at(-1)}\n${said.join("").slice(-3000)}`));
  browser.on("error", reject);
  const gone = new Promise((resolve) => browser.on("close", resolve));
  gone.then((code) => why(`Firefox ended with ${code}`));
  const timer = setTimeout(() => why(`nothing came from the page in ${PATIENCE / 1000} s`), PATIENCE);
  try {
    const found = await result;
    assert.match(found.userAgent, /Firefox\//);
    check("Firefox", found);
    if (driver.VK_DRIVER_FILES) {
      checkSoftware(found);
    }
  } finally {
    clearTimeout(timer);
    if (browser.pid !== undefined && browser.exitCode === null) {
      process.kill(-browser.pid, "SIGKILL");
    }
    await gone;
    pages.close();
    results.close();
  }
});
