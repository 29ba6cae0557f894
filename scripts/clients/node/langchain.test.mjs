// Calls a server by LangChain for JavaScript. scripts/clients/run runs it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AIMessage, HumanMessage, SystemMessage } from "@langchain/core/messages";
import { ChatOpenAI } from "@langchain/openai";
import { leaving, MODEL, SERVER, STORY } from "./calls.mjs";

const model = (more = {}) =>
  new ChatOpenAI({
    model: MODEL,
    apiKey: "none",
    configuration: { baseURL: `${SERVER}/v1` },
    maxRetries: 0,
    maxTokens: 12,
    modelKwargs: { seed: 3 },
    ...more,
  });
const text = async () => (await model().invoke(STORY)).content;

test("a whole answer", async () => {
  const answer = await model().invoke(STORY);
  assert.ok(answer.content);
  assert.equal(answer.usage_metadata.output_tokens, 12);
  assert.equal(answer.response_metadata.finish_reason, "length");
});

test("a conversation", async () => {
  const talk = [
    new SystemMessage("Be brief."),
    new HumanMessage(STORY),
    new AIMessage("No."),
    new HumanMessage("Why?"),
  ];
  assert.equal((await model().invoke(talk)).content, (await model().invoke(talk)).content);
});

test("a stream, whose usage the client asks for", async () => {
  let content = "";
  let tokens = 0;
  for await (const part of await model().stream(STORY)) {
    content += part.content;
    tokens += part.usage_metadata?.output_tokens ?? 0;
  }
  assert.equal(content, await text());
  assert.equal(tokens, 12);
});

test("several at once", async () => {
  const answers = await model().batch([STORY, STORY, STORY, STORY]);
  assert.deepEqual(
    answers.map((answer) => answer.content),
    Array(4).fill(await text()),
  );
});

test("errors", async () => {
  await assert.rejects(() => model({ temperature: 3 }).invoke(STORY), { status: 400 });
  await assert.rejects(() => model({ model: "gpt-4" }).invoke(STORY), { status: 404 });
});

test("a client that leaves", async () => {
  await leaving(async () => {
    const long = model({ maxTokens: 1500, modelKwargs: { ignore_eos: true } });
    const signal = AbortSignal.timeout(300);
    await assert.rejects(() => long.invoke(STORY, { signal }));
  });
});
