"""Writes MODEL_CARD.md of an exported model: data, recipe, curves, expert load and ten unselected samples.

python card.py MODEL_DIR [RUN_DIR]
"""

import argparse
import csv
import json
import os

import torch

import evaluate
from reference import Reference

SETTINGS = {"temperature": 0.5, "top_p": 0.95, "limit": 400}
CONVERSATION = [
    "Tell me a story about a fox who lost her hat.",
    "What was the name of the fox?",
    "What color was the hat?",
    "Where did she find the hat?",
    "Who helped her?",
    "What happened next?",
]
SAMPLES = [
    # (seed, plain opening or None, request or None): chosen before training ended
    (1, "Once upon a time", None),
    (2, "Once upon a time", None),
    (3, "One day", None),
    (4, "Lily was a brave mouse", None),
    (5, "In the forest", None),
    (6, None, "Tell me a story."),
    (7, None, "Tell me a story about a brave knight and a dragon."),
    (8, None, "Tell me a story about a girl named Emma who found an egg."),
    (9, None, "Can you tell me a story about a penguin who wants to learn to sing?"),
    (10, None, "tell me a story about a robot and a red kite"),
]


def converse(ref, turns, seed):
    """Runs a conversation turn by turn, with the history in the chat template."""
    ids, out = [], []
    for i, turn in enumerate(turns):
        ids += ref.tok.encode(("\n\n" if i else "") + f"Human: {turn}") + [1]
        answer = ref.tok.decode(
            ref.sample(ids + ref.tok.encode("\n\nAssistant:"), seed, **SETTINGS)
        ).strip()
        ids += ref.tok.encode(f"\n\nAssistant: {answer}") + [1]
        out.append((turn, answer))
    return out


def quote(text):
    return "\n".join("> " + line if line else ">" for line in text.split("\n"))


def lessons(run):
    """The runs of the third stage, the first one first: each began with the weights of the one before."""
    out, path = [], os.path.join(run, "checkpoint.pt")
    while path:
        ck = torch.load(path, weights_only=True)
        paths = ("data", "run", "init", "begin")
        one = {k: v for k, v in ck["args"].items() if k not in paths}
        names = ("lengths", "long_steps", "step", "tokens", "seconds")
        out.insert(0, one | {k: ck[k] for k in names})
        path = ck["args"]["begin"]
    return out


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("run", nargs="?")
    args = ap.parse_args()
    torch.set_num_threads(1)
    ref = Reference(args.model, torch.float32)

    def read(name):
        with open(os.path.join(args.model, name), encoding="utf-8") as f:
            return json.load(f)

    c, corpus, report = ref.c, read("corpus.json"), read("reference.json")

    def rows(name):
        with open(os.path.join(args.model, name), newline="") as f:
            return list(csv.DictReader(f))

    last = rows("training_log.csv")[-1]
    recipe = read("recipe.json")
    if args.run:
        recipe["lessons"] = lessons(args.run)
        with open(os.path.join(args.model, "recipe.json"), "w", encoding="utf-8") as f:
            json.dump(recipe, f, indent=2)
            f.write("\n")
    taught = recipe["lessons"]
    third = taught[-1]
    parameters = sum(v.numel() for v in ref.w.values())
    expert = sum(v.numel() for k, v in ref.w.items() if ".experts." in k)
    # Of the embedding table a token reads one row.
    active = parameters - expert + expert * c["num_experts_per_tok"] // c["num_local_experts"]
    active -= ref.w["model.embed_tokens.weight"].numel()
    load = report["expert_load"]
    samples = []
    for seed, opening, ask in SAMPLES:
        if opening:
            text = opening + ref.tok.decode(ref.sample(ref.tok.encode(opening), seed, **SETTINGS))
            samples.append(f"**Seed {seed}**, after the words “{opening}”\n\n{quote(text)}\n")
        else:
            ((_, text),) = converse(ref, [ask], seed)
            samples.append(f"**Seed {seed}**, asked “{ask}”\n\n{quote(text)}\n")
    talk = "\n\n".join(f"**Human:** {q}\n\n{quote(a)}" for q, a in converse(ref, CONVERSATION, 1))
    load_rows = "\n".join(
        f"| {i} | " + " | ".join(f"{100 * x:.1f} %" for x in row) + " |"
        for i, row in enumerate(load)
    )
    heads = " | ".join(f"expert {e}" for e in range(c["num_local_experts"]))
    held = report["heldout"]
    rates = evaluate.measure(ref, evaluate.questions(), evaluate.defaults(args.model))
    right, asked = (sum(x) for x in zip(*rates.values(), strict=True))
    rate_rows = "\n".join(f"| {k} | {a} of {b} |" for k, (a, b) in rates.items())
    position_rows = "\n".join(f"| {at} | {p:.3f} | {n} |" for at, p, n in report["by_position"])
    second, qa = corpus["second"], corpus["answers"]
    lesson_rows = "\n".join(
        f"| {name} | {x['rows']:,} | {x['tokens']:,} | {x['facts']:,} | `{x['sha256']}` |"
        for name, x in qa.items()
        if isinstance(x, dict) and "rows" in x
    )
    taught_rows = "\n".join(
        f"| {x['rows']} | {x['step']:,} | {x['tokens']:,} | {x['factor']:g} |"
        f" {x['weights'].split(',', 4)[-1].replace(',', ', ')} |"
        for x in taught
    )
    usual = evaluate.defaults(args.model)
    text = f"""# Model card: grok-wgpu demo

A very small language model with the whole architecture of Grok-2. It tells children's stories and answers
simple questions about them. It was made for this project, so that a newcomer sees text in the first minute and
so that tests, benchmarks and figures of quality have a real model. It is not derived from any released weights.

| | |
|---|---|
| Parameters | {parameters:,} in all, {active:,} active for each token |
| Layers, hidden size | {c["num_hidden_layers"]}, {c["hidden_size"]} |
| Attention | {c["num_attention_heads"]} query heads, {c["num_key_value_heads"]} key and value heads of {c["head_dim"]}, rotary base {c["rope_theta"]:,} |
| Feed-forward | dense {c["intermediate_size"]} beside {c["num_local_experts"]} experts of {c["moe_intermediate_size"]}, two of them for each token, not renormalized |
| Caps | attention {c["attn_logit_softcapping"]:g}, router {c["router_logit_softcapping"]:g}, logits {c["final_logit_softcapping"]:g} |
| Multipliers | embedding {c["embedding_multiplier_scale"]:g}, output {c["output_multiplier_scale"]:g} |
| Context | {c["max_position_embeddings"]:,} tokens; positions are divided by {c["scaling_factor"]:g} (`rope_type` `{c["rope_type"]}`); the attention temperature acts after position {c["attn_temperature_len"]} |
| Vocabulary | {c["vocab_size"]:,}, byte-level BPE in the schema of `tokenizer.tok.json` |
| Activation | GELU in its exact (erf) form |
| Weights | bf16, the tensor names of the released Grok-2 |

## Data

All text comes from the generator in `scripts/train_demo/stories/`, written for this project. A story is built from
parts: a character, a place, a want, an obstacle, a helper, a deed, dialogue, a lesson, an ending. Its facts are
kept in one state, so a name, a kind or a color never changes inside a story. About 40 % of the documents are plain
stories. The others are chats: a request, a story that obeys it, and questions answered from the state.
The data of two runs are the same byte for byte:

| | documents | tokens | SHA-256 of the text |
|---|---|---|---|
| first stage, seed `{corpus["seed"]}` | {corpus["documents"]:,} | {corpus["tokens"]:,} | `{corpus["corpus_sha256"]}` |
| second stage, seed `{second["seed"]}` | {second["documents"]:,} | {second["tokens"]:,} | `{second["corpus_sha256"]}` |

The third stage has lessons, each a file of rows of 512 tokens with facts marked in them; the longest rows have 2,048:

| lesson | rows | tokens | facts, in tokens | SHA-256 of the rows |
|---|---|---|---|---|
{lesson_rows}

In the first two stages a question could ask for a home that its story never names, so that its answer could only be
guessed. In the third each answer is in the story. It begins with lists of two facts that come again and again (`stories/lists.py`),
goes on to longer ones and to very short stories of two to six characters, and ends with whole stories and up to eight
questions. One name in seven is invented.

`python data.py OUT --check ../../models/demo/corpus.json` makes the first two again and compares, `python qa_data.py` makes those of the third.
The first two stages saw {int(last["tokens"]):,} tokens of them (padding included), none twice.
The stories of `heldout.txt` and of the validation set have seeds of their own. `data.py` stops if a held-out story
occurs in the training text.

## Training

One thread of a shared CPU, {float(last["seconds"]) / 60:.0f} minutes, PyTorch in bf16 autocast. Muon for the matrices of the layers, AdamW
for embeddings, head, router and norms; {recipe["steps"]} steps of 8 rows of 512 tokens; load-balancing loss 0.01; router z-loss 0.001;
warm-up 60 steps, then flat, then linear to zero. Documents do not see each other inside a row.
The second stage began at step {recipe["switch"]}. The machine was shared, so the length of the schedule was changed on the way
(step from which it held : length): {recipe["lengths"].replace(",", ", ")}. Seed {recipe["seed"]}.
`recipe.json` has every value. The command is in `scripts/train_demo/README.md`.

![Training and validation loss](loss.svg)

The blue line rises where the second stage brings in new kinds of stories. The validation set is of the first stage.

The third stage began with the weights of the first two: {sum(x["step"] for x in taught):,} steps, {sum(x["tokens"] for x in taught):,} tokens,
{sum(x["seconds"] for x in taught) / 60:.0f} minutes of a shared CPU, f32. The lessons in their order:

| lesson | steps | tokens | positions divided by | weight of a fact |
|---|---|---|---|---|
{taught_rows}

Only these parts changed: attention, norms, router, embeddings and head (`{third["train"]}`);
the feed-forward parts are those of the second stage. {sum(x["long_steps"] for x in taught)} steps, at the ends of the last lessons, had rows of 2,048 tokens.
Without the lists, 1,400,000 tokens of drills and very short stories did not teach it to find a name; lists of two facts did
within 650,000. `answers_log.csv` has the loss of the last lesson and the share of right facts by kind.

| | |
|---|---|
| Last validation loss of the first two stages | {float(last["valid_loss"]):.4f} nats a token |
| Held-out perplexity | **{held["perplexity"]:.4f}** over {held["scored_tokens"]:,} tokens of `heldout.txt`, in float64 on the bf16 weights |

The held-out rule: {held["rule"]}. Much of what is left is chance: nobody can know which name or animal comes next.

Perplexity of what the model says in long conversations, by position (held-out, float32):

| from token | perplexity | tokens |
|---|---|---|
{position_rows}

## Expert load

Share of the token slots of each layer on the held-out text (12.5 % is even):

| layer | {heads} |
|---|{"---|" * c["num_local_experts"]}
{load_rows}

## Ten samples, as they came

Not selected, not edited. Temperature {SETTINGS["temperature"]}, top-p {SETTINGS["top_p"]}; `python card.py` makes them again
(float32 reference, splitmix64 random numbers of the seed). Where a sample goes wrong, it stays wrong here.

{chr(10).join(samples)}
## One conversation, as it came

Seed 1, same settings.

{talk}

## How often its answers are true

{right} of {asked} questions about whole stories that it never saw, sampled as the program does by default (temperature
{usual["temperature"]:g}, top-k {usual["top_k"]}, top-p {usual["top_p"]:g}). An answer is right if it states the story's fact and no other of its kind;
`python evaluate.py ../../models/demo` asks them again.

| question about | right |
|---|---|
{rate_rows}

## What it cannot do

- It knows nothing about the world. It cannot count, reason, translate, write code or give advice.
- It knows about 2,000 words. A name or a thing that it never saw is often replaced by one that it knows.
- Requests far from its plots bring a story about something else.
- A color or a detail may still change inside a story, more often at a high temperature.
- Answers to questions about a story may be wrong (see the table above).
- It was trained on at most {c["max_position_embeddings"]:,} tokens. A longer text goes wrong.
- English only.

## Files

`config.json`, `model.safetensors`, `tokenizer.tok.json`: the model. `heldout.txt`: the text of the perplexity.
`golden/logits.safetensors`: prompts (`*.input_ids`) and float64 logits of their last position (`*.logits`).
`reference.json`: perplexity, expert load, 64 greedy ids with the gap between the two best logits.
`corpus.json`, `recipe.json`, `training_log.csv`, `answers_log.csv`, `loss.svg`: how it was made.
"""
    with open(os.path.join(args.model, "MODEL_CARD.md"), "w", encoding="utf-8") as f:
        f.write(text)
    print(f"wrote {os.path.join(args.model, 'MODEL_CARD.md')}")


if __name__ == "__main__":
    main()
