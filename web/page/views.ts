/** Selects the visible view by the fragment of the address. */

import { find } from "./dom.js";

const VIEWS = ["chat", "inside", "model", "selftest"];

/** Follows the fragment. Wide screens show three of the views together. */
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
  // Browsers navigate to a fragment some time after the click. Until then, Tab would continue from the link, and the
  // focus would be moved away again from where it went. So handle the click here.
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
