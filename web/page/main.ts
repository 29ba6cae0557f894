/** The page's entry point. */

import { GrokWgpuError } from "grok-wgpu";
import { Archive } from "./archive.js";
import { Chat } from "./chat.js";
import { find } from "./dom.js";
import { onDrop } from "./drop.js";
import { History, isConversation } from "./history.js";
import { Inside } from "./inside.js";
import { ModelPanel, nameAdapter } from "./model.js";
import { Notices } from "./notices.js";
import { Sampling } from "./sampling.js";
import { SelfTest } from "./selftest.js";
import { asError, Session } from "./session.js";
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
  requestAdapter(): Promise<{ info?: Parameters<typeof nameAdapter>[0]; isFallbackAdapter?: boolean } | null>;
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
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info ?? {};
  nameAdapter({
    vendor,
    architecture,
    device,
    description,
    // Browsers moved it from the adapter to its description.
    isFallbackAdapter: isFallbackAdapter ?? adapter.isFallbackAdapter,
  });
  return true;
}

const notices = new Notices("notices");
const session = new Session();
themeButton();
followViews();
const inside = new Inside();
// The order matters: the model panel hears of a model before the chat does.
const models = new ModelPanel(session, notices, take);
const archive = new Archive((title, what) => notices.news("archive", title, what));
const chat = new Chat(session, new Sampling(), inside, notices, archive);
const history = new History(chat, archive, notices);
new SelfTest();
onDrop(take, (thrown) => notices.error(asError(thrown)));

/** Takes files that were dropped or chosen: a conversation, or a model. */
function take(files: File[]): void {
  if (isConversation(files)) {
    const [file] = files;
    if (file) {
      location.hash = "#chat";
      void history.read(file);
    }
  } else {
    models.loadFiles(files);
  }
}

void lookForAdapter(notices).then((found) => (found ? models.resume() : undefined));

if ("serviceWorker" in navigator && import.meta.env.PROD) {
  // Without a service worker, the page works but not offline.
  navigator.serviceWorker.register("./sw.js").catch(() => {});
}
