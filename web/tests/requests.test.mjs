// The package in plain Node, without a browser: what it touches, what it says where there is no WebGPU, which requests
// it refuses, and the shape of answers. A double stands for the engine's worker.
import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

/** What servers that render pages lack. */
const OF_BROWSERS = ["navigator", "window", "document", "self", "location", "Worker", "indexedDB", "caches", "screen"];

const touched = [];
for (const name of OF_BROWSERS) {
  const get = () => {
    touched.push(name);
  };
  Object.defineProperty(globalThis, name, { configurable: true, get });
}
const lib = await import("../dist/index.js");
const touchedByImport = [...touched];
for (const name of OF_BROWSERS) {
  delete globalThis[name];
}
const { GrokWgpu, GrokWgpuError } = lib;

/** The error of a call, which must be the package's own. */
async function failure(work) {
  try {
    await work();
  } catch (error) {
    assert.ok(error instanceof GrokWgpuError, `${error.stack}`);
    assert.ok(error.message && error.hint);
    const { code, message, hint } = error;
    return { code, message, hint };
  }
  return assert.fail("nothing failed");
}

describe("without a browser", () => {
  test("importing touches none of its objects", () => {
    assert.deepEqual(touchedByImport, []);
  });

  test("loading and the self-test reject with no_webgpu", async () => {
    const load = await failure(() => GrokWgpu.load("https://example.com/model/"));
    const selftest = await failure(() => GrokWgpu.selftest());
    assert.deepEqual([load.code, selftest.code], ["no_webgpu", "no_webgpu"]);
    assert.doesNotMatch(load.message, /https|localhost|is not defined/);
    // Newer versions have a navigator, without WebGPU.
    globalThis.navigator = { userAgent: "Node.js/22" };
    try {
      assert.deepEqual(await failure(() => GrokWgpu.load("https://example.com/model/")), load);
    } finally {
      delete globalThis.navigator;
    }
    globalThis.isSecureContext = false;
    try {
      const { code, hint } = await failure(() => GrokWgpu.load("https://example.com/model/"));
      assert.deepEqual([code, /https/.test(hint)], ["no_webgpu", true]);
    } finally {
      delete globalThis.isSecureContext;
    }
  });

  test("there is no cache", async () => {
    assert.equal(await lib.cachedBytes(), 0);
    await lib.clearCache();
  });
});

const TEXT = ["", "A", " fox", "."];

/** Requests that the worker got. */
let requests = [];
/** Number of calls that the worker was asked to stop. */
let aborts = 0;
/** Whether the worker waits with the end of a text until it is stopped. */
let endless = false;

/** Answers as the engine's worker does. */
class Double {
  #made = [];

  postMessage({ call, request, abort }) {
    const post = (data) => this.onmessage({ data: { call, ...data } });
    const finish = (reason, made) => ({
      reason,
      text: made.join(""),
      promptTokens: 7,
      reusedTokens: 4,
      completionTokens: made.length,
      timeToFirstToken: 1,
      time: 2,
      tokensPerSecond: 3,
    });
    if (abort) {
      aborts += 1;
      setTimeout(post, 0, { result: finish("interrupted", this.#made) });
      return;
    }
    // What cannot be cloned does not reach a worker; what is undefined is not part of JSON, which the module gets.
    requests.push(JSON.parse(JSON.stringify(structuredClone(request))));
    if (request.kind === "load") {
      const model = { name: "tiny", warnings: [] };
      setTimeout(post, 0, { result: { model, adapter: { summary: "a double" } } });
    } else if (request.kind === "generate") {
      this.#made = endless ? TEXT.slice(0, 2) : TEXT;
      const send = () => {
        for (const [id, text] of this.#made.entries()) {
          post({ news: { kind: "piece", piece: { id, text } } });
        }
        if (!endless) {
          post({ result: finish("length", this.#made) });
        }
      };
      setTimeout(send, 0);
    }
  }

  terminate() {}
}

const MESSAGES = [{ role: "user", content: "Hello!" }];
const SENT = { messages: MESSAGES };

describe("with a worker", () => {
  let engine;
  let create;

  beforeEach(async () => {
    endless = false;
    globalThis.navigator = { gpu: {} };
    globalThis.Worker = Double;
    globalThis.location = { href: "https://example.com/" };
    engine ??= await GrokWgpu.load("model/");
    create = (options, ...more) => engine.chat.completions.create({ messages: MESSAGES, ...options }, ...more);
    requests = [];
  });

  /** All chunks of a stream. */
  async function all(stream) {
    const chunks = [];
    for await (const chunk of stream) {
      chunks.push(chunk);
    }
    return chunks;
  }

  test("a whole answer is a ChatCompletion", async () => {
    const before = Math.floor(Date.now() / 1000);
    const { id, created, finish, ...rest } = await create({ max_tokens: 4 });
    assert.match(id, /^chatcmpl-./);
    assert.ok(created >= before && created <= before + 60);
    assert.deepEqual([finish.reason, finish.tokensPerSecond], ["length", 3]);
    const message = { role: "assistant", content: "A fox.", refusal: null };
    const usage = {
      prompt_tokens: 7,
      completion_tokens: 4,
      total_tokens: 11,
      prompt_tokens_details: { cached_tokens: 4 },
    };
    const expected = {
      object: "chat.completion",
      model: "tiny",
      choices: [{ index: 0, message, logprobs: null, finish_reason: "length" }],
      usage,
    };
    assert.deepEqual(rest, expected);
    const { id: other, created: _, finish: __, ...direct } = await engine.chat(MESSAGES, { max_tokens: 4 });
    assert.deepEqual(direct, expected);
    assert.notEqual(other, id);
    // An answer becomes a message of the conversation.
    await create({ messages: [...MESSAGES, message, ...MESSAGES] });
    const turns = [...MESSAGES, { role: "assistant", content: "A fox." }, ...MESSAGES];
    assert.deepEqual(requests.at(-1).prompt, { messages: turns });
  });

  test("a stream is a promise of chunks, as WebLLM's and OpenAI's examples read it", async () => {
    const promise = create({ stream: true });
    assert.ok(promise instanceof Promise);
    const chunks = await all(await promise);
    assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), "A fox.");
    assert.deepEqual(chunks[0].choices[0].delta, { role: "assistant", content: "" });
    assert.deepEqual(
      chunks.map(({ choices }) => choices[0].finish_reason),
      [...Array(5).fill(null), "length"],
    );
    assert.equal(new Set(chunks.map(({ id, created, model }) => `${id} ${created} ${model}`)).size, 1);
    assert.ok(chunks.every((chunk) => chunk.object === "chat.completion.chunk" && !("usage" in chunk)));
    // The direct form needs no promise.
    const direct = engine.chat(MESSAGES, { stream: true });
    assert.ok(!(direct instanceof Promise));
    assert.equal((await all(direct)).length, chunks.length);
  });

  test("the last chunk has the usage if that was asked for", async () => {
    const chunks = await all(await create({ stream: true, stream_options: { include_usage: true } }));
    const last = chunks.pop();
    assert.deepEqual([last.choices, last.usage.total_tokens], [[], 11]);
    assert.ok(chunks.every(({ choices, usage }) => choices.length === 1 && usage === null));
    assert.equal(chunks.at(-1).choices[0].finish_reason, "length");
    const { message } = await failure(() => create({ stream: true, stream_options: { usage: true } }));
    assert.match(message, /"usage" is no option of stream_options; did you mean include_usage\?/);
  });

  test("an answer that was stopped says so, and keeps what was written", async () => {
    endless = true;
    const stop = new AbortController();
    const stopped = create({}, { signal: stop.signal });
    setTimeout(() => stop.abort(), 20);
    const { choices, finish } = await stopped;
    assert.deepEqual([choices[0].finish_reason, choices[0].message.content], ["abort", "A"]);
    assert.equal(finish.reason, "interrupted");
    const never = await engine.chat(MESSAGES, { signal: AbortSignal.abort() });
    assert.deepEqual([never.choices[0].finish_reason, never.choices[0].message.content], ["abort", ""]);
    // By the controller of a stream.
    const stream = await create({ stream: true });
    const reasons = [];
    for await (const { choices } of stream) {
      reasons.push(choices[0].finish_reason);
      if (choices[0].delta.content === "A") {
        stream.controller.abort();
      }
    }
    assert.deepEqual(reasons, [null, null, null, "abort"]);
  });

  test("leaving the loop stops the answer, even before the first token", async () => {
    endless = true;
    aborts = 0;
    for (const stream of [await create({ stream: true }), engine.chat(MESSAGES, { stream: true })]) {
      for await (const _ of stream) {
        break;
      }
    }
    assert.equal(aborts, 2);
  });

  test("options reach the engine, under the names that it has", async () => {
    const options = { temperature: 0.5, top_k: 3, top_p: 0.9, min_p: 0, repetition_penalty: 1.1, seed: 4, top: 2 };
    await create({ ...options, max_completion_tokens: 9, stop: "end", inside: true, template: "plain" });
    assert.deepEqual(requests[0], {
      kind: "generate",
      prompt: SENT,
      options: { ...options, max_tokens: 9, stop: ["end"], inside: true, template: "plain" },
    });
    // Absent, or any model's name: the loaded one answers.
    for (const model of [undefined, "tiny", "gpt-4o"]) {
      assert.equal((await create({ model })).model, "tiny");
    }
  });

  test("what means the default, or nothing, is accepted", async () => {
    await create({
      n: 1,
      presence_penalty: 0,
      frequency_penalty: 0,
      logit_bias: {},
      logprobs: false,
      top_logprobs: 0,
      response_format: { type: "text" },
      tools: [],
      tool_choice: "auto",
      parallel_tool_calls: true,
      modalities: ["text"],
      user: "someone",
      store: true,
      metadata: { a: "b" },
      stream: false,
      max_tokens: null,
      temperature: null,
      stop: null,
      unheard_of: undefined,
    });
    assert.deepEqual(requests[0].options, {});
    await engine.generate("Once", { n: 1, stop: null, user: "someone" }).finish;
    assert.deepEqual(requests[1], { kind: "generate", prompt: { text: "Once" }, options: {} });
  });

  test("what is not supported is refused by name, with the reason", async () => {
    for (const [name, value, why] of [
      ["n", 2, /one answer/],
      ["presence_penalty", 0.5, /repetition_penalty/],
      ["frequency_penalty", -1, /repetition_penalty/],
      ["logit_bias", { 5: -100 }, /logits/],
      ["logprobs", true, /inside: true/],
      ["top_logprobs", 3, /inside: true/],
      ["response_format", { type: "json_object" }, /JSON/],
      ["tools", [{ type: "function" }], /no tools/],
      ["tool_choice", "required", /no tools/],
      ["functions", [{}], /no tools/],
      ["modalities", ["text", "audio"], /text only/],
      ["prediction", { type: "content" }, /nothing of the kind/],
    ]) {
      const { code, message, hint } = await failure(() => create({ [name]: value }));
      assert.equal(code, "usage");
      assert.ok(message.startsWith(`${name} is not supported: `), message);
      assert.match(`${message} ${hint}`, why);
      await failure(() => engine.generate("Once", { [name]: value }).finish);
    }
    assert.deepEqual(requests, []);
  });

  test("what is unknown is refused by name, with what was meant and what there is", async () => {
    const direct = (options) => engine.chat(MESSAGES, options);
    const streamed = (options) => all(engine.chat(MESSAGES, { ...options, stream: true }));
    const text = (options) => engine.generate("Once", options).finish;
    for (const [call, name, meant] of [
      [create, "top-p", "top_p"],
      [create, "maxTokens", "max_tokens"],
      [create, "max_new_tokens", "max_tokens"],
      [direct, "seeds", "seed"],
      [direct, "maxCompletionTokens", "max_completion_tokens"],
      [streamed, "topK", "top_k"],
      [text, "repeat_penalty", "repetition_penalty"],
      [text, "stopSequences", "stop"],
      [text, "toString", undefined],
      [create, "mirostat", undefined],
      [(options) => GrokWgpu.load("model/", options), "kv_cache", "kvCache"],
      [(options) => GrokWgpu.load("model/", options), "initProgressCallback", "onProgress"],
      [(options) => GrokWgpu.load("model/", options), "dtype", undefined],
      [(options) => engine.selftest(options), "kernels", "kernel"],
      [(options) => GrokWgpu.selftest(options), "onrow", "onRow"],
    ]) {
      const { code, message, hint } = await failure(() => call({ [name]: 1 }));
      assert.equal(code, "usage");
      assert.ok(message.startsWith(`"${name}" is no option of `), message);
      assert.equal(/did you mean (\w+)\?/.exec(message)?.[1], meant, message);
      assert.match(meant ? hint : message, /options (of [\w.]+ )?are \w+(, \w+)+\.?$/);
    }
    // All at once.
    const { message } = await failure(() => create({ "top-p": 1, n: 3, seed: -1 }));
    assert.match(message, /^"top-p" .*; n is not .*; seed is -1, expected a whole number from 0 to \d+$/);
    assert.deepEqual(requests, []);
  });

  test("values are checked by name", async () => {
    for (const [options, wrong] of [
      [{ temperature: "hot" }, 'temperature is "hot", expected a number'],
      [{ top_p: Number.NaN }, "top_p is NaN, expected a number"],
      [{ max_tokens: 1.5 }, "max_tokens is 1.5, expected a whole number from 0 to 4294967295"],
      [{ stop: [1] }, "stop is a list, expected a text, or a list of texts"],
      [{ stream: "yes" }, 'stream is "yes", expected true or false'],
      [{ signal: new AbortController() }, "signal is an object, expected an AbortSignal"],
      [{ template: "chatml" }, 'template is "chatml", expected one of "grok-2", "plain"'],
      [{ max_tokens: 1, max_completion_tokens: 2 }, /they are the same option/],
    ]) {
      const { code, message } = await failure(() => create(options));
      assert.equal(code, "usage");
      assert.ok(typeof wrong === "string" ? message === wrong : wrong.test(message), message);
    }
    for (const [work, wrong] of [
      [() => engine.chat(MESSAGES, "short"), /the options of engine\.chat are "short", expected an object/],
      [() => engine.chat({ messages: MESSAGES }), /messages is an object, expected a list/],
      [() => engine.chat.completions.create(MESSAGES), /the request is a list, expected an object/],
      [() => create({}, { timeout: 5 }), /"timeout" is no option of chat\.completions\.create's second argument/],
      [() => engine.generate(MESSAGES).finish, /the prompt is a list, expected a text/],
      [() => GrokWgpu.load("model/", { kvCache: "q4" }), /kvCache is "q4", expected one of "f32", "f16", "q8"/],
      [() => GrokWgpu.selftest({ every: 0 }), /every is 0, expected a whole number from 1 to \d+/],
    ]) {
      assert.match((await failure(work)).message, wrong);
    }
    assert.deepEqual(requests, []);
  });

  test("messages may have OpenAI's forms, if they are text", async () => {
    const parts = [
      { type: "text", text: "A " },
      { type: "text", text: "fox?" },
    ];
    await create({
      messages: [
        { role: "developer", content: "Be brief." },
        { role: "user", content: parts, name: "Ann", id: "of the page" },
        { role: "assistant", content: "No.", refusal: null, tool_calls: [] },
      ],
    });
    assert.deepEqual(requests.pop().prompt.messages, [
      { role: "system", content: "Be brief." },
      { role: "user", content: "A fox?" },
      { role: "assistant", content: "No." },
    ]);
    const image = [parts[0], { type: "image_url", image_url: { url: "data:," } }];
    for (const [message, wrong] of [
      [{ role: "user", content: image }, /^messages\[0\]\.content\[1\] has the type "image_url"/],
      [{ role: "user", content: [{ type: "text" }] }, /^messages\[0\]\.content\[0\]\.text is undefined/],
      [{ role: "user", content: null }, /^messages\[0\]\.content is null/],
      [{ role: "bob", content: "x" }, /^messages\[0\]\.role is "bob", expected system, developer/],
      [{ role: "tool", content: "x", tool_call_id: "1" }, /calls no tools; messages\[0\]\.tool_call_id is not/],
      ["x", /^messages\[0\] is "x", expected an object/],
    ]) {
      const { code, message: said } = await failure(() => engine.chat([message]));
      assert.equal(code, "usage");
      assert.match(said, wrong);
    }
    assert.deepEqual(requests, []);
  });
});
