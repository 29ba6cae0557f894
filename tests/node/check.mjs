// Compiles WGSL files with Tint, the compiler of Chromium's WebGPU, through Dawn's module for Node.
//
//     node check.mjs DIR [--pipelines all|subgroups]
//
// Each file of DIR becomes a shader module and a compute pipeline; nothing is dispatched. On a device without
// subgroups, programs that use subgroups fail. `--pipelines subgroups` makes pipelines of those alone: `run.mjs` makes
// and runs those of the others, while of these it runs what suits the device's subgroups.
//
// Exit code 0: all programs compile; 1: some do not, or there is no adapter; 2: wrong usage.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { openDevice } from "./device.mjs";

const usage = (text) => {
  console.error(text);
  process.exit(2);
};

let given;
try {
  given = parseArgs({ allowPositionals: true, options: { pipelines: { type: "string", default: "all" } } });
} catch (error) {
  usage(error.message);
}
const {
  values: { pipelines },
  positionals: [folder, ...more],
} = given;
if (!folder || more.length > 0 || !["all", "subgroups"].includes(pipelines)) {
  usage("usage: node check.mjs DIR [--pipelines all|subgroups]");
}
const files = readdirSync(folder)
  .filter((name) => name.endsWith(".wgsl"))
  .sort();
if (files.length === 0) {
  console.error(`${folder}: no *.wgsl file`);
  process.exit(1);
}

const opened = await openDevice();
if (!opened) {
  console.error("Dawn found no adapter; Tint was not run");
  process.exit(1);
}
const { device, name } = opened;
console.log(`Tint on ${name}`);

let failed = 0;
let built = 0;
for (const file of files) {
  const code = readFileSync(join(folder, file), "utf8");
  device.pushErrorScope("validation");
  const module = device.createShaderModule({
    label: file,
    code,
  });
  const { messages } = await module.getCompilationInfo();
  const problems = messages
    .filter((message) => message.type === "error")
    .map((message) => `${message.lineNum}:${message.linePos}: ${message.message}`);
  if (problems.length === 0 && (pipelines === "all" || code.includes("enable subgroups;"))) {
    built += 1;
    try {
      await device.createComputePipelineAsync({
        layout: "auto",
        compute: { module, entryPoint: "main" },
      });
    } catch (error) {
      problems.push(String(error.message ?? error));
    }
  }
  const scope = await device.popErrorScope();
  if (scope && problems.length === 0) problems.push(scope.message);
  if (problems.length > 0) {
    failed += 1;
    console.log(`FAILED ${file}\n  ${problems.join("\n  ")}`);
  }
}
console.log(`${files.length} shader modules, ${built} compute pipelines`);
console.log(`${files.length - failed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
