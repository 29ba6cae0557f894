// Misbehaving servers for the tests.
import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
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
