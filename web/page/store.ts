/** Settings that persist between visits, in local storage. */

const PREFIX = "grok-wgpu.";

/** The stored value of a name. */
export function recall(name: string): string | undefined {
  try {
    return localStorage.getItem(PREFIX + name) ?? undefined;
  } catch {
    return undefined;
  }
}

/** Stores a value, or removes it if undefined. */
export function remember(name: string, value: string | undefined): void {
  try {
    if (value === undefined) {
      localStorage.removeItem(PREFIX + name);
    } else {
      localStorage.setItem(PREFIX + name, value);
    }
  } catch {
    // Private windows may have no storage; the page works without.
  }
}
