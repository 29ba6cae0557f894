/** The conversations that the browser keeps, in IndexedDB. */

import { type Talk, titleOf } from "./talk.js";

/** The most conversations that are kept, and the most characters of all of them. */
export const MOST = 100;
const MOST_CHARACTERS = 10_000_000;

/** The head of a kept conversation, for lists. */
export interface Head {
  id: string;
  title: string;
  model: string;
  mode: Talk["mode"];
  messages: number;
  changed: number;
  /** Characters of its JSON. */
  size: number;
}

const NAME = "grok-wgpu";
const HEADS = "heads";
const TALKS = "talks";

/** Milliseconds after which a browser that does not answer counts as one without storage. */
const PATIENCE = 3000;

/** Keeps conversations. What goes wrong is told to `onTrouble`, each thing once, and the page goes on without. */
export class Archive {
  readonly #open: Promise<IDBDatabase | undefined>;
  readonly #onTrouble: (title: string, what: string) => void;
  readonly #told = new Set<string>();
  /** Why there is no storage. */
  #reason = "";
  /** What waits to be written, the latest state of each conversation. */
  readonly #waiting = new Map<string, Talk>();
  #writing: Promise<void> | undefined;

  constructor(onTrouble: (title: string, what: string) => void) {
    this.#onTrouble = onTrouble;
    this.#open = this.#start();
  }

  async #start(): Promise<IDBDatabase | undefined> {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore(HEADS, { keyPath: "id" });
        request.result.createObjectStore(TALKS, { keyPath: "id" });
      };
      const late = new Promise<never>((_, reject) => {
        setTimeout(() => reject(new Error("the browser's storage does not answer")), PATIENCE);
      });
      const database = await Promise.race([answer(request), late]);
      // A newer version of the page, in another tab, may change the stores.
      database.onversionchange = () => database.close();
      return database;
    } catch (thrown) {
      this.#reason = reason(thrown);
      return undefined;
    }
  }

  #tell(title: string, what: string): void {
    if (!this.#told.has(title)) {
      this.#told.add(title);
      this.#onTrouble(title, what);
    }
  }

  #tellUnkept(why: string): void {
    const title = "Conversations are not kept";
    this.#tell(title, `${why} Save a conversation as a file to have it after you leave the page.`);
  }

  /** All that is kept, the latest first. */
  async list(): Promise<Head[]> {
    const heads = (await this.#read<Head[]>(HEADS, (store) => store.getAll())) ?? [];
    return heads.sort((a, b) => b.changed - a.changed);
  }

  /** A kept conversation. */
  async get(id: string): Promise<Talk | undefined> {
    return this.#waiting.get(id) ?? (await this.#read<Talk>(TALKS, (store) => store.get(id)));
  }

  async #read<T>(name: string, ask: (store: IDBObjectStore) => IDBRequest): Promise<T | undefined> {
    try {
      const database = await this.#open;
      return database && ((await answer(ask(database.transaction(name).objectStore(name)))) as T);
    } catch (thrown) {
      this.#tell("What was kept cannot be read", `The browser says: ${reason(thrown)}.`);
      return undefined;
    }
  }

  /** Keeps the conversation as it is now. Resolves when all that waited is written, or could not be. */
  keep(talk: Talk): Promise<void> {
    this.#waiting.set(talk.id, talk);
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
    return this.#writing;
  }

  async #write(): Promise<void> {
    const database = await this.#open;
    for (let next = this.#next(); next; next = this.#next()) {
      try {
        if (database) {
          await this.#put(database, next);
        } else {
          this.#tellUnkept(`This browser or window has no storage for them: ${this.#reason}.`);
        }
      } catch (thrown) {
        this.#tellUnkept(`The browser takes no more: ${reason(thrown)}.`);
      }
      // While it was written, a later state may have come.
      if (this.#waiting.get(next.id) === next) {
        this.#waiting.delete(next.id);
      }
    }
  }

  #next(): Talk | undefined {
    return this.#waiting.values().next().value;
  }

  async #put(database: IDBDatabase, talk: Talk): Promise<void> {
    const { id, model, mode, changed, turns } = talk;
    const size = JSON.stringify(talk).length;
    if (size > MOST_CHARACTERS) {
      this.#tell("This conversation is too long to be kept", "Save it as a file before you leave the page.");
      return;
    }
    const transaction = database.transaction([HEADS, TALKS], "readwrite");
    const [heads, talks] = [transaction.objectStore(HEADS), transaction.objectStore(TALKS)];
    const done = ended(transaction);
    let refused: unknown;
    // A transaction ends when it has no more requests, so nothing else is waited for within.
    const known = heads.getAll();
    const store = () => {
      const others = (known.result as Head[]).filter((head) => head.id !== id);
      const gone = tooMany(others, size);
      for (const head of gone) {
        heads.delete(head.id);
        talks.delete(head.id);
      }
      if (gone.length > 0) {
        this.#tell("The oldest conversations had to go", `${MOST} are kept, and 10 million characters.`);
      }
      heads.put({ id, title: titleOf(talk), model, mode, messages: turns.length, changed, size } satisfies Head);
      talks.put(talk);
    };
    known.onsuccess = () => {
      try {
        store();
      } catch (thrown) {
        refused = thrown;
        transaction.abort();
      }
    };
    await done.catch((thrown: unknown) => {
      throw refused ?? thrown;
    });
  }

  /** Deletes a conversation, or all. */
  async remove(id?: string): Promise<void> {
    await this.#writing;
    try {
      const transaction = (await this.#open)?.transaction([HEADS, TALKS], "readwrite");
      if (transaction) {
        for (const name of [HEADS, TALKS]) {
          const store = transaction.objectStore(name);
          id === undefined ? store.clear() : store.delete(id);
        }
        await ended(transaction);
      }
    } catch (thrown) {
      this.#tell("Nothing could be deleted", `The browser says: ${reason(thrown)}.`);
    }
  }
}

/** The oldest of the conversations that must go for one of this size. */
function tooMany(heads: Head[], size: number): Head[] {
  const oldest = heads.sort((a, b) => a.changed - b.changed);
  let left = oldest.length;
  let characters = oldest.reduce((sum, head) => sum + head.size, size);
  return oldest.filter((head) => {
    const goes = left >= MOST || characters > MOST_CHARACTERS;
    left -= goes ? 1 : 0;
    characters -= goes ? head.size : 0;
    return goes;
  });
}

function answer<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function ended(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}

function reason(thrown: unknown): string {
  return thrown instanceof Error ? (thrown.message || thrown.name).replace(/\.$/, "") : String(thrown);
}

/** Conversations that this tab has, or asks for, with what lets go of each. */
const held = new Map<string, { granted: Promise<boolean>; free: () => void }>();

/** Takes hold of a conversation; false if another tab has it. A tab that is just reloaded still has it for a moment. */
export function hold(id: string): Promise<boolean> {
  const known = held.get(id);
  if (known || !navigator.locks) {
    return known?.granted ?? Promise.resolve(true);
  }
  let free = () => {};
  const until = new Promise<void>((resolve) => {
    free = resolve;
  });
  const granted = new Promise<boolean>((resolve) => {
    navigator.locks
      .request(`${NAME}.talk.${id}`, { signal: AbortSignal.timeout(1000) }, () => {
        resolve(true);
        return until;
      })
      .catch(() => {
        held.delete(id);
        resolve(false);
      });
  });
  held.set(id, { granted, free });
  return granted;
}

/** Lets go of a conversation. */
export function release(id: string): void {
  held.get(id)?.free();
  held.delete(id);
}
