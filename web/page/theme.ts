/** The color theme: light, dark, or the system's. */

import { find } from "./dom.js";
import { remember } from "./store.js";

const NEXT = { system: "light", light: "dark", dark: "system" } as const;
type Theme = keyof typeof NEXT;

/** Makes the button cycle through the three themes. */
export function themeButton(): void {
  const root = document.documentElement;
  const button = find("theme", HTMLButtonElement);
  const now = (): Theme => (root.dataset.theme as Theme | undefined) ?? "system";
  const show = () => {
    const text = `Colors: ${now() === "system" ? "as the system" : now()}`;
    find("theme-text", HTMLElement).textContent = text;
    button.title = text;
  };
  button.addEventListener("click", () => {
    const next = NEXT[now()];
    if (next === "system") {
      delete root.dataset.theme;
    } else {
      root.dataset.theme = next;
    }
    remember("theme", next === "system" ? undefined : next);
    show();
  });
  show();
}
