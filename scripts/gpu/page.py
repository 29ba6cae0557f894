"""Writes the report of `scripts/bench_gpu` as a page that stands by itself, with a roofline."""

import html
import math

import report as reports

STYLE = """
:root {
  color-scheme: light dark;
  --ink: light-dark(#1b1e23, #e8eaee); --soft: light-dark(#5c6470, #9aa3b0);
  --line: light-dark(#dfe3e8, #2d333b); --page: light-dark(#ffffff, #14171b);
  --panel: light-dark(#f5f7f9, #1c2026);
  --good: light-dark(#0b7a43, #4cc38a); --bad: light-dark(#c0262d, #ff7b7f);
  --q4: light-dark(#2563eb, #7aa7ff); --q8: light-dark(#b45309, #f0a44b);
  --bf16: light-dark(#0f766e, #4fd1c5);
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 20px 16px 64px; }
header { border-left: 6px solid var(--soft); padding: 2px 0 2px 16px; margin: 12px 0 24px; }
header.pass { border-color: var(--good); } header.fail { border-color: var(--bad); }
header p { margin: 0; color: var(--soft); overflow-wrap: anywhere; }
header.fail strong { color: var(--bad); } header.pass strong { color: var(--good); }
h1 { margin: 0 0 4px; font-size: clamp(21px, 5vw, 28px); line-height: 1.2; }
h2 { font-size: 19px; margin: 40px 0 6px; }
h3 { font-size: 15px; margin: 24px 0 4px; }
h3 small { color: var(--soft); font-weight: 400; }
section > p { color: var(--soft); margin: 0 0 12px; max-width: 70ch; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; }
.card { background: var(--panel); border-radius: 8px; padding: 10px 14px; }
.card b { display: block; font-size: 22px; font-weight: 600; line-height: 1.25; }
.card b small { font-size: 13px; font-weight: 400; color: var(--soft); }
.card span { color: var(--soft); font-size: 13px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; }
thead th { color: var(--soft); font-weight: 500; font-size: 13px; }
td small { display: block; color: var(--soft); font-size: 12px; }
.bar { display: inline-block; width: 72px; height: 8px; border-radius: 4px; background: var(--line);
  margin-right: 8px; overflow: hidden; }
.bar i { display: block; height: 100%; border-radius: 4px; background: var(--fill, var(--soft)); }
.q4 { --fill: var(--q4); } .q8 { --fill: var(--q8); } .bf16 { --fill: var(--bf16); }
.roof { overflow-x: auto; }
svg { width: 100%; min-width: 600px; height: auto; display: block; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
svg .grid { stroke: var(--line); } svg .top { stroke: var(--ink); stroke-width: 2; fill: none; }
svg .says { fill: var(--ink); }
svg .mark { fill: var(--fill); fill-opacity: .8; stroke: var(--page); }
svg .mid { text-anchor: middle; } svg .end { text-anchor: end; }
tr.bad td { color: var(--bad); }
code { font: 13px ui-monospace, monospace; }
.key { display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; margin: 4px 0 0; list-style: none;
  color: var(--soft); font-size: 13px; }
.key svg { width: 14px; min-width: 0; height: 14px; display: inline-block; vertical-align: -2px;
  margin-right: 6px; }
@media (max-width: 560px) {
  .bar { width: 40px; } th, td { padding-right: 8px; font-size: 14px; }
  td:first-child { white-space: normal; overflow-wrap: anywhere; }
}
"""


def page(report):
    """The page."""
    right = reports.is_right(report)
    parts = [
        head(report, right),
        ceilings(report),
        roofline(report),
        *kernels(report),
        slices(report),
        tune(report),
        torch(report),
        steps(report),
    ]
    title = f"grok-wgpu on {report['adapter'] or 'a device'}"
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</html>\n"
    )


def head(report, right):
    test = report["selftest"]
    words = {True: "Self-test passed", False: "Self-test failed", None: "Self-test did not run"}
    said = ""
    if test:
        said = f": {test['rows']:,} rows and {test['models']} models, {test['failed']} failed"
        if test["unfinished"]:
            said += ", and it did not end"
    kind = {True: "pass", False: "fail", None: "none"}[right]
    built = f" ({report['commit'][:12]})" if report["commit"] else ""
    about = f"grok-wgpu {report['program'] or '?'}{built}, {report['date']}, {report['seconds']} s"
    lines = [f"<h1>{text(report['adapter'] or 'Unknown device')}</h1>"]
    lines.append(f"<p><strong>{words[right]}</strong>{text(said)}.</p>")
    if right is False:
        lines.append("<p>Times of wrong results say nothing.</p>")
    lines.append(f"<p>{text(about)}</p>")
    if report["card"]:
        # The second line of nvidia-smi's table.
        lines.append(f"<p>{text(report['card'].strip().splitlines()[-1])}</p>")
    return f'<header class="{kind}">{"".join(lines)}</header>'


def ceilings(report):
    if not report["ceilings"]:
        return ""
    found, dispatch = report["ceilings"], report["dispatch"]
    cards = [
        (si(found["read_bytes_per_second"], "B/s"), "read"),
        (si(found["copy_bytes_per_second"], "B/s"), "copied: read and written"),
        (si(found["flops_per_second"], "FLOP/s"), "multiply-adds in f32"),
        (si(report["round_trip_seconds"], "s"), "one dispatch and its result"),
    ]
    names = {
        "dependent": "a dispatch after the one that it needs",
        "independent": "a dispatch that needs no other",
        "apart": "a dispatch in a pass of its own",
    }
    for kind, name in names.items():
        host = " ".join(si(dispatch[kind]["host_seconds"], "s"))
        cards.append((si(dispatch[kind]["device_seconds"], "s"), f"{name}; host {host}"))
    cells = "".join(
        f'<div class="card"><b>{number} <small>{unit}</small></b><span>{text(name)}</span></div>'
        for (number, unit), name in cards
    )
    return f'<section><h2>What the device does at the most</h2><div class="cards">{cells}</div></section>'


def roofline(report):
    """Each kernel by its operations for each byte, and its operations a second."""
    dots = [
        (one, kernel)
        for one in report["passes"]
        for kernel in one["kernels"]
        if kernel["flops"] and kernel["seconds"]
    ]
    if not dots or not report["ceilings"]:
        return ""
    read, top = (report["ceilings"][key] for key in ("read_bytes_per_second", "flops_per_second"))
    points = [(k["flops"] / k["bytes"], k["flops"] / k["seconds"]) for _, k in dots]
    xs = decades([x for x, _ in points] + [top / read])
    ys = decades([y for _, y in points] + [top])
    left, right, above, below = 64, 700, 16, 380

    def x_of(value):
        return left + (math.log10(value) - xs[0]) / (xs[1] - xs[0]) * (right - left)

    def y_of(value):
        return below - (math.log10(value) - ys[0]) / (ys[1] - ys[0]) * (below - above)

    svg = []
    for power in range(xs[0], xs[1] + 1):
        x = x_of(10.0**power)
        svg.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{above}" y2="{below}"/>')
        svg.append(f'<text class="mid" x="{x:.1f}" y="{below + 18}">{plain(10.0**power)}</text>')
    for power in range(ys[0], ys[1] + 1):
        y = y_of(10.0**power)
        svg.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = "".join(si(10.0**power, ""))
        svg.append(f'<text class="end" x="{left - 8}" y="{y + 4:.1f}">{label}</text>')
    # The memory's limit rises from the left edge, or from the lower one, to the ridge.
    least = max(10.0 ** xs[0], 10.0 ** ys[0] / read)
    ridge = top / read
    corners = [(least, least * read), (ridge, top), (10.0 ** xs[1], top)]
    line = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in corners)
    svg.append(f'<polyline class="top" points="{line}"/>')
    svg.append(
        f'<text class="says end" x="{right - 6}" y="{y_of(top) - 7:.1f}">'
        f"{' '.join(si(top, 'FLOP/s'))}</text>"
    )
    middle = math.sqrt(least * ridge)
    slope = math.degrees(
        math.atan2(y_of(least * read) - y_of(top), max(x_of(ridge) - x_of(least), 1e-9))
    )
    svg.append(
        f'<text class="says mid" transform="translate({x_of(middle):.1f} '
        f'{y_of(middle * read) - 8:.1f}) rotate({-slope:.1f})">{" ".join(si(read, "B/s"))}</text>'
    )
    for (one, kernel), (x, y) in zip(dots, points):
        svg.append(mark(one, kernel, x_of(x), y_of(y)))
    svg.append(
        f'<text class="mid" x="{(left + right) / 2}" y="{below + 38}">'
        "operations for each byte</text>"
        f'<text x="{left}" y="{above - 4}">operations a second</text>'
    )
    return (
        "<section><h2>Roofline</h2><p>The line is what the device could do: on the slope its memory "
        "is the limit, on the flat part its multiply-adds in f32. Each mark is a kernel; the distance "
        'to the line is what it leaves.</p><div class="roof">'
        f'<svg viewBox="0 0 720 {below + 46}" role="img" aria-label="Roofline of all kernels">'
        f"{''.join(svg)}</svg></div>{legend(report)}</section>"
    )


def mark(one, kernel, x, y):
    """A circle for one generated token, a diamond for several, a square for a prompt."""
    title = f"{kernel['name']}: {' '.join(si(kernel['seconds'], 's'))}, {percent(kernel['share'])}"
    return f'<g class="{one["type"]}">{shape(one, x, y)}<title>{text(title)}</title></g>'


def shape(one, x, y):
    if one["phase"] == "prefill":
        return f'<rect class="mark" x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10"/>'
    if one["tokens"] == 1:
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'
    corners = f"{x:.1f},{y - 7:.1f} {x + 7:.1f},{y:.1f} {x:.1f},{y + 7:.1f} {x - 7:.1f},{y:.1f}"
    return f'<polygon class="mark" points="{corners}"/>'


def legend(report):
    """What the marks mean."""
    keys = (
        f'<li class="{one["type"]}"><svg viewBox="0 0 16 16">{shape(one, 8, 8)}</svg>'
        f"{text(one['type'])}, {load(one)}</li>"
        for one in report["passes"]
    )
    return f'<ul class="key">{"".join(keys)}</ul>'


def load(one):
    """What goes through the model in a pass."""
    if one["phase"] == "prefill":
        return f"prompt of {one['tokens']}"
    return "1 token" if one["tokens"] == 1 else f"{one['tokens']} tokens"


def kernels(report):
    """A table for each pass."""
    if report["passes"]:
        yield (
            "<section><h2>Kernels</h2><p>Each dispatch by itself, between two timestamps. The share is "
            "the time that the device needs at the least, for the bytes or for the operations, in the "
            "time that it took. Bytes are an upper bound, each counted once.</p></section>"
        )
    for one in report["passes"]:
        foreseen = any("predicted" in kernel for kernel in one["kernels"])
        head = ["kernel", "time", "share of the limit", *(["predicted"] if foreseen else [])]
        rows = []
        for kernel in one["kernels"]:
            if kernel["limit"] == "flops":
                rate = si((kernel["gigaflops_per_second"] or 0) * 1e9, "FLOP/s")
            else:
                rate = si((kernel["gigabytes_per_second"] or 0) * 1e9, "B/s")
            times = f", {kernel['runs']} times" if kernel["runs"] > 1 else ""
            matrix = "×".join(str(extent) for extent in kernel["shape"])
            cells = [
                f"{text(kernel['kernel'])}<small>{matrix}{times}</small>",
                f"{' '.join(si(kernel['seconds'], 's'))}<small>{percent(kernel['part'])}</small>",
                f"{bar(kernel['share'])}<small>{' '.join(rate)}</small>",
            ]
            if foreseen:
                cells.append(percent(kernel.get("predicted")))
            rows.append(cells)
        whole = " ".join(si(one["seconds"], "s"))
        yield (
            f'<section class="{one["type"]}"><h3>{one["type"]}, {load(one)} <small>at position '
            f"{one['positions']}: {one['dispatches']} dispatches, {whole} in one compute pass</small>"
            f"</h3>{table(head, rows)}</section>"
        )


def slices(report):
    if not report["slices"]:
        return ""
    ceilings = report["ceilings"] or {}
    rows = []
    for one in report["slices"]:
        decode, prefill = one["decode"], one["prefill"]
        tuned = ", tuned" if one["tuned"] else ""
        size = " ".join(si(one["weights_bytes"], "B"))
        loaded = f"{size} in {one['load_seconds']:.1f} s"
        host, device = (decode[key] for key in ("host_seconds", "device_seconds"))
        sides = ", ".join(
            f"{name} {' '.join(si(value, 's'))}"
            for name, value in (("device", device), ("host", host))
            if value
        )
        rows.append(
            [
                f"{one['layers']} × {one['type']}{tuned}<small>{loaded}</small>",
                f"{plain(decode['tokens_per_second'])} tok/s<small>{sides}</small>",
                bar(share(1e9, decode["gigabytes_per_second"], ceilings, "read_bytes_per_second")),
                f"{plain(prefill['tokens_per_second'])} tok/s"
                f"<small>{' '.join(si((prefill['gigaflops_per_second'] or 0) * 1e9, 'FLOP/s'))}</small>",
                bar(share(1e9, prefill["gigaflops_per_second"], ceilings, "flops_per_second")),
            ]
        )
    head = ["layers", "decode", "of the memory", "prefill", "of the arithmetic"]
    lines = "".join(
        f"<p>{one['type']}: one more layer takes {' '.join(si(one['decode']['seconds'], 's'))} of a "
        f"token and {' '.join(si(one['prefill']['seconds'], 's'))} of a prompt; {reports.ALL_LAYERS} "
        f"would take {' '.join(si(one['decode']['all_layers_seconds'], 's'))} and "
        f"{' '.join(si(one['prefill']['all_layers_seconds'], 's'))}.</p>"
        for one in report["layers"]
    )
    prompt = report["slices"][0]["prompt"]
    return (
        "<section><h2>Layers of Grok-2</h2><p>Whole passes as users get them, with a short vocabulary: "
        f"a prompt of {prompt}, and tokens after it. The shares are of the bytes and operations that no "
        f"implementation can avoid.</p>{table(head, rows)}{lines}</section>"
    )


def share(scale, value, ceilings, key):
    return scale * value / ceilings[key] if value and ceilings.get(key) else None


def tune(report):
    if not report["tune"]:
        return ""
    rows = [
        [
            text(one["product"]),
            f"{text(one['best'])}<small>{' '.join(si(one['seconds'], 's'))}</small>",
            f"{text(one['default'])}<small>{' '.join(si(one['default_seconds'], 's'))}</small>",
            f"{one['default_seconds'] / one['seconds']:.2f}×" if one["seconds"] else "–",
        ]
        for one in report["tune"]["products"]
    ]
    head = ["product", "fastest way", "default", "faster by"]
    return f"<section><h2>Ways to divide the work</h2>{table(head, rows)}</section>"


def torch(report):
    found = report["torch"]
    if not found:
        return ""
    if "skipped" in found:
        return f"<section><h2>PyTorch</h2><p>Not measured: {text(found['skipped'])}.</p></section>"
    rows = [
        [
            text(one["name"]),
            " ".join(si(one["seconds"], "s")),
            " ".join(si(one["bytes"] / one["seconds"], "B/s")) if one["bytes"] else "–",
            " ".join(si(one["flops"] / one["seconds"], "FLOP/s")) if one["flops"] else "–",
        ]
        for one in found["measurements"]
    ]
    name = f"PyTorch {text(found['torch'])} on {text(found['device'])}"
    head = ["", "time", "bytes", "operations"]
    return f"<section><h2>PyTorch</h2><p>{name}.</p>{table(head, rows)}</section>"


def steps(report):
    if not report["steps"]:
        return ""
    rows = "".join(
        f"<tr{'' if step['ended'] == 'done' else ' class=bad'}><td>{text(step['name'])}</td>"
        f"<td>{text(step['ended'])}</td><td>{step.get('seconds', '–')}</td>"
        f'<td class="text"><code>{text(step["file"])}</code></td></tr>'
        for step in report["steps"]
    )
    head = "<tr><th>step</th><th>ended</th><th>seconds</th><th>file</th></tr>"
    body = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    return f'<section><h2>Steps</h2><div class="wide">{body}</div></section>'


def table(head, rows):
    """A table of cells that are HTML."""
    top = "".join(f"<th>{text(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def bar(part):
    """A share as a bar and in words."""
    if part is None:
        return "–"
    width = 100 * min(max(part, 0), 1)
    return f'<span class="bar"><i style="width:{width:.0f}%"></i></span>{percent(part)}'


def percent(part):
    if part is None:
        return "–"
    return f"{100 * part:.0f} %" if part >= 0.0995 else f"{100 * part:.1f} %"


def si(value, unit):
    """A number of three digits, and its unit with a prefix."""
    for prefix, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1)):
        if value >= 0.9995 * scale:
            return plain(value / scale), prefix + unit
    for prefix, scale in (("m", 1e-3), ("µ", 1e-6), ("n", 1e-9)):
        if value >= 0.9995 * scale:
            return plain(value / scale), prefix + unit
    return plain(value), unit


def plain(value):
    """Three digits, without an exponent where it can be."""
    if value >= 99.95 or value == 0:
        return f"{value:.0f}"
    if value >= 9.995:
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.2f}".rstrip("0").rstrip(".") if value >= 0.00995 else f"{value:.2g}"


def decades(values):
    """The powers of ten around positive values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def text(value):
    return html.escape(str(value))
