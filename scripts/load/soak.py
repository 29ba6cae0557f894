"""Many clients at once for a minute: no request fails, and every text is the one it is alone.

soak.py --program grok-wgpu [--clients N] [--seconds N] [--rows N]

Some clients leave early and some read slowly, as clients do. At the end the server makes no text, its
cache has as many pages in use as at the start, and its memory has not grown.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path

import servers
from bench import PROMPTS
from client import Answer, get, metrics, stream

MODEL = Path(__file__).parents[2] / "models/demo"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
# What memory may differ by: allocators keep some, and hold it in pieces.
SLACK = 48 << 20


def requests():
    """Requests of all kinds, each with a seed: so each has one text."""
    found = []
    for i, prompt in enumerate(PROMPTS):
        found.append((TEXT, {"prompt": prompt, "max_tokens": 12 + 3 * i, "temperature": 0}))
        # A story of some length before it, so that there are prompts of several chunks.
        story = " ".join(PROMPTS[: i + 1])
        messages = [{"role": "user", "content": f"{story} And then?"}]
        chat = {"messages": messages, "max_tokens": 8 + 2 * i, "seed": i, "logprobs": True}
        found.append((CHAT, chat))
    for i in range(4):
        found.append((TEXT, {"prompt": PROMPTS[i], "max_tokens": 40, "seed": i, "stop": "."}))
    return [(path, {"model": "model", "return_token_ids": True, **body}) for path, body in found]


def outcome(answer: Answer):
    """All that a client is told of a text: its pieces' text, ids and log-probabilities."""
    ids, text, finish = [], "", None
    for _, event in answer.parsed():
        for choice in event["choices"]:
            ids += choice.get("token_ids") or []
            text += choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            finish = choice["finish_reason"] or finish
    return text, ids, answer.logprobs(), finish


class Soak:
    def __init__(self, url, seconds):
        self.url, self.seconds = url, seconds
        self.requests = requests()
        self.wanted = []
        self.whole = self.left = 0
        self.health, self.wrong = [], []

    async def alone(self):
        for path, body in self.requests:
            self.wanted.append(outcome(await stream(self.url, path, body)))

    async def client(self, number, end):
        rng = random.Random(number)
        while time.monotonic() < end:
            at = rng.randrange(len(self.requests))
            path, body = self.requests[at]
            leave = rng.randrange(1, 6) if rng.random() < 0.1 else None
            try:
                pause = 0.03 if rng.random() < 0.05 else 0.0
                answer = await stream(self.url, path, body, leave_after=leave, pause=pause)
                if leave is not None:
                    self.left += 1
                    continue
                got = outcome(answer)
            except (OSError, RuntimeError, asyncio.IncompleteReadError) as error:
                self.wrong.append(f"{path}: {error!r}")
                continue
            self.whole += 1
            if got != self.wanted[at]:
                self.wrong.append(f"{path} {at}: {got}, alone {self.wanted[at]}")

    async def watch(self, end):
        while time.monotonic() < end:
            begun = time.perf_counter()
            await asyncio.to_thread(get, self.url, "/health")
            self.health.append(time.perf_counter() - begun)
            await asyncio.sleep(0.2)

    async def crowd(self, clients, seconds):
        end = time.monotonic() + seconds
        await asyncio.gather(*[self.client(i, end) for i in range(clients)], self.watch(end))

    def settle(self):
        """Waits until no text is being made, and returns the counters."""
        for _ in range(300):
            found = metrics(self.url)
            if not found["grok_wgpu_requests_running"] + found["grok_wgpu_requests_waiting"]:
                return found
            time.sleep(0.05)
        self.wrong.append("texts are still being made")
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, help="grok-wgpu")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rows", type=int, default=16)
    options = parser.parse_args()

    server = servers.ours(options.program, MODEL, options.rows)
    try:
        soak = Soak(server.url, options.seconds)
        asyncio.run(soak.alone())
        # What a server needs for this many clients, it has from then on.
        asyncio.run(soak.crowd(options.clients, min(10, options.seconds / 4)))
        before, memory = soak.settle(), server.memory()
        soak.whole = soak.left = 0
        asyncio.run(soak.crowd(options.clients, options.seconds))
        after, grown = soak.settle(), server.memory() - memory
        wrong = soak.wrong
        in_use = 'grok_wgpu_pages{state="used"}'
        if after.get(in_use, 0) != before.get(in_use, 0):
            wrong.append(f"{after[in_use]} pages are in use, {before[in_use]} at the start")
        if grown > SLACK:
            wrong.append(f"memory has grown by {grown >> 20} MiB")
        if soak.whole < options.clients or soak.left == 0:
            wrong.append(f"only {soak.whole} texts were read to their ends, {soak.left} left")
        steps = after["grok_wgpu_steps_total"] - before["grok_wgpu_steps_total"]
        made = (
            after["grok_wgpu_generated_tokens_total"] - before["grok_wgpu_generated_tokens_total"]
        )
        slow = sorted(soak.health)[len(soak.health) * 99 // 100]
    finally:
        code = server.close()
    if code != 0:
        wrong.append(f"the server ended with {code}")
    faults = [line for line in server.said().splitlines() if is_fault(line)]
    wrong += faults
    print(
        f"{options.clients} clients, {options.seconds:g} s: {soak.whole} texts as alone, {soak.left} "
        f"left early, {made / options.seconds:.0f} tokens/s, {made / steps:.1f} tokens a step, "
        f"health within {1e3 * slow:.0f} ms, memory {grown / (1 << 20):+.1f} MiB"
    )
    for what in wrong[:10]:
        print("wrong:", what[:1000], file=sys.stderr)
    print(f"{soak.whole} passed, {len(wrong)} failed")
    sys.exit(1 if wrong else 0)


def is_fault(line):
    """Whether a line of the server's log is about something that it did wrong."""
    if not line.startswith("{"):
        return "panicked" in line
    entry = json.loads(line)
    return entry.get("status", 0) >= 500 or entry.get("outcome") in ("slow_reader", "timeout")


if __name__ == "__main__":
    main()
