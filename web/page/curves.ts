/** Small plots: axes, lines and marked points. */

import { svg } from "./dom.js";
import { short } from "./format.js";

const WIDTH = 360;
const HEIGHT = 168;
const LEFT = 34;
const RIGHT = 12;
const TOP = 12;
const BOTTOM = 30;

/** A marked point; `title` is its tooltip. */
export interface Mark {
  x: number;
  y: number;
  kind: "chosen" | "other";
  title: string;
}

/** The contents of a plot. */
export interface Plot {
  x: [number, number];
  y: [number, number];
  xTicks: number[];
  yTicks: number[];
  xName: string;
  lines: { kind: string; points: [number, number][] }[];
  marks: Mark[];
}

/** A plot; its label is the text alternative. */
export class Chart {
  readonly element = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });

  /** Replaces the plot. */
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
      // The chosen mark is larger, and drawn last so that it covers the others.
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

/** Samples a function at evenly spaced points. */
export function sample(from: number, to: number, of: (x: number) => number, steps = 96): [number, number][] {
  return Array.from({ length: steps + 1 }, (_, i) => {
    const x = from + ((to - from) * i) / steps;
    return [x, of(x)];
  });
}
