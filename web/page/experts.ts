/** The heat map of experts by layer: those chosen for a token, and their share of a whole text. */

import type { Route } from "grok-wgpu";
import { el } from "./dom.js";
import { percent } from "./format.js";
import type { Trace } from "./trace.js";

interface Cell {
  element: HTMLElement;
  chosen: HTMLElement;
  load: HTMLElement;
}

/** A table with a cell for each expert of each layer. */
export class Experts {
  readonly element = el("div", {
    class: "experts-scroll",
    tabindex: "0",
    role: "region",
    "aria-label": "Experts of each layer",
  });
  #cells: Cell[][] = [];

  /** Creates the table for a model with these numbers of layers and experts. */
  build(layers: number, experts: number): void {
    const head = el("tr", {}, el("th", { scope: "col" }, el("span", { class: "hidden-text" }, "Layer")));
    for (let expert = 0; expert < experts; expert += 1) {
      head.append(el("th", { scope: "col" }, el("span", { class: "hidden-text" }, "Expert "), String(expert)));
    }
    const body = el("tbody");
    this.#cells = Array.from({ length: layers }, (_, layer) => {
      const row = el(
        "tr",
        {},
        el("th", { scope: "row" }, el("span", { class: "hidden-text" }, "Layer "), String(layer)),
      );
      const cells = Array.from({ length: experts }, (): Cell => {
        const chosen = el("b");
        const load = el("small");
        const element = el("td", {}, chosen, load);
        row.append(element);
        return { element, chosen, load };
      });
      body.append(row);
      return cells;
    });
    this.element.replaceChildren(
      el(
        "table",
        { class: "experts" },
        el(
          "caption",
          { class: "hidden-text" },
          "For each layer the experts that were asked, with their weight, " +
            "and the share of this text's tokens that asked them",
        ),
        el("thead", {}, head),
        body,
      ),
    );
  }

  /** Shows the experts of a token, over the load of the whole text. */
  show(routes: Route[], trace: Trace): void {
    this.#cells.forEach((cells, layer) => {
      const route = routes[layer];
      cells.forEach(({ element, chosen, load }, expert) => {
        const share = trace.load(layer, expert);
        const place = route?.experts.indexOf(expert) ?? -1;
        const weight = place < 0 ? undefined : route?.probabilities[place];
        element.classList.toggle("asked", weight !== undefined);
        // Few shades: the color should not suggest more precision than the number.
        element.dataset.load = String(Math.min(Math.ceil(share * 14), 8));
        chosen.textContent = weight === undefined ? "" : weight < 0.005 ? "<0.01" : weight.toFixed(2);
        load.textContent = share === 0 ? "·" : `${Math.round(share * 100)}`;
        const asked =
          weight === undefined ? "not asked for this token" : `asked for this token, with weight ${weight.toFixed(3)}`;
        element.title = `Layer ${layer}, expert ${expert}: ${asked}; asked by ${percent(share)} of this text's tokens`;
      });
    });
  }
}
