/** Which part of the page is to be seen, by the address after the hash. */

import { find } from "./dom.js";

const VIEWS = ["chat", "inside", "model", "selftest"];

/** Follows the address. On wide screens three of the views are one. */
export function followViews(): void {
  const show = () => {
    const wanted = location.hash.slice(1);
    const view = VIEWS.includes(wanted) ? wanted : "chat";
    document.documentElement.dataset.view = view;
    for (const link of document.querySelectorAll<HTMLAnchorElement>(".views a")) {
      if (link.hash === `#${view}`) {
        link.setAttribute("aria-current", "page");
      } else {
        link.removeAttribute("aria-current");
      }
    }
    return view;
  };
  // Browsers follow a fragment some time after the click. Until then a Tab would move on from the link, and the focus
  // would be taken back from where it went.
  addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest<HTMLAnchorElement>('a[href^="#"]') : null;
    if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) {
      return;
    }
    event.preventDefault();
    if (link.hash !== location.hash) {
      history.pushState(null, "", link.hash);
    }
    const view = show();
    scrollTo({ top: 0 });
    find(view, HTMLElement).focus({ preventScroll: true });
  });
  addEventListener("hashchange", show);
  addEventListener("popstate", show);
  show();
}
