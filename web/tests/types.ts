// What programs that use the package may write, for the compiler alone: `npm run check` compiles it, and nothing runs.
import type { ChatCompletion, ChatCompletionChunk, ChatMessage, ChatStream, GrokWgpu } from "../src/index.js";

export async function programs(engine: GrokWgpu, some: boolean, signal: AbortSignal): Promise<void> {
  const messages: ChatMessage[] = [{ role: "user", content: "Hello!" }];

  // As in WebLLM's examples.
  const chunks = await engine.chat.completions.create({ messages, temperature: 1, stream: true });
  for await (const chunk of chunks) {
    const text: string = chunk.choices[0]?.delta.content || "";
    console.log(text, chunk.usage?.total_tokens);
  }
  const reply = await engine.chat.completions.create({ messages, model: "any", n: 1, logprobs: false, top_p: null });
  const content: string | undefined = reply.choices[0]?.message.content;
  console.log(content, reply.usage.total_tokens);
  messages.push(...reply.choices.map(({ message }) => message));

  // Whether an answer is streamed may be a variable.
  const either: ChatCompletion | ChatStream = await engine.chat.completions.create({ messages, stream: some });
  const direct: Promise<ChatCompletion> | ChatStream = engine.chat(messages, { stream: some });
  const whole: Promise<ChatCompletion> = engine.chat(messages, { max_completion_tokens: 5, stream: false });
  const stream: AsyncIterable<ChatCompletionChunk> = engine.chat(messages, {
    stream: true,
    stream_options: { include_usage: true },
    response_format: { type: "text" },
    user: "someone",
    stop: "end",
  });
  console.log(either, direct, await whole, stream);
  await engine.chat.completions.create(
    {
      messages: [
        { role: "developer", content: "Be brief." },
        { role: "user", content: [{ type: "text", text: "Hello!" }], name: "Ann" },
      ],
    },
    { signal },
  );

  // @ts-expect-error The engine writes one answer to a call.
  await engine.chat.completions.create({ messages, n: 2 });
  // @ts-expect-error It promises no JSON.
  await engine.chat(messages, { response_format: { type: "json_object" } });
  // @ts-expect-error It has no such option.
  await engine.chat(messages, { maxTokens: 5 });
  // @ts-expect-error It reads no images.
  await engine.chat([{ role: "user", content: [{ type: "image_url", image_url: { url: "data:," } }] }]);
  // @ts-expect-error A conversation is asked for.
  await engine.chat.completions.create({ stream: true });
}
