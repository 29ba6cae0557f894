// What is told of an adapter, from what hosts tell.
import assert from "node:assert/strict";
import { test } from "node:test";
import { identify } from "../dist/adapter.js";

const info = (vendor, architecture, device, description, more = {}) => ({
  info: { vendor, architecture, device, description, ...more },
});

test("an adapter always has a name, and software is known", () => {
  for (const [adapter, description, summary, software] of [
    // Chromium on SwiftShader, on a GPU, and on Windows' WARP.
    [
      info("google", "swiftshader", "", "SwiftShader Device (Subzero)"),
      "SwiftShader Device (Subzero)",
      "SwiftShader Device (Subzero), google, swiftshader",
      true,
    ],
    [info("apple", "metal-3", "", ""), "apple metal-3", "apple, metal-3", false],
    [info("microsoft", "warp", "", ""), "microsoft warp", "microsoft, warp", true],
    [info("", "", "", "Microsoft Basic Render Driver"), undefined, undefined, true],
    // Firefox, on a GPU and without one.
    [info("", "", "", "", { isFallbackAdapter: false }), "unnamed adapter", "unnamed adapter", false],
    [info("", "", "", " ", { isFallbackAdapter: true }), "unnamed adapter", "unnamed adapter", true],
    // Older browsers.
    [{ ...info("", "", "", ""), isFallbackAdapter: true }, "unnamed adapter", "unnamed adapter", true],
    // Deno has numbers of vendor and device.
    [info("65541", "", "0", "llvmpipe (LLVM 15.0.6, 256 bits)"), undefined, "llvmpipe (LLVM 15.0.6, 256 bits)", true],
    [info("4318", "", "8711", "NVIDIA Warpdrive"), "NVIDIA Warpdrive", "NVIDIA Warpdrive", false],
    [info("4318", "", "8711", ""), "unnamed adapter", "unnamed adapter", false],
  ]) {
    const told = identify(adapter);
    assert.equal(told.description, description ?? adapter.info.description);
    assert.equal(told.summary, summary ?? told.description);
    assert.equal(told.software, software, told.summary);
    assert.equal(told.note !== undefined, software);
  }
});
