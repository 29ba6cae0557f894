// Misbehaving servers for the tests.
import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { manifest } from "../bin/manifest.mjs";
import { demo } from "./harness.mjs";

/**
 * Serves the demo model to other origins and breaks downloads of the weights: `cuts` lists the offsets at which a
 * connection ends. While `down` is set, every connection ends at once. `sent` lists the ranges of the weights that were
 * sent.
 */
export async function cuttingServer(cuts) {
  const list = JSON.stringify(await manifest(demo));
  const state = { down: false, sent: [], size: statSync(path.join(demo, "model.safetensors")).size };
  const server = createServer((request, response) => {
    if (state.down) {
      request.socket.destroy();
      return;
    }
    const { pathname } = new URL(request.url, "http://localhost");
    const headers = { "access-control-allow-origin": "*", "access-control-expose-headers": "etag" };
    if (request.method === "OPTIONS") {
      response.writeHead(204, { ...headers, "access-control-allow-headers": "range" }).end();
      return;
    }
    if (pathname.endsWith("manifest.json")) {
      response.writeHead(200, { ...headers, "content-type": "application/json" }).end(list);
      return;
    }
    const file = path.join(demo, path.basename(pathname));
    const { size } = statSync(file);
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [undefined, 0, size - 1];
    const [from, to] = [Number(first), Number(last) + 1];
    response.writeHead(206, {
      ...headers,
      "content-length": to - from,
      "content-range": `bytes ${from}-${to - 1}/${size}`,
      etag: '"one"',
    });
    const weights = file.endsWith(".safetensors");
    const cut = weights ? cuts.findIndex((place) => place > from && place < to) : -1;
    const end = cut < 0 ? to : cuts[cut];
    if (weights) {
      state.sent.push([from, end]);
    }
    if (cut < 0) {
      createReadStream(file, { start: from, end: to - 1 }).pipe(response);
      return;
    }
    const [place] = cuts.splice(cut, 1);
    const part = createReadStream(file, { start: from, end: place - 1 });
    part.pipe(response, { end: false });
    // Browsers drop bytes that are not read yet when a response fails. So wait until they are read; then close the
    // connection before the promised length.
    part.on("end", () => setTimeout(() => response.socket?.end(), 1000));
    state.down = cuts.length === 0 && state.downAtLast;
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  return {
    state,
    host: `localhost:${port}`,
    address: `http://localhost:${port}/models/cut/`,
    close: () =>
      new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      }),
  };
}

/** A server that behaves. */
const GOOD = {
  /** Whether other origins may read, and the headers that they are shown. */
  cors: true,
  exposed: "content-range, content-encoding, etag",
  /** Status of requests with HEAD, instead of an answer. */
  head: undefined,
  /** What is answered for what is not there: a status, or a text with status 200. */
  missing: 404,
  missingType: "text/html",
  /** Status of these files, instead of an answer. */
  refused: {},
  /** Whether answers are compressed: those to requests without a range, or "always". */
  gzip: false,
  /** How ranges are answered, if not as they should be. */
  ranges: "right",
  /** Whether the length is told. */
  length: true,
  /** The ETag of each answer, and whether the time of the last change is told. */
  etag: () => '"one"',
  modified: true,
  redirect: false,
};

/** Status, `content-range` and body of the answer to a request for `from` up to `to`. */
function partOf(body, from, to, how) {
  const { length } = body;
  const told = (a, b, total = length) => ({ "content-range": `bytes ${a}-${b - 1}/${total}` });
  switch (how) {
    case "right":
      return [206, told(from, to), body.subarray(from, to)];
    case "ignored":
      return [200, {}, body];
    // Fewer bytes than were asked for, which HTTP allows.
    case "shorter":
      return [206, told(from, Math.min(to, from + 1_000_000)), body.subarray(from, Math.min(to, from + 1_000_000))];
    case "no total":
      return [206, told(from, to, "*"), body.subarray(from, to)];
    case "other total":
      return [206, told(from, to, length + 1), body.subarray(from, to)];
    case "shifted":
      return [206, told(from && from - 1, to - 1), body.subarray(from && from - 1, to - 1)];
    case "longer":
      return [206, told(from, to), body.subarray(from, to + 1)];
    case "unsaid":
      return [206, {}, body.subarray(from, to)];
    case "whole as a part":
      return [206, {}, body];
    default:
      throw new Error(how);
  }
}

/**
 * Serves `files`, by their names, to other origins. `mood` says how, and may be changed; `good` resets it. `requests`
 * lists what was asked for.
 */
export async function moodyServer(files) {
  const mood = { ...GOOD };
  const requests = [];
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const name = decodeURIComponent(path.posix.basename(pathname));
    const { range } = request.headers;
    requests.push([request.method, name, range].filter(Boolean).join(" "));
    if (range && mood.ranges === "unanswered") {
      request.socket.destroy();
      return;
    }
    if (mood.cors) {
      response.setHeader("access-control-allow-origin", "*");
      response.setHeader("access-control-expose-headers", mood.exposed);
    }
    if (mood.redirect && !pathname.startsWith("/elsewhere/")) {
      response.writeHead(302, { location: `/elsewhere${request.url}` }).end();
      return;
    }
    const etag = mood.etag(requests.length);
    const refused = mood.refused[name] ?? (request.method === "HEAD" ? mood.head : undefined);
    let found = files[name];
    if (refused !== undefined || (found === undefined && typeof mood.missing === "number")) {
      response.writeHead(refused ?? mood.missing).end();
      return;
    }
    const headers = {
      ...(etag && { etag }),
      ...(mood.modified && { "last-modified": "Mon, 01 Jan 2024 00:00:00 GMT" }),
      "content-type": found ? "application/octet-stream" : mood.missingType,
    };
    found ??= Buffer.from(mood.missing);
    const asked = found === files[name] ? /^bytes=(\d+)-(\d*)$/.exec(range ?? "") : null;
    let [status, extra, body] = [200, {}, found];
    if (asked && mood.ranges !== "ignored" && Number(asked[1]) >= found.length) {
      [status, extra, body] = [416, { "content-range": `bytes */${found.length}` }, Buffer.alloc(0)];
    } else if (asked) {
      const to = asked[2] === "" ? found.length : Math.min(Number(asked[2]) + 1, found.length);
      [status, extra, body] = partOf(found, Number(asked[1]), to, mood.ranges);
    }
    if (mood.gzip === "always" || (mood.gzip && !range && name.endsWith(".json"))) {
      extra["content-encoding"] = "gzip";
      body = gzipSync(body, { level: 1 });
    }
    if (mood.length) {
      extra["content-length"] = body.length;
    }
    response.writeHead(status, { ...headers, ...extra });
    response.end(request.method === "HEAD" ? undefined : body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  return {
    mood,
    requests,
    good(changes = {}) {
      Object.assign(mood, GOOD, changes);
      requests.length = 0;
    },
    host: `localhost:${port}`,
    address: `http://localhost:${port}/some/model/`,
    close: () =>
      new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      }),
  };
}
