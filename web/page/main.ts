/** Puts the page together. */

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

/** What this file needs of Trusted Types: nothing but own scripts may run. */
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

/** What the page needs of WebGPU before the engine is there. */
interface Gpu {
  requestAdapter(): Promise<{ info?: { description: string; vendor: string; architecture: string } } | null>;
}

/** Says early whether and with what a model could run. */
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
// In this order they hear of a model: it is shown before somebody can write to it.
const models = new ModelPanel(session, notices);
new Chat(session, new Sampling(), inside, notices);
new SelfTest();

void lookForAdapter(notices).then((found) => (found ? models.resume() : undefined));

if ("serviceWorker" in navigator && import.meta.env.PROD) {
  // Without it the page works as well, but only with a network.
  navigator.serviceWorker.register("./sw.js").catch(() => {});
}
