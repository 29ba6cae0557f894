"""Trains the demo model: Muon for the matrices of the layers, AdamW for the rest; resumes from its checkpoint.

python train.py DATA_DIR RUN_DIR --steps N
"""

import argparse
import csv
import json
import math
import os
import time

import numpy as np
import torch

from model import FIRST_STAGES, Grok, document_mask
from muon import Muon

ap = argparse.ArgumentParser()
ap.add_argument("data")
ap.add_argument("run")
ap.add_argument("--steps", type=int, default=2800, help="length of the schedule")
ap.add_argument(
    "--lengths",
    default="",
    help="FROM:STEPS,... the schedule length assumed from a step on, if it was changed on the way",
)
ap.add_argument("--switch", type=int, default=0, help="step at which train2.bin takes over")
ap.add_argument("--batch", type=int, default=8, help="rows of 512 tokens a step")
ap.add_argument("--lr", type=float, default=3e-3, help="AdamW: embeddings, head, router, norms")
ap.add_argument("--muon-lr", type=float, default=0.02)
ap.add_argument("--balance", type=float, default=0.01)
ap.add_argument("--z", type=float, default=1e-3)
ap.add_argument("--warmup", type=int, default=60)
ap.add_argument("--decay", type=float, default=0.6, help="last share of the steps, linear to 0")
ap.add_argument("--seed", type=int, default=1)
ap.add_argument("--threads", type=int, default=1)
ap.add_argument("--no-compile", action="store_true")
ap.add_argument("--stop", type=int, default=0, help="stop after this step (for timing)")
args = ap.parse_args()

torch.set_num_threads(args.threads)
torch.manual_seed(args.seed)
os.makedirs(args.run, exist_ok=True)
ROW = 512
VALID_ROWS = 48


def length(step):
    """The length of the learning rate schedule that applies at a step."""
    out = args.steps
    for part in filter(None, args.lengths.split(",")):
        start, steps = map(int, part.split(":"))
        if step >= start:
            out = steps
    return out


def rows_of(name):
    return np.fromfile(os.path.join(args.data, name), dtype="<u2").reshape(-1, ROW + 1)


train_rows, second_rows = rows_of("train.bin"), rows_of("train2.bin")
valid_rows = rows_of("valid.bin")[:VALID_ROWS]
cfg = FIRST_STAGES
model = Grok(cfg)


def make_batch(rows):
    rows = torch.from_numpy(rows.astype(np.int64))
    x, y = rows[:, :-1].contiguous(), rows[:, 1:].clone()
    y[y == 0] = -100
    return x, y, document_mask(x)


def batch(step):
    """The rows of a step; each epoch has its own permutation."""
    rows, stage = (train_rows, 0) if step < args.switch else (second_rows, 1)
    step -= stage * args.switch
    n = len(rows) // args.batch
    order = np.random.default_rng([args.seed + stage, step // n]).permutation(len(rows))
    i = step % n
    return make_batch(rows[order[i * args.batch : (i + 1) * args.batch]])


matrices = [
    (n, p)
    for n, p in model.named_parameters()
    if n.startswith("layers") and p.dim() >= 2 and "gate" not in n
]
chosen = {id(p) for _, p in matrices}
rest = [p for p in model.parameters() if id(p) not in chosen]
muon = Muon(matrices)
adam = torch.optim.AdamW(
    [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ],
    lr=args.lr,
    betas=(0.9, 0.98),
    fused=True,
)


def evaluate():
    model.eval()
    total, load, n = 0.0, 0.0, 0
    with torch.no_grad():
        for i in range(0, len(valid_rows), 8):
            x, y, m = make_batch(valid_rows[i : i + 8])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss, _, _, f = run(x, y, m)
            total, load, n = total + loss.item(), load + f, n + 1
    model.train()
    return total / n, load / n


checkpoint_path = os.path.join(args.run, "checkpoint.pt")
log_path = os.path.join(args.run, "log.csv")
step, seconds = 0, 0.0
if os.path.exists(checkpoint_path):
    ck = torch.load(checkpoint_path, weights_only=True)
    model.load_state_dict(ck["model"])
    adam.load_state_dict(ck["adam"])
    for (_, _, buf), saved in zip(muon.items, ck["muon"], strict=True):
        buf.copy_(saved)
    step, seconds = ck["step"], ck["seconds"]
    if os.path.exists(log_path):  # rows after the checkpoint will be written again
        with open(log_path) as f:
            lines = f.readlines()
        with open(log_path, "w") as f:
            f.writelines(lines[:1] + [x for x in lines[1:] if int(x.split(",")[0]) <= step])
    print(f"resumed at step {step}", flush=True)


def save():
    data = {
        "model": model.state_dict(),
        "adam": adam.state_dict(),
        "muon": [b for _, _, b in muon.items],
        "step": step,
        "seconds": seconds,
        "args": vars(args),
    }
    torch.save(data, checkpoint_path + ".new")
    os.replace(checkpoint_path + ".new", checkpoint_path)


run = model if args.no_compile else torch.compile(model)
total = sum(p.numel() for p in model.parameters())
expert = sum(layer.moe.w13.numel() + layer.moe.w2.numel() for layer in model.layers)
print(
    json.dumps(
        {
            "parameters": total,
            "active": total - expert * 3 // 4,
            "rows": len(train_rows),
            **vars(args),
        }
    ),
    flush=True,
)
fresh = not os.path.exists(log_path)
log = open(log_path, "a", newline="")  # noqa: SIM115 (as long as the program runs)
writer = csv.writer(log)
if fresh:
    writer.writerow(
        ["step", "tokens", "seconds", "train_loss", "valid_loss", "balance", "z"]
        + [
            f"load_{layer}_{e}"
            for layer in range(cfg.num_hidden_layers)
            for e in range(cfg.num_local_experts)
        ]
    )
last = saved_at = time.time()
window = []
while step < args.steps and not (args.stop and step >= args.stop):
    left = 1 - step / length(step)
    k = min(1.0, (step + 1) / args.warmup) * min(1.0, left / args.decay)
    x, y, m = batch(step)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, balance, z, load = run(x, y, m)
    (loss + args.balance * balance + args.z * z).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in adam.param_groups:
        group["lr"] = args.lr * k
    adam.step()
    muon.step(args.muon_lr * k)
    model.zero_grad(set_to_none=True)
    step += 1
    window.append(loss.item())
    if not math.isfinite(window[-1]):
        raise SystemExit(f"loss is {window[-1]} at step {step}")
    now = time.time()
    seconds += now - last
    last = now
    if step % 20 == 0:
        print(
            f"step {step}/{args.steps} loss {sum(window) / len(window):.4f} lr {k:.3f}"
            f" {seconds:.0f}s {step * args.batch * ROW / seconds:.0f} tok/s",
            flush=True,
        )
    if step % 100 == 0 or step == args.steps:
        valid, share = evaluate()
        writer.writerow(
            [
                step,
                step * args.batch * ROW,
                round(seconds, 1),
                round(sum(window) / len(window), 5),
                round(valid, 5),
                round(balance.item(), 5),
                round(z.item(), 5),
            ]
            + [round(v, 4) for v in share.flatten().tolist()]
        )
        log.flush()
        print(
            f"step {step} valid {valid:.4f} load"
            f" {share.min().item():.3f}..{share.max().item():.3f}",
            flush=True,
        )
        last = time.time()
    if len(window) >= 100:
        window.clear()
    if now - saved_at > 120 or step == args.steps:
        save()
        saved_at = last = time.time()
save()
