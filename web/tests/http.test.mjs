// Models on servers that misbehave: what is read is right, or refused with an error that says why. Needs no browser.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";

import { list } from "../dist/listing.js";
import { remoteFiles } from "../dist/remote.js";
import { initSync } from "../dist/wasm/grok_wgpu.js";
import { becomePage, emptyStorage, followRules } from "./browserlike.mjs";
import { moodyServer } from "./servers.mjs";

/** A text of JSON that compresses well and is longer than what is looked at. */
const json = (what, count) => Buffer.from(JSON.stringify({ what, filler: Array(count).fill("filler") }));

/** Two ranged requests long, and more than is kept in memory. */
const WEIGHTS = randomBytes(9 << 20);
// As the length of a header.
WEIGHTS.writeBigUInt64LE(1000n, 0);

const MODEL = {
  "config.json": json("config", 300),
  "tokenizer.json": json("tokenizer", 20_000),
  "generation_config.json": Buffer.from('{"temperature": 0.5}'),
  "model.safetensors": WEIGHTS,
};
const PAGE = "\n<!doctype html><title>An application</title><p>Welcome.";

/** The files of the server. */
const files = {};
let server;
let good;
let kept;

before(async () => {
  initSync({ module: readFileSync(path.join(import.meta.dirname, "../dist/wasm/grok_wgpu_bg.wasm")) });
  followRules();
  server = await moodyServer(files);
  good = server.good;
});

after(() => server.close());

beforeEach(() => {
  for (const name of Object.keys(files)) {
    delete files[name];
  }
  Object.assign(files, MODEL);
  good();
  becomePage("https://page.test/");
  kept = emptyStorage();
});

/** A manifest of the model, with or without hashes. */
function manifest({ hashes = true, ...sizes } = {}) {
  const entries = Object.entries(MODEL).map(([name, bytes]) => ({
    name,
    size: sizes[name] ?? bytes.length,
    ...(hashes && { sha256: createHash("sha256").update(bytes).digest("hex") }),
  }));
  return Buffer.from(JSON.stringify({ files: entries }));
}

function load(cache = true, address = server.address) {
  return remoteFiles(address, { cache, stop: { signal: undefined }, onProgress: () => {} });
}

/** Loads the model and compares every byte with what the server has. */
async function loadsRight(cache, expected = MODEL) {
  const { files: found } = await load(cache);
  assert.deepEqual(found.map(({ name }) => name).sort(), Object.keys(expected).sort());
  for (const file of found) {
    assert.equal(file.size, expected[file.name].length, `the size of ${file.name}`);
    const bytes = await file.read(0, file.size);
    assert.ok(Buffer.compare(Buffer.from(bytes), expected[file.name]) === 0, `the bytes of ${file.name}`);
  }
}

/** Locks of a browser: each begins when those before it with its name have ended. */
function oneAtATime() {
  const last = new Map();
  return {
    request(name, _options, work) {
      const result = (last.get(name) ?? Promise.resolve()).then(work);
      last.set(
        name,
        result.catch(() => {}),
      );
      return result;
    },
  };
}

/** The error of something that must fail. */
async function failure(work) {
  try {
    await work();
  } catch (error) {
    assert.equal(error.name, "GrokWgpuError", error.stack);
    const { code, message, hint } = error;
    return { code, message, hint };
  }
  return assert.fail("nothing failed");
}

/** The error of listing the model's files with one try of each request. */
const listing = (address = server.address) => failure(() => list(address, undefined, 1));

describe("read right", () => {
  const HIDDEN = { exposed: "" };
  const moods = {
    "a server that behaves": {},
    "nothing shown to other origins": HIDDEN,
    "compressed JSON": { gzip: true },
    "compressed JSON, and nothing shown": { gzip: true, ...HIDDEN },
    "everything compressed, ranges too": { gzip: "always" },
    "everything compressed, ranges too, and nothing shown": { gzip: "always", ...HIDDEN },
    "no length": { length: false },
    "no length, and nothing shown": { length: false, ...HIDDEN },
    "HEAD is forbidden": { head: 403 },
    "HEAD is not allowed": { head: 405 },
    "HEAD is not implemented, and nothing shown": { head: 501, ...HIDDEN },
    "403 for what is not there": { missing: 403 },
    "401 for what is not there": { missing: 401 },
    "410 for what is not there": { missing: 410 },
    "a page for what is not there": { missing: PAGE },
    "a page for what is not there, said to be text": { missing: PAGE, missingType: "text/plain" },
    "words for what is not there": { missing: "Not found.", missingType: "text/plain" },
    "nothing for what is not there": { missing: "", missingType: "application/json" },
    "no ranges": { ranges: "ignored" },
    "no ranges, and nothing shown": { ranges: "ignored", ...HIDDEN },
    "no ranges, no length, nothing shown, all compressed": {
      ranges: "ignored",
      length: false,
      gzip: "always",
      ...HIDDEN,
    },
    "ranges that end early": { ranges: "shorter" },
    "ranges that end early, and nothing shown": { ranges: "shorter", length: false, ...HIDDEN },
    "ranges without a total": { ranges: "no total" },
    "ranges without a word": { ranges: "unsaid" },
    "the whole as a part": { ranges: "whole as a part" },
    "no answer to requests for parts": { ranges: "unanswered" },
    "parts that are too long": { ranges: "longer" },
    "parts that are too long, and nothing shown": { ranges: "longer", length: false, ...HIDDEN },
    "a redirect": { redirect: true },
    "neither versions nor times": { etag: () => undefined, modified: false },
  };
  for (const [name, mood] of Object.entries(moods)) {
    for (const cache of [true, false]) {
      test(`${name}, ${cache ? "kept" : "streamed"}`, async () => {
        good(mood);
        await loadsRight(cache);
        if (cache && mood.ranges !== "unanswered") {
          // It is complete: nothing is fetched again.
          server.requests.length = 0;
          await loadsRight(true);
          const again = server.requests.filter((line) => /^GET model.safetensors( bytes=\d{4,}-\d+)?$/.test(line));
          assert.deepEqual(again, []);
        }
      });
    }
  }

  for (const mood of [{}, HIDDEN, { ranges: "ignored" }, { ranges: "ignored", ...HIDDEN }, { gzip: true }]) {
    test(`a manifest with hashes: ${JSON.stringify(mood)}`, async () => {
      files["manifest.json"] = manifest();
      // Versions do not matter, as hashes are checked.
      good({ ...mood, etag: (n) => `"${n}"` });
      await loadsRight(true);
      assert.deepEqual(
        server.requests.filter((line) => /^HEAD/.test(line)),
        [],
      );
    });
  }

  test("a page of the same origin", async () => {
    becomePage(server.address);
    for (const mood of [{}, { gzip: true }, { ranges: "ignored", gzip: true }, { ranges: "ignored" }]) {
      good(mood);
      kept = emptyStorage();
      await loadsRight(true);
      await loadsRight(false);
    }
  });

  test("an index, its parts, and a GGUF file", async () => {
    delete files["model.safetensors"];
    const parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    const map = { a: parts[0], b: parts[1] };
    files["model.safetensors.index.json"] = Buffer.from(JSON.stringify({ weight_map: map }));
    files[parts[0]] = Buffer.alloc(0);
    files[parts[1]] = WEIGHTS.subarray(0, 1000);
    good({ missing: 403, gzip: true, exposed: "" });
    await loadsRight(true, files);
    files["one.gguf"] = WEIGHTS.subarray(0, 5000);
    const gguf = await load(true, `${server.address}one.gguf`);
    assert.deepEqual(
      gguf.files.map(({ name, size }) => [name, size]),
      [["one.gguf", 5000]],
    );
  });

  test("servers that name one version in several ways", async () => {
    good({ etag: (n) => `"${n}"`, modified: false });
    await loadsRight(true);
  });
});

describe("a file that changes while it is fetched", () => {
  /** Changes the weights when so much of them has been asked for. */
  const changing = (into, mood = {}) => {
    let version = 1;
    good({
      ...mood,
      etag: () => {
        if (version === 1 && /^GET model.safetensors bytes=8388608-/.test(server.requests.at(-1))) {
          files["model.safetensors"] = into;
          version = 2;
        }
        return `"${version}"`;
      },
    });
  };
  const other = Buffer.from(WEIGHTS).fill(7, 20);

  for (const into of [
    other,
    other.subarray(0, (8 << 20) + 1000),
    other.subarray(0, 1 << 20),
    Buffer.concat([other, other]),
  ]) {
    test(`of ${WEIGHTS.length} bytes, into ${into.length}, is fetched anew`, async () => {
      changing(into);
      await loadsRight(true, { ...MODEL, "model.safetensors": into });
    });
  }

  test("to a longer one that is told by nothing but its size", async () => {
    changing(Buffer.concat([other, other]), { modified: false });
    const told = server.mood.etag;
    server.mood.etag = () => void told();
    await loadsRight(true, { ...MODEL, "model.safetensors": Buffer.concat([other, other]) });
  });

  test("cannot be streamed", async () => {
    changing(other);
    const { files: found } = await load(false);
    const weights = found.find(({ name }) => name === "model.safetensors");
    const { code, message, hint } = await failure(() => weights.read(0, weights.size));
    assert.equal(code, "network");
    assert.match(message, /model\.safetensors has changed/);
    assert.match(hint, /manifest/);
  });
});

describe("refused", () => {
  const refusal = async (mood, pattern, { cache = true, list: told } = {}) => {
    if (told) {
      files["manifest.json"] = told;
    }
    good(mood);
    const { code, message, hint } = await failure(async () => {
      for (const file of (await load(cache)).files) {
        await file.read(0, file.size);
      }
    });
    assert.match(message, pattern);
    assert.match(message, /^http:\/\/localhost:\d+\/some\/model\/\w+\.\w+/);
    assert.notEqual(hint, "");
    // Nothing of it is kept as if it were whole.
    for (const name of ["model.safetensors", "config.json"]) {
      const state = kept().entries.get(`${name}.state`);
      const { done, size } = state ? JSON.parse(state.bytes.toString()) : { done: false };
      assert.ok(!done || size === MODEL[name].length, `${name} is kept`);
    }
    return { code, hint };
  };

  for (const cache of [true, false]) {
    test(`ranges that are others than asked for, ${cache ? "kept" : "streamed"}`, async () => {
      const { code, hint } = await refusal(
        { ranges: "shifted" },
        /the server sent "bytes \d+-\d+\/\d+", not bytes=\d+-\d+ as asked/,
        { cache },
      );
      assert.equal(code, "network");
      assert.match(hint, /range that was asked for, or the whole file with status 200/);
      await refusal({ ranges: "other total" }, /has (fewer than|\d+)/, { cache });
      const list = manifest({ hashes: false });
      for (const ranges of ["whole as a part", "longer"]) {
        for (const mood of [{}, { length: false }, { exposed: "" }, { length: false, exposed: "" }]) {
          await refusal({ ranges, ...mood }, /the server sent (more than )?\d+ bytes, not/, { cache, list });
        }
      }
      await refusal({ gzip: "always" }, /a compressed part/, { cache, list });
      await refusal({ gzip: "always", exposed: "" }, /the server sent (more than )?\d+ bytes, not /, { cache, list });
    });
  }

  test("a part without a word of which, where no header is hidden", async () => {
    becomePage(server.address);
    await refusal({ ranges: "unsaid" }, /a part without a content-range, not bytes=0-511/);
  });

  test("files of other sizes than the manifest says", async () => {
    for (const hashes of [true, false]) {
      for (const size of [WEIGHTS.length - 1, WEIGHTS.length + 1]) {
        const list = manifest({ hashes, "model.safetensors": size });
        const { code, hint } = await refusal({}, new RegExp(`has ${WEIGHTS.length} bytes, not the ${size} that`), {
          list,
        });
        assert.equal(code, "checksum");
        assert.match(hint, /manifest/);
      }
    }
    const list = manifest({ "model.safetensors": WEIGHTS.length - 1 });
    await refusal({ exposed: "" }, /SHA-256 is/, { list });
    await refusal({ exposed: "", ranges: "ignored" }, /more than the \d+ bytes that were expected/, { list });
    const longer = manifest({ "model.safetensors": WEIGHTS.length + 1 });
    await refusal({ exposed: "" }, /fewer than the \d+ bytes that were expected/, { list: longer });
  });

  test("a page or an error in place of a file that a manifest names", async () => {
    const list = manifest();
    delete files["model.safetensors"];
    for (const missingType of ["text/html", "text/plain"]) {
      await refusal({ missing: PAGE, missingType }, /a page instead of the file: "<!doctype html>/, { list });
    }
    await refusal({ missing: 404 }, /there is no such file: the server says 404/, { list });
    const { hint } = await refusal({ missing: 403 }, /the server says 403/, { list });
    assert.match(hint, /signed address may have expired/);
  });
});

describe("the cause is named:", () => {
  test("no permission for a file that is needed", async () => {
    for (const status of [401, 403]) {
      for (const name of ["config.json", "tokenizer.json", "model.safetensors"]) {
        good({ refused: { [name]: status } });
        const { code, message, hint } = await listing();
        assert.equal(code, "network");
        assert.ok(message.includes(`${name}: the server says ${status}`), message);
        assert.match(hint, /does not permit it.*signed address may have expired.*private/);
      }
    }
    for (const name of Object.keys(files)) {
      delete files[name];
    }
    for (const status of [401, 403]) {
      good({ missing: status });
      const { message, hint } = await listing();
      assert.ok(message.includes(`config.json: the server says ${status}`), message);
      assert.match(hint, /does not permit it/);
    }
  });

  test("no such file, folder or manifest", async () => {
    for (const [address, pattern, remedy] of [
      [`${server.address}none.gguf`, /none\.gguf: there is no such file/, /Check the address/],
      [`${server.address}none.json`, /none\.json: there is no such file/, /Check the address/],
    ]) {
      const { code, message, hint } = await listing(address);
      assert.equal(code, "network");
      assert.match(message, pattern);
      assert.match(hint, remedy);
    }
    delete files["config.json"];
    const { code, message } = await listing();
    assert.equal(code, "checkpoint");
    assert.match(message, /there is no manifest\.json, and no config\.json/);
  });

  test("a page or words in place of a file", async () => {
    for (const [missing, missingType, pattern] of [
      [PAGE, "text/html", /config\.json: the server answered with a page instead of the file: "<!doctype html>/],
      [PAGE, "text/plain", /config\.json: the server answered with a page instead of the file/],
      ["No\u{1b}[31m such file.", "text/plain", /config\.json: .* no JSON file of a model: "No \[31m such file\."/],
    ]) {
      delete files["config.json"];
      good({ missing, missingType });
      const { code, message } = await listing();
      assert.equal(code, "network");
      assert.match(message, pattern);
      assert.match((await listing(`${server.address}list.json`)).message, /list\.json: the server/);
    }
  });

  test("a server that other origins may not read", async () => {
    good({ cors: false });
    const { code, hint } = await listing();
    assert.equal(code, "network");
    assert.match(hint, /localhost:\d+ answers, but does not let pages of https:\/\/page\.test read.*\(CORS\)/);
  });

  test("no connection, no network, and a page over https", async () => {
    const down = await moodyServer({});
    await down.close();
    assert.match((await listing(down.address)).hint, /Check the address and the connection/);
    const insecure = await listing("http://models.invalid/");
    assert.match(insecure.hint, /over https only/);
    navigator.onLine = false;
    assert.match((await listing(down.address)).hint, /browser is offline/);
  });

  test("a server that does not answer requests for parts", async () => {
    files["manifest.json"] = manifest();
    good({ ranges: "unanswered" });
    const { hint } = await failure(load);
    assert.match(hint, /answers, but not when it is asked for a part of a file/);
  });

  test("a server out of order", async () => {
    good({ refused: { "config.json": 503 } });
    const { message, hint } = await listing();
    assert.match(message, /config\.json: the server says 503/);
    assert.match(hint, /Load again later/);
  });
});

describe("what is kept", () => {
  test("two pages that load one model at once download it once", async () => {
    const asked = () => server.requests.filter((line) => line.startsWith("GET model.safetensors")).sort();
    files["manifest.json"] = manifest();
    await loadsRight(true);
    const alone = asked();
    assert.ok(alone.length > 1);
    kept = emptyStorage();
    navigator.locks = oneAtATime();
    good();
    await Promise.all([loadsRight(true), loadsRight(true), loadsRight(true)]);
    assert.deepEqual(asked(), alone);
  });

  test("is used where the server refuses, or a network answers with its login", async () => {
    await loadsRight(true);
    for (const mood of [
      { refused: Object.fromEntries(["manifest.json", ...Object.keys(MODEL)].map((name) => [name, 403])) },
      { cors: false },
    ]) {
      good(mood);
      await loadsRight(true);
    }
    for (const name of Object.keys(files)) {
      delete files[name];
    }
    good({ missing: PAGE });
    await loadsRight(true);
  });

  test("is fetched again if it is shorter than the file", async () => {
    await loadsRight(true);
    for (const recorded of [false, true]) {
      const name = "tokenizer.json";
      const { entries } = kept();
      const file = entries.get(name);
      file.bytes = file.bytes.subarray(0, 351);
      if (recorded) {
        // As if a wrong size had been believed.
        const state = entries.get(`${name}.state`);
        state.bytes = Buffer.from(JSON.stringify({ ...JSON.parse(state.bytes.toString()), size: 351 }));
      }
      await loadsRight(true);
    }
  });
});
