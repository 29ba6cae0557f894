/** Choosing and loading a model, and its description. */

import { type AdapterInfo, cachedBytes, clearCache, type GrokWgpuError, type LoadProgress } from "grok-wgpu";
import { adapterName, SOFTWARE_NOTE } from "./adapter.js";
import { announce, el, find } from "./dom.js";
import { bytes, count, whole } from "./format.js";
import { isAboutTemplate } from "./instructions.js";
import type { Action, Notices } from "./notices.js";
import { asError, type Session, type State, type Wish } from "./session.js";
import { recall, remember } from "./store.js";

/** The demo model, relative to the page. */
const DEMO: Wish = { source: "models/demo/", label: "the demo model" };

const PHASES = ["engine", "files", "weights", "pipelines"] as const;
const PHASE_NAMES: Record<LoadProgress["phase"], string> = {
  engine: "Starting the engine",
  files: "Fetching the model",
  weights: "Sending weights to the adapter",
  pipelines: "Compiling shaders",
};

/** Labels of a model's properties. */
const FACTS = ["Name", "Parameters", "Weights", "Layers", "Experts", "Dense MLP", "Attention", "Vocabulary", "Context"];

/** The model panel, the welcome screen and the progress of loading. */
export class ModelPanel {
  readonly #session: Session;
  readonly #notices: Notices;
  readonly #address = find("address", HTMLInputElement);
  readonly #keep = find("keep", HTMLInputElement);
  readonly #context = find("context", HTMLInputElement);
  readonly #memory = find("memory", HTMLInputElement);
  readonly #speed = new Speed();
  #announced = "";

  /** `take` gets the files that the user chooses. */
  constructor(session: Session, notices: Notices, take: (files: File[]) => void) {
    this.#session = session;
    this.#notices = notices;
    session.listen({
      state: (state) => this.#show(state),
      progress: (progress) => this.#progress(progress),
      failed: (error, wish) => this.#failed(error, wish),
      device: (event) => {
        if (event.kind === "restored") {
          this.#describe();
        }
      },
    });
    const on = (id: string, act: () => void) => find(id, HTMLElement).addEventListener("click", act);
    on("start", () => this.load(DEMO));
    on("demo-again", () => this.load(DEMO));
    on("cancel", () => session.cancel());
    on("clear", () => void this.#clear());
    on("to-other", () => {
      find("other", HTMLDetailsElement).open = true;
    });
    on("lose", () => void session.engine?.loseDevice().catch((error: unknown) => notices.error(asError(error))));
    find("address-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      const address = this.#address.value.trim();
      if (address === "") {
        this.#address.focus();
      } else {
        this.load({ source: address, label: address });
      }
    });
    for (const [opener, id] of [
      ["pick-folder", "folder"],
      ["pick-files", "files"],
    ] as const) {
      const input = find(id, HTMLInputElement);
      on(opener, () => input.click());
      input.addEventListener("change", () => {
        take([...(input.files ?? [])]);
        input.value = "";
      });
    }
    const wanted = new URL(location.href).searchParams.get("model");
    if (wanted !== null) {
      // A link may fill in an address, but only the user may start a download from it.
      this.#address.value = wanted;
      find("other", HTMLDetailsElement).open = true;
    }
    this.#show("none");
  }

  /** Loads the model of an earlier visit if it is in the cache. */
  async resume(): Promise<void> {
    const last = recall("model");
    if ((await this.#measure()) > 0 && last !== undefined && this.#session.state === "none") {
      this.load({ ...DEMO, source: last, ...(last === DEMO.source ? {} : { label: last }) });
    }
  }

  /** Loads a model with the settings of the form. */
  load(wish: Wish): void {
    this.#notices.clear();
    const context = this.#context.valueAsNumber;
    const memory = this.#memory.valueAsNumber;
    location.hash = "#chat";
    void this.#session.load({
      ...wish,
      cache: wish.cache ?? this.#keep.checked,
      context: Number.isInteger(context) ? context : undefined,
      deviceMemory: memory > 0 ? Math.floor(memory * 1e6) : undefined,
    });
  }

  /** Loads a model from files. */
  loadFiles(files: File[]): void {
    const [first] = files;
    if (first) {
      this.load({
        source: files,
        label: files.length === 1 ? first.name : `${files.length} files of this computer`,
      });
    }
  }

  #show(state: State): void {
    document.documentElement.dataset.model = state;
    document.documentElement.toggleAttribute("data-first", state === "none");
    find("other", HTMLDetailsElement).open = state === "none";
    find("welcome", HTMLElement).hidden = state !== "none";
    find("loading", HTMLElement).hidden = state !== "loading";
    find("talk", HTMLElement).hidden = state !== "ready";
    const line = find("state", HTMLElement);
    line.dataset.state = state;
    if (state === "loading") {
      line.textContent = "Loading";
      find("loading-title", HTMLElement).textContent = `Loading ${this.#session.wish?.label ?? ""}`;
      this.#speed.reset();
      this.#announced = "";
      this.#progress({ phase: "engine", done: 0, total: 1, cached: 0 });
      find("cancel", HTMLElement).focus({ preventScroll: true });
    } else if (state === "ready") {
      const wish = this.#session.wish;
      if (typeof wish?.source === "string") {
        remember("model", wish.source);
      }
      announce("The model is loaded.");
    } else {
      line.textContent = "No model loaded";
    }
    this.#describe();
    void this.#measure();
  }

  #progress({ phase, done, total, cached }: LoadProgress): void {
    const at = PHASES.indexOf(phase);
    const share = total > 0 ? Math.min(done / total, 1) : 0;
    const bar = find("bar", HTMLElement);
    PHASES.forEach((name, i) => {
      const part = bar.querySelector<HTMLElement>(`[data-phase=${name}]`);
      part?.classList.toggle("now", i === at);
      part?.querySelector("i")?.style.setProperty("transform", `scaleX(${i < at ? 1 : i > at ? 0 : share})`);
    });
    // Each phase's share of the waiting time; downloads take most of it.
    const weights = [0.05, 0.6, 0.2, 0.15];
    const before = weights.slice(0, at).reduce((sum, part) => sum + part, 0);
    bar.setAttribute("aria-valuenow", String(Math.round((before + (weights[at] ?? 0) * share) * 100)));
    let detail = "";
    if (phase === "files" || phase === "weights") {
      detail = total > 0 ? `${bytes(done)} of ${bytes(total)}` : bytes(done);
      if (phase === "files") {
        const speed = this.#speed.of(done - cached);
        detail +=
          cached >= total && total > 0
            ? ", all kept from an earlier visit"
            : cached > 0
              ? `, ${bytes(cached)} of it kept from before`
              : "";
        detail += speed > 0 && done < total ? ` · ${bytes(speed)}/s` : "";
      }
    } else if (phase === "pipelines" && total > 0) {
      detail = `${done} of ${total}`;
    }
    find("loading-phase", HTMLElement).textContent = PHASE_NAMES[phase];
    find("loading-detail", HTMLElement).textContent = detail;
    bar.setAttribute("aria-valuetext", `${PHASE_NAMES[phase]} ${detail}`);
    if (this.#announced !== phase) {
      this.#announced = phase;
      announce(PHASE_NAMES[phase]);
    }
  }

  #failed(error: GrokWgpuError, wish: Wish): void {
    const again: Action = { text: "Try again", act: () => this.load(wish) };
    const actions: Action[] = [];
    if (error.code === "quota_exceeded") {
      actions.push({ text: "Load without keeping it", act: () => this.load({ ...wish, cache: false }) });
      actions.push({ text: "Clear what is kept", act: () => void this.#clear().then(() => this.load(wish)) });
    } else if (error.code === "out_of_memory") {
      const set = (input: HTMLInputElement) => () => {
        find("other", HTMLDetailsElement).open = true;
        input.focus();
      };
      actions.push({ text: "Choose a smaller context", act: set(this.#context) });
      actions.push({ text: "Set how much memory it may take", act: set(this.#memory) });
    } else if ((error.code === "checkpoint" || error.code === "tokenizer") && typeof wish.source !== "string") {
      // A retry with the same files would fail again.
      actions.push({ text: "Choose a folder", act: () => find("folder", HTMLInputElement).click() });
    } else if (error.code !== "no_webgpu" && error.code !== "usage") {
      actions.push(again);
    }
    this.#notices.error(error, actions);
  }

  async #clear(): Promise<void> {
    try {
      await clearCache();
      announce("What was kept of models is deleted.");
    } catch (thrown) {
      this.#notices.error(asError(thrown));
    }
    remember("model", undefined);
    await this.#measure();
  }

  /** Shows the size of the cache and returns it. */
  async #measure(): Promise<number> {
    let size = 0;
    try {
      size = await cachedBytes();
    } catch {
      // A file disappeared during the measurement; the next one will be right.
    }
    find("cached", HTMLElement).textContent =
      size > 0 ? `${bytes(size)} kept in this browser` : "Nothing kept in this browser";
    find("clear", HTMLButtonElement).disabled = size === 0;
    return size;
  }

  /** Shows the model's properties and the adapter's limits. */
  #describe(): void {
    const engine = this.#session.engine;
    const facts = find("facts", HTMLElement);
    facts.hidden = !engine && this.#session.state === "none";
    find("lose", HTMLElement).hidden = !engine;
    find("lose-note", HTMLElement).hidden = !engine;
    const warnings = find("warnings", HTMLElement);
    // Those about the template are shown beside its control.
    const texts = (engine?.model.warnings ?? []).filter((text) => !isAboutTemplate(text));
    warnings.hidden = texts.length === 0;
    warnings.replaceChildren(...texts.map((text) => el("li", {}, text)));
    if (!engine) {
      // Rows without values, or those of the former model, keep the layout stable while one is loaded.
      if (facts.childElementCount === 0) {
        facts.replaceChildren(...pairs(FACTS.map((name) => [name, ""])));
      }
      return;
    }
    const { model, adapter } = engine;
    const c = model.config;
    find("state", HTMLElement).textContent = model.name;
    const values = [
      model.name,
      count(model.parameters),
      bytes(model.bytes),
      whole(c.num_hidden_layers),
      `${c.num_local_experts}, ${c.num_experts_per_tok} for each token`,
      c.residual_moe ? "beside the experts" : "none",
      `${c.num_attention_heads} heads, ${c.num_key_value_heads} KV heads`,
      whole(c.vocab_size),
      `${whole(model.context)} tokens`,
    ];
    const rows = FACTS.map((name, i): [string, string] => [name, values[i] ?? ""]);
    if (model.placement) {
      const { deviceBytes, fileBytes, tokenFileBytes, fileBytesPerSecond } = model.placement;
      rows.push(["On the adapter", `${bytes(deviceBytes)} of weights`]);
      rows.push(["In the files", `${bytes(fileBytes)} of weights`]);
      rows.push(["A token reads", `up to ${bytes(tokenFileBytes)} of the files`]);
      if (fileBytesPerSecond !== null && tokenFileBytes > 0) {
        const most = fileBytesPerSecond / tokenFileBytes;
        const tokens = most < 10 ? String(Number(most.toPrecision(2))) : whole(Math.round(most));
        rows.push(["Files give", `${bytes(fileBytesPerSecond)}/s, enough for ${tokens} tokens/s`]);
      }
    }
    facts.replaceChildren(...pairs(rows));
    showAdapter(adapter);
  }
}

function pairs(rows: [string, string][]): HTMLElement[] {
  return rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
}

/** Shows the adapter's name, and says it if there is no hardware. */
export function nameAdapter(told: Parameters<typeof adapterName>[0]): void {
  const { name, software } = adapterName(told);
  const line = find("adapter", HTMLElement);
  line.title = software ? `${name}. ${SOFTWARE_NOTE}` : name;
  line.replaceChildren(el("span", {}, name), software ? el("b", { class: "tag" }, "software") : "");
  find("device-name", HTMLElement).textContent = name;
  find("software", HTMLElement).textContent = software ? SOFTWARE_NOTE : "";
  const note = find("device-software", HTMLElement);
  note.hidden = !software;
  note.textContent = SOFTWARE_NOTE;
}

/** Shows the adapter's name at the top and its limits in the panel. */
export function showAdapter(adapter: AdapterInfo): void {
  nameAdapter(adapter);
  const limits = Object.entries(adapter.limits).map(([name, value]): [string, string] => [
    name.replace(/([A-Z])/g, (letter) => ` ${letter.toLowerCase()}`).replace(/^./, (letter) => letter.toUpperCase()),
    /size$/i.test(name) && value >= 4096 && !/workgroupsize/i.test(name) ? bytes(value) : whole(value),
  ]);
  limits.push(["Features", adapter.features.join(", ") || "none"]);
  find("limits", HTMLElement).replaceChildren(...pairs(limits));
}

/** Bytes per second over the last three seconds. */
class Speed {
  #marks: { time: number; done: number }[] = [];

  reset(): void {
    this.#marks = [];
  }

  of(done: number): number {
    const time = performance.now();
    const now = { time, done };
    this.#marks.push(now);
    while (this.#marks.length > 2 && time - (this.#marks[0] ?? now).time > 3000) {
      this.#marks.shift();
    }
    const first = this.#marks[0] ?? now;
    return time - first.time < 250 ? 0 : ((done - first.done) / (time - first.time)) * 1000;
  }
}
