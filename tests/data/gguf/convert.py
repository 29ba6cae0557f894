#!/usr/bin/env python3
"""Converts a small Grok-2 folder (one safetensors file, tokenizer.tok.json) to GGUF.

Writes what llama.cpp's own converter does, so that both programs can run the same file. Needs PyPI's
`gguf`, `safetensors`, `torch` and `numpy`. Never part of a build or a test.

    python3 convert.py ../../../models/demo demo.gguf BF16     # or F32, F16, Q8_0, Q4_0
"""

import itertools
import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, quants
from safetensors import safe_open

NORMAL, CONTROL, UNUSED = 1, 3, 5

LAYER = {
    "attn_norm": "pre_attn_norm",
    "attn_output_norm": "post_attn_norm",
    "ffn_norm": "pre_moe_norm",
    "post_ffw_norm": "post_moe_norm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "block_sparse_moe.gate",
}


def add_config(writer, c):
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_expert_feed_forward_length(c["moe_intermediate_size"])
    writer.add_expert_count(c["num_local_experts"])
    writer.add_expert_used_count(c["num_experts_per_tok"])
    writer.add_vocab_size(c["vocab_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_key_length(c["head_dim"])
    writer.add_value_length(c["head_dim"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_attn_logit_softcapping(c["attn_logit_softcapping"])
    writer.add_router_logit_softcapping(c["router_logit_softcapping"])
    if c.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(c["final_logit_softcapping"])
    if c.get("attn_temperature_len", 0) > 0:
        writer.add_attn_temperature_length(c["attn_temperature_len"])
    writer.add_attn_output_scale(c["head_dim"] ** -0.5)
    writer.add_embedding_scale(c["embedding_multiplier_scale"])
    writer.add_logit_scale(c["output_multiplier_scale"])
    writer.add_rope_dimension_count(c["head_dim"])
    writer.add_rope_freq_base(c["rope_theta"])
    if c.get("rope_type") in ("yarn", "original"):
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(c["scaling_factor"])
        writer.add_rope_scaling_orig_ctx_len(c["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_ext_factor(c["extrapolation_factor"])
        writer.add_rope_scaling_yarn_attn_factor(c["attn_factor"])
        writer.add_rope_scaling_yarn_beta_fast(c["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(c["beta_slow"])


def printable():
    """The character that stands for each byte in a byte-level vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (b for b in range(256) if b not in plain)
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


def merge_of(token, ranks):
    """The last merge that forms a token: its two parts after all merges of lower rank."""
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        pairs = [
            (ranks.get(a + b, len(ranks) + 9999), i)
            for i, (a, b) in enumerate(itertools.pairwise(parts))
        ]
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def add_tokenizer(writer, vocab_size, tok):
    letters = printable()

    def text(token):
        return "".join(letters[b] for b in token)

    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    types = [UNUSED] * vocab_size
    ranks = {bytes(t["bytes"]): t["token"] for t in tok["regular_tokens"]}
    for token, rank in ranks.items():
        tokens[rank], types[rank] = text(token), NORMAL
    for special in tok["special_tokens"]:
        tokens[special["token"]] = bytes(special["bytes"]).decode()
        types[special["token"]] = CONTROL
    longer = sorted((token for token in ranks if len(token) > 1), key=ranks.get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("grok-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(map(text, merge_of(token, ranks))) for token in longer])
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(1)
    writer.add_add_bos_token(False)


def main():
    source, target, kind = Path(sys.argv[1]), sys.argv[2], GGMLQuantizationType[sys.argv[3]]
    c = json.loads((source / "config.json").read_text())
    writer = gguf.GGUFWriter(target, "grok")
    add_config(writer, c)
    add_tokenizer(writer, c["vocab_size"], json.loads((source / "tokenizer.tok.json").read_text()))
    file = safe_open(source / "model.safetensors", "pt")

    def get(name):
        return file.get_tensor(f"{name}.weight").to(torch.float32).numpy()

    def add(name, values):
        small = values.ndim == 1 or name.endswith("ffn_gate_inp")
        ty = GGMLQuantizationType.F32 if small else kind
        writer.add_tensor(f"{name}.weight", quants.quantize(values, ty), raw_dtype=ty)

    add("token_embd", get("model.embed_tokens"))
    add("output", get("lm_head"))
    add("output_norm", get("model.norm"))
    for i in range(c["num_hidden_layers"]):
        for theirs, ours in LAYER.items():
            add(f"blk.{i}.{theirs}", get(f"model.layers.{i}.{ours}"))
        for theirs, ours in (("gate", "w1"), ("down", "w2"), ("up", "w3")):
            at = f"model.layers.{i}.block_sparse_moe.experts"
            experts = [get(f"{at}.{e}.{ours}") for e in range(c["num_local_experts"])]
            add(f"blk.{i}.ffn_{theirs}_exps", np.stack(experts))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
