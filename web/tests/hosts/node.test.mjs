// The package in Node, with Dawn of npm's package `webgpu`, installed in a project as users have it.
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { before, test } from "node:test";
import { demo } from "../harness.mjs";
import { check, checkSoftware, lastLine, project, question, run, swiftshader } from "./common.mjs";

// Dawn refuses old versions of lavapipe.
const env = swiftshader();

let folder;
before(() => {
  folder = project("webgpu");
});

/** Runs a module in a project. */
function script(text, where = folder) {
  const file = path.join(where, "program.mjs");
  writeFileSync(file, text);
  return run(process.execPath, [file], { cwd: where, env });
}

/** A module that prints the error of loading from a source. */
const failing = (entry, source) => `import { GrokWgpu } from "${entry}";
const error = await GrokWgpu.load(${JSON.stringify(source)}).catch((error) => error);
console.log(JSON.stringify({ name: error.name, code: error.code, message: error.message, hint: error.hint }));`;

test("a model of a path does what it does in a page, and leaves the program's globals alone", async () => {
  const found = lastLine(
    await script(`import * as lib from "grok-wgpu/node";
import { essentials } from "./essentials.mjs";
const before = Object.getOwnPropertyNames(globalThis);
const found = await essentials(lib, ${JSON.stringify(demo)}, ${JSON.stringify(question)}, console.error);
const added = Object.getOwnPropertyNames(globalThis).filter((name) => !before.includes(name));
console.log(JSON.stringify({ ...found, added }));`),
  );
  check("Node", found);
  assert.deepEqual(found.added, []);
  if (env.VK_DRIVER_FILES) {
    checkSoftware(found);
  }
});

test("an engine that is idle does not keep the program from ending", async () => {
  const { code } = lastLine(
    await script(`import { Client } from "./node_modules/grok-wgpu/dist/client.js";
import "grok-wgpu/node";
const call = new Client().call({ kind: "selftest", options: { kernel: "none" } }, { what: "the test" });
console.log(JSON.stringify(await call.catch(({ code }) => ({ code }))));`),
  );
  assert.equal(code, "usage");
});

test("what is not there is said, with what to do", async () => {
  const empty = path.join(folder, "empty");
  mkdirSync(empty, { recursive: true });
  for (const [entry, source, code, message, hint] of [
    ["grok-wgpu/node", empty, "checkpoint", /empty has no config\.json and no \*\.gguf/, /model's folder/],
    ["grok-wgpu/node", "./nowhere", "checkpoint", /nowhere cannot be read: ENOENT/, /address that begins with https/],
    ["grok-wgpu", "https://localhost/m", "no_webgpu", /Node has no WebGPU of its own/, /"grok-wgpu\/node"/],
  ]) {
    const error = lastLine(await script(failing(entry, source)));
    assert.deepEqual([error.name, error.code], ["GrokWgpuError", code], error.message);
    assert.match(error.message, message);
    assert.match(error.hint, hint);
  }
});

test("without the package webgpu it says how to install that", async () => {
  const error = lastLine(await script(failing("grok-wgpu/node", demo), project()));
  assert.equal(error.code, "no_webgpu");
  assert.match(error.message, /the package webgpu is not installed/);
  assert.match(error.hint, /npm install webgpu/);
});
