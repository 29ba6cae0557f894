// The development server: what it serves, and what it does not. Needs no browser.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from "node:fs";
import { get } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "node:test";

import { serve } from "../bin/serve.mjs";

const root = mkdtempSync(path.join(tmpdir(), "grok-wgpu-serve-"));
const folder = path.join(root, "site");
mkdirSync(path.join(folder, "sub", ".git"), { recursive: true });
writeFileSync(path.join(root, "secret.txt"), "secret");
for (const name of ["index.html", "a.txt", ".hidden", "sub/index.html", "sub/.git/config"]) {
  writeFileSync(path.join(folder, name), name);
}
symlinkSync(path.join(folder, "a.txt"), path.join(folder, "inside.txt"));
symlinkSync(path.join(root, "secret.txt"), path.join(folder, "outside.txt"));
symlinkSync(root, path.join(folder, "up"));
execFileSync("mkfifo", [path.join(folder, "pipe")]);

const server = await serve(0, [
  ["/", folder],
  ["/file.json", path.join(folder, "a.txt")],
]);
const { port } = server.address();
test.after(() => server.close());

/** The status and the text of an answer. */
const ask = (address, headers = {}) =>
  new Promise((resolve, reject) => {
    get({ host: "127.0.0.1", port, path: address, headers, agent: false }, (response) => {
      let text = "";
      response.on("data", (chunk) => {
        text += chunk;
      });
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, text }));
    }).on("error", reject);
  });

test("files of the folder are served, and links within it", async () => {
  for (const [address, text] of [
    ["/", "index.html"],
    ["/a.txt", "a.txt"],
    ["/inside.txt", "a.txt"],
    ["/sub/", "sub/index.html"],
    ["/file.json", "a.txt"],
  ]) {
    const answer = await ask(address);
    assert.deepEqual([answer.status, answer.text], [200, text], address);
    assert.equal(answer.headers["x-content-type-options"], "nosniff");
    assert.match(answer.headers["content-security-policy"], /frame-ancestors 'none'/);
  }
  const part = await ask("/a.txt", { range: "bytes=1-2" });
  assert.deepEqual([part.status, part.text, part.headers["content-range"]], [206, ".t", "bytes 1-2/5"]);
});

test("nothing else is", async () => {
  for (const address of [
    "/outside.txt",
    "/up/secret.txt",
    "/../secret.txt",
    "/%2e%2e/secret.txt",
    "/..%2fsecret.txt",
    "/.hidden",
    "/sub/.git/config",
    "/pipe",
    "/none",
    "/%00",
    "/%",
  ]) {
    const { status, text } = await ask(address);
    assert.deepEqual([status, text], [404, "not found\n"], address);
  }
});

test("other names of this machine are refused", async () => {
  for (const host of ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example"]) {
    assert.equal((await ask("/a.txt", { host })).status, 403, host);
  }
  for (const host of ["localhost", `localhost:${port}`, "127.0.0.1:1", "models.localhost", "[::1]:8080"]) {
    assert.equal((await ask("/a.txt", { host })).status, 200, host);
  }
});
