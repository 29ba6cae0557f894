/** Settings that persist: between visits in local storage, or as long as the tab in session storage. */

const PREFIX = "grok-wgpu.";

/** The value of a name; undefined if there is none. */
export function recall(name: string): string | undefined {
  return read(() => localStorage, name);
}

/** Stores a value, or removes it if undefined. */
export function remember(name: string, value: string | undefined): void {
  write(() => localStorage, name, value);
}

/** As `recall`, for this tab. */
export function recallHere(name: string): string | undefined {
  return read(() => sessionStorage, name);
}

/** As `remember`, for this tab. */
export function rememberHere(name: string, value: string): void {
  write(() => sessionStorage, name, value);
}

function read(place: () => Storage, name: string): string | undefined {
  try {
    return place().getItem(PREFIX + name) ?? undefined;
  } catch {
    return undefined;
  }
}

function write(place: () => Storage, name: string, value: string | undefined): void {
  try {
    if (value === undefined) {
      place().removeItem(PREFIX + name);
    } else {
      place().setItem(PREFIX + name, value);
    }
  } catch {
    // Private windows may have no storage, and a full one takes nothing; the page works without.
  }
}
