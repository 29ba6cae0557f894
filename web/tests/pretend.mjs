// A worker in place of the engine's, which answers in the real protocol without a model. It counts words as tokens.
import assert from "node:assert/strict";
import { open } from "./harness.mjs";

/** Runs in the worker; `set` changes what the model is. */
function work(set) {
  const count = (text) => text.split(/\s+/).filter(Boolean).length;
  const stopped = new Set();
  const model = {
    name: "pretended",
    parameters: 1e6,
    bytes: 2e6,
    context: 512,
    chat: true,
    template: "grok-2",
    warnings: [],
    sampling: { temperature: 0.6, top_k: 40, top_p: 0.95, min_p: 0, repetition_penalty: 1 },
    config: {
      vocab_size: 512,
      hidden_size: 64,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      head_dim: 16,
      num_local_experts: 4,
      num_experts_per_tok: 2,
      rope_theta: 10000,
      scaling_factor: 1,
      attn_temperature_len: 256,
      attn_logit_softcapping: 30,
      router_logit_softcapping: 30,
      final_logit_softcapping: 50,
      residual_moe: true,
      max_position_embeddings: 512,
    },
    ...set.model,
  };
  const adapter = { vendor: "", architecture: "", device: "", description: "", summary: "", limits: {}, features: [] };

  /** `say 30` asks for 30 words, `slowly` for words until it is stopped; anything else for what the model was given. */
  async function generate(call, { prompt, options }) {
    const messages = prompt.messages ?? [{ role: "text", content: prompt.text }];
    const promptTokens = messages.reduce((sum, { content }) => sum + count(content) + 1, 0);
    if (promptTokens > model.context) {
      const message = `the prompt has ${promptTokens} tokens and 1 more are wanted, but the context holds ${model.context}`;
      return { error: { code: "context_length_exceeded", message, hint: "Shorten it." } };
    }
    const asked = messages.at(-1).content;
    const most = Math.min(options.max_tokens, model.context + 1 - promptTokens);
    const given = JSON.stringify({ messages, template: options.template, temperature: options.temperature });
    const words = /^say (\d+)/.exec(asked);
    let text = "";
    let made = 0;
    const say = (piece) => {
      text += piece;
      made += 1;
      postMessage({ call, news: { kind: "piece", piece: { id: made, text: piece } } });
    };
    if (asked === "slowly") {
      while (!stopped.has(call)) {
        say(`word${made} `);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    } else if (words) {
      while (made < Math.min(most, Number(words[1]))) {
        say(`word${made} `);
      }
    } else {
      say(given);
    }
    const reason = stopped.has(call) ? "interrupted" : words && made < Number(words[1]) ? "length" : "stop";
    const times = { timeToFirstToken: 1, time: 2, tokensPerSecond: 3 };
    return { result: { reason, text, promptTokens, reusedTokens: 0, completionTokens: made, ...times } };
  }

  addEventListener("message", async ({ data: { call, request, abort } }) => {
    if (abort) {
      stopped.add(call);
    } else if (request.kind === "load") {
      const bad = request.source.files?.some(({ path }) => path.includes("bad"));
      const error = { code: "checkpoint", message: "the files are bad", hint: "Choose others." };
      postMessage(bad ? { call, error } : { call, result: { model, adapter } });
    } else if (request.kind === "generate") {
      postMessage({ call, ...(await generate(call, request)) });
    } else {
      postMessage({ call, result: undefined });
    }
  });
}

/** A browser's context in which pages have this worker; `set.model` has properties of its model. */
export async function pretending(browser, set = {}, options = {}) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 800 },
    // Playwright does not see requests that a service worker answers.
    serviceWorkers: "block",
    ...options,
  });
  // Nothing is compiled here.
  context.setDefaultTimeout(40_000);
  await context.route(/assets\/worker-.*\.js$/, (route) =>
    route.fulfill({ contentType: "text/javascript", body: `(${work})(${JSON.stringify(set)});` }),
  );
  return context;
}

/** A page with the model of such a worker; the errors on it must be none in the end. */
export async function pretended(context, address, { load = true } = {}) {
  const opened = await open(context, address, { meant: [/Service Worker registration blocked by Playwright/] });
  if (load) {
    await loaded(opened.page);
  }
  return opened.page;
}

/** Loads the model of the page, which the worker has at once. */
export async function loaded(page) {
  await page.locator("#start").click();
  await page.locator("html[data-model=ready]").waitFor({ state: "attached" });
}

/** What the model was given for the last answer, which says it. */
export function given(answer) {
  const said = JSON.parse(answer.text);
  assert.ok(Array.isArray(said.messages));
  return said;
}
