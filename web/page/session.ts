/** The model that the page has, and what becomes of it. */

import { type DeviceEvent, GrokWgpu, GrokWgpuError, type LoadProgress, type ModelSource } from "grok-wgpu";

export type State = "none" | "loading" | "ready";

/** How a model is to be loaded. */
export interface Wish {
  source: ModelSource;
  /** What people call it. */
  label: string;
  context?: number | undefined;
  cache?: boolean;
}

/** Who wants to know. */
export interface Listener {
  state?(state: State): void;
  progress?(progress: LoadProgress): void;
  device?(event: DeviceEvent): void;
  failed?(error: GrokWgpuError, wish: Wish): void;
}

/** Whatever was thrown, as an error of the package. */
export function asError(thrown: unknown): GrokWgpuError {
  return thrown instanceof GrokWgpuError
    ? thrown
    : new GrokWgpuError("internal", thrown instanceof Error ? thrown.message : String(thrown));
}

/** At most one model at a time. */
export class Session {
  engine: GrokWgpu | undefined;
  state: State = "none";
  /** What is loaded, or was last tried. */
  wish: Wish | undefined;
  #loading: AbortController | undefined;
  readonly #listeners: Listener[] = [];

  listen(listener: Listener): void {
    this.#listeners.push(listener);
  }

  /** Loads a model in place of the one that is there. Failures go to the listeners. */
  async load(wish: Wish): Promise<void> {
    this.cancel();
    const loading = new AbortController();
    this.#loading = loading;
    this.wish = wish;
    const old = this.engine;
    this.engine = undefined;
    this.#become("loading");
    await old?.dispose();
    try {
      const engine = await GrokWgpu.load(wish.source, {
        signal: loading.signal,
        context: wish.context,
        cache: wish.cache ?? true,
        onProgress: (progress) => {
          if (this.#loading === loading) {
            this.#tell((listener) => listener.progress?.(progress));
          }
        },
        onDevice: (event) => {
          if (this.engine === engine) {
            this.#tell((listener) => listener.device?.(event));
          }
        },
      });
      if (this.#loading !== loading) {
        await engine.dispose();
        return;
      }
      this.#loading = undefined;
      this.engine = engine;
      this.#become("ready");
    } catch (thrown) {
      if (this.#loading !== loading) {
        return;
      }
      this.#loading = undefined;
      this.#become("none");
      const error = asError(thrown);
      if (error.code !== "aborted") {
        this.#tell((listener) => listener.failed?.(error, wish));
      }
    }
  }

  /** Stops a loading that is under way. */
  cancel(): void {
    this.#loading?.abort();
  }

  #become(state: State): void {
    this.state = state;
    this.#tell((listener) => listener.state?.(state));
  }

  #tell(what: (listener: Listener) => void): void {
    this.#listeners.forEach(what);
  }
}
