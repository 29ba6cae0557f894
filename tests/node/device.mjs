// The device that checks run on: Dawn's first adapter, with subgroup operations where it has them.
//
//     node device.mjs
//
// prints the least and the largest size of its subgroups, or nothing if it has none.

import { fileURLToPath } from "node:url";
import { create, globals } from "webgpu";

Object.assign(globalThis, globals);

// Dawn's instance must outlive its devices: once it is collected, they crash or wait for ever.
const gpu = create([]);

/** The adapter's name, a device, and the sizes of its subgroups, or null; null without an adapter. */
export async function openDevice() {
  const adapter = await gpu.requestAdapter();
  if (!adapter) return null;
  const { info, features } = adapter;
  const has = features.has("subgroups");
  return {
    adapter,
    name: info.description || info.vendor || "an adapter",
    device: await adapter.requestDevice({ requiredFeatures: has ? ["subgroups"] : [] }),
    subgroups: has ? [info.subgroupMinSize, info.subgroupMaxSize] : null,
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const opened = await openDevice();
  if (!opened) {
    console.error("Dawn found no adapter");
    process.exit(1);
  }
  console.log((opened.subgroups ?? []).join());
  process.exit(0);
}
