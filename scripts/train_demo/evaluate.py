"""Share of right answers to questions about held-out stories, sampled as the program samples by default.

python evaluate.py MODEL_DIR [--write FILE] [--greedy] [--count N]

Each question follows a whole story in the chat format. The answer is right if it states the fact and
no other of its kind. Name, kind, place and color have equal parts.
"""

import argparse
import json
import os
import time

import torch

from reference import Reference
from stories import ask, chat, tell

SEED = "answers-grok-wgpu-demo-3"
COUNT = 200
# The program's own defaults (`Sampling::USUAL`), where a model says nothing else.
USUAL = {"temperature": 0.8, "top_k": 40, "top_p": 0.95}


def defaults(model):
    """How the program samples from a model where nobody says: its generation_config.json decides."""
    path = os.path.join(model, "generation_config.json")
    if not os.path.exists(path):
        return USUAL
    with open(path, encoding="utf-8") as f:
        said = json.load(f)
    return {k: said.get(k, v) for k, v in USUAL.items()}


def questions(count=COUNT):
    """Dicts with the request, the story and the Question; kinds take turns."""
    out, at = [], 0
    while len(out) < count:
        kind = ask.KINDS[len(out) % len(ask.KINDS)]
        s, plot, text = tell.build(f"{SEED}-{at}", vivid=True, wide=True)
        at += 1
        made = ask.some(s, plot, text, 1, [kind])
        if made:
            names = [s.v[p + "N"] for p in ("", "f", "g") if p + "N" in s.v]
            out.append(
                {
                    "request": chat.request(s, plot),
                    "story": text,
                    "question": made[0],
                    "names": names,
                }
            )
    return out


def prompt(tok, item):
    """Ids of the conversation up to the answer."""
    ids = tok.encode(f"Human: {item['request']}") + [1]
    ids += tok.encode(f"\n\nAssistant: {item['story']}") + [1]
    ids += tok.encode(f"\n\nHuman: {item['question'].ask}") + [1]
    return ids + tok.encode("\n\nAssistant:")


def measure(ref, items, settings, show=0):
    """(right, asked) by kind; prints the first wrong answers."""
    score = {k: [0, 0] for k in ask.KINDS}
    for i, item in enumerate(items):
        q = item["question"]
        got = ref.tok.decode(ref.sample(prompt(ref.tok, item), i, limit=40, **settings)).strip()
        good = ask.right(q, got, item["names"])
        score[q.kind][0] += good
        score[q.kind][1] += 1
        if not good and show:
            show -= 1
            print(f"  {q.ask} -> {got}   (wanted: {q.answer})")
    return {k: tuple(v) for k, v in score.items()}


def write(path, items):
    """The questions for `tests/answers.rs`: an answer is right if it has one of the facts, and none of
    the rivals of its kind that are not in the question, its answer or the facts."""
    rows = [
        {
            "kind": i["question"].kind,
            "request": i["request"],
            "story": i["story"],
            "ask": i["question"].ask,
            "answer": i["question"].answer,
            "facts": list(i["question"].facts),
            "names": i["names"],
        }
        for i in items
    ]
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"rivals": ask.RIVALS, "questions": rows}, f, indent=0, ensure_ascii=False)
        f.write("\n")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("--count", type=int, default=COUNT)
    ap.add_argument("--greedy", action="store_true")
    ap.add_argument("--show", type=int, default=12, help="wrong answers to print")
    ap.add_argument("--write", help="write the questions to a JSON file")
    args = ap.parse_args()
    items = questions(args.count)
    if args.write:
        write(args.write, items)
    torch.set_num_threads(1)
    started = time.time()
    settings = defaults(args.model)
    if args.greedy:
        settings = dict(settings, temperature=1e-3)
    with torch.no_grad():
        score = measure(Reference(args.model, torch.float32), items, settings, args.show)
    right, asked = (sum(x) for x in zip(*score.values(), strict=True))
    told = ", ".join(f"{k} {a} of {b}" for k, (a, b) in score.items())
    print(
        f"{right} of {asked} right ({100 * right / asked:.1f} %): {told}; {time.time() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
