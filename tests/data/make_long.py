"""Computes golden logits of one layer of Grok-2 at positions up to 131,071, with error bounds.

The mathematics are `golden_model.py`'s, in float64. With one layer, the keys and values of a
position follow from its token alone, so attention is computed only for the positions that are kept:
`make_golden.py` would need the square of 131,072.

Beside each logit is a bound on what a correct device may be off by. It is a first-order running
error analysis: each intermediate result has the error that WGSL's accuracy rules (section "Floating
Point Accuracy") allow the operations that make it, and the bound of a logit is the sum, over all of
these results, of that error times the logit's derivative. Sums may be in any order. A key or value
that is stored in fewer bits has the farthest stored number that the error before its rounding
allows.

    python make_long.py                 rewrite long/*.json and long/*.safetensors
    python make_long.py --check         recompute, compare with the files, change nothing
    python make_long.py --sensitivity   how far wrong models are off, in bounds
"""

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

# `make_golden` sets what PyTorch reads when it is imported, so it comes first.
from make_golden import CHECK_TOLERANCE, GROK2, config, to_safetensors

# isort: split
import numpy as np
import torch

from golden_model import (
    gelu,
    inv_freq,
    make_weights,
    read_config,
    rms_norm,
    rope_table,
    rotate,
    softcap,
    temperature,
)

LONG = Path(__file__).resolve().parent / "long"
CONTEXT = 131072
POSITIONS = [1, 1025, 8193, 65537, 131071]
# The test has a binding limit that cuts a cache into shards of so many positions.
SEGMENT = 16384
CACHES = ("f32", "f16", "q8")

ULP = 2.0**-23  # a unit in the last place of 1, by which an operation in f32 may be off
# The analysis is of first order. `check_size` sees to it that the relative change of the softmax
# weights, the most sensitive step, stays below a tenth on their average. What is left out is of the
# order of its square.
SECOND_ORDER = 1.25

SMALL = config(
    GROK2,
    vocab_size=64,
    hidden_size=64,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=32,
    intermediate_size=64,
    moe_intermediate_size=32,
    num_local_experts=4,
    attn_temperature_len=1024,
    original_max_position_embeddings=8192,
    max_position_embeddings=CONTEXT,
)
CASES = {
    # The released rule: theta contains the scaling, and positions stay as they are.
    "released": config(SMALL, rope_theta=208533496),
    "interpolated": config(SMALL, rope_type="linear"),
    "yarn": config(SMALL, rope_type="yarn"),
}


# Of those that were tried the first prompt in which no choice of experts is near a tie.
SALT = 6000018


def prompt():
    """The ids of all positions: a hash, so that the test needs no file."""
    x = np.arange(CONTEXT, dtype=np.uint32) + np.uint32(SALT)
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
        x = (x ^ (x >> np.uint32(12))) * np.uint32(0x297A2D39)
    return torch.from_numpy((x >> np.uint32(26)).astype(np.int64))


# ---- what operations may be off by ---------------------------------------------------------------


def of_product(x, weight):
    """A matrix product: as many products and additions as there are columns, in any order."""
    return (x.shape[-1] + 2) * ULP * (x.abs() @ weight.abs().T)


def of_norm(y):
    """A norm: half of what its sum of squares and mean are off by, root, quotient, two products."""
    return ((y.shape[-1] + 6) / 2 + 5) * ULP * y.abs()


def of_cap(s, cap):
    """`cap * tanh(s / cap)`: the division, a tanh within eight units of 1, and the product."""
    if cap <= 0:
        return torch.zeros_like(s)
    inner = 2.5 * ULP * s.abs().clamp(max=cap)
    return inner + 8 * ULP * cap + ULP * softcap(s, cap).abs()


def of_exp(gap):
    """Relative: an exponential of a difference, which is rounded as well."""
    return (4 + 2 * gap.abs()) * ULP


def of_gelu(x, value):
    """The fit of erfc, whose exponential carries the error of its square, and three roundings."""
    z = x.abs() / math.sqrt(2.0)
    tail = 0.5 * torch.erfc(z)
    return x.abs() * tail * (26 + 7 * z.clamp(max=9) ** 2) * ULP + 3 * ULP * value.abs()


# ---- keys and values in fewer bits ---------------------------------------------------------------


def half(x):
    """The nearest finite f16. Devices round from f32."""
    limit = torch.finfo(torch.float16).max
    return x.to(torch.float32).clamp(-limit, limit).to(torch.float16)


def farthest(value, ends):
    worst = torch.zeros_like(value)
    for end in ends:
        worst = torch.maximum(worst, (end - value).abs())
    return worst


def block_scale(largest):
    """The f16 scale of a block: one step up where the nearest is short by more than 1/1024."""
    wanted = largest / 127.0
    near = half(wanted)
    short = wanted > near.double() * (1 + 1 / 1024)
    return torch.where(short, (near.view(torch.int16) + 1).view(torch.float16), near)


def stored(kind, x, error):
    """What the cache holds for rows of 32, and how far a device's numbers may be from it."""
    if kind == "f32":
        return x, error
    if kind == "f16":
        value = half(x).double()
        return value, farthest(value, [half(x - error).double(), half(x + error).double()])
    scale = block_scale(x.abs().amax(-1, keepdim=True))
    least = ((x.abs() - error).amax(-1, keepdim=True) * (1 - 4 * ULP)).clamp(min=0)
    most = (x.abs() + error).amax(-1, keepdim=True) * (1 + 4 * ULP)
    lowest, highest = (block_scale(end).view(torch.int16) for end in (least, most))
    value = (x / scale.double()).round().clamp(-127, 127) * scale.double()
    ends = []
    for step in range(int((highest - lowest).max()) + 1):
        s = torch.minimum(lowest + step, highest).view(torch.float16).double()
        low, high = (x - error) / s, (x + error) / s
        slack = 4 * ULP * torch.maximum(low.abs(), high.abs())
        ends.append((low - slack - 0.5).ceil().clamp(-127, 127) * s)
        ends.append((high + slack + 0.5).floor().clamp(-127, 127) * s)
    return value, farthest(value, ends)


# ---- the model -----------------------------------------------------------------------------------


class Errors:
    """Zeros that are added to intermediate results, to have derivatives, and their sizes."""

    def __init__(self):
        self.zeros, self.sizes = [], []

    def add(self, value, size):
        zero = torch.zeros_like(value).requires_grad_()
        self.zeros.append(zero)
        self.sizes.append(size.detach())
        return value + zero

    def bound(self, result):
        """What a number may be off by: each error times the number's derivative by it."""
        by = torch.autograd.grad(result, self.zeros, retain_graph=True, allow_unused=True)
        parts = [(d.abs() * s).sum() for d, s in zip(by, self.sizes, strict=True) if d is not None]
        return SECOND_ORDER * torch.stack(parts).sum()


def rotated(x, error, table):
    """Rotary embedding of [n, heads, dim], with bounds: two products and an addition."""
    cos, sin = (t.double()[:, None, :].repeat(1, 1, 2) for t in table)
    halves = x.shape[-1] // 2
    other, other_error = (torch.roll(t, halves, -1) for t in (x, error))
    carried = error * cos.abs() + other_error * sin.abs()
    # Cosine and sine are rounded, one way or the other, as well.
    return rotate(x, table), carried + 3 * ULP * ((x * cos).abs() + (other * sin).abs())


class Layer:
    """Queries, keys and values of all tokens of the vocabulary before rotation, with bounds."""

    def __init__(self, spec):
        self.spec = spec
        with torch.no_grad():
            self.weights = make_weights(spec, torch.float64)
            x = self.weights["model.embed_tokens.weight"] * spec.embed_scale
            h = rms_norm(x, self.of("pre_attn_norm"), spec.eps)
            self.x, self.heads = x, {}
            for name in "qkv":
                weight = self.of(f"self_attn.{name}_proj")
                value = h @ weight.T
                error = of_product(h, weight) + of_norm(h) @ weight.abs().T
                self.heads[name] = tuple(t.view(len(x), -1, spec.head_dim) for t in (value, error))

    def of(self, name):
        return self.weights[f"model.layers.0.{name}.weight"]

    def cache(self, kind, ids):
        """Keys and values of all positions as they are stored: [n, dim], each with its bound."""
        table = rope_table(inv_freq(self.spec), torch.arange(len(ids)))
        k, v = ([t[ids] for t in self.heads[name]] for name in "kv")
        k, v = stored(kind, *rotated(*k, table)), stored(kind, *v)
        return tuple(t[:, 0] for t in (*k, *v))


def attend(spec, errors, query, keys, values, position):
    """Attention of the heads of one query, [heads, dim], on one key head."""
    n = position + 1
    s = query @ keys.T
    size = (spec.head_dim / 4 + 3) * ULP * (query.abs() @ keys.abs().T) * spec.attn_scale
    s = errors.add(s * spec.attn_scale, size + ULP * s.abs() * spec.attn_scale)
    tau = temperature(torch.tensor([position]), spec.temperature_len)[0]
    capped = softcap(s, spec.attn_cap)
    s = errors.add(capped * tau, tau * of_cap(s, spec.attn_cap) + 2 * ULP * (capped * tau).abs())
    gap = s - s.amax(-1, keepdim=True).detach()
    # An online softmax scales again what it has at each new largest score: at most once a block of
    # eight positions, by exponents that sum to the range of the scores.
    most, reach = min(n, SEGMENT), gap.abs().amax(-1, keepdim=True)
    rescaled = (5 * math.ceil(most / 8) + 3 * reach) * ULP
    w = gap.exp()
    w = errors.add(w, w * (of_exp(gap) + rescaled))
    # Each of up to 32 splits or shards is a sum of that kind, and their sum has a weight for each.
    joined = of_exp(reach) + 34 * ULP
    total = w.sum(-1, keepdim=True)
    total = errors.add(total, total * ((most + most / 8) * ULP + joined))
    sums = w @ values
    sums = errors.add(sums, (w.abs() @ values.abs()) * ((most + 40) * 2 * ULP + joined))
    out = sums / total
    return errors.add(out, 2.5 * ULP * out.abs())


def forward(layer, cache, ids, position):
    """The logits after a position, their errors, and the gap to the first expert left out."""
    spec, errors = layer.spec, Errors()

    def product(x, weight):
        y = x @ weight.T
        return errors.add(y, of_product(x, weight))

    def norm(x, weight):
        y = rms_norm(x, weight, spec.eps)
        return errors.add(y, of_norm(y))

    def gated(x, gate, up, down):
        g, u = product(x, gate), product(x, up)
        a = gelu(g, spec.gelu)
        a = errors.add(a, of_gelu(g, a)) * u
        return product(errors.add(a, ULP * a.abs()), down)

    n = position + 1
    k, k_error, v, v_error = (t[:n] for t in cache)
    here = ids[position : position + 1]
    query = rotated(
        *(t[here] for t in layer.heads["q"]),
        rope_table(inv_freq(spec), torch.tensor([position])),
    )
    query = errors.add(query[0][0], query[1][0])
    o = attend(spec, errors, query, errors.add(k, k_error), errors.add(v, v_error), position)
    block = product(o.reshape(1, -1), layer.of("self_attn.o_proj"))
    x = layer.x[here]
    x = x + norm(block, layer.of("post_attn_norm"))
    m = norm(errors.add(x, ULP * x.abs()), layer.of("pre_moe_norm"))

    r = product(m, layer.of("block_sparse_moe.gate"))
    r = errors.add(softcap(r, spec.router_cap), of_cap(r, spec.router_cap))[0]
    order = r.argsort(descending=True)
    gap = r[order[spec.top_k - 1]] - r[order[spec.top_k]]
    p = torch.softmax(r, -1)
    p = errors.add(p, p * ((of_exp(r - r.max())).max() + (spec.experts + 2.5) * ULP))
    f = gated(m, *(layer.of(f"mlp.{part}_proj") for part in ("gate", "up", "down")))
    size = f.abs()
    for e in order[: spec.top_k].tolist():
        at = f"block_sparse_moe.experts.{e}."
        y = p[e] * gated(m, *(layer.of(at + w) for w in ("w1", "w3", "w2")))
        f, size = f + y, size + y.abs()
    f = errors.add(f, (spec.top_k + 2) * ULP * size) / math.sqrt(2.0)
    x = x + norm(errors.add(f, 2 * ULP * f.abs()), layer.of("post_moe_norm"))
    y = norm(errors.add(x, ULP * x.abs()), layer.weights["model.norm.weight"])
    z = product(y, layer.weights["lm_head.weight"]) * spec.output_scale
    z = errors.add(z, ULP * z.abs())
    logits = errors.add(softcap(z, spec.final_cap), of_cap(z, spec.final_cap))[0]
    return logits, gap, errors


def check_size(layer, cache, ids, position):
    """Checks that the errors of scores are small enough for an analysis of first order."""
    spec = layer.spec
    query, error = rotated(
        *(t[ids[position : position + 1]] for t in layer.heads["q"]),
        rope_table(inv_freq(spec), torch.tensor([position])),
    )
    k, k_error = (t[: position + 1] for t in cache[:2])
    tau = temperature(torch.tensor([position]), spec.temperature_len)
    scores = softcap(query[0] @ k.T * spec.attn_scale, spec.attn_cap) * tau
    change = query[0].abs() @ k_error.T + error[0] @ (k.abs() + k_error).T
    change = (torch.softmax(scores, -1) * change).sum(-1).max() * spec.attn_scale * tau
    if not change.item() < 0.1:
        raise SystemExit(f"position {position}: softmax weights may be off by {change.item():.3f}")


def tensors_of(c):
    spec, ids = read_config(c), prompt()
    layer = Layer(spec)
    tensors = {"positions": np.array(POSITIONS, dtype=np.int32)}
    for kind in CACHES:
        cache = layer.cache(kind, ids)
        logits, bounds = [], []
        for position in POSITIONS:
            check_size(layer, cache, ids, position)
            row, gap, errors = forward(layer, cache, ids, position)
            if not gap.item() > errors.bound(gap).item():
                raise SystemExit(f"{kind}, position {position}: experts may tie at {gap:.2e}")
            logits.append(row.detach().numpy())
            bounds.append([errors.bound(logit).item() for logit in row])
        tensors[f"{kind}.logits"] = np.array(logits)
        tensors[f"{kind}.bounds"] = np.array(bounds)
    return tensors


def config_text(c):
    return json.dumps(c, indent=2) + "\n"


def wrong_models(spec):
    yield "no interpolation", replace(spec, rope_type="original")
    yield "interpolation", replace(spec, rope_type="linear")
    yield "YaRN", replace(spec, rope_type="yarn")
    yield "no temperature", replace(spec, temperature_len=0)
    yield "temperature of another length", replace(spec, temperature_len=2 * spec.temperature_len)


def sensitivity(ids):
    """For each case and wrong model, the largest difference in bounds at each position."""
    for name, c in CASES.items():
        spec = read_config(c)
        right = tensors_of(c)
        for kind in CACHES:
            bounds = right[f"{kind}.bounds"]
            print(f"{name} {kind}: bounds {[f'{b.max():.1e}' for b in bounds]}")
        for wrong, other in wrong_models(spec):
            layer = Layer(other)
            cache = layer.cache("q8", ids)
            cells = []
            for i, position in enumerate(POSITIONS):
                row = forward(layer, cache, ids, position)[0].detach().numpy()
                off = np.abs(row - right["q8.logits"][i]) / right["q8.bounds"][i]
                cells.append(f"{off.max():.1f}")
            print(f"{name}: {wrong}: {' '.join(cells)}")


def check():
    problems = []
    for name, c in CASES.items():
        from safetensors.numpy import load_file  # only this needs it

        if (LONG / f"{name}.json").read_text() != config_text(c):
            problems.append(f"{name}.json: differs from the script")
        want, got = tensors_of(c), load_file(LONG / f"{name}.safetensors")
        if set(want) != set(got):
            problems.append(f"{name}: tensors {sorted(got)}, want {sorted(want)}")
            continue
        for key, array in want.items():
            if not np.abs(array - got[key]).max() <= CHECK_TOLERANCE:
                problems.append(f"{name}: {key} differs by {np.abs(array - got[key]).max():.3e}")
    print("\n".join(problems) or "no problems")
    return 1 if problems else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true")
    mode.add_argument("--sensitivity", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.check:
        return check()
    if args.sensitivity:
        return sensitivity(prompt())
    LONG.mkdir(exist_ok=True)
    for name, c in CASES.items():
        (LONG / f"{name}.json").write_text(config_text(c))
        (LONG / f"{name}.safetensors").write_bytes(to_safetensors(tensors_of(c)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
