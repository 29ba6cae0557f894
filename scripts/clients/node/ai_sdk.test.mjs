// Calls a server by the AI SDK. scripts/clients/run runs it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, streamText } from "ai";
import { leaving, MODEL, SERVER, STORY } from "./calls.mjs";

const provider = (more = {}) => createOpenAICompatible({ name: "grok-wgpu", baseURL: `${SERVER}/v1`, ...more });
const ask = {
  model: provider()(MODEL),
  prompt: STORY,
  maxOutputTokens: 12,
  seed: 3,
  maxRetries: 0,
};
const text = async () => (await generateText(ask)).text;

test("a whole answer", async () => {
  const answer = await generateText(ask);
  assert.ok(answer.text);
  assert.equal(answer.finishReason, "length");
  assert.equal(answer.usage.outputTokens, 12);
});

test("a conversation", async () => {
  const { prompt, ...rest } = ask;
  const messages = [
    { role: "user", content: prompt },
    { role: "assistant", content: "No." },
    { role: "user", content: [{ type: "text", text: "Why?" }] },
  ];
  assert.ok((await generateText({ ...rest, system: "Be brief.", messages })).text);
});

test("a stream, without usage and with it", async () => {
  for (const includeUsage of [false, true]) {
    const answer = streamText({ ...ask, model: provider({ includeUsage })(MODEL) });
    let content = "";
    for await (const part of answer.textStream) {
      content += part;
    }
    assert.equal(content, await text());
    assert.equal((await answer.usage).outputTokens, includeUsage ? 12 : undefined);
  }
});

test("errors", async () => {
  for (const [more, status] of [
    [{ temperature: 3 }, 400],
    [{ model: provider()("gpt-4") }, 404],
  ]) {
    await assert.rejects(
      () => generateText({ ...ask, ...more }),
      (error) => {
        assert.ok(APICallError.isInstance(error), String(error));
        assert.equal(error.statusCode, status);
        assert.equal(error.isRetryable, false);
        return true;
      },
    );
  }
});

test("a client that leaves", async () => {
  await leaving(async () => {
    const abortSignal = AbortSignal.timeout(300);
    const answer = streamText({ ...ask, maxOutputTokens: 1500, abortSignal });
    for await (const _part of answer.textStream) {
      // It is read until it is aborted.
    }
  });
});
