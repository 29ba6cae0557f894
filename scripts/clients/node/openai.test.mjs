// Calls a server by OpenAI's own client for Node. scripts/clients/run runs it.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { LengthFinishReasonError } from "openai/error";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { IMPOSSIBLE, IMPOSSIBLE_AT, leaving, MODEL, Pet, SERVER, STORY, TOKENS, token } from "./calls.mjs";

const client = new OpenAI({ baseURL: `${SERVER}/v1`, apiKey: "none", maxRetries: 0 });
const ask = {
  model: MODEL,
  messages: [{ role: "user", content: STORY }],
  max_completion_tokens: 12,
  seed: 3,
};
const create = (more = {}, options = {}) => client.chat.completions.create({ ...ask, ...more }, options);
const form = { ...ask, max_completion_tokens: TOKENS };
const parse = (more) => client.chat.completions.parse({ ...form, ...more });
const note = (more = {}) => zodFunction({ name: "note_pet", description: "Notes a pet.", parameters: Pet, ...more });
const named = { tool_choice: { type: "function", function: { name: "note_pet" } } };
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

test("a prompt that is given back with its log-probabilities", async () => {
  const more = { model: MODEL, prompt: "Once upon a time", echo: true, logprobs: 1, max_tokens: 0 };
  const answer = await client.completions.create(more);
  const [{ text, logprobs }] = answer.choices;
  assert.equal(text, more.prompt);
  assert.equal(logprobs.tokens.join(""), text);
  assert.equal(answer.usage.completion_tokens, 0);
  assert.equal(logprobs.tokens.length, answer.usage.prompt_tokens);
  const [first, ...others] = logprobs.token_logprobs;
  assert.equal(first, null);
  assert.ok(others.length > 2 && others.every((logprob) => logprob <= 0), String(others));
});

test("biases and penalties", async () => {
  const logit_bias = { [await token(" cat")]: 100, [await token(" dog")]: 100 };
  const words = async (more) =>
    (await create({ temperature: 0, logit_bias, ...more })).choices[0].message.content.split(" ");
  const [first, ...others] = await words({ presence_penalty: -2, frequency_penalty: -2 });
  assert.deepEqual(others, Array(11).fill(first));
  const both = await words({ frequency_penalty: 2 });
  for (const word of ["cat", "dog"]) {
    assert.ok(both.filter((one) => one === word).length >= 3, both.join());
  }
});

test("any object of JSON", async () => {
  const logit_bias = { [await token("}")]: 100 };
  const answer = await create({ response_format: { type: "json_object" }, logit_bias });
  assert.equal(answer.choices[0].message.content, "{}");
  assert.equal(answer.choices[0].finish_reason, "stop");
});

test("answers of a schema, whole and streamed", async () => {
  const response_format = zodResponseFormat(Pet, "pet");
  const answer = await parse({ response_format, n: 2 });
  assert.equal(answer.choices.length, 2);
  for (const { finish_reason, message } of answer.choices) {
    assert.equal(finish_reason, "stop");
    assert.deepEqual(Pet.parse(JSON.parse(message.content)), message.parsed);
  }
  const stream = client.chat.completions.stream({ ...form, response_format });
  const last = (await stream.finalChatCompletion()).choices[0].message;
  assert.deepEqual(last.parsed, answer.choices[0].message.parsed);
  // The client's error for an answer that is cut off.
  await assert.rejects(() => parse({ response_format, max_completion_tokens: 3 }), LengthFinishReasonError);
});

test("calls of functions that must be", async () => {
  for (const tool_choice of [named.tool_choice, "required"]) {
    const [{ finish_reason, message }] = (await parse({ tools: [note()], tool_choice })).choices;
    assert.equal(finish_reason, "tool_calls");
    assert.equal(message.content, null);
    assert.equal(message.tool_calls.length, 1);
    const [{ id, type, function: made }] = message.tool_calls;
    assert.ok(id && type === "function" && made.name === "note_pet", JSON.stringify(message));
    assert.deepEqual(Pet.parse(JSON.parse(made.arguments)), made.parsed_arguments);
  }
});

test("calls of functions that may be", async () => {
  const more = { tools: [note()], parallel_tool_calls: false, stop: "." };
  const [{ finish_reason, message }] = (await parse(more)).choices;
  // Which it is is up to the model.
  if (finish_reason === "tool_calls") {
    assert.ok(Pet.parse(message.tool_calls[0].function.parsed_arguments));
  } else {
    assert.ok(message.content && !message.content.includes("<tool_call>"), message.content);
    assert.ok(!message.tool_calls?.length);
  }
  const none = await create({ tools: [note()], tool_choice: "none" });
  assert.equal(none.choices[0].message.content, await text());
});

test("a loop of calls and results", async () => {
  const messages = [...ask.messages];
  const first = await parse({ tools: [note()], ...named });
  messages.push(first.choices[0].message);
  const before = (await create({ messages })).usage.prompt_tokens;
  const [{ id }] = first.choices[0].message.tool_calls;
  messages.push({ role: "tool", tool_call_id: id, content: '{"noted":true}' });
  const second = await create({ messages });
  assert.ok(second.choices[0].message.content);
  assert.ok(second.usage.prompt_tokens > before + 5, `${second.usage.prompt_tokens}, ${before}`);
  // The client's own loop: it calls the function, and is done after it, since that must be called.
  const noted = [];
  const tool = note({ function: (pet) => noted.push(pet) });
  const runner = client.chat.completions.runTools({ ...form, tools: [tool], ...named });
  const result = await runner.finalFunctionToolCallResult();
  assert.equal(noted.length, 1);
  assert.deepEqual(noted, [Pet.parse(noted[0])]);
  assert.equal(result, "1");
});

test("streamed calls", async () => {
  const whole = (await create({ ...form, tools: [note()], ...named })).choices[0].message.tool_calls[0];
  const stream = client.chat.completions.stream({ ...form, tools: [note()], ...named });
  const deltas = [];
  const seen = [];
  stream.on("chunk", (chunk) => deltas.push(...(chunk.choices[0].delta.tool_calls ?? [])));
  stream.on("tool_calls.function.arguments.delta", (event) => seen.push(event.arguments_delta));
  const [{ finish_reason, message }] = (await stream.finalChatCompletion()).choices;
  assert.equal(finish_reason, "tool_calls");
  assert.equal(message.tool_calls.length, 1);
  const [last] = message.tool_calls;
  assert.equal(last.function.name, "note_pet");
  assert.equal(last.function.arguments, whole.function.arguments);
  assert.deepEqual(last.function.parsed_arguments, Pet.parse(JSON.parse(whole.function.arguments)));
  assert.equal(seen.join(""), whole.function.arguments);
  assert.ok(deltas.length > 3 && deltas.every((delta) => delta.index === 0));
  assert.ok(deltas[0].id && deltas[0].type === "function");
  assert.equal(last.id, deltas[0].id);
  assert.equal(deltas.filter((delta) => delta.function.name).length, 1);
});

test("the model", async () => {
  const ids = [];
  for await (const model of client.models.list()) {
    ids.push(model.id);
  }
  assert.deepEqual(ids, [MODEL]);
  assert.equal((await client.models.retrieve(MODEL)).id, MODEL);
});

const other = { tool_choice: { type: "function", function: { name: "other" } } };

test("errors have their classes, codes and ids", async () => {
  const schema = { name: "x", schema: IMPOSSIBLE };
  const response_format = { type: "json_schema", json_schema: schema };
  const tools = [{ type: "function", function: { name: "f", parameters: IMPOSSIBLE } }];
  const refused = [
    [OpenAI.BadRequestError, "invalid_schema", () => create({ response_format }), IMPOSSIBLE_AT],
    [OpenAI.BadRequestError, "invalid_schema", () => create({ tools, stream: true }), IMPOSSIBLE_AT],
    [OpenAI.BadRequestError, "invalid_value", () => create({ tools: [note()], ...other })],
    [OpenAI.NotFoundError, "model_not_found", () => create({ model: "gpt-4" })],
    [OpenAI.BadRequestError, "invalid_value", () => create({ temperature: 3 })],
    [OpenAI.BadRequestError, "context_length_exceeded", () => create({ max_completion_tokens: 1e6, stream: true })],
    [OpenAI.NotFoundError, undefined, () => client.responses.create({ model: MODEL, input: "x" })],
  ];
  for (const [kind, code, run, place = ""] of refused) {
    await assert.rejects(run, (error) => {
      assert.ok(error instanceof kind, String(error));
      assert.ok(error.code && error.type && error.requestID, JSON.stringify(error));
      assert.ok(code === undefined || error.code === code, error.code);
      assert.ok(error.message.includes(place), error.message);
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
