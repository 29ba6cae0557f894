/** The model's internals for each token of a text. */

import type { Inside, Piece } from "grok-wgpu";

/** A generated token. */
export interface Made {
  id: number;
  /** The text that the token completed. */
  text: string;
  inside: Inside;
  /** Its element on the page; undefined for a token that ends inside of a character. */
  span: HTMLElement | undefined;
}

/** The tokens of an answer. */
export class Trace {
  readonly tokens: Made[] = [];
  /** How often each expert of each layer was chosen. */
  readonly asked: number[][] = [];

  /** Records a piece if it has internals. Returns the token's index. */
  add({ id, text, inside }: Piece, span: HTMLElement | undefined): number | undefined {
    if (!inside || id < 0) {
      return undefined;
    }
    inside.routes.forEach(({ experts }, layer) => {
      const row = this.asked[layer] ?? [];
      this.asked[layer] = row;
      for (const expert of experts) {
        row[expert] = (row[expert] ?? 0) + 1;
      }
    });
    return this.tokens.push({ id, text, inside, span }) - 1;
  }

  /**
   * The share of tokens for which the expert was chosen; the shares of a layer sum to more than 1 if a token chooses
   * several.
   */
  load(layer: number, expert: number): number {
    return this.tokens.length === 0 ? 0 : (this.asked[layer]?.[expert] ?? 0) / this.tokens.length;
  }
}
