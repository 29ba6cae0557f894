/** What went on inside while a text was made, token by token. */

import type { Inside, Piece } from "grok-wgpu";

/** A token that was made. */
export interface Made {
  id: number;
  /** The text that it completed. */
  text: string;
  inside: Inside;
  /** Where its text is on the page; tokens inside a character have none. */
  span: HTMLElement | undefined;
}

/** All tokens of an answer. */
export class Trace {
  readonly tokens: Made[] = [];
  /** How often each expert of each layer was asked. */
  readonly asked: number[][] = [];

  /** Notes a piece, if it says what went on. Gives the token's number. */
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

  /** Which share of the tokens asked this expert; each token asks several. */
  load(layer: number, expert: number): number {
    return this.tokens.length === 0 ? 0 : (this.asked[layer]?.[expert] ?? 0) / this.tokens.length;
  }
}
