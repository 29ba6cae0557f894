#!/usr/bin/env node
// Serves folders and files over HTTP, with ranges and versions, to this machine alone:
//
//     node bin/serve.mjs 8080 /=site /models/demo=../models/demo
import { createReadStream } from "node:fs";
import { realpath, stat } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";

const TYPES = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".ico": "image/x-icon",
  ".js": "text/javascript; charset=utf-8",
  ".json": "application/json; charset=utf-8",
  ".map": "application/json; charset=utf-8",
  ".md": "text/plain; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".png": "image/png",
  ".svg": "image/svg+xml",
  ".txt": "text/plain; charset=utf-8",
  ".wasm": "application/wasm",
};

/** What bundlers name by its content. */
const HASHED = /[\\/]assets[\\/][^\\/]+-[\w-]{8}\.\w+$/;

/** What an address may call this machine. A page of another name must not read what is served here (DNS rebinding). */
const OWN = /^(localhost|[\w-]+\.localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/i;

/** Sent with every file. */
const GUARDS = { "content-security-policy": "frame-ancestors 'none'", "x-content-type-options": "nosniff" };

/** The mount of an address, which has the longest prefix, and the path below it. */
function locate(mounts, pathname) {
  for (const [prefix, folder] of mounts) {
    if (pathname === prefix) {
      return { folder, below: "" };
    }
    if (pathname.startsWith(prefix.endsWith("/") ? prefix : `${prefix}/`)) {
      // Normal paths from the root do not lead out of it.
      return { folder, below: path.normalize(`/${pathname.slice(prefix.length)}`) };
    }
  }
  return undefined;
}

/** The regular file behind an address, without links that lead out of its mount. Throws if there is none. */
async function find(mounts, pathname) {
  const { folder, below } = locate(mounts, pathname);
  if (below.split(/[\\/]/).some((name) => name.startsWith("."))) {
    throw new Error("hidden");
  }
  let file = await realpath(path.join(folder, below));
  let info = await stat(file);
  if (info.isDirectory()) {
    file = await realpath(path.join(file, "index.html"));
    info = await stat(file);
  }
  const way = path.relative(await realpath(folder), file);
  if (!info.isFile() || way.split(path.sep)[0] === ".." || path.isAbsolute(way)) {
    throw new Error("no file of the mount");
  }
  return { file, info };
}

/** First and last byte that a request wants, all of them, or nothing if there are none such. */
function range(header, size) {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? "");
  if (!match || (match[1] === "" && match[2] === "")) {
    return { from: 0, to: size - 1, partial: false };
  }
  const from = match[1] === "" ? Math.max(size - Number(match[2]), 0) : Number(match[1]);
  const to = match[1] === "" || match[2] === "" ? size - 1 : Math.min(Number(match[2]), size - 1);
  return from <= to ? { from, to, partial: true } : undefined;
}

async function answer(mounts, request, response) {
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.writeHead(405, { allow: "GET, HEAD" }).end();
    return;
  }
  if (!OWN.test(request.headers.host ?? "")) {
    response.writeHead(403, { "content-type": "text/plain" }).end("this server is for localhost alone\n");
    return;
  }
  let found;
  try {
    found = await find(mounts, decodeURIComponent(new URL(request.url, "http://localhost").pathname));
  } catch {
    response.writeHead(404, { "content-type": "text/plain" }).end("not found\n");
    return;
  }
  const { file, info } = found;
  const etag = `"${info.size.toString(16)}-${Math.floor(info.mtimeMs).toString(16)}"`;
  const headers = {
    ...GUARDS,
    "accept-ranges": "bytes",
    // Names with a hash in them stand for one content for ever.
    "cache-control": HASHED.test(file) ? "public, max-age=31536000, immutable" : "no-cache",
    "content-type": TYPES[path.extname(file)] ?? "application/octet-stream",
    etag,
    "last-modified": info.mtime.toUTCString(),
  };
  if (request.headers["if-none-match"] === etag && !request.headers.range) {
    response.writeHead(304, headers).end();
    return;
  }
  const wanted = range(request.headers.range, info.size);
  if (!wanted) {
    response.writeHead(416, { "content-range": `bytes */${info.size}` }).end();
    return;
  }
  const { from, to, partial } = wanted;
  headers["content-length"] = to - from + 1;
  if (partial) {
    headers["content-range"] = `bytes ${from}-${to}/${info.size}`;
  }
  response.writeHead(partial ? 206 : 200, headers);
  if (request.method === "HEAD" || info.size === 0) {
    response.end();
    return;
  }
  createReadStream(file, { start: from, end: to })
    .on("error", () => response.destroy())
    .pipe(response);
}

/**
 * Serves `mounts`: pairs of a prefix of addresses and a folder or a file. Port 0 is any that is
 * free. Resolves to the server when it listens.
 */
export function serve(port, mounts) {
  const sorted = [...mounts].sort(([a], [b]) => b.length - a.length);
  const server = createServer((request, response) => {
    answer(sorted, request, response).catch(() => response.destroy());
  });
  return new Promise((resolve, reject) => {
    server.on("error", reject);
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}

if (process.argv[1] && import.meta.filename === path.resolve(process.argv[1])) {
  const [port = "8080", ...folders] = process.argv.slice(2);
  const mounts = folders.map((mount) => {
    const at = mount.indexOf("=");
    return [mount.slice(0, at), mount.slice(at + 1)];
  });
  try {
    const server = await serve(Number(port), mounts);
    console.log(`http://localhost:${server.address().port}/`);
  } catch (error) {
    console.error(`error: ${error.message}`);
    process.exit(1);
  }
}
