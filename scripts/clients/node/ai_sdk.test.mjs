// Calls a server by the AI SDK. scripts/clients/run runs it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { leaving, MODEL, Pet, SERVER, STORY, TOKENS } from "./calls.mjs";

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

// It sends schemas only to providers that are said to obey them.
const form = {
  ...ask,
  model: provider({ supportsStructuredOutputs: true })(MODEL),
  maxOutputTokens: TOKENS,
};

test("answers of a schema, whole and streamed", async () => {
  const answer = await generateObject({ ...form, schema: Pet });
  assert.equal(answer.finishReason, "stop");
  assert.deepEqual(Pet.parse(answer.object), answer.object);
  const output = Output.object({ schema: Pet });
  assert.deepEqual((await generateText({ ...form, output })).output, answer.object);
  const stream = streamText({ ...form, output });
  let last;
  for await (const part of stream.partialOutputStream) {
    last = part;
  }
  assert.deepEqual(last, answer.object);
  assert.deepEqual(await stream.output, answer.object);
});

test("answers that are one of several words", async () => {
  const words = ["sunny", "rainy", "snowy"];
  const one = await generateObject({ ...form, output: "enum", enum: words });
  assert.ok(words.includes(one.object), one.object);
});

test("a loop of calls and results", async () => {
  const noted = [];
  const note = tool({
    description: "Notes a pet.",
    inputSchema: Pet,
    execute: (pet) => {
      noted.push(pet);
      return { noted: true };
    },
  });
  const steps = {
    ...form,
    tools: { note },
    stopWhen: stepCountIs(2),
    // First the function, then the answer.
    prepareStep: ({ stepNumber }) => ({
      toolChoice: stepNumber === 0 ? { type: "tool", toolName: "note" } : "none",
    }),
  };
  const whole = await generateText(steps);
  assert.equal(whole.steps.length, 2);
  assert.equal(whole.steps[0].finishReason, "tool-calls");
  assert.equal(whole.steps[0].toolCalls.length, 1);
  assert.deepEqual(noted, [Pet.parse(whole.steps[0].toolCalls[0].input)]);
  assert.deepEqual(whole.steps[0].toolResults[0].output, { noted: true });
  assert.ok(whole.text);

  const stream = streamText(steps);
  let input = "";
  const ids = new Set();
  for await (const part of stream.fullStream) {
    if (part.type === "tool-input-delta") {
      input += part.delta;
      ids.add(part.id);
    }
  }
  assert.equal(ids.size, 1);
  assert.deepEqual(JSON.parse(input), noted[0]);
  assert.deepEqual(noted, [noted[0], noted[0]]);
  assert.equal(await stream.text, whole.text);
  assert.ok(ids.has((await stream.steps)[0].toolCalls[0].toolCallId));
});

test("calls that must be", async () => {
  const note = tool({ inputSchema: Pet });
  const answer = await generateText({ ...form, tools: { note }, toolChoice: "required" });
  assert.equal(answer.finishReason, "tool-calls");
  assert.deepEqual(Pet.parse(answer.toolCalls[0].input), answer.toolCalls[0].input);
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
