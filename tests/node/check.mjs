// Compiles WGSL files with Tint, the compiler of Chromium's WebGPU, through Dawn's module for Node.
//
//     node check.mjs DIR
//
// Each file of DIR becomes a shader module and a compute pipeline; nothing is dispatched. On a device without
// subgroups, programs that use subgroups fail.
//
// Exit code 0: all programs compile; 1: some do not, or there is no adapter; 2: wrong usage.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { openDevice } from "./device.mjs";

const folder = process.argv[2];
if (!folder) {
  console.error("usage: node check.mjs DIR");
  process.exit(2);
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
for (const file of files) {
  device.pushErrorScope("validation");
  const module = device.createShaderModule({
    label: file,
    code: readFileSync(join(folder, file), "utf8"),
  });
  const { messages } = await module.getCompilationInfo();
  const problems = messages
    .filter((message) => message.type === "error")
    .map((message) => `${message.lineNum}:${message.linePos}: ${message.message}`);
  if (problems.length === 0) {
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
console.log(`${files.length - failed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
