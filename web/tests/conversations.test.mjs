// Conversations: kept, restored, written to files and read from them; what the model sees of a long one. The worker is
// a pretended one, which says what it was given.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { transformWithOxc } from "vite";
import { ask, drop, lastAnswer, sample, scratch, stage, tokens, web } from "./harness.mjs";
import { given, loaded, pretended, pretending } from "./pretend.mjs";

const on = stage();

/** Pages with a pretended model. */
async function pages(use, { set, init, ...options } = {}) {
  const context = await pretending(on.browser, set, options);
  const failures = [];
  context.on("weberror", (error) => failures.push(error.error().stack));
  try {
    if (init) {
      await context.addInitScript(init);
    }
    await use((load = true) => pretended(context, on.server.address, { load }), context);
    assert.deepEqual(failures, []);
  } finally {
    await context.close();
  }
}

/** The texts of the log. */
const log = (page) => page.locator("#log .message .text").allTextContents();

async function history(page) {
  await page.locator("#open-history").click();
  await page.locator("#history[open]").waitFor();
}

async function download(page, button) {
  await history(page);
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: button }).click()]);
  await page.keyboard.press("Escape");
  return { name: file.suggestedFilename(), text: readFileSync(await file.path(), "utf8") };
}

/** The title and the text of a notice that is no error. */
async function news(page, title) {
  const card = page.locator(".notice.news").filter({ hasText: title });
  await card.waitFor();
  return card.innerText();
}

/** Loads a module of the page that needs no browser. */
async function moduleOf(name) {
  const file = path.join(web, "page", name);
  const { code } = await transformWithOxc(readFileSync(file, "utf8"), file);
  return import(`data:text/javascript,${encodeURIComponent(code)}`);
}

test("a conversation outlives a reload, with its settings", () =>
  pages(async (visit) => {
    const page = await visit();
    assert.equal(await page.locator("#sampling-temperature").inputValue(), "0.6", "as the model says");
    await page.locator("#system").fill("Be brief.");
    await page.locator("#template").selectOption("plain");
    await sample(page, { Temperature: 0.25 });
    await ask(page, "say 3");
    await lastAnswer(page);
    await page.getByRole("radio", { name: "Continue a text" }).check();
    await ask(page, "say 2 more");
    await lastAnswer(page);
    await page.getByRole("radio", { name: "Chat" }).check();
    const before = await log(page);
    assert.deepEqual(before, ["Be brief.", "say 3", "word0 word1 word2 "]);

    await page.reload();
    await page.locator("#kept").filter({ hasText: "“say 3” comes back with the model" }).waitFor();
    await loaded(page);
    assert.deepEqual(await log(page), before);
    assert.match(await page.locator(".message .figures").innerText(), /^3 tokens · 3\.0 tokens\/s · first after/);
    assert.equal(await page.locator("#system").inputValue(), "Be brief.");
    assert.equal(await page.locator("#template").inputValue(), "plain");
    assert.match(await page.locator("#room-text").innerText(), /^9 of 512 tokens$/);
    await page.getByRole("radio", { name: "Continue a text" }).check();
    assert.deepEqual(await log(page), ["say 2 moreword0 word1 "]);
    await page.getByRole("radio", { name: "Chat" }).check();
    await ask(page, "and now?");
    const said = given(await lastAnswer(page));
    assert.deepEqual(
      said.messages.map(({ role, content }) => `${role}: ${content}`),
      ["system: Be brief.", "user: say 3", "assistant: word0 word1 word2 ", "user: and now?"],
    );
    assert.deepEqual([said.template, said.temperature], ["plain", 0.25]);

    // A new one keeps the system text, as in the terminal. The one before is in the list.
    await page.getByRole("button", { name: "New", exact: true }).click();
    assert.deepEqual(await log(page), ["Be brief."]);
    await ask(page, "another");
    await lastAnswer(page);
    await history(page);
    assert.deepEqual(await page.locator(".history-open strong").allInnerTexts(), ["another", "say 3", "say 2 more"]);
    assert.match(await page.locator(".history-open small").nth(1).innerText(), /^pretended · 4 messages · \d+ /);
    await page.getByRole("button", { name: "say 3" }).first().click();
    await page.getByText("and now?", { exact: true }).waitFor();
    assert.equal((await log(page)).length, 5);

    // Deleting takes two presses, and begins anew if it is the open one.
    await history(page);
    const forget = page.getByRole("button", { name: "Delete: say 3" });
    await forget.click();
    assert.equal(await page.locator(".history-open").count(), 3);
    await forget.or(page.locator("button.sure")).click();
    await page.locator(".history-open").nth(2).waitFor({ state: "detached" });
    await page.locator("#close-history").click();
    assert.equal(await page.locator("#log .message:not(.system)").count(), 0);
    await page.reload();
    await loaded(page);
    assert.equal(await page.locator(".example").count(), 3, "it does not come back");
  }));

test("a tab that is lost while the model writes keeps what was said, and what was asked", () =>
  pages(async (visit) => {
    let page = await visit();
    await ask(page, "slowly");
    await tokens(page, 25);
    await page.close();
    page = await visit();
    const [question, text] = await log(page);
    assert.equal(question, "slowly");
    assert.match(text, /^word0 word1 word2 /);
    assert.match(await page.locator(".message .figures").innerText(), /^cut off when the page was left$/);

    await page.getByRole("button", { name: "Again" }).click();
    await page.locator("#send.stop").waitFor();
    await page.reload();
    await loaded(page);
    if ((await page.locator(".message.assistant").count()) === 0) {
      await page.getByRole("button", { name: "Answer it" }).click();
      await tokens(page, 2);
    }
    assert.equal((await log(page))[0], "slowly");
  }));

test("two tabs do not write the same conversation", () =>
  pages(async (visit) => {
    const first = await visit();
    await ask(first, "say 2");
    await lastAnswer(first);
    const second = await visit();
    assert.deepEqual(await log(second), [], "the first has it");
    await history(second);
    await second.getByRole("button", { name: "say 2" }).first().click();
    assert.match(await news(second, "This is a copy"), /open in another tab/);
    await ask(second, "more in the second");
    await lastAnswer(second);
    await ask(first, "more in the first");
    await lastAnswer(first);
    await first.reload();
    await loaded(first);
    assert.deepEqual((await log(first))[2], "more in the first");
    await history(first);
    assert.equal(await first.locator(".history-open").count(), 2);
  }));

test("another model goes on with the conversation; files that are none leave it", () =>
  pages(async (visit) => {
    const page = await visit();
    await ask(page, "say 2");
    await lastAnswer(page);
    await page.locator("#files").setInputFiles([{ name: "bad.gguf", mimeType: "", buffer: Buffer.from("x") }]);
    await page.locator("#notices .error").filter({ hasText: "The files are bad" }).waitFor();
    assert.equal((await log(page)).length, 2);
    await page.locator("#files").setInputFiles([{ name: "good.gguf", mimeType: "", buffer: Buffer.from("x") }]);
    await page.locator("#notices .error").waitFor({ state: "detached" });
    await page.locator("html[data-model=ready]").waitFor({ state: "attached" });
    await ask(page, "and?");
    assert.equal(given(await lastAnswer(page)).messages.length, 3);
  }));

test("a conversation as a file, and back", () =>
  pages(async (visit) => {
    const page = await visit();
    await page.locator("#system").fill("Be brief.");
    await ask(page, "say 2");
    await lastAnswer(page);
    const json = await download(page, "Save as JSON");
    assert.match(json.name, /^grok-wgpu-chat-\d{4}-\d\d-\d\d-\d\d-\d\d\.json$/);
    const saved = JSON.parse(json.text);
    const messages = [
      { role: "system", content: "Be brief." },
      { role: "user", content: "say 2" },
      { role: "assistant", content: "word0 word1 " },
    ];
    assert.deepEqual([saved.messages, saved.model, saved.mode], [messages, "pretended", "chat"]);
    assert.equal(saved.sampling.temperature, 0.6);
    const markdown = await download(page, "Save as Markdown");
    assert.match(markdown.name, /\.md$/);
    assert.match(
      markdown.text,
      /^# say 2\n\npretended, [\d-]+\n\n## System\n\nBe brief\.\n\n## You\n\nsay 2\n\n## pretended\n\nword0 word1 \n$/,
    );

    const folder = scratch();
    const write = (name, content) => {
      const file = path.join(folder, name);
      writeFileSync(file, content);
      return file;
    };
    // What is no conversation leaves the one that is open, and the model.
    const message = (fields) => JSON.stringify({ messages: [fields] });
    for (const [name, content, what] of [
      ["broken.json", "{", /^broken\.json: it is no JSON: /],
      ["list.json", "[]", /^list\.json: there is no list `messages`, expected \{"messages"/],
      ["config.json", '{"architectures": ["Grok1ForCausalLM"]}', /^config\.json: this is a file of a model/],
      ["tool.json", message({ role: "tool", content: "" }), /messages\[0\]: `role` is "tool", expected system, user/],
      ["seven.json", message({ role: "user", content: 7 }), /messages\[0\]: `content` is 7, expected a text/],
      ["none.json", message({ role: "user" }), /messages\[0\]: `content` is missing/],
    ]) {
      await drop(page, write(name, content));
      await page.locator("#notices .what").filter({ hasText: what }).waitFor();
      assert.equal(await page.locator("#notices .error strong").innerText(), "This is no conversation");
      assert.match(await page.locator("#notices .hint").innerText(), /\/save .*are as they were/);
      assert.equal((await log(page)).length, 3);
    }
    await ask(page, "are you there?");
    assert.equal(given(await lastAnswer(page)).messages.length, 4);

    // As the terminal writes it, with a message without an answer at the end.
    const terminal = { messages: [...messages.slice(1), { role: "user", content: "say 4" }] };
    await drop(page, write("chat.json", JSON.stringify(terminal)));
    await page.locator(".unanswered").waitFor();
    assert.equal(await page.locator("#notices .error").count(), 0);
    assert.deepEqual(await log(page), ["say 2", "word0 word1 ", "say 4"]);
    assert.equal(await page.locator("#system").inputValue(), "");
    assert.match(await page.locator("#room-text").innerText(), /^about \d+ of 512/);
    await page.getByRole("button", { name: "Answer it" }).click();
    assert.equal((await lastAnswer(page)).text, "word0 word1 word2 word3 ");

    // With the button; and before a model is loaded.
    await page.locator("#talk-file").setInputFiles(write("again.json", json.text));
    await page.getByText("Be brief.").first().waitFor();
    assert.deepEqual(await log(page), ["Be brief.", "say 2", "word0 word1 "]);
    const other = await visit(false);
    await drop(other, write("early.json", json.text));
    await news(other, "The conversation is read");
    await loaded(other);
    assert.deepEqual(await log(other), ["Be brief.", "say 2", "word0 word1 "]);
  }));

test("a text in files is never taken for HTML", () =>
  pages(async (visit) => {
    const page = await visit();
    const bad = "<img src=x onerror=hacked=1>";
    const messages = ["system", "user", "assistant"].map((role) => ({ role, content: bad }));
    const buffer = Buffer.from(JSON.stringify({ messages, model: bad }));
    await page.locator("#talk-file").setInputFiles([{ name: "x.json", mimeType: "", buffer }]);
    await page.locator(".message.assistant").waitFor();
    assert.deepEqual(await log(page), [bad, bad, bad]);
    await history(page);
    await page.getByText(bad).last().waitFor();
    assert.equal(await page.locator("img").count(), 0);
  }));

test("the conversation goes on when the context is full", () =>
  pages(
    async (visit) => {
      const page = await visit();
      for (let i = 0; i < 4; i += 1) {
        await ask(page, `say 20 ${i}`);
        await lastAnswer(page);
      }
      assert.equal(await page.locator(".divider").count(), 1, "said in its place");
      assert.ok((await page.locator(".left-out").count()) >= 2);
      await ask(page, "what do you see?");
      const seen = given(await lastAnswer(page)).messages;
      assert.equal(seen[0].role, "user", "whole exchanges are left out");
      assert.notEqual(seen[0].content, "say 20 0");
      assert.equal(seen.at(-3).content, "say 20 3", "the exchange before the last stays");
      assert.equal((await log(page)).length, 10, "nothing is lost for the user");
      assert.equal(JSON.parse((await download(page, "Save as JSON")).text).messages.length, 10);

      // The engine has the last word: these words are shorter than those before.
      await ask(page, "a ".repeat(85));
      assert.deepEqual(
        given(await lastAnswer(page)).messages.map(({ role }) => role),
        ["user"],
        "the last message alone has room",
      );
      await page.reload();
      await loaded(page);
      assert.equal(await page.locator(".divider").count(), 1);
      assert.equal(await page.locator(".left-out").count(), 10);

      // What has no room by itself is refused.
      await ask(page, "b ".repeat(120));
      const card = page.locator(".message .error");
      await card.waitFor();
      assert.equal(await card.getAttribute("data-code"), "context_length_exceeded");
    },
    { set: { model: { context: 100 } } },
  ));

test("what is left out of a long conversation", async () => {
  const { leaveOut, roomForAnswer } = await moduleOf("talk.ts");
  // Exchanges of ten tokens each; the last has none yet.
  const starts = [0, 2, 4, 6, 8];
  const from = (start) => 50 - start * 5;
  const at = (context, most, cut = false) => leaveOut(starts, { context, ...roomForAnswer(context, most, cut), from });
  assert.deepEqual(roomForAnswer(512, 320, false), { wanted: 128, least: 32 });
  assert.deepEqual(roomForAnswer(512, 320, true), { wanted: 128, least: 128 });
  assert.deepEqual(roomForAnswer(512, 4, false), { wanted: 4, least: 4 });
  assert.equal(at(100, 400), 0, "all has room");
  assert.equal(at(64, 400), 4, "a quarter for an answer, and an eighth more");
  assert.equal(at(52, 1), 0);
  assert.equal(at(46, 1), 4, "an eighth more, once something must go");
  assert.equal(at(24, 400), 6, "the exchange before the last stays while there is any room");
  assert.equal(at(24, 400, true), 8, "unless that was too little");
  assert.equal(at(8, 400), 8, "the last always stays");
  assert.equal(leaveOut([3], { context: 1, wanted: 1, least: 1, from }), 3);
});

/** Makes the browser refuse to store, as a private window or a full disk. */
const NO_STORAGE = () => {
  indexedDB.open = () => {
    throw new DOMException("A mutation operation was attempted without storage.", "InvalidStateError");
  };
};
const FULL = () => {
  IDBObjectStore.prototype.put = () => {
    throw new DOMException("The quota has been exceeded.", "QuotaExceededError");
  };
};

const toldOnce = (init, what) =>
  pages(
    async (visit) => {
      const page = await visit();
      assert.equal(await page.locator(".notice").count(), 0, "there is nothing to keep yet");
      await ask(page, "say 2");
      assert.match(await news(page, "Conversations are not kept"), what);
      await lastAnswer(page);
      await page.getByRole("button", { name: "Dismiss" }).click();
      await ask(page, "say 3");
      await lastAnswer(page);
      assert.equal(await page.locator(".notice").count(), 0);
      assert.equal(JSON.parse((await download(page, "Save as JSON")).text).messages.length, 4);
    },
    { init },
  );

test("without storage, conversations are told to be kept nowhere, once", () =>
  toldOnce(NO_STORAGE, /no storage for them: A mutation operation/));

test("with a full storage, conversations are told to be kept no more, once", () =>
  toldOnce(FULL, /takes no more: The quota has been exceeded/));

test("the oldest conversations go when there are too many", () =>
  pages(async (visit) => {
    const page = await visit();
    await page.evaluate(async () => {
      const database = await new Promise((resolve) => {
        indexedDB.open("grok-wgpu").onsuccess = ({ target }) => resolve(target.result);
      });
      const transaction = database.transaction(["heads", "talks"], "readwrite");
      for (let i = 0; i < 100; i += 1) {
        const turns = [{ role: "user", content: `number ${i}` }];
        const talk = { id: `n${i}`, mode: "chat", system: "", turns, from: 0, sampling: {}, model: "", changed: i };
        transaction.objectStore("talks").put(talk);
        const head = { id: talk.id, title: `number ${i}`, model: "", mode: "chat", messages: 1, changed: i };
        transaction.objectStore("heads").put({ ...head, size: i === 50 ? 9_999_000 : 100 });
      }
      await new Promise((resolve) => {
        transaction.oncomplete = resolve;
      });
    });
    await ask(page, "say 2");
    await news(page, "The oldest conversations had to go");
    await lastAnswer(page);
    await history(page);
    const titles = await page.locator(".history-open strong").allInnerTexts();
    assert.deepEqual([titles[0], titles[1], titles.at(-1)], ["say 2", "number 99", "number 51"]);
    await page.locator("#forget-all").click();
    await page.locator("#forget-all").click();
    await page.locator("#history-empty").waitFor();
  }));

test("the template: a warning of the model, and a model that knows no chat", () =>
  pages(
    async (visit) => {
      const page = await visit();
      assert.ok(await page.getByRole("radio", { name: "Chat" }).isDisabled());
      assert.match(await page.locator("#template-note").innerText(), /is none of those built in/);
      assert.deepEqual(await page.locator("#warnings li").allInnerTexts(), ["Another one."]);
      await page.locator("#template").selectOption("plain");
      assert.match(await page.locator("#template-note").innerText(), /^The messages alone/);
      await page.getByRole("radio", { name: "Chat" }).check();
      await ask(page, "hello");
      assert.equal(given(await lastAnswer(page)).template, "plain");
      await page.locator("#template").selectOption("");
      assert.ok(await page.getByRole("radio", { name: "Continue a text" }).isChecked());
    },
    {
      set: {
        model: {
          chat: false,
          warnings: [
            "the model brings a chat template (x) that is none of those built in; the option `template` chooses",
            "Another one.",
          ],
        },
      },
    },
  ));

/** Browsers tell of adapters what they like. */
const adapter = (info) => `
  const told = ${JSON.stringify(info)};
  // Empty pages have no WebGPU.
  if (globalThis.GPU) GPU.prototype.requestAdapter = async () => ({ info: told, isFallbackAdapter: told.old });
`;
const NAMELESS = { vendor: "", architecture: "", device: "", description: "" };

for (const [name, info, line, software] of [
  ["without a name", NAMELESS, "Unnamed adapter (the browser hides it)", false],
  ["of hardware", { ...NAMELESS, vendor: "amd", architecture: "rdna-3" }, "amd, rdna-3", false],
  ["of software by its name", { ...NAMELESS, description: "llvmpipe (LLVM 15)" }, "llvmpipe (LLVM 15)software", true],
  ["that says it", { ...NAMELESS, vendor: "x", isFallbackAdapter: true }, "xsoftware", true],
  ["that says it as older ones", { ...NAMELESS, old: true }, "Unnamed adapter (the browser hides it)software", true],
]) {
  test(`an adapter ${name}`, () =>
    pages(
      async (visit) => {
        const page = await visit(false);
        await page.locator("#adapter").filter({ hasText: line }).waitFor();
        assert.equal(await page.locator("#adapter").textContent(), line);
        const said = await page.locator("#software").innerText();
        assert.equal(/compiled for the processor, such as llama\.cpp, is faster/.test(said), software, said);
      },
      { init: { content: adapter(info) } },
    ));
}
