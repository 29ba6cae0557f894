// The package without the page: models from misbehaving servers and from files; an engine that is stopped, loses its
// device, or gets invalid requests.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { serve } from "../bin/serve.mjs";
import { demo, launch, scratch, web } from "./harness.mjs";
import { gguf, reference } from "./models.mjs";
import { moodyServer } from "./servers.mjs";

const PAGE = `<!doctype html><title>package</title><link rel="icon" href="data:,"><script type="module">
import * as package_ from "/dist/index.js";
window.lib = package_;
</script>`;

const FILES = Object.fromEntries(
  ["config.json", "tokenizer.tok.json", "model.safetensors"].map((name) => [name, readFileSync(path.join(demo, name))]),
);
const TOTAL = Object.values(FILES).reduce((sum, bytes) => sum + bytes.length, 0);

const MOOD = { cuts: 0, cutAt: 1_500_000, failures: 0, ranges: true, manifest: true, wrongHash: false, down: false };
const mood = { ...MOOD };
let requests = [];

function manifest() {
  const files = Object.entries(FILES).map(([name, bytes]) => {
    const hash = createHash("sha256").update(bytes).digest("hex");
    return { name, size: bytes.length, sha256: mood.wrongHash && name === "config.json" ? "0".repeat(64) : hash };
  });
  return Buffer.from(JSON.stringify({ files }));
}

/** Bytes of the files before this one, in the order in which a page with a manifest fetches them. */
function bytesBefore(name) {
  const names = Object.keys(FILES);
  return names.slice(0, names.indexOf(name)).reduce((sum, earlier) => sum + FILES[earlier].length, 0);
}

/** A server on another origin that has a model and fails on demand. */
function moody(request, response) {
  const name = new URL(request.url, "http://localhost").pathname.split("/").pop();
  requests.push([request.method, name, request.headers.range].filter(Boolean).join(" "));
  if (mood.down) {
    response.destroy();
    return;
  }
  response.setHeader("access-control-allow-origin", "*");
  if (mood.failures > 0) {
    mood.failures -= 1;
    response.writeHead(503).end();
    return;
  }
  const body = name === "manifest.json" && mood.manifest ? manifest() : FILES[name];
  if (!body) {
    response.writeHead(404).end();
    return;
  }
  const range = mood.ranges ? /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") : null;
  const part = range ? body.subarray(Number(range[1]), Number(range[2]) + 1) : body;
  response.writeHead(range ? 206 : 200, { "content-length": part.length, etag: '"1"' });
  if (request.method === "HEAD") {
    response.end();
  } else if (mood.cuts > 0 && part.length > mood.cutAt) {
    mood.cuts -= 1;
    response.write(part.subarray(0, mood.cutAt));
    const cut = () => response.destroy();
    const end = Number(range?.[1] ?? 0) + mood.cutAt;
    // A stream that breaks drops what the page has not read yet, so it breaks once the page has read all.
    page.waitForFunction((bytes) => arrived >= bytes, bytesBefore(name) + end).then(cut, cut);
  } else {
    response.end(part);
  }
}

/** The root of the server. */
const folder = scratch();
let browser;
let server;
let other;
let model;
let page;

before(async () => {
  writeFileSync(path.join(folder, "index.html"), PAGE);
  server = await serve(0, [
    ["/", folder],
    ["/dist", path.join(web, "dist")],
    ["/models/demo", demo],
  ]);
  other = createServer(moody);
  await new Promise((resolve) => other.listen(0, "127.0.0.1", resolve));
  model = `http://localhost:${other.address().port}/some/model`;
  browser = await launch();
});

after(async () => {
  await browser?.close();
  server?.close();
  other?.close();
});

/** A new page with an empty cache. */
async function fresh() {
  Object.assign(mood, MOOD);
  requests = [];
  await page?.context().close();
  page = await (await browser.newContext()).newPage();
  await page.goto(`http://localhost:${server.address().port}/`);
  await page.waitForFunction(() => window.lib);
  await page.evaluate(() => {
    /** Loads until all files are there; returns that or an earlier error. */
    window.fetchFiles = async (source, options) => {
      const progress = [];
      const stop = new AbortController();
      window.arrived = 0;
      const onProgress = (news) => {
        progress.push(news);
        if (news.phase === "files") {
          window.arrived = news.done;
        }
        if (news.phase === "weights") {
          stop.abort();
        }
      };
      try {
        const engine = await lib.GrokWgpu.load(source, { onProgress, signal: stop.signal, ...options });
        await engine.dispose();
        throw new Error("the loading was not stopped");
      } catch ({ code, message, hint }) {
        const files = progress.filter(({ phase }) => phase === "files");
        return { code, message, hint, whole: stop.signal.aborted, first: files[0], last: files.at(-1) };
      }
    };
    window.events = [];
    window.load = async (source, options) => {
      const onDevice = ({ kind, message }) => {
        events.push(kind);
        if (kind === "restored") {
          window.restored = message;
        }
      };
      window.engine = await lib.GrokWgpu.load(source, { onDevice, context: 256, prefill: 32, ...options });
    };
    /** Generates a greedy text; `each` is called for every piece. */
    window.write = async (prompt, options = {}, each = () => {}) => {
      const generation = engine.generate(prompt, { temperature: 0, max_tokens: 40, ...options });
      const pieces = [];
      for await (const piece of generation) {
        pieces.push(piece);
        await each(pieces.length);
      }
      return { ...(await generation.finish), pieces };
    };
    window.failure = async (work) => {
      try {
        await work();
      } catch ({ code, message, hint }) {
        return { code, message, hint };
      }
      return "nothing failed";
    };
  });
}

describe("a model on a server", () => {
  beforeEach(fresh);
  const fetchFiles = (options = {}, address = model) =>
    page.evaluate(([address, options]) => fetchFiles(address, options), [address, options]);
  const fetched = () => requests.filter((line) => line.startsWith("GET model.safetensors"));

  test("a download that is cut goes on where it was cut", async () => {
    mood.cuts = 3;
    mood.failures = 1;
    const found = await fetchFiles();
    assert.ok(found.whole, found.message);
    assert.deepEqual(found.last, { phase: "files", done: TOTAL, total: TOTAL, cached: 0 });
    const starts = fetched().map((line) => Number(/bytes=(\d+)/.exec(line)[1]));
    assert.deepEqual(starts.slice(0, 4), [0, 1_500_000, 3_000_000, 4_500_000]);
  });

  test("a download that was stopped goes on at the next visit", async () => {
    const stopped = await page.evaluate(async (address) => {
      const stop = new AbortController();
      const onProgress = ({ phase, done }) => phase === "files" && done > 3e6 && stop.abort();
      return failure(() => lib.GrokWgpu.load(address, { onProgress, signal: stop.signal }));
    }, model);
    assert.equal(stopped.code, "aborted");
    const kept = await page.evaluate(() => lib.cachedBytes());
    assert.ok(kept > 3e6 && kept < TOTAL, `${kept} bytes are kept`);
    const { whole, first } = await fetchFiles();
    assert.ok(whole);
    assert.ok(first.cached > 3e6 && first.cached <= kept, `${first.cached} of ${kept} bytes count`);
  });

  test("what is kept is not fetched again, and needs no server", async () => {
    assert.ok((await fetchFiles()).whole);
    requests = [];
    const { whole, first } = await fetchFiles();
    assert.ok(whole);
    assert.equal(first.cached, TOTAL);
    assert.deepEqual(requests, ["GET manifest.json"]);
    mood.down = true;
    assert.ok((await fetchFiles()).whole);
    await page.evaluate(() => lib.clearCache());
    assert.equal(await page.evaluate(() => lib.cachedBytes()), 0);
  });

  test("a file that is not what the manifest says is refused and not kept", async () => {
    mood.wrongHash = true;
    const { code, message } = await fetchFiles();
    assert.equal(code, "checksum");
    assert.match(message, /config\.json: SHA-256 is [0-9a-f]{64}, the manifest says 0{64}/);
    mood.wrongHash = false;
    assert.ok((await fetchFiles()).whole);
  });

  test("servers without ranges, manifests or a place to keep files will do", async () => {
    mood.ranges = false;
    mood.cuts = 1;
    assert.ok((await fetchFiles()).whole, "without ranges");
    await page.evaluate(() => lib.clearCache());
    mood.manifest = false;
    assert.ok((await fetchFiles()).whole, "without a manifest");
    await page.evaluate(() => lib.clearCache());
    assert.ok((await fetchFiles({ cache: false })).whole, "without keeping files");
    assert.equal(await page.evaluate(() => lib.cachedBytes()), 0);
  });

  test("what is not there is said", async () => {
    mood.down = true;
    assert.equal((await fetchFiles()).code, "network");
    mood.down = false;
    const nothing = await fetchFiles({}, `http://localhost:${server.address().port}/nothing`);
    assert.deepEqual([nothing.code, /config\.json/.test(nothing.message)], ["checkpoint", true]);
    const manifest = await fetchFiles({}, `http://localhost:${server.address().port}/nothing.json`);
    assert.equal(manifest.code, "network");
  });

  test("servers that hide, compress, refuse or lead astray will do, or it is said why not", async () => {
    const far = await moodyServer(FILES);
    try {
      const hidden = { exposed: "" };
      for (const [changes, cache] of [
        [{ gzip: true, ...hidden }, true],
        [{ gzip: true }, false],
        [{ gzip: "always", ...hidden }, true],
        [{ length: false, ...hidden }, false],
        [{ head: 405, missing: 403, redirect: true }, true],
        [{ missing: "<!doctype html>", missingType: "text/plain", ranges: "ignored", ...hidden }, true],
        [{ ranges: "shorter" }, true],
        [{ etag: (n) => `"${n}"`, modified: false }, true],
      ]) {
        far.good(changes);
        await page.evaluate(() => lib.clearCache());
        const found = await fetchFiles({ cache }, far.address);
        assert.ok(found.whole, `${JSON.stringify(changes)}: ${found.message}`);
        assert.equal(found.last?.done ?? TOTAL, TOTAL);
      }
      for (const [changes, pattern, remedy] of [
        [{ cors: false }, /manifest\.json could not be fetched/, /answers, but does not let pages of http:.*\(CORS\)/],
        [{ ranges: "shifted" }, /the server sent "bytes /, /the range that was asked for/],
        [{ refused: { "config.json": 403 } }, /config\.json: the server says 403/, /signed address may have expired/],
      ]) {
        far.good(changes);
        await page.evaluate(() => lib.clearCache());
        const { code, message, hint } = await fetchFiles({}, far.address);
        assert.equal(code, "network");
        assert.match(message, pattern);
        assert.match(hint, remedy);
      }
    } finally {
      await far.close();
    }
  });

  test("a browser without room says so, and can do without", async () => {
    const cdp = await page.context().newCDPSession(page);
    const origin = new URL(page.url()).origin;
    await cdp.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 8e6 });
    const { code, hint } = await fetchFiles();
    assert.deepEqual([code, /cache: false/.test(hint)], ["quota_exceeded", true]);
    // Nothing is downloaded if the browser's estimate shows too little space.
    requests = [];
    const told = await page.evaluate(async (address) => {
      const quota = "navigator.storage.estimate = async () => ({ quota: 2e7, usage: 1e7 });";
      const RealWorker = Worker;
      window.Worker = class extends RealWorker {
        constructor(url, options) {
          const text = `${quota} await import(${JSON.stringify(String(url))});`;
          // Messages before the module is ready must not be lost.
          const early = "const early = []; const hold = (e) => early.push(e); addEventListener('message', hold);";
          const late =
            "removeEventListener('message', hold); " +
            "for (const e of early) dispatchEvent(new MessageEvent('message', { data: e.data }));";
          super(URL.createObjectURL(new Blob([early, text, late], { type: "text/javascript" })), options);
        }
      };
      return fetchFiles(address, {});
    }, model);
    assert.equal(told.code, "quota_exceeded");
    assert.match(told.message, /the model needs \d+ MB of storage, but the browser has 10 MB left/);
    assert.deepEqual(fetched(), []);
    // Must be last: a stream that was stopped may have one more request in flight.
    assert.ok((await fetchFiles({ cache: false })).whole);
  });
});

describe("files", () => {
  beforeEach(fresh);

  test("what is missing among them is named", async () => {
    const choose = async (names) => {
      await page.evaluate(() => {
        document.body.innerHTML = "<input type=file multiple>";
      });
      await page.setInputFiles(
        "input",
        names.map((name) => path.join(demo, name)),
      );
      return page.evaluate(() => fetchFiles(document.querySelector("input").files));
    };
    assert.ok((await choose(["config.json", "tokenizer.tok.json", "model.safetensors", "MODEL_CARD.md"])).whole);
    for (const [names, code, what] of [
      [["tokenizer.tok.json", "model.safetensors"], "checkpoint", /config\.json/],
      [["config.json", "model.safetensors"], "tokenizer", /tokenizer\.tok\.json/],
      [["config.json", "tokenizer.tok.json"], "checkpoint", /safetensors/],
    ]) {
      const found = await choose(names);
      assert.equal(found.code, code);
      assert.match(found.message, what);
    }
    const none = await page.evaluate(() => failure(() => lib.GrokWgpu.load([])));
    assert.equal(none.code, "usage");
  });

  test("sampling is what the model's files ask for", async () => {
    await page.evaluate(() => {
      document.body.innerHTML = "<input type=file multiple>";
    });
    const defaults = path.join(folder, "generation_config.json");
    writeFileSync(defaults, JSON.stringify({ do_sample: false, top_k: 20, temperature: 9 }));
    const files = ["config.json", "tokenizer.tok.json", "model.safetensors"].map((name) => path.join(demo, name));
    await page.setInputFiles("input", [...files, defaults]);
    await page.evaluate(() => load(document.querySelector("input").files));
    const { sampling, warnings } = await page.evaluate(() => engine.model);
    assert.deepEqual(sampling, { temperature: 0, top_k: 20, top_p: 0.95, min_p: 0, repetition_penalty: 1 });
    assert.match(warnings.join(), /temperature is 9, expected 0 to 2; it is not used/);
    // Greedy without being told: the text is the same with any seed.
    const texts = [];
    for (const seed of [1, 2]) {
      const options = { temperature: undefined, seed, max_tokens: 12 };
      texts.push((await page.evaluate((options) => write("Once upon a time", options), options)).text);
    }
    assert.equal(texts[0], texts[1]);
    assert.notEqual(texts[0], "");
  });
});

describe("a GGUF file", () => {
  const { question, text } = reference();
  let file;
  before(() => {
    file = gguf(path.join(folder, "demo.gguf"));
  });
  beforeEach(fresh);

  /** The text that the loaded model writes. */
  const answer = () =>
    page.evaluate(async (content) => {
      const { choices } = await engine.chat([{ role: "user", content }], { temperature: 0, max_tokens: 64 });
      return choices[0].message.content;
    }, question);

  test("that was chosen writes what the PyTorch original does", async () => {
    await page.evaluate(() => {
      document.body.innerHTML = "<input type=file>";
    });
    await page.setInputFiles("input", file);
    await page.evaluate(() => load(document.querySelector("input").files));
    const { name, warnings, sampling } = await page.evaluate(() => engine.model);
    assert.deepEqual([name, warnings], ["demo.gguf", []]);
    assert.deepEqual(sampling, { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0, repetition_penalty: 1 });
    assert.equal(await answer(), text);
  });

  for (const cache of [true, false]) {
    test(`at an address, ${cache ? "kept" : "streamed"}, writes the same`, async () => {
      await page.evaluate((cache) => load("/demo.gguf", { cache }), cache);
      assert.equal(await answer(), text);
      const kept = await page.evaluate(() => lib.cachedBytes());
      assert.ok(cache ? kept >= statSync(file).size : kept === 0, `${kept} bytes are kept`);
      // What is kept of its folder does not stand for another file there.
      const { code, message } = await page.evaluate(async () => {
        await engine.dispose();
        return failure(() => load("/none.gguf"));
      });
      assert.equal(code, "network");
      assert.match(message, /none\.gguf: there is no such file/);
    });
  }
});

describe("a cache of fewer bits", () => {
  for (const kvCache of ["f16", "q8"]) {
    test(`writes a text with ${kvCache}`, async () => {
      await fresh();
      await page.evaluate((kvCache) => load("/models/demo", { kvCache }), kvCache);
      const { completionTokens, text } = await page.evaluate(() => write("Once upon a time"));
      assert.equal(completionTokens, 40);
      assert.match(text, /^[\x20-\x7e\n]+$/);
    });
  }
});

describe("a model that is larger than the memory it may take", () => {
  test("writes the same text, also after a device was lost", async () => {
    await fresh();
    await page.evaluate(() => load("/models/demo", { keepCache: true }));
    const whole = await page.evaluate(() => write("Once upon a time"));
    // The first page of the cache is finished by then, and is put back.
    const lose = async () => {
      const { text } = await page.evaluate(() => write("Once upon a time", {}, (n) => n === 35 && engine.loseDevice()));
      assert.equal(text, whole.text);
      const count = Number((await page.evaluate(() => restored)).match(/(\d+) tokens were computed/)?.[1]);
      assert.ok(count > 0 && count < 32, `${count} tokens`);
    };
    await lose();
    assert.equal(await page.evaluate(() => engine.model.placement), null);
    const { code, message } = await page.evaluate(async () => {
      await engine.dispose();
      return failure(() => load("/models/demo", { deviceMemory: 1 }));
    });
    assert.equal(code, "out_of_memory");
    const least = Number(message.match(/: (\d+) is more/)?.[1]);
    assert.ok(least > 1, message);
    await page.evaluate((deviceMemory) => load("/models/demo", { deviceMemory }), least);
    const { bytes, placement } = await page.evaluate(() => engine.model);
    const { deviceBytes, fileBytes, tokenFileBytes } = placement;
    assert.ok(fileBytes > bytes / 2 && deviceBytes < bytes / 2 && tokenFileBytes > 0, JSON.stringify(placement));
    const { fileBytesPerSecond } = placement;
    assert.ok(fileBytesPerSecond > 1e5 && fileBytesPerSecond < 1e11, JSON.stringify(placement));
    await lose();
    await page.evaluate(() => engine.dispose());
  });
});

describe("an engine", () => {
  before(async () => {
    await fresh();
    await page.evaluate(() => load("/models/demo"));
  });

  test("writes the same after devices were lost, in a text and between texts", async () => {
    const whole = await page.evaluate(() => write("Once upon a time"));
    assert.equal(whole.completionTokens, 40);
    const lost = await page.evaluate(() =>
      write("Once upon a time", {}, (n) => [10, 25].includes(n) && engine.loseDevice()),
    );
    assert.equal(lost.text, whole.text);
    const round = ["lost", "rebuilding", "restored"];
    assert.deepEqual(await page.evaluate(() => events), [...round, ...round]);
    await page.evaluate(async () => {
      events.length = 0;
      await engine.loseDevice();
    });
    await page.waitForFunction(() => events.includes("restored"));
    const again = await page.evaluate(() => write("Once upon a time"));
    assert.equal(again.text, whole.text);
  });

  test("stops when it is asked to, and keeps what was made", async () => {
    const [stopped, left, never] = await page.evaluate(async () => {
      const stop = new AbortController();
      const stopped = await write("Once upon a time", { signal: stop.signal }, (n) => n === 5 && stop.abort());
      const generation = engine.generate("Once upon a time", { temperature: 0, max_tokens: 100 });
      for await (const _ of generation) {
        break;
      }
      return [stopped, await generation.finish, await write("Once", { signal: AbortSignal.abort() })];
    });
    assert.deepEqual([stopped.reason, left.reason, never.reason], Array(3).fill("interrupted"));
    assert.ok(stopped.completionTokens >= 5 && stopped.completionTokens < 10, `${stopped.completionTokens} tokens`);
    assert.equal(stopped.text, stopped.pieces.map(({ text }) => text).join(""));
    assert.ok(left.completionTokens < 10);
    assert.equal(never.completionTokens, 0);
  });

  test("ends at stop texts", async () => {
    const made = await page.evaluate(() => write("Once upon a time", { stop: ["dog named"] }));
    assert.deepEqual([made.reason, made.text], ["stop", ", there was a kind "]);
    assert.equal(made.text, made.pieces.map(({ text }) => text).join(""));
  });

  test("shows what goes on inside", async () => {
    const { pieces } = await page.evaluate(() => write("Once upon a time", { max_tokens: 3, inside: true, top: 5 }));
    const { num_hidden_layers, num_local_experts, num_experts_per_tok } = await page.evaluate(
      () => engine.model.config,
    );
    pieces.forEach(({ id, inside }, i) => {
      assert.equal(inside.position, 3 + i);
      assert.equal(inside.attentionTemperature, 1);
      assert.equal(inside.routes.length, num_hidden_layers);
      for (const { experts, probabilities } of inside.routes) {
        assert.equal(new Set(experts).size, num_experts_per_tok);
        assert.ok(experts.every((expert) => expert < num_local_experts));
        assert.ok(probabilities.reduce((sum, p) => sum + p, 0) <= 1 && probabilities[0] >= probabilities[1]);
      }
      // Greedy decoding takes the likeliest token.
      assert.deepEqual([inside.top.length, inside.top[0].id], [5, id]);
      const sum = inside.top.reduce((total, { probability }) => total + probability, 0);
      assert.ok(sum > 0.1 && sum <= 1, `the likeliest have ${sum}`);
      // Probabilities agree with the logits.
      const [a, b] = inside.top;
      assert.ok(Math.abs(Math.log(a.probability / b.probability) - (a.logit - b.logit)) < 1e-5);
    });
  });

  test("answers in OpenAI's shape, and goes on with what it has seen", async () => {
    const [one, two, chunks] = await page.evaluate(async () => {
      const messages = [{ role: "user", content: "Hello!" }];
      const options = { temperature: 0, max_tokens: 30 };
      const one = await engine.chat(messages, options);
      const chunks = [];
      for await (const chunk of engine.chat(messages, { ...options, stream: true })) {
        chunks.push(chunk);
      }
      messages.push(one.choices[0].message, { role: "user", content: "And now?" });
      return [one, await engine.chat(messages, options), chunks];
    });
    const { content } = one.choices[0].message;
    assert.ok(content.length > 0 && !content.startsWith(" "));
    assert.equal(one.usage.total_tokens, one.usage.prompt_tokens + one.usage.completion_tokens);
    assert.equal(chunks.map(({ choices }) => choices[0].delta.content ?? "").join(""), content);
    assert.equal(chunks.at(-1).choices[0].finish_reason, one.choices[0].finish_reason);
    assert.ok(two.finish.reusedTokens >= one.usage.prompt_tokens, `${two.finish.reusedTokens} tokens were there`);
    assert.equal(two.usage.prompt_tokens_details.cached_tokens, two.finish.reusedTokens);
  });

  test("answers programs that were written for OpenAI's or WebLLM's library", async () => {
    const { whole, chunks, usage, stopped } = await page.evaluate(async () => {
      const { create } = engine.chat.completions;
      const messages = [
        { role: "developer", content: "Be kind." },
        { role: "user", content: [{ type: "text", text: "Hello!" }] },
      ];
      const options = { messages, temperature: 0, max_completion_tokens: 20, model: "gpt-4o", n: 1, user: "someone" };
      const whole = await create(options);
      const chunks = [];
      let usage;
      const stream = await create({ ...options, stream: true, stream_options: { include_usage: true } });
      for await (const chunk of stream) {
        chunks.push(chunk);
        usage = chunk.usage;
      }
      const stop = new AbortController();
      const onPrompt = () => stop.abort();
      const stopped = await create({ ...options, onPrompt }, { signal: stop.signal });
      return { whole, chunks, usage, stopped };
    });
    assert.equal(whole.model, "demo");
    const { content } = whole.choices[0].message;
    assert.ok(content.length > 0);
    assert.equal(chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join(""), content);
    assert.deepEqual(chunks.at(-1).choices, []);
    const { prompt_tokens, completion_tokens, total_tokens } = whole.usage;
    assert.deepEqual([usage.prompt_tokens, usage.completion_tokens], [prompt_tokens, completion_tokens]);
    assert.ok(completion_tokens > 0 && completion_tokens <= 20 && total_tokens === prompt_tokens + completion_tokens);
    const [{ finish_reason, message }] = stopped.choices;
    assert.equal(finish_reason, "abort");
    assert.ok(message.content.length < content.length && content.startsWith(message.content), message.content);
  });

  test("names what makes no sense", async () => {
    const codes = await page.evaluate(async () => [
      await failure(() => write("")),
      await failure(() => write("x", { temperature: 9 })),
      await failure(() => write("x", { seed: -1 })),
      await failure(() => write("x", { stop: [""] })),
      await failure(() => write("word ".repeat(1000))),
      await failure(() => engine.chat([{ role: "bob", content: "x" }])),
      await failure(() => engine.chat([])),
      await failure(() => lib.GrokWgpu.selftest({ kernel: "none" })),
      await failure(() => lib.GrokWgpu.load("/models/demo", { context: 100_000 })),
      await failure(() => lib.GrokWgpu.load("/models/demo", { kvCache: "q4" })),
    ]);
    const usage = Array(4).fill("usage");
    assert.deepEqual(
      codes.map(({ code }) => code),
      [...usage, "context_length_exceeded", ...usage, "usage"],
    );
    assert.ok(codes.every(({ message, hint }) => message && hint));
  });

  test("checks its kernels beside the model", async () => {
    const report = await page.evaluate(async () => {
      const rows = [];
      const report = await engine.selftest({ kernel: "rms_norm", every: 4, onRow: (row) => rows.push(row) });
      return { ...report, heard: rows.length };
    });
    assert.deepEqual([report.failed, report.heard], [0, report.rows.length]);
    assert.ok(report.passed > 2 && report.rows.every(({ worst }) => worst <= 1));
    for (const { row, kernel, case: name, tuning, program, seconds, rounded } of report.rows) {
      assert.equal(row, `${kernel}/${name} [${tuning}]`);
      assert.ok(program.startsWith(kernel) && seconds > 0 && rounded >= 0, row);
    }
    const stopped = await page.evaluate(() => {
      const stop = new AbortController();
      return failure(() => lib.GrokWgpu.selftest({ signal: stop.signal, onRow: () => stop.abort() }));
    });
    assert.equal(stopped.code, "aborted");
  });

  // Must be last: it disposes of the engine.
  test("is gone when it is disposed", async () => {
    const codes = await page.evaluate(async () => {
      const running = engine.generate("Once upon a time", { max_tokens: 200 });
      for await (const _ of running) {
        engine.dispose();
        break;
      }
      const busy = await failure(() => running.finish);
      return [busy, await failure(() => engine.generate("x").finish)];
    });
    assert.deepEqual(
      codes.map(({ code }) => code),
      ["disposed", "disposed"],
    );
  });
});
