/** The service worker: caches the page's own files for use offline. Models are cached elsewhere. */

/** The part of the service worker types that is used. */
interface Scope {
  skipWaiting(): Promise<void>;
  clients: { claim(): Promise<void> };
  registration: { scope: string };
  addEventListener(
    type: "install" | "activate",
    listen: (event: { waitUntil(work: Promise<unknown>): void }) => void,
  ): void;
  addEventListener(
    type: "fetch",
    listen: (event: { request: Request; respondWith(answer: Promise<Response>): void }) => void,
  ): void;
}

/** Inserted by the build: the page's files, and a version that changes with any of them. */
declare const __FILES__: string[];
declare const __VERSION__: string;

const scope = globalThis as unknown as Scope;
const root = new URL(scope.registration.scope);
const own = `grok-wgpu-page-${root.pathname}-`;
const current = own + __VERSION__;
const files = new Set(__FILES__.map((file) => new URL(file, root).href));

scope.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(current);
      await cache.addAll([...files]);
      await scope.skipWaiting();
    })(),
  );
});

scope.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      for (const old of await caches.keys()) {
        if (old.startsWith(own) && old !== current) {
          await caches.delete(old);
        }
      }
      await scope.clients.claim();
    })(),
  );
});

scope.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  url.hash = "";
  url.search = "";
  if (request.method !== "GET" || request.headers.has("range") || !files.has(url.href)) {
    return;
  }
  event.respondWith(url.href === root.href ? fresh(url.href, request) : kept(url.href, request));
});

/** Network first for the page itself, so that a new version appears at once. */
async function fresh(key: string, request: Request): Promise<Response> {
  try {
    return await fetch(request);
  } catch (error) {
    const found = await (await caches.open(current)).match(key);
    if (found) {
      return found;
    }
    throw error;
  }
}

/** Cache first for files with a content hash in their names. */
async function kept(key: string, request: Request): Promise<Response> {
  return (await (await caches.open(current)).match(key)) ?? fetch(request);
}

export {};
