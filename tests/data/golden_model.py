"""A float64 model of Grok-2 and Grok-1 in PyTorch, with weights made from their names.

`forward` is the whole model, written for reading rather than for speed. It also knows how to be
wrong in the ways listed in `WRONG`, to show that the golden numbers would tell.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch

U64 = np.uint64


@dataclass
class Spec:
    """A config with every default settled; a cap of 0 means off."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    dense_width: int  # 0: no dense path
    expert_width: int
    experts: int
    top_k: int
    gelu: str
    eps: float
    embed_scale: float
    output_scale: float
    attn_scale: float
    attn_cap: float
    router_cap: float
    final_cap: float
    temperature_len: float
    tied: bool
    theta: float
    rope_type: str
    factor: float
    original_len: float
    extrapolation: float
    beta_fast: float
    beta_slow: float
    renormalise: bool  # llama.cpp: expert weights scaled to sum to 1
    rope_magnitude: float  # llama.cpp: factor on cos and sin


def read_config(c):
    """Config fields of either generation to one `Spec`."""
    residual = bool(c.get("residual_moe", False))
    # Only Grok-2 caps its router. SGLang's default of 30 belongs to Grok-2 as well.
    router_cap = c.get("router_logit_softcapping", 30.0 if residual else 0.0)
    attn_cap = c.get("attn_logit_softcapping", c.get("max_attn_value", 30.0))
    head_dim = c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
    factor = float(c.get("scaling_factor", 1.0))
    rope_type = c.get("rope_type")
    if rope_type is None:
        rope_type = "original" if factor == 1.0 else "linear"
    return Spec(
        vocab=c["vocab_size"],
        hidden=c["hidden_size"],
        layers=c["num_hidden_layers"],
        heads=c["num_attention_heads"],
        kv_heads=c["num_key_value_heads"],
        head_dim=head_dim,
        dense_width=c["intermediate_size"] if residual else 0,
        expert_width=c.get("moe_intermediate_size", c["intermediate_size"]),
        experts=c["num_local_experts"] if "num_local_experts" in c else c["num_experts"],
        top_k=c["num_experts_per_tok"],
        gelu={"gelu": "erf", "gelu_pytorch_tanh": "tanh"}[c["hidden_act"]],
        eps=float(c["rms_norm_eps"]),
        embed_scale=float(c["embedding_multiplier_scale"]),
        output_scale=float(c["output_multiplier_scale"]),
        attn_scale=float(c.get("attn_output_multiplier", head_dim**-0.5)),
        attn_cap=max(float(attn_cap or 0.0), 0.0),
        router_cap=max(float(router_cap or 0.0), 0.0),
        final_cap=max(float(c.get("final_logit_softcapping") or 0.0), 0.0),
        temperature_len=float(c.get("attn_temperature_len", -1)),
        tied=bool(c.get("tie_word_embeddings", False)),
        theta=float(c.get("rope_theta", 10000)),
        rope_type=rope_type,
        factor=factor,
        original_len=float(c.get("original_max_position_embeddings", 0)),
        extrapolation=float(c.get("extrapolation_factor", 1.0)),
        beta_fast=float(c.get("beta_fast", 32)),
        beta_slow=float(c.get("beta_slow", 1)),
        renormalise=bool(c.get("norm_topk_prob", False)),
        rope_magnitude=float(c.get("rope_magnitude", 1.0)),
    )


# ---- synthetic weights ---------------------------------------------------------------------------


def fnv1a(name):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def splitmix(start, count):
    """`count` outputs of splitmix64 whose state before the first step is `start`."""
    with np.errstate(over="ignore"):
        z = U64(start) + np.arange(1, count + 1, dtype=U64) * U64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> U64(30))) * U64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> U64(27))) * U64(0x94D049BB133111EB)
        return z ^ (z >> U64(31))


def stream(name, seed, count):
    return splitmix(fnv1a(name) ^ ((seed * 0xD6E8FEB86659FD93) & 0xFFFFFFFFFFFFFFFF), count)


def scale_exponent(gain, cols):
    """round(log2(gain * sqrt(3 / cols))), half away from zero, in exact arithmetic.

    96 columns are an exact tie (sqrt(1/32) = 2^-2.5), where a float log2 may fall on either side.
    """
    square = Fraction(gain * gain * 3, cols)  # 2 ^ (2 x)
    k = -64
    while Fraction(4) ** (k + 1) <= square:
        k += 1  # k = floor(x)
    half = 2 * Fraction(4) ** k  # 2 ^ (2 (k + 1/2))
    if square == half:
        return k + 1 if k >= 0 else k
    return k + 1 if square > half else k


def gain_of(name):
    if name.endswith(("block_sparse_moe.gate.weight", "lm_head.weight")):
        return 4
    if name.endswith(("q_proj.weight", "k_proj.weight")):
        return 2
    return 1


def synthetic(name, shape, seed=0):
    """The tensor of that name as float64. Every value is exact in bf16, f16 and f32."""
    b = (stream(name, seed, math.prod(shape)) >> U64(56)).astype(np.int64)
    if len(shape) == 1:
        values = 0.5 + (b >> 1) / 128.0
    else:
        values = (2 * b - 255) / 256.0 * 2.0 ** scale_exponent(gain_of(name), shape[-1])
    return values.reshape(shape)


def make_weights(spec, dtype):
    q_width, kv_width = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    shapes = {"model.embed_tokens.weight": (spec.vocab, spec.hidden)}
    for layer in range(spec.layers):
        at = f"model.layers.{layer}."
        for norm in ("pre_attn_norm", "post_attn_norm", "pre_moe_norm", "post_moe_norm"):
            shapes[f"{at}{norm}.weight"] = (spec.hidden,)
        shapes[f"{at}self_attn.q_proj.weight"] = (q_width, spec.hidden)
        shapes[f"{at}self_attn.k_proj.weight"] = (kv_width, spec.hidden)
        shapes[f"{at}self_attn.v_proj.weight"] = (kv_width, spec.hidden)
        shapes[f"{at}self_attn.o_proj.weight"] = (spec.hidden, q_width)
        shapes[f"{at}block_sparse_moe.gate.weight"] = (spec.experts, spec.hidden)
        for e in range(spec.experts):
            expert = f"{at}block_sparse_moe.experts.{e}."
            shapes[f"{expert}w1.weight"] = (spec.expert_width, spec.hidden)
            shapes[f"{expert}w3.weight"] = (spec.expert_width, spec.hidden)
            shapes[f"{expert}w2.weight"] = (spec.hidden, spec.expert_width)
        if spec.dense_width:
            shapes[f"{at}mlp.gate_proj.weight"] = (spec.dense_width, spec.hidden)
            shapes[f"{at}mlp.up_proj.weight"] = (spec.dense_width, spec.hidden)
            shapes[f"{at}mlp.down_proj.weight"] = (spec.hidden, spec.dense_width)
    shapes["model.norm.weight"] = (spec.hidden,)
    if not spec.tied:
        shapes["lm_head.weight"] = (spec.vocab, spec.hidden)
    return {k: torch.from_numpy(synthetic(k, s)).to(dtype) for k, s in shapes.items()}


# ---- the pieces of the forward pass --------------------------------------------------------------


def softcap(x, cap):
    return cap * torch.tanh(x / cap) if cap > 0 else x


def gelu(x, flavour):
    if flavour == "erf":
        return 0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0)))
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def rms_norm(x, weight, eps):
    return x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + eps) * weight


def temperature(positions, length):
    """The attention temperature of each query position, float64."""
    p = positions.to(torch.float64)
    if length <= 0:
        return torch.ones_like(p)
    stretched = torch.log2(p.clamp(min=1.0)) / math.log2(length)
    return torch.where(p > length, stretched, torch.ones_like(p))


def stretched_theta(theta, original_len, factor):
    two_pi = 2.0 * math.pi
    power = math.log(original_len * factor / two_pi) / math.log(original_len / two_pi)
    return theta**power


def yarn_corr(rotations, dim, theta, original_len):
    return dim * math.log(original_len / (rotations * 2.0 * math.pi)) / (2.0 * math.log(theta))


def yarn_range(dim, theta, original_len, beta_fast, beta_slow):
    low = max(0, math.floor(yarn_corr(beta_fast, dim, theta, original_len)))
    high = min(dim - 1, math.ceil(yarn_corr(beta_slow, dim, theta, original_len)))
    return low, high


def inv_freq(spec):
    """float64 [head_dim / 2], not yet rounded to float32."""
    dim = spec.head_dim
    i = np.arange(dim // 2, dtype=np.float64)
    ext = spec.theta ** (-2.0 * i / dim)
    if spec.rope_type == "original":
        return ext
    itp = ext / spec.factor
    if spec.rope_type == "linear":
        return itp
    if spec.rope_type == "theta_scale":
        return stretched_theta(spec.theta, spec.original_len, spec.factor) ** (-2.0 * i / dim)
    low, high = yarn_range(dim, spec.theta, spec.original_len, spec.beta_fast, spec.beta_slow)
    low = low - 0.001 if low == high else low
    mask = (1.0 - np.clip((i - low) / (high - low), 0.0, 1.0)) * spec.extrapolation
    if spec.rope_type == "yarn":
        return itp * (1.0 - mask) + ext * mask
    if spec.rope_type == "yarn_log":
        return np.exp(np.log(ext) * mask + np.log(itp) * (1.0 - mask))
    raise ValueError(f"rope_type {spec.rope_type!r}: not one of the known kinds")


def rope_table(inv, positions):
    """cos and sin [n, head_dim / 2]; angles are float32 products, as in inference engines."""
    angle = positions.numpy().astype(np.float32)[:, None] * inv.astype(np.float32)[None, :]
    angle = angle.astype(np.float64)
    return tuple(torch.from_numpy(f(angle).astype(np.float32)) for f in (np.cos, np.sin))


def rotate(x, table, interleaved=False):
    """x [n, heads, head_dim]; channel d pairs with d + head_dim / 2."""
    cos, sin = (t.to(x.dtype)[:, None, :] for t in table)
    half = x.shape[-1] // 2
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    ra, rb = a * cos - b * sin, b * cos + a * sin
    if interleaved:
        return torch.stack((ra, rb), dim=-1).flatten(-2)
    return torch.cat((ra, rb), dim=-1)


def route(logits, cap, top_k):
    """The top experts, their probabilities, and the margin over the next expert."""
    capped = softcap(logits, cap)
    probs = torch.softmax(capped, dim=-1)
    order = torch.argsort(capped, dim=-1, descending=True, stable=True)  # ties: lower index
    ranked = capped.gather(-1, order)
    chosen = order[:, :top_k]
    return chosen, probs.gather(-1, chosen), ranked[:, top_k - 1] - ranked[:, top_k]


# ---- deliberately wrong models -------------------------------------------------------------------

WRONG = {
    "no_temperature": "attention temperature left out",
    "temperature_before_cap": "temperature applied before the attention cap",
    "tau_position_plus_one": "temperature computed from position + 1",
    "no_attention_cap": "attention cap left out",
    "no_router_cap": "router cap left out",
    "router_cap_added": "router cap 30 where the config has none",
    "renormalised_top_k": "expert weights renormalised to sum to 1",
    "other_gelu": "tanh GELU for erf (Grok-1: erf for tanh)",
    "cap_before_output_scale": "final cap before the output scale",
    "no_final_cap": "final cap left out",
    "final_cap_added": "final cap 50 where the config has none",
    "no_output_scale": "output scale left out",
    "scaled_tied_head": "tied head taken with the embedding scale",
    "no_sqrt2": "(mlp + moe) not divided by the square root of 2",
    "interleaved_rope": "rotary pairs (2d, 2d + 1)",
    "yarn_for_original": "rope_type original taken for yarn",
    "no_rope_scaling": "rope_type linear, yarn, yarn_log, theta_scale taken for original",
    "yarn_kinds_swapped": "yarn and yarn_log taken for each other",
    "yarn_magnitude": "yarn with cos and sin times 1 + 0.1 ln(scaling_factor)",
    "rope_both_plus_one": "rotary positions of queries and keys off by one",
    "rope_query_plus_one": "rotary positions of queries alone off by one",
    "w1_w3_swapped": "expert gate and up swapped",
    "dense_gate_up_swapped": "dense gate and up swapped",
    "kv_head_modulo": "query head j on kv head j % n_kv",
    "eps_1e-6": "rms_norm_eps 1e-6",
    "one_plus_norm_weight": "norm weight w taken as 1 + w",
}


def attention(spec, weights, at, a, pos, wrong):
    n, d = a.shape[0], spec.head_dim
    q = (a @ weights[f"{at}q_proj.weight"].T).view(n, spec.heads, d)
    k = (a @ weights[f"{at}k_proj.weight"].T).view(n, spec.kv_heads, d)
    v = (a @ weights[f"{at}v_proj.weight"].T).view(n, spec.kv_heads, d)

    inv = inv_freq(spec)
    q, k = q * spec.rope_magnitude, k * spec.rope_magnitude
    if wrong == "yarn_magnitude" and spec.rope_type.startswith("yarn"):
        q, k = ((1.0 + 0.1 * math.log(spec.factor)) * x for x in (q, k))
    q_pos = pos + 1 if wrong in ("rope_both_plus_one", "rope_query_plus_one") else pos
    k_pos = pos + 1 if wrong == "rope_both_plus_one" else pos
    interleaved = wrong == "interleaved_rope"
    q = rotate(q, rope_table(inv, q_pos), interleaved)
    k = rotate(k, rope_table(inv, k_pos), interleaved)

    head = torch.arange(spec.heads)
    group = (
        head % spec.kv_heads if wrong == "kv_head_modulo" else head // (spec.heads // spec.kv_heads)
    )
    q = q.transpose(0, 1)  # [heads, n, d]
    k = k[:, group].transpose(0, 1)
    v = v[:, group].transpose(0, 1)

    tau_pos = pos + 1 if wrong == "tau_position_plus_one" else pos
    tau = temperature(tau_pos, 0 if wrong == "no_temperature" else spec.temperature_len)
    tau = tau.to(a.dtype)[None, :, None]
    cap = 0.0 if wrong == "no_attention_cap" else spec.attn_cap
    s = (q @ k.transpose(1, 2)) * spec.attn_scale
    if wrong == "temperature_before_cap":
        s = softcap(s * tau, cap)
    else:
        s = softcap(s, cap) * tau
    future = torch.ones(n, n, dtype=torch.bool).triu(diagonal=1)
    s = s.masked_fill(future, -math.inf)
    o = torch.softmax(s, dim=-1) @ v
    return o.transpose(0, 1).reshape(n, spec.heads * d) @ weights[f"{at}o_proj.weight"].T


def gated(x, gate, up, down, flavour):
    return (gelu(x @ gate.T, flavour) * (x @ up.T)) @ down.T


def feed_forward(spec, weights, at, m, wrong):
    moe_at = f"{at}block_sparse_moe."
    flavour = spec.gelu
    if wrong == "other_gelu":
        flavour = "tanh" if flavour == "erf" else "erf"
    logits = m @ weights[f"{moe_at}gate.weight"].T
    cap = 0.0 if wrong == "no_router_cap" else spec.router_cap
    if wrong == "router_cap_added" and cap == 0.0:
        cap = 30.0
    chosen, probs, margin = route(logits, cap, spec.top_k)
    renormalise = spec.renormalise or wrong == "renormalised_top_k"
    applied = probs / probs.sum(-1, keepdim=True) if renormalise else probs

    f = torch.zeros_like(m)
    for e in range(spec.experts):
        token, slot = torch.nonzero(chosen == e, as_tuple=True)
        w1, w2, w3 = (weights[f"{moe_at}experts.{e}.{w}.weight"] for w in ("w1", "w2", "w3"))
        if wrong == "w1_w3_swapped":
            w1, w3 = w3, w1
        f[token] += applied[token, slot, None] * gated(m[token], w1, w3, w2, flavour)
    if spec.dense_width:
        gate, up, down = (weights[f"{at}mlp.{p}_proj.weight"] for p in ("gate", "up", "down"))
        if wrong == "dense_gate_up_swapped":
            gate, up = up, gate
        f = f + gated(m, gate, up, down, flavour)
        if wrong != "no_sqrt2":
            f = f / math.sqrt(2.0)
    return f, chosen, probs, margin


def rope_kind(spec, wrong):
    kind = spec.rope_type
    if wrong == "yarn_for_original" and kind == "original" and spec.factor != 1.0:
        return "yarn"
    if wrong == "yarn_kinds_swapped":
        return {"yarn": "yarn_log", "yarn_log": "yarn"}.get(kind, kind)
    return "original" if wrong == "no_rope_scaling" else kind


def forward(spec, weights, ids, wrong=None):
    """Logits and intermediate values for every position of the prompt."""
    eps = 1e-6 if wrong == "eps_1e-6" else spec.eps
    extra = 1.0 if wrong == "one_plus_norm_weight" else 0.0
    spec = replace(spec, rope_type=rope_kind(spec, wrong))

    def norm(x, name):
        return rms_norm(x, weights[f"{name}.weight"] + extra, eps)

    pos = torch.arange(len(ids))
    h = weights["model.embed_tokens.weight"][torch.from_numpy(ids)] * spec.embed_scale
    hidden, experts, probs, margins = [h], [], [], []
    for layer in range(spec.layers):
        at = f"model.layers.{layer}."
        a = norm(h, f"{at}pre_attn_norm")
        a = attention(spec, weights, f"{at}self_attn.", a, pos, wrong)
        h = h + norm(a, f"{at}post_attn_norm")
        m = norm(h, f"{at}pre_moe_norm")
        f, chosen, p, margin = feed_forward(spec, weights, at, m, wrong)
        h = h + norm(f, f"{at}post_moe_norm")
        hidden.append(h)
        experts.append(chosen)
        probs.append(p)
        margins.append(margin)
    y = norm(h, "model.norm")
    head = weights["model.embed_tokens.weight" if spec.tied else "lm_head.weight"]
    scale = 1.0 if wrong == "no_output_scale" else spec.output_scale
    cap = 0.0 if wrong == "no_final_cap" else spec.final_cap
    if wrong == "final_cap_added" and cap == 0.0:
        cap = 50.0
    if wrong == "scaled_tied_head" and spec.tied:
        head = head * spec.embed_scale
    z = y @ head.T
    if wrong == "cap_before_output_scale":
        logits = softcap(z, cap) * scale
    else:
        logits = softcap(z * scale, cap)
    return {
        "logits": logits,
        "hidden": torch.stack(hidden),
        "experts": torch.stack(experts),
        "probs": torch.stack(probs),
        "margin": torch.stack(margins),
    }
