// What a manifest lists, and fuzzing of the manifest parser with small mutations of a valid one: a malformed manifest
// gives an error with a code, and no file name leads out of the folder. Needs no browser.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "node:test";

import { manifest } from "../bin/manifest.mjs";
import { GrokWgpuError } from "../dist/errors.js";
import { fileUrl, parseManifest } from "../dist/listing.js";

const MANIFEST = "https://example.org/model/manifest.json";
const SEEDS = [
  JSON.stringify({
    files: [
      { name: "config.json", size: 712, sha256: "0123456789abcdef".repeat(4) },
      { name: "model.safetensors", size: 9007199254740991 },
    ],
  }),
  '{"files":[]}',
];
const PIECES = [
  '"',
  "{",
  "}",
  "[",
  "]",
  ",",
  ":",
  "-1",
  "1e999",
  "null",
  "../",
  "..",
  "\\",
  "/",
  "\u{0}",
  "\u{10ffff}",
];
const CHANGES = 20_000;

/** Deterministic random integers below a limit. */
function stream() {
  let state = 1;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

function changed(text, below) {
  let changed = text;
  for (let i = below(3); i >= 0; i -= 1) {
    const at = below(changed.length + 1);
    const piece = below(2) === 0 ? PIECES[below(PIECES.length)] : String.fromCharCode(32 + below(95));
    changed = changed.slice(0, at) + (below(4) === 0 ? "" : piece) + changed.slice(at + below(3));
  }
  return changed;
}

/** Whether the text is accepted as a manifest. */
function accepted(text) {
  let files;
  try {
    files = parseManifest(MANIFEST, text);
  } catch (error) {
    assert.ok(error instanceof GrokWgpuError && error.code === "checkpoint", `${error} for ${JSON.stringify(text)}`);
    assert.ok(error.message.startsWith(MANIFEST));
    return false;
  }
  for (const { name, size, sha256 } of files) {
    const address = new URL(encodeURIComponent(name), MANIFEST).href;
    assert.ok(address.startsWith("https://example.org/model/") && !/[/\\]/.test(name), JSON.stringify(name));
    assert.ok(Number.isSafeInteger(size) && size >= 0, JSON.stringify(text));
    assert.ok(sha256 === undefined || /^[0-9a-f]{64}$/.test(sha256), JSON.stringify(text));
  }
  return true;
}

test("changed manifests are read or refused", () => {
  assert.ok(SEEDS.every(accepted));
  const below = stream();
  let good = 0;
  for (let i = 0; i < CHANGES; i += 1) {
    good += accepted(changed(SEEDS[below(SEEDS.length)], below));
  }
  assert.ok(good > CHANGES / 100 && good < CHANGES / 2, `${good} of ${CHANGES} changes were accepted`);
});

test("names that lead out of the folder are refused", () => {
  const named = (name) => JSON.stringify({ files: [{ name, size: 1 }] });
  for (const name of [
    "",
    ".",
    "..",
    "/etc/passwd",
    "../config.json",
    "a/../../config.json",
    "a/config.json",
    "..\\config.json",
    "C:\\config.json",
    "//example.com/config.json",
    "https://example.com/config.json",
    "data:text/plain,x/y",
    null,
    7,
    ["config.json"],
  ]) {
    assert.ok(!accepted(named(name)), JSON.stringify(name));
  }
  // These are plain names: what an address would mean by them is escaped.
  for (const name of ["%2e%2e", "%2e%2e%2fconfig.json", "https:config.json", "?a", "#a", "...", "a..b"]) {
    assert.ok(accepted(named(name)), JSON.stringify(name));
    const address = new URL(fileUrl("https://example.org/model/", name));
    assert.equal(address.origin + path.posix.dirname(address.pathname), "https://example.org/model");
    assert.deepEqual([address.search, address.hash], ["", ""]);
    assert.equal(decodeURIComponent(path.posix.basename(address.pathname)), name);
  }
});

test("a manifest lists what a model needs, and what says how its texts end", async () => {
  const texts = [
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer.tok.json",
    "tokenizer_config.json",
  ];
  const both = ["config.json", "model.safetensors", "model.safetensors.index.json", ...texts];
  for (const [given, listed] of [
    [[...both, "model.Q8_0.gguf", "README.md", ".model.safetensors", "manifest.json"], both],
    [
      ["Model.GGUF", "tokenizer.json", "notes.txt"],
      ["Model.GGUF", "tokenizer.json"],
    ],
    [["config.json"], undefined],
  ]) {
    const folder = mkdtempSync(path.join(tmpdir(), "grok-wgpu-manifest-"));
    try {
      for (const name of given) {
        writeFileSync(path.join(folder, name), name);
      }
      if (listed) {
        const { files } = await manifest(folder);
        assert.deepEqual(files.map(({ name }) => name).sort(), [...listed].sort());
      } else {
        await assert.rejects(() => manifest(folder), /no \*\.safetensors and no \*\.gguf/);
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  }
});
