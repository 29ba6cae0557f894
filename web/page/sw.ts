/** Keeps the page's own files, so that it opens without a network. Models are kept elsewhere. */

/** What this file needs of the types of service workers. */
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

/** Filled in by the build: the page's files, and a version that changes with any of them. */
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

/** The page itself: from the server if there is one, so that a new version is seen. */
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

/** Files whose names change with what they hold. */
async function kept(key: string, request: Request): Promise<Response> {
  return (await (await caches.open(current)).match(key)) ?? fetch(request);
}

export {};
