// Calls a server by OpenAI's own client for Node. scripts/clients/run runs it.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { leaving, MODEL, SERVER, STORY } from "./calls.mjs";

const client = new OpenAI({ baseURL: `${SERVER}/v1`, apiKey: "none", maxRetries: 0 });
const ask = {
  model: MODEL,
  messages: [{ role: "user", content: STORY }],
  max_completion_tokens: 12,
  seed: 3,
};
const create = (more = {}, options = {}) => client.chat.completions.create({ ...ask, ...more }, options);
const text = async () => (await create()).choices[0].message.content;

test("a whole answer", async () => {
  const answer = await create();
  assert.ok(answer.choices[0].message.content);
  assert.equal(answer.choices[0].finish_reason, "length");
  assert.equal(answer.usage.completion_tokens, 12);
});

test("a stream, without usage and with it", async () => {
  for (const usage of [false, true]) {
    const parts = [];
    const more = usage ? { stream_options: { include_usage: true } } : {};
    for await (const part of await create({ stream: true, ...more })) {
      parts.push(part);
    }
    const content = parts.map((part) => part.choices[0]?.delta.content ?? "").join("");
    assert.equal(content, await text());
    assert.equal(parts.filter((part) => part.usage).length, usage ? 1 : 0);
    assert.equal(parts.filter((part) => part.choices.length === 0).length, usage ? 1 : 0);
    if (usage) {
      assert.equal(parts.at(-1).usage.completion_tokens, 12);
    }
  }
});

test("the helper for streams", async () => {
  const stream = client.chat.completions.stream({ ...ask, stream: true });
  let content = "";
  stream.on("content", (delta) => {
    content += delta;
  });
  const last = await stream.finalChatCompletion();
  assert.equal(last.choices[0].message.content, content);
  assert.equal(content, await text());
});

test("several texts with log-probabilities", async () => {
  const answer = await create({ n: 2, logprobs: true, top_logprobs: 3 });
  assert.equal(answer.choices.length, 2);
  for (const choice of answer.choices) {
    assert.equal(choice.logprobs.content.length, 12);
    assert.equal(choice.logprobs.content[0].top_logprobs.length, 3);
  }
});

test("older completions", async () => {
  const more = { model: MODEL, prompt: ["a", "b"], max_tokens: 3, seed: 1, logprobs: 2 };
  const answer = await client.completions.create(more);
  assert.equal(answer.choices.length, 2);
  assert.equal(answer.choices[0].logprobs.tokens.length, 3);
});

test("the model", async () => {
  const ids = [];
  for await (const model of client.models.list()) {
    ids.push(model.id);
  }
  assert.deepEqual(ids, [MODEL]);
  assert.equal((await client.models.retrieve(MODEL)).id, MODEL);
});

test("errors have their classes, codes and ids", async () => {
  const refused = [
    [OpenAI.NotFoundError, "model_not_found", () => create({ model: "gpt-4" })],
    [OpenAI.BadRequestError, "invalid_value", () => create({ temperature: 3 })],
    [OpenAI.BadRequestError, "context_length_exceeded", () => create({ max_completion_tokens: 1e6, stream: true })],
    [OpenAI.NotFoundError, undefined, () => client.responses.create({ model: MODEL, input: "x" })],
  ];
  for (const [kind, code, run] of refused) {
    await assert.rejects(run, (error) => {
      assert.ok(error instanceof kind, String(error));
      assert.ok(error.code && error.type && error.requestID, JSON.stringify(error));
      assert.ok(code === undefined || error.code === code, error.code);
      return true;
    });
  }
});

test("several requests at once", async () => {
  const alone = await text();
  const texts = await Promise.all(Array.from({ length: 6 }, text));
  assert.deepEqual(texts, Array(6).fill(alone));
});

test("a client that leaves a stream, and one that aborts a request", async () => {
  const long = { max_completion_tokens: 1500, ignore_eos: true };
  await leaving(async () => {
    for await (const _part of await create({ ...long, stream: true })) {
      break;
    }
  });
  await leaving(async () => {
    const signal = AbortSignal.timeout(300);
    await assert.rejects(() => create(long, { signal }), OpenAI.APIUserAbortError);
  });
});
