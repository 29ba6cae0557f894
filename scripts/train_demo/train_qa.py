"""Goes on from a trained model with the rows of `qa_data.py`: answering, and a longer context.

python train_qa.py DATA_DIR RUN_DIR --init MODEL_DIR --rows LESSON --steps N

The first steps have rows of 512 tokens, the last share of them (--long-share) rows of 2048.
A file RUN_DIR/steps with a number replaces --steps from then on: the machine may be shared.
Resumes from RUN_DIR/checkpoint.pt when it is started again with the same arguments.
"""

import argparse
import csv
import json
import math
import os
import re
import time

import numpy as np
import torch
import torch.nn.functional as F

from export import state_of
from model import Config, Grok, document_mask
from muon import Muon
from qa_data import CLASS, FACT, LONG_ROW, ROW
from stories.ask import KINDS

ap = argparse.ArgumentParser()
ap.add_argument("data")
ap.add_argument("run")
ap.add_argument("--init", required=True, help="folder of the model to begin with")
ap.add_argument("--rows", default="final", help="the lesson: drills, list1, …, final")
ap.add_argument("--steps", type=int, default=1000)
ap.add_argument("--long-share", type=float, default=0.1, help="last share, with long rows")
ap.add_argument(
    "--begin", help="checkpoint of an earlier run whose weights take the place of --init's"
)
ap.add_argument("--factor", type=float, default=2.0, help="positions are divided by this")
ap.add_argument(
    "--train", default="attn|norm|embed|lm_head|gate", help="parts whose weights change"
)
ap.add_argument("--batch", type=int, default=1024, help="tokens a step")
ap.add_argument("--lr", type=float, default=1.5e-3, help="AdamW: embeddings, head, router, norms")
ap.add_argument("--muon-lr", type=float, default=0.01)
ap.add_argument("--weights", default="0,1,0.3,0,4,4,4,4", help="loss weight of each class")
ap.add_argument("--balance", type=float, default=0.01)
ap.add_argument("--z", type=float, default=1e-3)
ap.add_argument("--warmup", type=int, default=30)
ap.add_argument("--decay", type=float, default=0.6, help="last share of the steps, linear to 0")
ap.add_argument("--seed", type=int, default=1)
ap.add_argument("--eval", type=int, default=100, help="steps between evaluations")
ap.add_argument("--stop", type=int, default=0, help="stop after this step")
args = ap.parse_args()

torch.set_num_threads(1)
torch.manual_seed(args.seed)
os.makedirs(args.run, exist_ok=True)
WEIGHTS = torch.tensor([float(x) for x in args.weights.split(",")])
steps_path = os.path.join(args.run, "steps")


def rows_of(name, row):
    path = os.path.join(args.data, name + ".bin")
    return np.fromfile(path, dtype="<u2").reshape(-1, row + 1)


data = {"short": rows_of(args.rows, ROW), "long": rows_of("answers_long", LONG_ROW)}
valid = {"short": rows_of("valid", ROW), "long": rows_of("valid_long", LONG_ROW)}
cfg = Config(scaling_factor=args.factor)
model = Grok(cfg)
model.load_state_dict(
    torch.load(args.begin, weights_only=True)["model"] if args.begin else state_of(args.init, cfg)
)


def make_batch(rows):
    rows = torch.from_numpy(rows.astype(np.int64))
    ids, kinds = rows % CLASS, rows // CLASS
    x, y, k = ids[:, :-1].contiguous(), ids[:, 1:], kinds[:, 1:]
    return x, y, torch.where(y == 0, 3, k), document_mask(x)


def batch(kind, at):
    """The rows of the batch number `at` of a kind; each epoch has its own permutation."""
    rows = data[kind]
    size = max(1, args.batch // (rows.shape[1] - 1))
    n = len(rows) // size
    order = np.random.default_rng([args.seed, at // n]).permutation(len(rows))
    i = at % n
    return make_batch(rows[order[i * size : (i + 1) * size]])


def losses(x, y, k, mask):
    """Loss of each token that has a weight, those weights, and where they are; what routing costs."""
    h, rest = model.hidden(x, mask)
    weight = WEIGHTS[k.reshape(-1)]
    at = weight.nonzero()[:, 0]
    logits = model.head(h.reshape(-1, h.shape[-1])[at])
    return (
        F.cross_entropy(logits, y.reshape(-1)[at], reduction="none"),
        weight[at],
        at,
        logits,
        rest,
    )


@torch.no_grad()
def evaluate(kind, most):
    """Loss of ordinary text, and of each kind of fact: share whose tokens are all likeliest, and mean
    probability of the whole fact. Teacher forcing, no sampling."""
    right, sure, text, load = {}, {}, [], 0
    rows = valid[kind][:most]
    for i in range(0, len(rows), 4):
        x, y, k, mask = make_batch(rows[i : i + 4])
        ce, _, at, logits, (_, _, share) = losses(x, y, k, mask)
        load = load + share
        best = logits.argmax(-1) == y.reshape(-1)[at]
        what = k.reshape(-1)[at]
        text += ce[what == 1].tolist()
        spans = []
        for j, (place, w) in enumerate(zip(at.tolist(), what.tolist(), strict=True)):
            if w < FACT:
                continue
            if spans and spans[-1][1] == place - 1 and spans[-1][2] == w:
                spans[-1][1] = place
                spans[-1][3].append(j)
            else:
                spans.append([place, place, w, [j]])
        for _, _, w, js in spans:
            name = KINDS[w - FACT]
            right.setdefault(name, []).append(float(best[js].all()))
            sure.setdefault(name, []).append(math.exp(-ce[js].sum()))
    mean = lambda v: sum(v) / max(1, len(v))  # noqa: E731
    return mean(text), {n: (mean(right.get(n, [])), mean(sure.get(n, []))) for n in KINDS}, load


for name, p in model.named_parameters():
    p.requires_grad_(re.search(args.train, name) is not None)
matrices = [
    (n, p)
    for n, p in model.named_parameters()
    if n.startswith("layers") and p.dim() >= 2 and "gate" not in n and p.requires_grad
]
chosen = {id(p) for _, p in matrices}
rest = [p for p in model.parameters() if id(p) not in chosen and p.requires_grad]
muon = Muon(matrices, dtype=torch.float32)
adam = torch.optim.AdamW(
    [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": 0.05},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ],
    lr=args.lr,
    betas=(0.9, 0.98),
    fused=True,
)

checkpoint_path = os.path.join(args.run, "checkpoint.pt")
log_path = os.path.join(args.run, "log.csv")
step, tokens, seconds, long_steps, lengths = 0, 0, 0.0, 0, []
if os.path.exists(checkpoint_path):
    ck = torch.load(checkpoint_path, weights_only=True)
    model.load_state_dict(ck["model"])
    adam.load_state_dict(ck["adam"])
    for (_, _, buf), saved in zip(muon.items, ck["muon"], strict=True):
        buf.copy_(saved)
    torch.set_rng_state(ck["rng"])
    step, tokens, seconds = ck["step"], ck["tokens"], ck["seconds"]
    long_steps, lengths = ck["long_steps"], ck["lengths"]
    with open(log_path) as f:  # rows after the checkpoint will be written again
        lines = f.readlines()
    with open(log_path, "w") as f:
        f.writelines(lines[:1] + [x for x in lines[1:] if int(x.split(",")[0]) <= step])
    print(f"resumed at step {step}", flush=True)


def save():
    torch.save(
        {
            "model": model.state_dict(),
            "adam": adam.state_dict(),
            "muon": [b for _, _, b in muon.items],
            "rng": torch.get_rng_state(),
            "step": step,
            "tokens": tokens,
            "seconds": seconds,
            "long_steps": long_steps,
            "lengths": lengths,
            "args": vars(args),
        },
        checkpoint_path + ".new",
    )
    os.replace(checkpoint_path + ".new", checkpoint_path)


def length():
    """The number of steps in all, and notes when it was changed."""
    n = args.steps
    if os.path.exists(steps_path):
        with open(steps_path) as f:
            n = int(f.read())
    if not lengths or lengths[-1][1] != n:
        lengths.append([step, n])
    return n


print(json.dumps(vars(args)), flush=True)
fresh = not os.path.exists(log_path)
log = open(log_path, "a", newline="")  # noqa: SIM115 (as long as the program runs)
writer = csv.writer(log)
facts = [f"{n}_{what}" for n in KINDS for what in ("right", "sure")]
loads = [
    f"load_{i}_{e}" for i in range(cfg.num_hidden_layers) for e in range(cfg.num_local_experts)
]
if fresh:
    writer.writerow(
        ["step", "tokens", "seconds", "rows", "train_loss", "valid_loss", *facts, *loads]
    )


def report(kind):
    text, scores, load = evaluate(kind, 16 if kind == "short" else 4)
    load = load / load.sum(-1, keepdim=True)
    flat = [round(x, 4) for n in KINDS for x in scores[n]]
    mean = sum(window) / max(1, len(window))
    writer.writerow(
        [step, tokens, round(seconds, 1), kind, round(mean, 4), round(text, 4), *flat]
        + [round(v, 4) for v in load.flatten().tolist()]
    )
    log.flush()
    told = " ".join(f"{n} {100 * a:.0f}/{100 * b:.0f}" for n, (a, b) in scores.items())
    print(
        f"{time.strftime('%H:%M')} step {step}/{length()} {kind} loss {mean:.4f} text {text:.4f}"
        f" right/sure {told} load {load.min():.3f}..{load.max():.3f} {seconds:.0f}s",
        flush=True,
    )
    window.clear()


window = []
if step == 0:
    report("short")
last = saved_at = time.time()
while step < length() and not (args.stop and step >= args.stop):
    n = length()
    left = 1 - step / n
    k = min(1.0, (step + 1) / args.warmup) * min(1.0, left / args.decay)
    kind = "long" if left <= args.long_share else "short"
    x, y, classes, mask = batch(kind, long_steps if kind == "long" else step - long_steps)
    ce, weight, _, _, (balance, z, _) = losses(x, y, classes, mask)
    loss = (ce * weight).sum() / weight.sum()
    (loss + args.balance * balance + args.z * z).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in adam.param_groups:
        group["lr"] = args.lr * k
    adam.step()
    muon.step(args.muon_lr * k)
    model.zero_grad(set_to_none=True)
    step, tokens = step + 1, tokens + x.numel()
    long_steps += kind == "long"
    window.append(loss.item())
    if not math.isfinite(window[-1]):
        raise SystemExit(f"loss is {window[-1]} at step {step}")
    now = time.time()
    seconds += now - last
    last = now
    if step % 20 == 0:
        print(
            f"step {step} loss {sum(window) / len(window):.4f} lr {k:.3f} {seconds:.0f}s"
            f" cpu {time.process_time():.0f}s",
            flush=True,
        )
    if step % args.eval == 0 or step == length():
        report("short")
        if kind == "long" or step == length():
            report("long")
        last = time.time()
    if now - saved_at > 240 or step == length():
        save()
        saved_at = last = time.time()
save()
