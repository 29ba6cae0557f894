// Failures, and that the page says what happened and what to do.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import {
  ask,
  chooseOther,
  demo,
  drop,
  GREEDY,
  lastAnswer,
  loadDemo,
  open,
  ready,
  sample,
  scratch,
  servePage,
  stage,
} from "./harness.mjs";
import { reference, truncated } from "./models.mjs";
import { cuttingServer, moodyServer } from "./servers.mjs";

const on = stage();

/** Set by `scripts/test --full`. */
const full = process.env.GROK_WGPU_FULL === "true";

/** A new page with an empty cache, on which only the errors in `meant` may occur. */
async function fresh(use, { meant, hosts, init, context = {}, address = on.server.address } = {}) {
  const own = await on.browser.newContext({ viewport: { width: 1280, height: 800 }, ...context });
  try {
    if (init) {
      await own.addInitScript(init);
    }
    const { page, errors } = await open(own, address, { meant, hosts });
    await use(page, own, errors);
    assert.deepEqual(errors, []);
  } finally {
    await own.close();
  }
}

/** The code and the text of the error notice. */
async function notice(page, place = "#notices") {
  const card = page.locator(`${place} .error`);
  await card.waitFor();
  return {
    code: await card.getAttribute("data-code"),
    title: await card.locator("strong").innerText(),
    what: await card.locator(".what").innerText(),
    hint: await card.locator(".hint").innerText(),
  };
}

test("a browser without WebGPU", () =>
  fresh(
    async (page) => {
      const { code, title, hint } = await notice(page);
      assert.equal(code, "no_webgpu");
      assert.match(title, /no WebGPU/);
      assert.match(hint, /Chrome/);
      assert.ok(await page.locator("#start").isDisabled());
      assert.equal(await page.locator("#adapter").textContent(), "No WebGPU");
      await page.getByRole("link", { name: "Self-test" }).click();
      assert.ok(await page.locator("#test-all").isDisabled());
    },
    { init: () => delete Navigator.prototype.gpu },
  ));

test("a browser without an adapter", () =>
  fresh(
    async (page) => {
      const { code, hint } = await notice(page);
      assert.equal(code, "no_adapter");
      assert.match(hint, /hardware acceleration/);
    },
    { init: () => Object.defineProperty(GPU.prototype, "requestAdapter", { value: async () => null }) },
  ));

test("the network fails until it is tried again, and no byte comes twice", async () => {
  const far = await cuttingServer([2_000_000, 7_654_321, 11_111_111]);
  far.state.downAtLast = true;
  try {
    await fresh(
      async (page) => {
        await chooseOther(page);
        await page.locator("#address").fill(far.address);
        await page.locator("#address").press("Enter");
        const { code, what, hint } = await notice(page);
        assert.equal(code, "network");
        assert.match(what, /model\.safetensors/);
        assert.match(hint, /what has been fetched is kept/);
        assert.equal(far.state.sent.at(-1)[1], 11_111_111, "the first two cuts were mended on the way");

        far.state.down = false;
        await page.getByRole("button", { name: "Try again" }).click();
        await page.getByText(/of it kept from before/).waitFor();
        await ready(page);
        const { sent, size } = far.state;
        let at = 0;
        for (const [from, to] of sent) {
          assert.equal(from, at, `each request begins where the last one ended: ${JSON.stringify(sent)}`);
          at = to;
        }
        assert.equal(at, size);
        await sample(page, { Temperature: 0, "Most tokens": 8 });
        await ask(page, reference().question);
        assert.equal((await lastAnswer(page)).text, reference().text.slice(0, (await lastAnswer(page)).text.length));
      },
      {
        hosts: [far.host],
        meant: [
          /Failed to load resource.*ERR_(CONTENT_LENGTH_MISMATCH|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING)/,
          /Failed to load resource.*ERR_CONNECTION_(CLOSED|RESET|REFUSED)/,
        ],
      },
    );
  } finally {
    await far.close();
  }
});

test("offline after a first visit: the page opens, the model loads, and it talks", async () => {
  const own = await servePage();
  await fresh(
    async (page, context) => {
      await loadDemo(page);
      await page.evaluate(() => navigator.serviceWorker.ready);
      await own.close();
      await context.setOffline(true);
      await page.reload();
      // The cached model is loaded without asking.
      await ready(page);
      const { question, text } = reference();
      await sample(page, GREEDY);
      await ask(page, question);
      assert.equal((await lastAnswer(page)).text, text);
    },
    {
      address: own.address,
      meant: [/Failed to load resource: net::ERR_(CONNECTION_REFUSED|INTERNET_DISCONNECTED|FAILED)/],
    },
  );
});

test("the storage is full", () =>
  fresh(async (page, context) => {
    const session = await context.newCDPSession(page);
    await session.send("Storage.overrideQuotaForOrigin", { origin: new URL(on.server.address).origin, quotaSize: 6e6 });
    await page.locator("#start").click();
    // The remaining space is unknown; some writes succeed before one fails.
    const { code, what } = await notice(page);
    assert.equal(code, "quota_exceeded", what);
    assert.notEqual(what, "");
    await page.getByRole("button", { name: "Load without keeping it" }).click();
    await ready(page);
    assert.ok(
      Number.parseFloat(
        await page
          .locator("#cached")
          .textContent()
          .then((text) => text.replace("Nothing", "0")),
      ) < 6,
    );
    await sample(page, { Temperature: 0, "Most tokens": 4 });
    await ask(page, "Tell me a story.");
    assert.notEqual((await lastAnswer(page)).text, "");
  }));

test("checkpoints that are none, and addresses that lead nowhere", () =>
  fresh(
    async (page) => {
      const folder = scratch();
      await drop(page, path.join(import.meta.dirname, "models.mjs"));
      let said = await notice(page);
      assert.equal(said.code, "checkpoint");
      assert.match(said.what, /no config\.json and no \*\.gguf among the 1 files \(models\.mjs\)/);
      assert.match(said.hint, /whole folder/);

      await drop(page, truncated(path.join(folder, "short")));
      await page
        .getByText(/model\.safetensors/)
        .first()
        .waitFor();
      said = await notice(page);
      assert.equal(said.code, "checkpoint");
      assert.ok(await page.locator("#welcome").isVisible(), "something else can be loaded");

      await chooseOther(page);
      await page.locator("#address").fill(`${on.server.address}nowhere/`);
      await page.locator("#address").press("Enter");
      await page
        .getByText(/nowhere\//)
        .first()
        .waitFor();
      said = await notice(page);
      assert.ok(["network", "checkpoint"].includes(said.code), said.code);
      assert.notEqual(said.hint, "");
      await page.getByRole("button", { name: "Dismiss" }).click();
      assert.equal(await page.locator(".notice").count(), 0);
    },
    { meant: [/Failed to load resource: the server responded with a status of 404/] },
  ));

test("a load that fails leaves the model and the conversation as they are", async () => {
  const far = await moodyServer(
    Object.fromEntries(
      ["config.json", "tokenizer.tok.json", "model.safetensors"].map((name) => [
        name,
        readFileSync(path.join(demo, name)),
      ]),
    ),
  );
  // Another version appears among the weights, when the first model has left the device.
  far.good({ etag: () => (/bytes=[48]\d{6}-/.test(far.requests.at(-1)) ? '"two"' : '"one"') });
  try {
    await fresh(
      async (page) => {
        await loadDemo(page);
        await sample(page, { Temperature: 0, "Most tokens": 6 });
        await ask(page, "Tell me a story.");
        const { text } = await lastAnswer(page);
        const same = async () => {
          await page.locator("html[data-model=ready]").waitFor({ state: "attached" });
          assert.equal(await page.locator(".message").count(), 2);
          assert.equal((await lastAnswer(page)).text, text);
          assert.ok(await page.locator("#talk").isVisible());
          assert.equal(await page.locator("#state").textContent(), "demo");
        };
        const address = async (to, keep = true) => {
          await chooseOther(page);
          await page.locator("#keep").setChecked(keep);
          await page.locator("#address").fill(to);
          await page.locator("#address").press("Enter");
        };
        const said = async (pattern) => {
          await page.locator("#notices .error .what").filter({ hasText: pattern }).waitFor();
          return notice(page);
        };

        await drop(page, path.join(import.meta.dirname, "models.mjs"));
        assert.equal((await said(/no config\.json/)).code, "checkpoint");
        await same();
        await drop(page, truncated(path.join(scratch(), "short")));
        assert.equal((await said(/model\.safetensors/)).code, "checkpoint");
        await same();
        await address(`${on.server.address}nowhere/`);
        await said(/nowhere/);
        await same();

        await address(far.address, false);
        assert.equal((await said(/model\.safetensors has changed/)).code, "network");
        await same();

        far.good({ length: false });
        await address(far.address);
        await page.locator("#cancel").click();
        await same();

        // The model knows what was said before.
        const used = async () => Number.parseInt(await page.locator("#room-text").textContent(), 10);
        const before = await used();
        await ask(page, "Tell me more.");
        assert.notEqual((await lastAnswer(page)).text, "");
        assert.equal(await page.locator(".message").count(), 4);
        assert.ok((await used()) > before + 6);
      },
      {
        hosts: [far.host],
        meant: [/Failed to load resource: the server responded with a status of 40[34]/, /ERR_ABORTED/],
      },
    );
  } finally {
    await far.close();
  }
});

test("an address in a link is shown, and nothing is fetched from there", () =>
  fresh(
    async (page) => {
      assert.equal(await page.locator("#address").inputValue(), "https://models.invalid/x");
      await page.getByText("swiftshader").first().waitFor();
      await page.waitForTimeout(500);
    },
    { address: `${on.server.address}?model=https://models.invalid/x` },
  ));

test("a conversation that is too long", () =>
  fresh(async (page) => {
    await chooseOther(page);
    await page.locator("#context").fill("48");
    await page.locator("#start").click();
    await ready(page);
    assert.match(await page.locator("#room-text").textContent(), /^0 of 48 tokens$/);
    const long =
      "Tell me a story about a fox who lost her hat and a bear who found it and a bird who sang about it " +
      "and a fish who did not care about any of this.";
    await ask(page, long.repeat(2));
    const card = page.locator(".message .error");
    await card.waitFor();
    assert.equal(await card.getAttribute("data-code"), "context_length_exceeded");
    await card.getByRole("button", { name: "Start anew" }).click();
    assert.equal(await page.locator(".message").count(), 0);
    await sample(page, { Temperature: 0, "Most tokens": 4 });
    await ask(page, "Hello.");
    assert.notEqual((await lastAnswer(page)).text, "");
  }));

/** A page whose worker runs `first` before its own code. */
async function withFirst(first, use) {
  await fresh(
    async (page, context) => {
      await context.route(/assets\/worker-.*\.js$/, async (route) => {
        const response = await route.fetch();
        await route.fulfill({ response, body: `(${first})();\n${await response.text()}` });
      });
      await use(page);
    },
    { context: { serviceWorkers: "block" }, meant: [/Service Worker registration blocked by Playwright/] },
  );
}

/** Loads the demo model with the least memory, and checks what the page says of it and what the model writes. */
async function loadLeast(page) {
  await chooseOther(page);
  await page.locator("#memory").fill("0.001");
  await page.locator("#start").click();
  const { code, what } = await notice(page);
  assert.equal(code, "out_of_memory");
  await page.getByRole("button", { name: "Set how much memory it may take" }).click();
  const least = Number(what.match(/: (\d+) is more/)?.[1]);
  assert.ok(least > 1e6, what);
  await page.locator("#memory").fill(String(least / 1e6));
  await page.locator("#start").click();
  await ready(page);
  const facts = await page.locator("#facts").textContent();
  assert.match(facts, /On the adapter[\d.]+ MB of weightsIn the files[\d.]+ MB of weightsA token readsup to [\d.]+ MB/);
  const most = facts.match(/Files give[\d.]+ [kMG]B\/s, enough for ([\d.,e-]+) tokens\/s/)?.[1];
  assert.ok(Number(most?.replaceAll(",", "")) > 0, facts);
  const { question, text } = reference();
  await sample(page, GREEDY);
  await ask(page, question);
  assert.equal((await lastAnswer(page)).text, text);
}

test("a model with less memory than it needs: its kept files are read straight into the engine's memory", () =>
  withFirst(() => {
    Blob.prototype.slice = () => {
      throw new Error("a part of a file was read as a Blob");
    };
  }, loadLeast));

test("kept files are read as Blobs where another tab has them open alone", () =>
  withFirst(() => {
    const { createSyncAccessHandle } = FileSystemFileHandle.prototype;
    FileSystemFileHandle.prototype.createSyncAccessHandle = function (options) {
      if (options?.mode === "read-only") {
        return Promise.reject(new DOMException("it is open", "NoModificationAllowedError"));
      }
      return createSyncAccessHandle.call(this, options);
    };
  }, loadLeast));

/** A fake worker that answers with given messages of the real protocol. */
function pretend(answer) {
  return `addEventListener("message", ({ data: { call, request } }) => {
    if (!request) return;
    const say = (message) => postMessage({ call, ...message });
    (${answer})(request, say);
  });`;
}

async function withWorker(answer, use) {
  await fresh(
    async (page, context) => {
      await context.route(/assets\/worker-.*\.js$/, (route) =>
        route.fulfill({ contentType: "text/javascript", body: pretend(answer) }),
      );
      await use(page);
    },
    // Playwright does not see requests that a service worker answers.
    { context: { serviceWorkers: "block" }, meant: [/Service Worker registration blocked by Playwright/] },
  );
}

test("every failure of the engine is said with its remedy", async () => {
  for (const code of ["out_of_memory", "device_lost", "checksum", "tokenizer", "internal"]) {
    await withWorker(
      `(request, say) => {
        say({ error: { code: "${code}", message: "<b>message</b> of ${code}", hint: "hint of ${code}" } });
      }`,
      async (page) => {
        await page.locator("#start").click();
        const said = await notice(page);
        assert.deepEqual([said.code, said.what, said.hint], [code, `<b>message</b> of ${code}.`, `hint of ${code}`]);
        assert.notEqual(said.title, "");
        assert.ok(await page.locator("#notices .actions button").first().isVisible(), "something can be done");
      },
    );
  }
});

test("rows of the self-test that fail come first", () => {
  const row = (kernel, name, worst, failure) => ({ kernel, case: name, elements: 64, worst, exact: false, failure });
  const rows = [
    row("good", "one", 0.25),
    row("bad", "<i>two</i>", 3.5, "element 7 is wrong"),
    row("good", "three", 0),
    row("worse", "four", null, "not finite"),
  ];
  const model = { name: "small <b>one</b>", worst: null, most: 1e-4, failure: "token 7: got NaN" };
  const report = {
    engine: "0",
    adapter: { summary: "pretended", limits: {}, features: [] },
    date: "2020-01-01T00:00:00Z",
    passed: 2,
    failed: 3,
    milliseconds: 5,
    rows,
    models: [model],
    unfinished: null,
    suspects: [{ file: "shaders/<b>x</b>.wgsl", failed: 2, rows: 3 }],
    html: "",
  };
  return withWorker(
    `(request, say) => {
    const report = ${JSON.stringify(report)};
    report.rows.forEach((row, i) => say({ news: { kind: "row", row, done: i + 1, total: 4 } }));
    report.models.forEach((model) => say({ news: { kind: "model", model } }));
    say({ result: report });
  }`,
    async (page) => {
      await page.goto(`${on.server.address}#selftest`);
      await page.locator("#test-all").click();
      await page.getByText("✗ Failed").waitFor();
      assert.match(await page.locator(".verdict").textContent(), /3 of 4 rows and 1 runs of small models failed/);
      assert.deepEqual(await page.locator(".failures code").allTextContents(), [
        "shaders/<b>x</b>.wgsl",
        "bad <i>two</i>",
        "worse four",
        "small <b>one</b>",
      ]);
      assert.deepEqual(await page.locator(".failures li span").allTextContents(), [
        "2 of 3 rows that link it failed",
        "element 7 is wrong",
        "not finite",
        "token 7: got NaN",
      ]);
      assert.deepEqual(await page.locator(".errors .name").allTextContents(), ["✗ worse", "✗ bad", "good"]);
      assert.equal(await page.locator(".errors .cross").count(), 2);
      assert.deepEqual(await page.locator(".kernels tbody th").allTextContents(), ["worse", "bad", "good"]);
      assert.deepEqual(await page.locator(".models tbody td").allTextContents(), ["not finite", "1.0e-4"]);
    },
  );
});

/** Makes a worker's first device disappear at its third pipeline; with `last`, there is no other device. */
function breaker(last) {
  const request = GPUAdapter.prototype.requestDevice;
  let devices = 0;
  GPUAdapter.prototype.requestDevice = async function (...options) {
    devices += 1;
    if (devices > 1) {
      if (last) {
        throw new Error("no second device");
      }
      return request.apply(this, options);
    }
    const device = await request.apply(this, options);
    let pipelines = 0;
    device.createComputePipeline = (...description) => {
      pipelines += 1;
      if (pipelines === 3) {
        device.destroy();
      }
      return GPUDevice.prototype.createComputePipeline.apply(device, description);
    };
    return device;
  };
}

for (const last of [false, true]) {
  test(last ? "a self-test that cannot go on keeps what it has" : "a self-test goes on after its device was lost", () =>
    fresh(
      async (page, context) => {
        await context.route(/assets\/worker-.*\.js$/, async (route) => {
          const response = await route.fetch();
          await route.fulfill({ response, body: `(${breaker})(${last});\n${await response.text()}` });
        });
        await page.goto(`${on.server.address}#selftest`);
        await page.reload();
        await page.locator("#test-some").click();
        if (!last && !full) {
          // That the rest runs on another device shows before all of it has run.
          await page.getByText(/[3-9]\d of \d{3} rows, 1 failed/).waitFor();
          await page.locator("#test-stop").click();
          await page.getByText(/Stopped after \d+ rows, 1 failed/).waitFor();
          return;
        }
        // With `full`, the rest of the rows run first, which takes SwiftShader minutes.
        await page.getByText("✗ Failed").waitFor(full ? { timeout: 3_600_000 } : {});
        const said = await page.locator(".verdict").textContent();
        assert.match(
          said,
          last
            ? /The test did not end: .*no second device.*Until then 1 of \d+ rows failed/
            : /1 of \d{3} rows and 4 runs of small models failed/,
        );
        const failures = await page.locator(".failures li span").allTextContents();
        assert.equal(
          failures.filter((failure) => /the GPU device was lost/.test(failure)).length,
          1,
          failures.join("; "),
        );
        const wanted = page.waitForEvent("download");
        await page.getByRole("button", { name: "Save as HTML" }).click();
        const html = readFileSync(await (await wanted).path(), "utf8");
        assert.match(
          html,
          last ? /The test did not end: 1 of \d+ checks failed until then/ : /1 of \d{3} checks failed/,
        );
      },
      { context: { serviceWorkers: "block" }, meant: [/Service Worker registration blocked by Playwright/] },
    ),
  );
}

/** The module with its memory bounded to so many pages of 64 KiB more than it begins with. */
function bounded(module, more) {
  const read = (at) => {
    let [value, shift, byte] = [0, 0, 0];
    do {
      byte = module[at++];
      value += (byte & 127) * 2 ** shift;
      shift += 7;
    } while (byte > 127);
    return [value, at];
  };
  const number = (value) => (value < 128 ? [value] : [(value % 128) + 128, ...number(Math.floor(value / 128))]);
  for (let at = 8; at < module.length; ) {
    const [size, start] = read(at + 1);
    if (module[at] === 5) {
      const [pages] = read(start + 2);
      assert.deepEqual([...module.subarray(start, start + 2)], [1, 0], "one memory without a bound");
      const memory = [1, 1, ...number(pages), ...number(pages + more)];
      return Buffer.concat([
        module.subarray(0, at),
        Buffer.from([5, memory.length, ...memory]),
        module.subarray(start + size),
      ]);
    }
    at = start + size;
  }
  throw new Error("a module without a memory");
}

test("the memory of the module does not grow", () =>
  fresh(
    async (page, context) => {
      const place = /\.wasm$/;
      await context.route(place, async (route) => {
        const response = await route.fetch();
        await route.fulfill({ response, body: bounded(await response.body(), 16) });
      });
      await page.locator("#start").click();
      const { code, what, hint } = await notice(page);
      assert.equal(code, "internal");
      assert.match(what, /^The WebAssembly module stopped: /);
      assert.match(hint, /too little memory/);

      // A new engine, with memory, has nothing of it.
      await context.unroute(place);
      await loadDemo(page);
      await sample(page, { Temperature: 0, "Most tokens": 8 });
      await ask(page, reference().question);
      const { text } = await lastAnswer(page);
      assert.ok(text.length > 0 && reference().text.startsWith(text), text);
    },
    { context: { serviceWorkers: "block" }, meant: [/Service Worker registration blocked by Playwright/] },
  ));
