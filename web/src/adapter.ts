/** Starts the WebAssembly module, and finds and describes the browser's adapter. */

import { GrokWgpuError, toError } from "./errors.js";
import type { AdapterInfo } from "./types.js";
import init from "./wasm/grok_wgpu.js";

/** The part of WebGPU's types that is used; not every TypeScript library has them. */
interface Gpu {
  requestAdapter(options: { powerPreference: string }): Promise<GpuAdapter | null>;
}
interface GpuAdapter {
  info: { vendor: string; architecture: string; device: string; description: string };
}

/** What the WebAssembly module reports about the device. */
type Caps = Pick<AdapterInfo, "limits" | "features">;

/** The pending or finished start of the WebAssembly module. */
let ready: Promise<unknown> | undefined;

export function start(): Promise<unknown> {
  ready ??= init({ module_or_path: new URL("./wasm/grok_wgpu_bg.wasm", import.meta.url) }).catch((error: unknown) => {
    ready = undefined;
    throw new GrokWgpuError("network", `the engine's module could not be loaded: ${toError(error).message}`);
  });
  return ready;
}

/** An adapter; throws with the reason if there is none. */
export async function findAdapter(): Promise<GpuAdapter> {
  const gpu = (navigator as { gpu?: Gpu }).gpu;
  if (!gpu) {
    throw new GrokWgpuError(
      "no_webgpu",
      "this browser has WebGPU, but not in workers, where the engine runs",
      "Use a browser that has WebGPU in workers: Chrome, Edge, Safari 26, or an up-to-date Firefox.",
    );
  }
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    throw new GrokWgpuError("no_adapter", "this browser has WebGPU, but gives no graphics adapter");
  }
  return adapter;
}

export async function describeAdapter(caps: string): Promise<AdapterInfo> {
  const { vendor, architecture, device, description } = (await findAdapter()).info;
  const words = [description, vendor, architecture, device].filter((word, i, all) => word && all.indexOf(word) === i);
  return {
    vendor,
    architecture,
    device,
    description,
    summary: words.join(", ") || "a graphics adapter without a name",
    ...(JSON.parse(caps) as Caps),
  };
}
