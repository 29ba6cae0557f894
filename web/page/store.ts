/** What the page remembers between visits. */

const PREFIX = "grok-wgpu.";

/** What was remembered under a name. */
export function recall(name: string): string | undefined {
  try {
    return localStorage.getItem(PREFIX + name) ?? undefined;
  } catch {
    return undefined;
  }
}

/** Remembers something, or forgets it. */
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
