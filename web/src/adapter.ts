/** Starts the WebAssembly module, and finds and describes the adapter. */

import { GrokWgpuError, toError } from "./errors.js";
import type { AdapterInfo } from "./types.js";
import init from "./wasm/grok_wgpu.js";

/** The part of WebGPU's types that is used; not every TypeScript library has them. */
interface Gpu {
  requestAdapter(options: { powerPreference: string }): Promise<GpuAdapter | null>;
}
interface GpuAdapter {
  info: GpuAdapterInfo;
  /** Where older browsers have it. */
  isFallbackAdapter?: boolean;
}
interface GpuAdapterInfo {
  vendor: string;
  architecture: string;
  device: string;
  description: string;
  isFallbackAdapter?: boolean;
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
    if (/^(Node\.js|Deno)\//.test(navigator.userAgent)) {
      throw new GrokWgpuError(
        "no_adapter",
        "WebGPU is there, but it found no graphics adapter",
        "Install or update the graphics driver: Vulkan on Linux. Without a GPU, Mesa's lavapipe or SwiftShader will do; " +
          "VK_DRIVER_FILES names the manifest of one.",
      );
    }
    throw new GrokWgpuError("no_adapter", "this browser has WebGPU, but gives no graphics adapter");
  }
  return adapter;
}

/** Names of programs that do an adapter's work on the CPU. The last is WARP's. */
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|\bwarp\b|microsoft basic render/i;

const SLOW =
  "The CPU does this adapter's work. An engine that was compiled for the CPU is several times as fast on the same machine.";

/** What an adapter tells of itself. Hosts may leave all of it blank, or tell numbers for names. */
export function identify({ info, isFallbackAdapter }: GpuAdapter): Omit<AdapterInfo, "limits" | "features"> {
  const { vendor, architecture, device } = info;
  const names = [vendor, architecture, device].filter((name) => /\D/.test(name));
  const description = info.description.trim() || names.join(" ") || "unnamed adapter";
  const software =
    info.isFallbackAdapter === true || isFallbackAdapter === true || SOFTWARE.test([description, ...names].join(" "));
  return {
    vendor,
    architecture,
    device,
    description,
    summary: [...new Set([info.description.trim(), ...names])].filter(Boolean).join(", ") || description,
    software,
    ...(software && { note: SLOW }),
  };
}

export async function describeAdapter(caps: string): Promise<AdapterInfo> {
  return { ...identify(await findAdapter()), ...(JSON.parse(caps) as Caps) };
}
