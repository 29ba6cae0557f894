// Shared by the tests of hosts other than Chromium: the checks of what `essentials.mjs` found, and a folder in which the
// package is installed as users have it.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { serve } from "../../bin/serve.mjs";
import { demo, scratch, web } from "../harness.mjs";
import { reference } from "../models.mjs";

const { question, text: answer } = reference();

export { question };

/** Checks the essentials, and prints what was measured. */
export function check(host, found) {
  const { adapter, model, phases, pieces, text, selftest, took } = found;
  assert.equal(text, ", there was a kind dog named Luna", "greedy text is the command's");
  assert.equal(pieces, text);
  // The answer of the PyTorch original, as far as it was written.
  assert.equal(found.answer, answer.slice(0, found.answer.length));
  assert.ok(found.answer.length > 40, found.answer);
  assert.deepEqual([...phases].sort(), ["engine", "pipelines", "weights"]);
  assert.deepEqual([model.name, model.chat, model.warnings], ["demo", true, []]);
  assert.ok(selftest.passed >= 3 && selftest.failed === 0, JSON.stringify(selftest));
  assert.equal(selftest.unfinished, null);
  assert.ok(selftest.worst <= 1, `${selftest.worst} of its bound`);
  assert.ok(adapter.description.trim() && adapter.summary.trim(), "an adapter always has a name");
  assert.ok(adapter.limits.maxBufferSize > 0);
  assert.equal(found.after, "disposed");
  const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(1)} s`;
  console.log(
    `${host}: ${found.userAgent}, ${adapter.summary}; loaded in ${seconds(took.load)}, ` +
      `${found.tokensPerSecond.toFixed(1)} tokens/s, ${seconds(took.total)} in all`,
  );
}

/** On a software adapter this must be said; drivers of the tests are software unless the test says otherwise. */
export function checkSoftware({ adapter }) {
  assert.equal(adapter.software, true, adapter.summary);
  assert.match(adapter.note, /CPU/);
}

/** Serves the built package, the demo model and these files. */
export async function serveAll() {
  const server = await serve(0, [
    ["/dist", path.join(web, "dist")],
    ["/models/demo", demo],
    ["/tests", import.meta.dirname],
  ]);
  return { server, address: `http://localhost:${server.address().port}` };
}

/** Has programs find the first of these Vulkan manifests alone; nothing if there is none, as on macOS. */
function driver(files) {
  const icd = files.find(existsSync);
  return icd ? { VK_DRIVER_FILES: icd, VK_ICD_FILENAMES: icd } : {};
}

/** The variables for lavapipe. */
export function lavapipe() {
  const icd = "/usr/share/vulkan/icd.d/lvp_icd";
  return driver([`${icd}.${process.arch === "arm64" ? "aarch64" : "x86_64"}.json`, `${icd}.json`]);
}

/** The variables for SwiftShader; SWIFTSHADER_ICD is its manifest where it lies elsewhere. */
export function swiftshader() {
  return driver([process.env.SWIFTSHADER_ICD ?? "", "/usr/lib/chromium/vk_swiftshader_icd.json"]);
}

/** The folder with npm's packages of the hosts, which scripts/test installs from tests/node. */
function hostPackages() {
  const folder = process.env.GROK_WGPU_NODE_MODULES ?? path.join(web, "../tests/node/node_modules");
  if (!existsSync(path.join(folder, "webgpu"))) {
    throw new Error(`${folder} lacks the hosts: (cd tests/node && npm ci --ignore-scripts) installs them`);
  }
  return folder;
}

/** A new folder of a project that has installed the package as npm would pack it, with `others` beside it. */
export function project(...others) {
  const folder = scratch();
  const modules = path.join(folder, "node_modules");
  const own = path.join(modules, "grok-wgpu");
  mkdirSync(own, { recursive: true });
  writeFileSync(path.join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
  copyFileSync(path.join(import.meta.dirname, "essentials.mjs"), path.join(folder, "essentials.mjs"));
  const packing = ["pack", "--ignore-scripts", "--json", "--pack-destination", folder];
  const [{ filename }] = JSON.parse(execFileSync("npm", packing, { cwd: web, encoding: "utf8" }));
  execFileSync("tar", ["-xzf", path.join(folder, filename), "--strip-components=1", "-C", own]);
  for (const name of others) {
    symlinkSync(path.join(hostPackages(), name), path.join(modules, name));
  }
  return folder;
}

/** The program of npm's package of Deno, which is in the package of its platform. */
export function denoProgram() {
  const scope = path.join(hostPackages(), "@deno");
  const libc = process.platform === "linux" ? "-glibc" : "";
  const name = process.platform === "win32" ? "deno.exe" : "deno";
  return path.join(scope, `${process.platform}-${process.arch}${libc}`, name);
}

/** Runs a program to its end; resolves to its exit status and output. It is killed after a while. */
export function run(program, args, { env = {}, cwd, patience = 400_000 } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    const out = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"]) {
      child[name].setEncoding("utf8").on("data", (text) => {
        out[name] += text;
      });
    }
    const timer = setTimeout(() => child.kill("SIGKILL"), patience);
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, ...out });
    });
  });
}

/** The last line of a program's output, which is JSON; throws with all of its output if it failed. */
export function lastLine({ code, signal, stdout, stderr }) {
  assert.equal(code, 0, `it ended with ${code ?? signal}\n${stdout}\n${stderr}`);
  return JSON.parse(stdout.trim().split("\n").at(-1));
}
