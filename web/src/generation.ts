/** A generation as an async iterable of pieces. */

import type { Finish, Generation, Piece } from "./types.js";

/** A generation in progress in a worker. */
export class RunningGeneration implements Generation {
  readonly finish: Promise<Finish>;
  readonly #pieces: Piece[] = [];
  readonly #stop: () => void;
  #ended = false;
  #failed: unknown;
  #wake: (() => void) | undefined;

  /**
   * `start` begins the generation: it passes pieces to `push` and resolves at the end. `stop` requests an early end.
   */
  constructor(start: (push: (piece: Piece) => void) => Promise<Finish>, stop: () => void) {
    this.#stop = stop;
    this.finish = start((piece) => {
      this.#pieces.push(piece);
      this.#wake?.();
    });
    // Prevents an unhandled rejection: a consumer that only iterates gets the error from the iterator.
    this.finish.then(
      () => this.#end(undefined),
      (error: unknown) => this.#end(error),
    );
  }

  #end(error: unknown): void {
    this.#ended = true;
    this.#failed = error;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Piece, void, undefined> {
    try {
      for (;;) {
        const piece = this.#pieces.shift();
        if (piece) {
          yield piece;
        } else if (this.#ended) {
          if (this.#failed !== undefined) {
            throw this.#failed;
          }
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
          this.#wake = undefined;
        }
      }
    } finally {
      // Leaving the loop early stops the generation.
      if (!this.#ended) {
        this.#stop();
      }
    }
  }
}
