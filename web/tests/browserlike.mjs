// What of a browser the downloads use, for tests that need none: a page's origin, the rules for other origins, and a
// private file system in memory.

/** What pages see of other origins' headers without being allowed more. */
const SAFE = ["cache-control", "content-language", "content-length", "content-type", "expires", "last-modified"];

/** An answer from another origin, as a page sees it. */
function guarded(response) {
  const exposed = (response.headers.get("access-control-expose-headers") ?? "").split(",").map((name) => name.trim());
  const shown = [...response.headers].filter(([name]) => SAFE.includes(name) || exposed.includes(name));
  const { status, statusText } = response;
  // These have no body.
  const body = [204, 304].includes(status) ? null : response.body;
  const seen = new Response(body, { status, statusText, headers: shown });
  return Object.defineProperty(seen, "type", { value: "cors" });
}

/** Says which origin the page is of. */
export function becomePage(address) {
  globalThis.location = new URL(address);
}

/** Makes `fetch` follow the rules for a page. */
export function followRules() {
  const real = globalThis.fetch;
  globalThis.fetch = async (url, init = {}) => {
    const { mode, ...rest } = init;
    const response = await real(url, rest);
    if (new URL(url).origin === globalThis.location.origin) {
      return response;
    }
    if (mode === "no-cors") {
      return Response.error();
    }
    if (response.headers.get("access-control-allow-origin") !== "*") {
      throw new TypeError("Failed to fetch");
    }
    return guarded(response);
  };
}

function absent(name) {
  return new DOMException(`${name} is not there`, "NotFoundError");
}

class MemoryFile {
  kind = "file";
  /** May be longer than the content. */
  room = Buffer.alloc(0);
  size = 0;

  get bytes() {
    return this.room.subarray(0, this.size);
  }

  set bytes(bytes) {
    this.room = Buffer.from(bytes);
    this.size = bytes.length;
  }

  resize(size) {
    if (size > this.room.length) {
      this.room = Buffer.concat([this.bytes, Buffer.alloc(2 * size - this.size)]);
    }
    this.size = size;
  }

  async getFile() {
    return new File([this.bytes], "file");
  }

  async createSyncAccessHandle() {
    return {
      getSize: () => this.bytes.length,
      read: (into, { at }) => this.bytes.copy(into, 0, at),
      write: (bytes, { at }) => {
        this.resize(Math.max(this.size, at + bytes.length));
        this.room.set(bytes, at);
        return bytes.length;
      },
      truncate: (size) => this.resize(size),
      flush: () => {},
      close: () => {},
    };
  }
}

/** A folder of the private file system. */
export class MemoryFolder {
  kind = "directory";
  entries = new Map();

  #get(name, options, make) {
    if (!this.entries.has(name)) {
      if (!options?.create) {
        throw absent(name);
      }
      this.entries.set(name, make());
    }
    return this.entries.get(name);
  }

  async getFileHandle(name, options) {
    return this.#get(name, options, () => new MemoryFile());
  }

  async getDirectoryHandle(name, options) {
    return this.#get(name, options, () => new MemoryFolder());
  }
}

/** Gives the browser an empty private file system, and returns the folder of the only model that is then in it. */
export function emptyStorage() {
  const root = new MemoryFolder();
  const storage = { getDirectory: async () => root, estimate: async () => ({}) };
  Object.defineProperty(globalThis, "navigator", { value: { onLine: true, storage }, configurable: true });
  return () => {
    const [model] = root.entries.get("grok-wgpu")?.entries.values() ?? [];
    return model ?? new MemoryFolder();
  };
}
