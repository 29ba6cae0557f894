// The package in Deno, with Deno's own WebGPU, installed in a project as users have it.
import assert from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import path from "node:path";
import { before, test } from "node:test";
import { demo } from "../harness.mjs";
import { check, checkSoftware, denoProgram, lastLine, lavapipe, project, question, run, serveAll } from "./common.mjs";

const env = { ...lavapipe(), DENO_NO_UPDATE_CHECK: "1" };
const program = denoProgram();

let folder;
before(() => {
  assert.ok(existsSync(program), `there is no ${program}: (cd tests/node && npm ci --ignore-scripts) installs it`);
  folder = project();
});

/** Runs a module in the project, with these permissions alone. */
function script(text, ...permissions) {
  writeFileSync(path.join(folder, "program.mjs"), text);
  return run(program, ["run", "--no-prompt", ...permissions, "program.mjs"], { cwd: folder, env });
}

test("a model of an address, or of a path, does what it does in a page", async () => {
  const { server, address } = await serveAll();
  try {
    for (const [entry, source, permission] of [
      ["grok-wgpu", `${address}/models/demo`, `--allow-net=${new URL(address).host}`],
      ["grok-wgpu/node", demo, `--allow-read=${folder},${demo}`],
    ]) {
      const found = lastLine(
        await script(
          `import * as lib from "${entry}";
import { essentials } from "./essentials.mjs";
const found = await essentials(lib, ${JSON.stringify(source)}, ${JSON.stringify(question)}, console.error);
console.log(JSON.stringify(found));`,
          `--allow-read=${folder}`,
          permission,
        ),
      );
      check(`Deno, ${entry}`, found);
      if (env.VK_DRIVER_FILES) {
        checkSoftware(found);
      }
    }
  } finally {
    server.close();
  }
});

test("an address that is none is refused, with what would be one", async () => {
  const { code, message, hint } = lastLine(
    await script(`import { GrokWgpu } from "grok-wgpu";
const { code, message, hint } = await GrokWgpu.load("models/demo").catch((error) => error);
console.log(JSON.stringify({ code, message, hint }));`),
  );
  assert.deepEqual([code, message], ["usage", '"models/demo" is not the address of a model']);
  assert.match(hint, /https:.*"grok-wgpu\/node"/);
});
