#!/usr/bin/env node
// Serves folders and files over HTTP, with ranges and versions, to this machine alone:
//
//     node bin/serve.mjs 8080 /=site /models/demo=../models/demo
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
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

/** The file behind an address: the longest prefix counts, and leads to a folder or a file. */
function locate(mounts, pathname) {
  for (const [prefix, folder] of mounts) {
    if (pathname === prefix) {
      return folder;
    }
    if (pathname.startsWith(prefix.endsWith("/") ? prefix : `${prefix}/`)) {
      // Normal paths from the root do not lead out of it.
      return path.join(folder, path.normalize(`/${pathname.slice(prefix.length)}`));
    }
  }
  return undefined;
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
  let file;
  let info;
  try {
    file = locate(mounts, decodeURIComponent(new URL(request.url, "http://localhost").pathname));
    info = await stat(file);
    if (info.isDirectory()) {
      file = path.join(file, "index.html");
      info = await stat(file);
    }
  } catch {
    response.writeHead(404, { "content-type": "text/plain" }).end("not found\n");
    return;
  }
  const etag = `"${info.size.toString(16)}-${Math.floor(info.mtimeMs).toString(16)}"`;
  const headers = {
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
