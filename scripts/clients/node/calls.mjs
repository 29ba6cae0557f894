// What programs that call a server share. GROK_WGPU_SERVER is its address; it has the demo model.
import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import { z } from "zod";

export const SERVER = process.env.GROK_WGPU_SERVER ?? "http://127.0.0.1:8080";
export const MODEL = "demo";
export const STORY = "Tell me a story.";

async function metric(name) {
  const text = await (await fetch(`${SERVER}/metrics`)).text();
  const line = text.split("\n").find((line) => line.startsWith(`grok_wgpu_${name} `));
  assert.ok(line, `/metrics has no ${name}`);
  return Number(line.split(" ").at(-1));
}

const LEFT = 'cancelled_total{reason="client_left"}';

/** Runs a function whose client leaves early, and waits until the server has noticed. */
export async function leaving(run) {
  const before = await metric(LEFT);
  await run();
  for (let i = 0; i < 200; i++) {
    if ((await metric(LEFT)) > before && (await metric("requests_running")) === 0) {
      return;
    }
    await setTimeout(50);
  }
  assert.fail("the server did not notice that its client left");
}

/** The longest answers of the forms have room in this, even if each token is one byte. */
export const TOKENS = 96;

/** A form of answers, and arguments of a function. */
export const Pet = z.object({
  kind: z.enum(["cat", "dog", "bird"]),
  legs: z.int().min(0).max(8),
  tame: z.boolean(),
});

/** What no grammar of JSON can hold an answer to, and where. */
export const IMPOSSIBLE = {
  type: "object",
  properties: { kind: { type: "string", if: { minLength: 2 } } },
};
export const IMPOSSIBLE_AT = "/properties/kind";

/** The id of a text that is one token. */
export async function token(content) {
  const answer = await fetch(`${SERVER}/tokenize`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ content, add_special: false }),
  });
  const { tokens } = await answer.json();
  assert.equal(tokens.length, 1, content);
  return tokens[0];
}
