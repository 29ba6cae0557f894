"""Measures servers under load: many texts at once, and whether that changes them.

`scripts/bench_serve` builds and installs what this needs, and starts it.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
from itertools import pairwise

import servers
from client import get, metrics, stream

PATH = "/v1/completions"
# One for each row. They differ in length, as requests do.
PROMPTS = [
    "Once upon a time, there lived a careful snail",
    "The fox lost her hat in the rain.",
    "One day, Greta found a green egg",
    "The king had three daughters and",
    "In a village by the sea there was",
    "A little boy called Tom wanted",
    "The old mill stood on the hill",
    "Long ago a bear and a bee",
    "On the way to the market, the goose met a goat who",
    "It was raining, and nobody",
    "The smallest of the mice had a plan:",
    "Every morning the baker opened his window and",
    "There was once a lamp that",
    "Anna and Ben built a boat",
    "At the end of the garden grew a tree which",
    "The moon looked down at",
]


def body(options, row):
    return {
        "model": "model",
        "prompt": PROMPTS[row % len(PROMPTS)],
        "max_tokens": options.tokens,
        "temperature": options.temperature,
        "seed": row,
        # The same work each time, whatever the model would rather say.
        "ignore_eos": True,
        "cache_prompt": False,
    }


async def _load(url, bodies):
    return await asyncio.gather(*[stream(url, PATH, body) for body in bodies])


def load(url, bodies):
    """The answers to some requests that are sent at once."""
    return asyncio.run(_load(url, bodies))


def spread(values):
    """The median and what 99 of 100 are below, in milliseconds."""
    ordered = sorted(values)
    last = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return {"median_ms": 1e3 * statistics.median(ordered), "p99_ms": 1e3 * last}


def measure(options, server, count):
    """One round: `count` texts at once, while all of them generate."""
    before = metrics(server.url) if server.counts else None
    cpu = server.cpu()
    answers = load(server.url, [body(options, row) for row in range(count)])
    times = [answer.pieces()[0] for answer in answers]
    if min(map(len, times)) < 3:
        raise SystemExit("error: a text has less than three pieces; give more --tokens")
    # From when the last text has begun to when the first one ends.
    begin, end = max(t[0] for t in times), min(t[-1] for t in times)
    together = begin < end
    if not together:
        # One text waits for another: all of the time counts.
        begin, end = min(t[0] for t in times), max(t[-1] for t in times)
    # Several tokens may come as one piece, such as those of one character.
    tokens = sum(sum(begin < at <= end for at in t) * options.tokens / len(t) for t in times)
    found = {
        "rows": count,
        "together": together,
        "tokens_per_second": tokens / (end - begin),
        "first_token": spread([t[0] - a.begun for t, a in zip(times, answers, strict=True)]),
        "gaps": spread([b - a for t in times for a, b in pairwise(t)]),
        "total_tokens_per_second": count
        * options.tokens
        / (max(a.ended for a in answers) - min(a.begun for a in answers)),
        "texts": [answer.pieces()[1] for answer in answers],
    }
    if cpu is not None:
        found["cpu_seconds_per_token"] = (server.cpu() - cpu) / (count * options.tokens)
    if server.counts:
        steps = metrics(server.url)["grok_wgpu_steps_total"] - before["grok_wgpu_steps_total"]
        found["tokens_per_step"] = count * options.tokens / steps
    return found


def bits(options, url, count):
    """Texts and log-probabilities of `count` requests at once."""
    bodies = [{**body(options, row), "logprobs": 1} for row in range(count)]
    return [(answer.pieces()[1], answer.logprobs()) for answer in load(url, bodies)]


def changes(options, server):
    """For each number of rows, the texts and log-probabilities that are not those of each alone."""
    most = max(options.rows)
    bodies = [{**body(options, row), "logprobs": 1} for row in range(most)]
    alone = []
    for one in bodies:
        (answer,) = load(server.url, [one])
        alone.append((answer.pieces()[1], answer.logprobs()))
    if not all(logprobs for _, logprobs in alone):
        raise SystemExit("error: the server gave no log-probabilities")
    found = {}
    for count in options.rows:
        together = bits(options, server.url, count)
        pairs = list(zip(alone, together, strict=False))
        far = 0.0
        for (_, a), (_, b) in pairs:
            # Once the texts have parted, other tokens are compared.
            both = [abs(x - y) for x, y in zip(a, b, strict=False)]
            first = next((i for i, d in enumerate(both) if d > 0.5), len(both))
            far = max([far, *both[:first]])
        found[count] = {
            "texts": sum(a[0] != b[0] for a, b in pairs),
            "logprobs": sum(a[1] != b[1] for a, b in pairs),
            "largest_difference": far,
        }
    return found


def median_of(rounds):
    """The round whose throughput is the median one."""
    ordered = sorted(rounds, key=lambda r: r["tokens_per_second"])
    return ordered[len(ordered) // 2]


def table(report):
    """The report as text."""
    lines = [f"{report['model']}, {report['tokens']} tokens a text, median of {report['rounds']}"]
    for server in report["servers"]:
        lines += ["", f"{server['name']}: {server['device']}"]
        head = ["rows", "tokens/s", "of one", "each", "first ms", "gap ms", "99 of 100"]
        head += ["CPU ms", "tokens/step", "other texts", "other bits"]
        rows = [head]
        for row in server["rows"]:
            changed = row["changed"]
            has_cpu = "cpu_seconds_per_token" in row
            each = row["tokens_per_second"] / row["rows"]
            rows.append(
                [
                    str(row["rows"]),
                    f"{row['tokens_per_second']:.1f}",
                    f"{row['of_one']:.2f}",
                    f"{each:.1f}",
                    f"{row['first_token']['median_ms']:.0f}",
                    f"{row['gaps']['median_ms']:.1f}",
                    f"{row['gaps']['p99_ms']:.1f}",
                    f"{1e3 * row['cpu_seconds_per_token']:.2f}" if has_cpu else "-",
                    f"{row['tokens_per_step']:.2f}" if "tokens_per_step" in row else "-",
                    f"{changed['texts']} of {row['rows']}",
                    f"{changed['logprobs']} of {row['rows']}",
                ]
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += ["  ".join(c.rjust(w) for c, w in zip(r, widths, strict=True)) for r in rows]
    return "\n".join(lines)


def run(options):
    most = max(options.rows)
    more = ["--compat", "llama.cpp"] if options.model.endswith(".gguf") else []
    if options.adapter:
        more += ["--adapter", options.adapter]
    started = []
    try:
        ours = servers.ours(options.program, options.model, most, *more)
        started.append(ours)
        ours.name, ours.counts = "grok-wgpu", True
        # Its kernels are compiled, and the model is loaded.
        load(ours.url, [body(options, row) for row in range(most)])
        ours.device = json.loads(get(ours.url, "/props"))["engine"]["adapter"]
        if options.peer:
            context = ours.facts["context"]
            peer = servers.peer(options.peer, options.model, most, context, options.threads)
            started.append(peer)
            peer.name, peer.counts = "llama.cpp", False
            peer.device = f"CPU, {options.threads} threads, xllamacpp {peer.facts['version']}"
            load(peer.url, [body(options, row) for row in range(most)])
        rounds = {(server.name, count): [] for server in started for count in options.rows}
        for turn in range(options.rounds):
            for count in options.rows:
                for server in started:
                    print(f"round {turn + 1}, {count} rows, {server.name}", file=sys.stderr)
                    rounds[server.name, count].append(measure(options, server, count))
        report = {
            "model": os.path.basename(options.model.rstrip("/")),
            "tokens": options.tokens,
            "temperature": options.temperature,
            "rounds": options.rounds,
            "servers": [],
        }
        for server in started:
            print(f"texts alone and together, {server.name}", file=sys.stderr)
            changed = changes(options, server)
            rows = []
            for count in options.rows:
                row = median_of(rounds[server.name, count])
                row.pop("texts")
                rates = [r["tokens_per_second"] for r in rounds[server.name, count]]
                row["tokens_per_second_all"] = rates
                row["changed"] = changed[count]
                if "cpu_seconds_per_token" in row:
                    times = [r["cpu_seconds_per_token"] for r in rounds[server.name, count]]
                    row["cpu_seconds_per_token"] = statistics.median(times)
                rows.append(row)
            one = rows[0]["tokens_per_second"] / rows[0]["rows"]
            for row in rows:
                row["of_one"] = row["tokens_per_second"] / one
            report["servers"].append({"name": server.name, "device": server.device, "rows": rows})
    finally:
        for server in started:
            server.close()
    print(json.dumps(report, indent=1) if options.json else table(report))


def numbers(text):
    found = sorted({int(part) for part in text.split(",")})
    if not found or found[0] < 1 or found[-1] > len(PROMPTS):
        raise argparse.ArgumentTypeError(f"wanted numbers from 1 to {len(PROMPTS)}, as in 1,4,16")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, help="grok-wgpu")
    parser.add_argument("--model", required=True, help="a file, or a folder without --peer")
    parser.add_argument("--peer", help="a Python with the package xllamacpp")
    parser.add_argument("--rows", type=numbers, default=[1, 2, 4, 8, 16])
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--adapter")
    parser.add_argument("--json", action="store_true")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
