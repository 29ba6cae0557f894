/** The page's current model, and its life cycle. */

import { type DeviceEvent, GrokWgpu, GrokWgpuError, type LoadProgress, type ModelSource } from "grok-wgpu";

export type State = "none" | "loading" | "ready";

/** A request to load a model. */
export interface Wish {
  source: ModelSource;
  /** Display name. */
  label: string;
  context?: number | undefined;
  /** Bytes of the adapter's memory that the model may take. */
  deviceMemory?: number | undefined;
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

/** A model that waits while another one is loaded. */
interface Former {
  /** Undefined once its memory was given to the other. */
  engine: GrokWgpu | undefined;
  wish: Wish;
}

/** Owns the current model. */
export class Session {
  engine: GrokWgpu | undefined;
  state: State = "none";
  /** The loaded model, or the last one that was tried. */
  wish: Wish | undefined;
  #loading: AbortController | undefined;
  #former: Former | undefined;
  readonly #listeners: Listener[] = [];

  listen(listener: Listener): void {
    this.#listeners.push(listener);
  }

  /**
   * Replaces the current model. It stays until the new one's files are known to be in order, so that both are never on
   * the device together. If the new one fails later, or is stopped, the current one comes back. Failures are reported
   * to listeners.
   */
  async load(wish: Wish): Promise<void> {
    this.cancel();
    if (this.engine && this.wish) {
      this.#former = { engine: this.engine, wish: this.wish };
    }
    const failure = await this.#try(wish);
    if (!failure) {
      return;
    }
    const former = this.#former;
    if (former?.engine) {
      this.#settle(former.engine, former.wish);
    } else if (!former) {
      this.#become("none");
    }
    if (failure.code !== "aborted") {
      this.#tell((listener) => listener.failed?.(failure, wish));
    }
    // The error is shown while the former model comes back.
    if (former && !former.engine && (await this.#try(former.wish))) {
      this.#former = undefined;
      this.#become("none");
    }
  }

  /** Stops a load in progress. */
  cancel(): void {
    this.#loading?.abort();
  }

  /** Loads a model; returns the error if that fails. A later load makes this one end without a result. */
  async #try(wish: Wish): Promise<GrokWgpuError | undefined> {
    const loading = new AbortController();
    this.#loading = loading;
    this.wish = wish;
    this.engine = undefined;
    this.#become("loading");
    let loaded: GrokWgpu | undefined;
    try {
      const engine = await GrokWgpu.load(wish.source, {
        signal: loading.signal,
        context: wish.context,
        deviceMemory: wish.deviceMemory,
        cache: wish.cache ?? true,
        onProgress: (progress) => {
          if (this.#loading !== loading) {
            return;
          }
          if (progress.phase === "weights") {
            this.#retire();
          }
          this.#tell((listener) => listener.progress?.(progress));
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
        return undefined;
      }
      loaded = engine;
      this.#retire();
      this.#settle(engine, wish);
      return undefined;
    } catch (thrown) {
      return this.#loading === loading ? asError(thrown) : undefined;
    }
  }

  /** Frees the memory of the model before. */
  #retire(): void {
    const former = this.#former;
    const engine = former?.engine;
    if (former && engine) {
      former.engine = undefined;
      void engine.dispose();
    }
  }

  /** Ends a load with this model. */
  #settle(engine: GrokWgpu, wish: Wish): void {
    this.#loading = undefined;
    this.#former = undefined;
    this.engine = engine;
    this.wish = wish;
    this.#become("ready");
  }

  #become(state: State): void {
    if (state === "none") {
      this.#loading = undefined;
    }
    this.state = state;
    this.#tell((listener) => listener.state?.(state));
  }

  #tell(what: (listener: Listener) => void): void {
    this.#listeners.forEach(what);
  }
}
