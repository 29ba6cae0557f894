/** The page's entry point. */

import { GrokWgpuError } from "grok-wgpu";
import { Chat } from "./chat.js";
import { find } from "./dom.js";
import { Inside } from "./inside.js";
import { ModelPanel } from "./model.js";
import { Notices } from "./notices.js";
import { Sampling } from "./sampling.js";
import { SelfTest } from "./selftest.js";
import { Session } from "./session.js";
import { themeButton } from "./theme.js";
import { followViews } from "./views.js";

/** The part of Trusted Types that is used. The policy allows only scripts of this origin. */
interface TrustedTypes {
  createPolicy(name: string, rules: { createScriptURL(url: string): string }): unknown;
}

(globalThis as { trustedTypes?: TrustedTypes }).trustedTypes?.createPolicy("default", {
  createScriptURL(url) {
    if (new URL(url, location.href).origin !== location.origin) {
      throw new TypeError(`${url} is no script of this page`);
    }
    return url;
  },
});

/** The part of WebGPU that the page uses before the engine is loaded. */
interface Gpu {
  requestAdapter(): Promise<{ info?: { description: string; vendor: string; architecture: string } } | null>;
}

/** Looks for an adapter early, and shows its name or an error. */
async function lookForAdapter(notices: Notices): Promise<boolean> {
  const gpu = (navigator as { gpu?: Gpu }).gpu;
  const line = find("adapter", HTMLElement);
  const none = (text: string, error: GrokWgpuError) => {
    line.textContent = text;
    notices.error(error);
    for (const id of ["start", "test-all", "test-some"]) {
      find(id, HTMLButtonElement).disabled = true;
    }
    return false;
  };
  if (!gpu) {
    const why = isSecureContext
      ? "this browser has no WebGPU"
      : "browsers give WebGPU only to pages that come over https or from localhost";
    return none("No WebGPU", new GrokWgpuError("no_webgpu", why));
  }
  const adapter = await gpu.requestAdapter().catch(() => null);
  if (!adapter) {
    return none(
      "No graphics adapter",
      new GrokWgpuError("no_adapter", "this browser has WebGPU, but gives no graphics adapter"),
    );
  }
  const { description = "", vendor = "", architecture = "" } = adapter.info ?? {};
  const words = [description, vendor, architecture].filter((word, i, all) => word !== "" && all.indexOf(word) === i);
  line.textContent = words.join(", ") || "A graphics adapter without a name";
  return true;
}

const notices = new Notices("notices");
const session = new Session();
themeButton();
followViews();
const inside = new Inside();
// The order matters: the model panel hears of a model before the chat does.
const models = new ModelPanel(session, notices);
new Chat(session, new Sampling(), inside, notices);
new SelfTest();

void lookForAdapter(notices).then((found) => (found ? models.resume() : undefined));

if ("serviceWorker" in navigator && import.meta.env.PROD) {
  // Without a service worker, the page works but not offline.
  navigator.serviceWorker.register("./sw.js").catch(() => {});
}
