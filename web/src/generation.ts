/** Pieces of a text that come when they come, as something to iterate over. */

import type { Finish, Generation, Piece } from "./types.js";

/** A generation that a worker is making. */
export class RunningGeneration implements Generation {
  readonly finish: Promise<Finish>;
  readonly #pieces: Piece[] = [];
  readonly #stop: () => void;
  #ended = false;
  #failed: unknown;
  #wake: (() => void) | undefined;

  /** `start` gets where to put pieces and tells how it ends; `stop` asks for an early end. */
  constructor(start: (push: (piece: Piece) => void) => Promise<Finish>, stop: () => void) {
    this.#stop = stop;
    this.finish = start((piece) => {
      this.#pieces.push(piece);
      this.#wake?.();
    });
    // Who only iterates hears of a failure there.
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
      // Who leaves the loop wants no more.
      if (!this.#ended) {
        this.#stop();
      }
    }
  }
}
