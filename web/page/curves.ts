/** Small plots: axes, lines and marked points. */

import { svg } from "./dom.js";
import { short } from "./format.js";

const WIDTH = 360;
const HEIGHT = 168;
const LEFT = 34;
const RIGHT = 12;
const TOP = 12;
const BOTTOM = 30;

/** A point with a sign of its own; what it means is said by `title`. */
export interface Mark {
  x: number;
  y: number;
  kind: "chosen" | "other";
  title: string;
}

/** What a plot shows. */
export interface Plot {
  x: [number, number];
  y: [number, number];
  xTicks: number[];
  yTicks: number[];
  xName: string;
  lines: { kind: string; points: [number, number][] }[];
  marks: Mark[];
}

/** A plot whose text alternative is its label. */
export class Chart {
  readonly element = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });

  /** Draws in place of what was there. */
  draw(label: string, { x, y, xTicks, yTicks, xName, lines, marks }: Plot): void {
    const px = (value: number) => LEFT + ((value - x[0]) / (x[1] - x[0] || 1)) * (WIDTH - LEFT - RIGHT);
    const py = (value: number) => HEIGHT - BOTTOM - ((value - y[0]) / (y[1] - y[0] || 1)) * (HEIGHT - TOP - BOTTOM);
    const at = (value: number) => value.toFixed(1);
    this.element.setAttribute("aria-label", label);
    this.element.replaceChildren(
      ...yTicks.map((tick) =>
        svg(
          "g",
          {},
          svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: at(py(tick)), y2: at(py(tick)) }),
          svg("text", { class: "tick", x: LEFT - 6, y: at(py(tick) + 3.5), "text-anchor": "end" }, short(tick)),
        ),
      ),
      ...xTicks.map((tick) =>
        svg("text", { class: "tick", x: at(px(tick)), y: HEIGHT - BOTTOM + 14, "text-anchor": "middle" }, short(tick)),
      ),
      svg("text", { class: "axis", x: WIDTH - RIGHT, y: HEIGHT - 3, "text-anchor": "end" }, xName),
      ...lines.map(({ kind, points }) =>
        svg("path", {
          class: `line ${kind}`,
          d: points.map(([a, b], i) => `${i === 0 ? "M" : "L"}${at(px(a))} ${at(py(b))}`).join(""),
        }),
      ),
      // The chosen one is drawn last, over the others, and larger.
      ...[...marks]
        .sort((a, b) => Number(a.kind === "chosen") - Number(b.kind === "chosen"))
        .map(({ x: a, y: b, kind, title }) =>
          svg(
            "circle",
            { class: `mark ${kind}`, cx: at(px(a)), cy: at(py(b)), r: kind === "chosen" ? 5.5 : 3.5 },
            svg("title", {}, title),
          ),
        ),
    );
  }
}

/** Evenly spaced points of a function. */
export function sample(from: number, to: number, of: (x: number) => number, steps = 96): [number, number][] {
  return Array.from({ length: steps + 1 }, (_, i) => {
    const x = from + ((to - from) * i) / steps;
    return [x, of(x)];
  });
}
