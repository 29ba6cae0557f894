"""Writes the trained model as a Grok-2 checkpoint: config, bf16 weights, tokenizer and the reference values.

python export.py DATA_DIR RUN_DIR OUT_DIR                      after `train.py`
python export.py DATA_DIR RUN_DIR OUT_DIR --init MODEL_DIR     after `train_qa.py`

MODEL_DIR is the model that `train_qa.py` began with: its tokenizer, held-out text and the log and digests of
its training are taken over.
"""

import argparse
import csv
import json
import math
import os
import shutil

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from model import FIRST_STAGES, Config
from qa_data import CLASS, LONG_ROW, TEXT
from reference import Reference
from tokenizer import EOS


def tensors(state, c):
    """Names and [out, in] layout of the released checkpoint."""
    out = {
        "model.embed_tokens.weight": state["embed.weight"],
        "model.norm.weight": state["norm.weight"],
        "lm_head.weight": state["lm_head.weight"],
    }
    for i in range(c.num_hidden_layers):
        src, dst = f"layers.{i}.", f"model.layers.{i}."
        for name in ("pre_attn_norm", "post_attn_norm", "pre_moe_norm", "post_moe_norm"):
            out[f"{dst}{name}.weight"] = state[f"{src}{name}.weight"]
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            out[f"{dst}self_attn.{name}.weight"] = state[f"{src}attn.{name}.weight"]
        gate, up = state[f"{src}mlp.w13.weight"].chunk(2, 0)
        out[f"{dst}mlp.gate_proj.weight"], out[f"{dst}mlp.up_proj.weight"] = gate, up
        out[f"{dst}mlp.down_proj.weight"] = state[f"{src}mlp.w2.weight"]
        out[f"{dst}block_sparse_moe.gate.weight"] = state[f"{src}moe.gate.weight"]
        w13, w2 = state[f"{src}moe.w13"], state[f"{src}moe.w2"]
        for e in range(c.num_local_experts):
            w1, w3 = w13[e].T.chunk(2, 0)
            name = f"{dst}block_sparse_moe.experts.{e}."
            out[name + "w1.weight"], out[name + "w3.weight"], out[name + "w2.weight"] = (
                w1,
                w3,
                w2[e].T,
            )
    return {k: v.detach().to(torch.bfloat16).contiguous().clone() for k, v in out.items()}


def state_of(directory, c):
    """The opposite of `tensors`: the training model's state, in f32, of an exported checkpoint."""
    w = {k: v.float() for k, v in load_file(os.path.join(directory, "model.safetensors")).items()}
    out = {
        "embed.weight": w["model.embed_tokens.weight"],
        "norm.weight": w["model.norm.weight"],
        "lm_head.weight": w["lm_head.weight"],
    }
    for i in range(c.num_hidden_layers):
        dst, src = f"layers.{i}.", f"model.layers.{i}."
        for name in ("pre_attn_norm", "post_attn_norm", "pre_moe_norm", "post_moe_norm"):
            out[f"{dst}{name}.weight"] = w[f"{src}{name}.weight"]
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            out[f"{dst}attn.{name}.weight"] = w[f"{src}self_attn.{name}.weight"]
        gate, up = w[f"{src}mlp.gate_proj.weight"], w[f"{src}mlp.up_proj.weight"]
        out[f"{dst}mlp.w13.weight"] = torch.cat([gate, up])
        out[f"{dst}mlp.w2.weight"] = w[f"{src}mlp.down_proj.weight"]
        moe = f"{src}block_sparse_moe."
        out[f"{dst}moe.gate.weight"] = w[moe + "gate.weight"]
        experts = range(c.num_local_experts)

        def part(e, name, moe=moe):
            return w[f"{moe}experts.{e}.{name}.weight"]

        out[f"{dst}moe.w13"] = torch.stack(
            [torch.cat([part(e, "w1"), part(e, "w3")]).T for e in experts]
        )
        out[f"{dst}moe.w2"] = torch.stack([part(e, "w2").T for e in experts])
    return {k: v.contiguous() for k, v in out.items()}


def curve(log, path):
    """The loss curve as an SVG picture."""
    with open(log, newline="") as f:
        rows = list(csv.DictReader(f))
    width, height, left, bottom, top = 640, 320, 52, 40, 20
    tokens = [int(r["tokens"]) / 1e6 for r in rows]
    series = {
        "#2563eb": [float(r["train_loss"]) for r in rows],
        "#dc2626": [float(r["valid_loss"]) for r in rows],
    }
    high = math.ceil(max(series["#2563eb"]) * 2) / 2
    span = max(tokens)

    def xy(t, v):
        return f"{left + t / span * (width - left - 16):.1f},{height - bottom - v / high * (height - bottom - top):.1f}"

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
            ' font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i in range(int(high * 2) + 1):
        x0, y0 = xy(0, i / 2).split(",")
        parts.append(
            f'<path d="M{x0} {y0}H{width - 16}" stroke="#ddd"/><text x="{left - 8}"'
            f' y="{float(y0) + 4}" text-anchor="end">{i / 2}</text>'
        )
    for i in range(5):
        x0 = xy(span * i / 4, 0).split(",")[0]
        parts.append(
            f'<text x="{x0}" y="{height - 22}" text-anchor="middle">{span * i / 4:.1f}</text>'
        )
    for color, values in series.items():
        points = " ".join(xy(t, v) for t, v in zip(tokens, values, strict=True))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>'
        )
    parts.append(
        f'<text x="{width / 2}" y="{height - 6}" text-anchor="middle">million training'
        " tokens</text>"
    )
    parts.append(
        f'<text x="{width - 20}" y="36" text-anchor="end" fill="#2563eb">training loss (nats a'
        " token)</text>"
    )
    parts.append(
        f'<text x="{width - 20}" y="52" text-anchor="end" fill="#dc2626">validation'
        " loss</text></svg>"
    )
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(parts) + "\n")


def by_position(ref, rows, bucket=256):
    """Perplexity of tokens by their position in conversations: a list of [first, perplexity, tokens]."""
    total, count = [0.0] * (LONG_ROW // bucket), [0] * (LONG_ROW // bucket)
    for row in rows:
        ids = [int(v) % CLASS for v in row if v]
        ids = ids[: ids.index(EOS) + 1] if EOS in ids else ids
        kinds = [int(v) // CLASS for v in row]
        logp = ref.forward(ids[:-1]).log_softmax(-1)
        for i in range(1, len(ids)):
            if kinds[i] == TEXT:
                total[(i - 1) // bucket] -= float(logp[i - 1, ids[i]])
                count[(i - 1) // bucket] += 1
    return [
        [i * bucket, round(math.exp(a / n), 4), n]
        for i, (a, n) in enumerate(zip(total, count, strict=True))
        if n > 200
    ]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("data")
    ap.add_argument("run")
    ap.add_argument("out")
    ap.add_argument("--init")
    ap.add_argument("--weights-only", action="store_true", help="only what the model needs to run")
    args = ap.parse_args()
    torch.set_num_threads(1)
    os.makedirs(args.out, exist_ok=True)

    def into(name):
        return os.path.join(args.out, name)

    def write(name, value, indent):
        with open(into(name), "w", encoding="utf-8") as f:
            json.dump(value, f, indent=indent)
            f.write("\n")

    ck = torch.load(os.path.join(args.run, "checkpoint.pt"), weights_only=True)
    c = Config() if args.init else FIRST_STAGES
    write("config.json", c.to_json(), 2)
    save_file(tensors(ck["model"], c), into("model.safetensors"), metadata={"format": "pt"})
    source = args.init or args.data
    shutil.copyfile(os.path.join(source, "tokenizer.tok.json"), into("tokenizer.tok.json"))
    if args.weights_only:
        return
    shutil.copyfile(os.path.join(source, "heldout.txt"), into("heldout.txt"))
    with open(os.path.join(source, "corpus.json"), encoding="utf-8") as f:
        corpus = json.load(f)
    log = os.path.join(args.run, "log.csv")
    if args.init:
        with open(os.path.join(args.data, "qa.json"), encoding="utf-8") as f:
            corpus["answers"] = json.load(f)
        for name in ("training_log.csv", "loss.svg"):
            shutil.copyfile(os.path.join(args.init, name), into(name))
        shutil.copyfile(log, into("answers_log.csv"))
    else:
        shutil.copyfile(log, into("training_log.csv"))
        curve(log, into("loss.svg"))
    write("corpus.json", corpus, 2)

    ref = Reference(args.out)
    with open(into("heldout.txt"), encoding="utf-8") as f:
        heldout = f.read()
    user = "Tell me a story about a fox who lost her hat."
    runs = {
        "plain": ref.tok.encode("Once upon a time"),
        "chat": ref.prompt(user),
        # Beyond the length of the first stages' rows, and of attn_temperature_len.
        "long": ref.tok.encode(heldout)[: 1200 if args.init else 320],
    }
    golden = {}
    for name, ids in runs.items():
        golden[f"{name}.input_ids"] = torch.tensor(ids, dtype=torch.int32)
        golden[f"{name}.logits"] = ref.forward(ids)[-1].clone()
    # In a subfolder, because every *.safetensors beside config.json counts as weights.
    os.makedirs(into("golden"), exist_ok=True)
    save_file(golden, into(os.path.join("golden", "logits.safetensors")))
    ppl, scored, total, loads = ref.perplexity(heldout)
    greedy, gaps = ref.greedy(runs["chat"], 64)
    positions = []
    if args.init:
        rows = np.fromfile(os.path.join(args.data, "valid_long.bin"), dtype="<u2")
        rows = rows.reshape(-1, LONG_ROW + 1).tolist()
        positions = by_position(Reference(args.out, torch.float32), rows)
    report = {
        "step": ck["step"],
        "arithmetic": "float64 on the bf16 weights; rotary cosines rounded to f32",
        "heldout": {
            "perplexity": ppl,
            "tokens": total,
            "scored_tokens": scored,
            "window": 512,
            "rule": (
                "the whole file as one run of text without special tokens; windows of 512 ids"
                " without overlap; the first id of each window is not scored; exp of the mean loss"
            ),
        },
        "by_position": positions,
        "expert_load": [[round(n / sum(row), 4) for n in row] for row in loads],
        "greedy": {
            "prompt": f"Human: {user}<|separator|>\n\nAssistant:",
            "prompt_ids": runs["chat"],
            "ids": greedy,
            "text": ref.tok.decode(greedy),
            "top2_gap": [round(g, 6) for g in gaps],
        },
    }
    write("reference.json", report, 1)
    print(f"step {ck['step']}: held-out perplexity {ppl:.4f} over {scored} tokens")
    print(ref.tok.decode(greedy))


if __name__ == "__main__":
    main()
