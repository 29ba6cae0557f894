#!/usr/bin/env python3
"""Writes to `release/` a tiny Grok-1 in the files of its first release, and what it must read as.

    model/ckpt-0/tensorNNNNN_000   pickles, as Python and NumPy write them: two layers, in the order
                                   of the tree of parameters that xai-org/grok-1 builds
    model/config.json              the sizes; the release itself has no such file
    expected/                      the same weights in the layout of hpcai-tech/grok-1
    golden.safetensors             prompts, and the logits after each in float64 of `golden_model.py`

Needs what `requirements.txt` lists. Run: python3 make_release.py
"""

import json
import math
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import torch

from golden_model import forward, read_config, stream
from make_golden import to_safetensors

HERE = Path(__file__).resolve().parent / "release"

CONFIG = {
    "architectures": ["Grok1ModelForCausalLM"],
    "model_type": "grok-1",
    "torch_dtype": "bfloat16",
    "vocab_size": 80,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "hidden_act": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-05,
    "attn_output_multiplier": 0.25,
    "max_attn_value": 30.0,
    "embedding_multiplier_scale": math.sqrt(32.0),
    "output_multiplier_scale": 1.0 / math.sqrt(3.0),
    "max_position_embeddings": 4096,
    "rope_theta": 10000,
    "tie_word_embeddings": True,
}
PROMPT = 12
DEVICES = 8  # that the rows of some matrices are distributed over, with a scale each


@dataclass
class QuantizedWeight8bit:
    """The class of the release, where its program puts it: in `__main__`."""

    weight: np.ndarray
    scales: np.ndarray


def use_old_names():
    """The release was written with NumPy 1, whose core had another name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import numpy.core.multiarray as old
    old._reconstruct.__module__ = "numpy.core.multiarray"


def floats(name, shape, middle, width):
    """float32 values around `middle`, which are not exact in fewer bits."""
    unit = (stream(name, 0, math.prod(shape)) >> np.uint64(11)).astype(np.float64) / 2.0**53
    return (middle + width * (2.0 * unit - 1.0)).astype(np.float32).reshape(shape)


def quantized(name, shape, blocks):
    """int8 weights and scales for `blocks` of their rows."""
    raw = (stream(name, 0, math.prod(shape)) >> np.uint64(56)).astype(np.uint8)
    weight = raw.view(np.int8).reshape(shape)
    size = 1.0 / (74.0 * math.sqrt(shape[-2]))  # 74 is the spread of such weights
    scales = floats(f"{name}.scales", (*shape[:-2], blocks, shape[-1]), size, 0.5 * size)
    return QuantizedWeight8bit(weight, scales.astype(ml_dtypes.bfloat16))


def parameters(c):
    """The tree of parameters: a name and what is stored under it."""
    hidden, width = c["hidden_size"], c["intermediate_size"]
    queries, keys = (c[f"num_{of}_heads"] * c["head_dim"] for of in ("attention", "key_value"))
    experts = c["num_experts"]
    tree = {
        "language_model/in_out_embed/embeddings": ("f", (c["vocab_size"], hidden), 0.0, 0.1),
        "language_model/rms_norm/scale": ("f", (hidden,), 1.0, 0.4),
    }
    for layer in range(c["num_hidden_layers"]):
        at = f"transformer/decoder_layer_{layer}"
        tree |= {
            f"{at}/moe/linear/w": ("q", (experts, hidden, width), 1),
            f"{at}/moe/linear_v/w": ("q", (experts, hidden, width), 1),
            f"{at}/moe/linear_1/w": ("q", (experts, width, hidden), DEVICES),
            f"{at}/multi_head_attention/query/w": ("q", (hidden, queries), 1),
            f"{at}/multi_head_attention/key/w": ("q", (hidden, keys), 1),
            f"{at}/multi_head_attention/value/w": ("q", (hidden, keys), 1),
            f"{at}/multi_head_attention/linear/w": ("q", (queries, hidden), DEVICES),
            f"{at}/router/w": ("f", (hidden, experts), 0.0, 0.7),
        }
        for norm in ("rms_norm", "rms_norm_1", "rms_norm_2", "rms_norm_3"):
            tree[f"{at}/{norm}/scale"] = ("f", (hidden,), 1.0, 0.4)
    make = {"f": floats, "q": quantized}
    return {name: make[kind](name, *rest) for name, (kind, *rest) in tree.items()}


def plain(stored):
    """The values that the release's program computes with, in its types."""
    if not isinstance(stored, QuantizedWeight8bit):
        return stored
    rows, blocks = stored.weight.shape[-2], stored.scales.shape[-2]
    scales = np.repeat(stored.scales, rows // blocks, axis=-2)
    return stored.weight.astype(ml_dtypes.bfloat16) * scales


def turned(stored):
    return np.ascontiguousarray(np.swapaxes(plain(stored), -1, -2))


# Of the canonical names, and those of hpcai-tech/grok-1.
NORMS = ("pre_attn_norm", "post_attn_norm", "pre_moe_norm", "post_moe_norm")
ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "linear": "o_proj"}
EXPERT = {"linear": "w1", "linear_v": "w3", "linear_1": "w2"}


def model(tree, c):
    """Pairs of names, canonical and hpcai-tech's, with the matrix as `[out, in]`."""
    yield (
        "model.embed_tokens.weight",
        "model.embed_tokens.weight",
        plain(tree["language_model/in_out_embed/embeddings"]),
    )
    yield "model.norm.weight", "model.norm.scale", plain(tree["language_model/rms_norm/scale"])
    for layer in range(c["num_hidden_layers"]):
        at, to = f"transformer/decoder_layer_{layer}", f"model.layers.{layer}"
        for stored, norm in zip(("", "_1", "_2", "_3"), NORMS, strict=True):
            gain = plain(tree[f"{at}/rms_norm{stored}/scale"])
            yield f"{to}.{norm}.weight", f"{to}.{norm}.scale", gain
        for stored, name in ATTENTION.items():
            matrix = turned(tree[f"{at}/multi_head_attention/{stored}/w"])
            yield f"{to}.self_attn.{name}.weight", f"{to}.attn.{name}.weight", matrix
        router = turned(tree[f"{at}/router/w"])
        yield f"{to}.block_sparse_moe.gate.weight", f"{to}.moe_block.gate.weight", router
        for stored, name in EXPERT.items():
            for e, matrix in enumerate(turned(tree[f"{at}/moe/{stored}/w"])):
                canonical = f"{to}.block_sparse_moe.experts.{e}.{name}.weight"
                yield canonical, f"{to}.moe_block.experts.{e}.{stored}.weight", matrix


def main():
    use_old_names()
    tree = parameters(CONFIG)
    folder = HERE / "model" / "ckpt-0"
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(sorted(tree)):
        data = pickle.dumps(tree[name], protocol=4)
        (folder / f"tensor{number:05}_000").write_bytes(data)

    expected, weights = {}, {}
    for canonical, name, matrix in model(tree, CONFIG):
        expected[name] = matrix
        weights[canonical] = torch.from_numpy(matrix.astype(np.float64))
    (HERE / "expected").mkdir(exist_ok=True)
    (HERE / "expected" / "model.safetensors").write_bytes(to_safetensors(expected))
    text = json.dumps(CONFIG, indent=2) + "\n"
    for place in ("model", "expected"):
        (HERE / place / "config.json").write_text(text)

    z = stream("ids", 0, PROMPT) >> np.uint64(32)
    ids = (z % np.uint64(CONFIG["vocab_size"])).astype(np.int64)
    golden = {}
    for count in (1, 5, PROMPT):
        result = forward(read_config(CONFIG), weights, ids[:count])
        assert result["margin"].min() > 1e-3, "a choice of experts hangs on a rounding error"
        golden[f"{count}.input_ids"] = ids[:count].astype(np.int32)
        golden[f"{count}.logits"] = result["logits"][-1].numpy()
    (HERE / "golden.safetensors").write_bytes(to_safetensors(golden))


if __name__ == "__main__":
    main()
