// Calls a server by LangChain for JavaScript. scripts/clients/run runs it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AIMessage, HumanMessage, SystemMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { IMPOSSIBLE, IMPOSSIBLE_AT, leaving, MODEL, Pet, SERVER, STORY, TOKENS } from "./calls.mjs";

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

const noted = [];
const note = tool(
  (pet) => {
    noted.push(pet);
    return "It is noted.";
  },
  { name: "note", description: "Notes a pet.", schema: Pet },
);
const form = () => model({ maxTokens: TOKENS });

test("answers of a schema, by itself and by a call that is forced", async () => {
  for (const method of ["jsonSchema", "functionCalling"]) {
    const plain = form().withStructuredOutput(Pet, { method, name: "pet" });
    const pet = Pet.parse(await plain.invoke(STORY));
    const raw = form().withStructuredOutput(Pet, { method, name: "pet", includeRaw: true });
    const answer = await raw.invoke(STORY);
    assert.deepEqual(answer.parsed, pet);
    assert.equal(answer.raw.tool_calls.length, method === "functionCalling" ? 1 : 0);
    let last;
    for await (const part of await plain.stream(STORY)) {
      last = part;
    }
    assert.deepEqual(last, pet);
  }
});

test("a loop of calls and results", async () => {
  const talk = [new HumanMessage("Note a pet, then tell me of it.")];
  const first = await form().bindTools([note], { tool_choice: "note" }).invoke(talk);
  assert.equal(first.response_metadata.finish_reason, "tool_calls");
  assert.equal(first.tool_calls.length, 1);
  const result = await note.invoke(first.tool_calls[0]);
  assert.equal(result.tool_call_id, first.tool_calls[0].id);
  assert.deepEqual(noted, [Pet.parse(first.tool_calls[0].args)]);
  talk.push(first, result);
  const none = await model().bindTools([note], { tool_choice: "none" }).invoke(talk);
  assert.ok(none.content && !none.tool_calls.length);
  const again = await form().bindTools([note], { tool_choice: "any" }).invoke(talk);
  assert.ok(Pet.parse(again.tool_calls[0].args));
});

test("streamed calls", async () => {
  const bound = form().bindTools([note], { tool_choice: "required" });
  const [whole] = (await bound.invoke(STORY)).tool_calls;
  let total;
  let parts = 0;
  let id;
  for await (const part of await bound.stream(STORY)) {
    total = total === undefined ? part : total.concat(part);
    id ??= part.tool_call_chunks[0]?.id;
    parts++;
  }
  assert.ok(parts > 3);
  assert.equal(total.tool_calls.length, 1);
  assert.equal(total.tool_calls[0].name, "note");
  assert.deepEqual(total.tool_calls[0].args, whole.args);
  assert.ok(id);
  assert.equal(total.tool_calls[0].id, id);
});

test("errors", async () => {
  const bad = { type: "function", function: { name: "f", parameters: IMPOSSIBLE } };
  await assert.rejects(
    () => model().bindTools([bad]).invoke(STORY),
    (error) => error.code === "invalid_schema" && error.message.includes(IMPOSSIBLE_AT),
  );
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
