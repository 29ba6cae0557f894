// The device for checks: Dawn's first adapter, with the subgroups feature if it has that.
//
//     node device.mjs
//
// prints the minimum and maximum size of its subgroups, or an empty line without the feature.

import { fileURLToPath } from "node:url";
import { create, globals } from "webgpu";

Object.assign(globalThis, globals);

// Dawn's instance must outlive its devices. If it is garbage-collected, they crash or hang.
const gpu = create([]);

/** Adapter, name, device, and subgroup sizes or null. Returns null without an adapter. */
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
