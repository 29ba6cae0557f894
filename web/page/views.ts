/** Which part of the page is to be seen, by the address after the hash. */

import { find } from "./dom.js";

const VIEWS = ["chat", "inside", "model", "selftest"];

/** Follows the address. On wide screens three of the views are one. */
export function followViews(): void {
  const show = (move: boolean) => {
    const wanted = location.hash.slice(1);
    const view = VIEWS.includes(wanted) ? wanted : "chat";
    document.documentElement.dataset["view"] = view;
    for (const link of document.querySelectorAll<HTMLAnchorElement>(".views a")) {
      if (link.hash === `#${view}`) {
        link.setAttribute("aria-current", "page");
      } else {
        link.removeAttribute("aria-current");
      }
    }
    if (move) {
      scrollTo({ top: 0 });
      find(view, HTMLElement).focus({ preventScroll: true });
    }
  };
  addEventListener("hashchange", () => show(document.activeElement?.closest(".views, .skip, .welcome") !== null));
  show(false);
}
