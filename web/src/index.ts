/** Grok-2-class mixture-of-experts transformers in the browser, on WebGPU. */

export { cachedBytes, clearCache } from "./cache.js";
export { GrokWgpu } from "./engine.js";
export { GrokWgpuError } from "./errors.js";
export type * from "./types.js";
