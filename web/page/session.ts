/** The page's current model, and its life cycle. */

import { type DeviceEvent, GrokWgpu, GrokWgpuError, type LoadProgress, type ModelSource } from "grok-wgpu";

export type State = "none" | "loading" | "ready";

/** A request to load a model. */
export interface Wish {
  source: ModelSource;
  /** Display name. */
  label: string;
  context?: number | undefined;
  cache?: boolean;
}

/** Callbacks for events of the session. */
export interface Listener {
  state?(state: State): void;
  progress?(progress: LoadProgress): void;
  device?(event: DeviceEvent): void;
  failed?(error: GrokWgpuError, wish: Wish): void;
}

/** Converts anything that was thrown to an error of the package. */
export function asError(thrown: unknown): GrokWgpuError {
  return thrown instanceof GrokWgpuError
    ? thrown
    : new GrokWgpuError("internal", thrown instanceof Error ? thrown.message : String(thrown));
}

/** Owns at most one model. */
export class Session {
  engine: GrokWgpu | undefined;
  state: State = "none";
  /** The loaded model, or the last one that was tried. */
  wish: Wish | undefined;
  #loading: AbortController | undefined;
  readonly #listeners: Listener[] = [];

  listen(listener: Listener): void {
    this.#listeners.push(listener);
  }

  /** Replaces the current model. Failures are reported to listeners. */
  async load(wish: Wish): Promise<void> {
    this.cancel();
    const loading = new AbortController();
    this.#loading = loading;
    this.wish = wish;
    const old = this.engine;
    this.engine = undefined;
    this.#become("loading");
    await old?.dispose();
    let loaded: GrokWgpu | undefined;
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
          // A loss during loading is handled by the load itself; there is no conversation yet.
          if (loaded && this.engine === loaded) {
            this.#tell((listener) => listener.device?.(event));
          }
        },
      });
      if (this.#loading !== loading) {
        await engine.dispose();
        return;
      }
      this.#loading = undefined;
      loaded = engine;
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

  /** Stops a load in progress. */
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
