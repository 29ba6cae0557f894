"""Computes golden logits of tiny Grok-2 and Grok-1 models in float64 with PyTorch.

The weights are not stored: each tensor is made from its name by a hash (see `synthetic`), so any
other program can make the same model. README.md beside this file describes the output files.

    python make_golden.py                 rewrite golden/*.json and golden/*.safetensors
    python make_golden.py --check         recompute, compare with the files, change nothing
    python make_golden.py --sensitivity   how far each deliberately wrong model is off
    python make_golden.py --f32           how far float32 arithmetic is from float64
Any form takes `--only TEXT` to keep the cases whose name contains TEXT.
"""

import argparse
import json
import math
import os
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path

# One code path on every CPU, so that a rerun writes the same bytes elsewhere too.
os.environ.setdefault("ATEN_CPU_CAPABILITY", "default")
os.environ.setdefault("MKL_CBWR", "COMPATIBLE")

import numpy as np
import torch

from golden_model import (
    U64,
    WRONG,
    fnv1a,
    forward,
    gelu,
    inv_freq,
    make_weights,
    read_config,
    rope_table,
    route,
    scale_exponent,
    softcap,
    splitmix,
    stream,
    stretched_theta,
    temperature,
    yarn_corr,
    yarn_range,
)

GOLDEN = Path(__file__).resolve().parent / "golden"
# These cases are also built into the self-test, which ships without the tests.
SHIPPED = Path(__file__).resolve().parents[2] / "src" / "selftest" / "data"
CHECK_TOLERANCE = 1e-10  # float64 noise between CPUs and library versions, with room

# ---- the models ----------------------------------------------------------------------------------

GROK2 = {
    "architectures": ["Grok1ForCausalLM"],
    "model_type": "git",
    "torch_dtype": "bfloat16",
    "vocab_size": 256,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
    "moe_intermediate_size": 64,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "residual_moe": True,
    "hidden_act": "gelu",
    "rms_norm_eps": 1e-05,
    "embedding_multiplier_scale": 8.0,
    "output_multiplier_scale": 0.5,
    "attn_logit_softcapping": 30.0,
    "router_logit_softcapping": 30.0,
    "final_logit_softcapping": 50,
    "attn_temperature_len": 16,
    "sliding_window_size": -1,
    "global_attn_every_n": 1,
    "max_position_embeddings": 4096,
    "rope_theta": 10000,
    "rope_type": "original",
    "original_max_position_embeddings": 256,
    "scaling_factor": 16.0,
    "extrapolation_factor": 1.0,
    "attn_factor": 1.0,
    "beta_fast": 8,
    "beta_slow": 1,
    "tie_word_embeddings": False,
}

GROK1 = {
    "architectures": ["Grok1ModelForCausalLM"],
    "model_type": "grok-1",
    "torch_dtype": "bfloat16",
    "vocab_size": 256,
    "hidden_size": 96,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "hidden_act": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-05,
    "attn_output_multiplier": 0.25,
    "max_attn_value": 30.0,
    "embedding_multiplier_scale": math.sqrt(96.0),
    "output_multiplier_scale": 1.0 / math.sqrt(3.0),
    "max_position_embeddings": 4096,
    "rope_theta": 10000,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

WIDE = {
    "vocab_size": 320,
    "hidden_size": 128,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "intermediate_size": 160,
    "moe_intermediate_size": 96,
    "num_experts_per_tok": 4,
}

ABSENT = object()  # as an override: leave the field out of the config


@dataclass
class Case:
    """One golden file: a config, a prompt length and the positions whose logits are kept."""

    name: str
    config: dict
    n: int
    positions: list = field(default_factory=list)  # empty: all
    hidden: bool = False
    prompt_seed: int = 0


def folder_of(case: "Case") -> Path:
    """The folder of a case's files."""
    return SHIPPED if (SHIPPED / f"{case.name}.json").exists() else GOLDEN


def config(base, **overrides):
    merged = {**base, **overrides}
    return {key: value for key, value in merged.items() if value is not ABSENT}


SOME = [0, 1, 2, 3, *range(14, 20), *range(30, 40)]  # both sides of attn_temperature_len
LONG = [*range(15, 19), *range(1096, 1100)]  # beyond the released attn_temperature_len of 1024
LARGE_THETA = 208533496

CASES = [
    Case("grok2_12", GROK2, 12, hidden=True),
    Case("grok2_40", GROK2, 40),
    Case("grok2_1100", config(GROK2, attn_temperature_len=1024), 1100, LONG),
    Case("grok2_theta_40", config(GROK2, rope_theta=LARGE_THETA), 40, SOME),
    Case(
        "grok2_theta_1100",
        config(GROK2, rope_theta=LARGE_THETA, attn_temperature_len=1024),
        1100,
        LONG,
    ),
    Case("grok2_linear_40", config(GROK2, rope_type="linear", scaling_factor=4.0), 40, SOME),
    Case("grok2_no_rope_type_40", config(GROK2, rope_type=ABSENT, scaling_factor=4.0), 40, SOME),
    Case("grok2_yarn_40", config(GROK2, rope_type="yarn"), 40, SOME),
    Case("grok2_yarn_log_40", config(GROK2, rope_type="yarn_log"), 40, SOME),
    Case("grok2_theta_scale_40", config(GROK2, rope_type="theta_scale"), 40, SOME),
    Case(
        "grok2_caps_tight_40",
        config(
            GROK2,
            attn_logit_softcapping=2.0,
            router_logit_softcapping=1.0,
            final_logit_softcapping=3,
        ),
        40,
        SOME,
        # A router cap of 1 saturates, and then experts tie in float32. With this prompt, every
        # choice of experts has a margin of at least 5e-5.
        prompt_seed=25,
    ),
    Case(
        "grok2_caps_off_40",
        config(
            GROK2,
            attn_logit_softcapping=0,
            router_logit_softcapping=0,
            final_logit_softcapping=None,
        ),
        40,
        SOME,
    ),
    Case("grok2_wide_40", config(GROK2, **WIDE), 40, SOME),
    Case("grok2_small_embed_40", config(GROK2, embedding_multiplier_scale=2.0**-6), 40, SOME),
    Case("grok2_big_eps_40", config(GROK2, rms_norm_eps=0.05), 40, SOME),
    # GROK2 with llama.cpp's arithmetic.
    Case(
        "grok2_llama_cpp_40",
        config(
            GROK2,
            rope_type="yarn",
            rope_magnitude=1.0 + 0.1 * math.log(16.0),
            router_logit_softcapping=0,
            norm_topk_prob=True,
            attn_temperature_len=-1,
            hidden_act="gelu_pytorch_tanh",
        ),
        40,
        SOME,
    ),
    Case("grok1_12", GROK1, 12, hidden=True),
    Case("grok1_40", GROK1, 40),
    Case("grok1_1100", GROK1, 1100, LONG),
]


def prompt(case):
    """Token ids; of one seed, a shorter prompt is a prefix of a longer one."""
    draws = stream("ids", case.prompt_seed, case.n) >> U64(32)
    return (draws % U64(case.config["vocab_size"])).astype(np.int64)


def run(case, dtype=torch.float64, wrong=None):
    spec = read_config(case.config)
    return forward(spec, make_weights(spec, dtype), prompt(case), wrong)


# ---- self-check against published numbers --------------------------------------------------------


def self_check():
    """Checks the functions above against known values; raises on the first that differs."""

    def near(what, got, want, tolerance):
        got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
        worst = np.max(np.abs(got - want) / np.maximum(np.abs(want), 1e-30))
        if not worst <= tolerance:
            raise SystemExit(f"self-check: {what}: got {got}, want {want}")

    def f64(values):
        return torch.tensor(values, dtype=torch.float64)

    if (fnv1a("a"), fnv1a("foobar")) != (0xAF63DC4C8601EC8C, 0x85944171F73967E8):
        raise SystemExit("self-check: FNV-1a differs from its published vectors")
    if int(splitmix(0, 1)[0]) != 0xE220A8397B1DCDAF:
        raise SystemExit("self-check: splitmix64 differs from its published vector")
    near(
        "scale exponents",
        [
            scale_exponent(g, c)
            for g, c in ((1, 96), (2, 96), (4, 96), (1, 64), (4, 64), (1, 3), (1, 128))
        ],
        [-3, -2, -1, -2, 0, 0, -3],
        0,
    )

    released = read_config(
        config(GROK2, rope_theta=LARGE_THETA, head_dim=128, original_max_position_embeddings=8192)
    )
    inv = inv_freq(released)
    near(
        "inv_freq",
        inv[[0, 1, 17, 24, 31, 63]],
        [1, 0.7413322230, 0.00616905897, 0.000759117609, 9.341125570e-05, 6.468614920e-09],
        1e-9,
    )
    cos, sin = rope_table(inv, torch.tensor([1000, 131071]))
    # The published values use frequencies in float32, which makes a difference of 3e-6.
    near(
        "cos and sin",
        [cos[0, 1], sin[0, 1], cos[1, 0], sin[1, 0], cos[1, 31], sin[1, 31]],
        [0.9965032, -0.0835544, -0.8179835, -0.5752417, 0.9483309, -0.3172831],
        4e-6,
    )
    near("theta'", stretched_theta(1e6, 8192, 16), 208533496.363, 1e-11)
    near(
        "yarn range",
        [yarn_corr(8, 128, LARGE_THETA, 8192), yarn_corr(1, 128, LARGE_THETA, 8192)],
        [17.02, 23.97],
        5e-4,
    )
    near("yarn bounds", yarn_range(128, LARGE_THETA, 8192, 8, 1), [17, 24], 0)
    near(
        "tau",
        temperature(torch.tensor([0, 1, 1023, 1024, 1025, 1500, 2048, 65536, 131071]), 1024),
        [1, 1, 1, 1, 1.000140819, 1.055074679, 1.1, 1.6, 1.699998899],
        1e-9,
    )
    near(
        "softcap 30",
        softcap(f64([1.0, 10, 30, 60, 200]), 30.0),
        [0.9996298, 9.6453821, 22.8478247, 28.9208274, 29.9999028],
        1e-7,
    )
    near(
        "softcap 50",
        softcap(f64([1.0, 25, 50, 100]), 50.0),
        [0.9998667, 23.1058579, 38.0797078, 48.2013790],
        1e-7,
    )
    x = f64([0.5, -1, 2.7, -2.7, 4])
    near(
        "gelu erf",
        gelu(x, "erf"),
        [0.345731231, -0.158655254, 2.690639171, -0.009360829, 3.999873315],
        1e-7,
    )
    near(
        "gelu tanh",
        gelu(x, "tanh"),
        [0.345714010, -0.158808009, 2.691112405, -0.008887595, 3.999929754],
        1e-7,
    )
    logits = f64([[3, -1, 12, 0.5, -40, 8, 2, 11.5]])
    near(
        "capped router logits",
        softcap(logits, 30.0),
        [[2.99004, -0.99963, 11.398469, 0.499954, -26.10185, 7.815613, 1.997042, 10.967963]],
        2e-6,
    )
    chosen, probs, margin = route(logits, 30.0, 2)
    near("router top 2", chosen, [[2, 7]], 0)
    near("router probabilities", probs, [[0.59583939, 0.38740298]], 1e-7)
    near("router margin", margin, [10.967963 - 7.815613], 1e-6)
    near("router without cap", route(logits, 0.0, 2)[1], [[0.61537, 0.37324]], 2e-5)
    near("router ties", route(f64([[1, 5, 5, 0]]), 30.0, 2)[0], [[1, 2]], 0)


# ---- files ---------------------------------------------------------------------------------------


def tensors_of(case):
    """The tensors of a golden file, in file order, and the smallest router margin of the run."""
    out = run(case)
    rows = case.positions or list(range(case.n))
    routed = rows if case.n > 64 else list(range(case.n))
    tensors = {
        "logits": out["logits"][rows].numpy(),
        "probs": out["probs"][:, routed].numpy(),
        "margin": out["margin"][:, routed].numpy(),
    }
    if case.hidden:
        tensors["hidden"] = out["hidden"][:, rows].numpy()
    tensors["ids"] = prompt(case).astype(np.int32)
    tensors["positions"] = np.array(rows, dtype=np.int32)
    tensors["experts"] = out["experts"][:, routed].numpy().astype(np.int32)
    return tensors


def to_safetensors(tensors):
    """The file as bytes. The safetensors package would write metadata in random order."""
    header = {"__metadata__": {"generator": "make_golden.py", "version": "1"}}
    body = b""
    for name, array in tensors.items():
        data = np.ascontiguousarray(array).tobytes()
        kinds = {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "int32": "I32"}
        kind = kinds[array.dtype.name]
        span = [len(body), len(body) + len(data)]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": span}
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def config_text(case):
    return json.dumps(case.config, indent=2) + "\n"


def write(cases):
    GOLDEN.mkdir(exist_ok=True)
    total = 0
    for case in cases:
        tensors = tensors_of(case)
        data = to_safetensors(tensors)
        (folder_of(case) / f"{case.name}.json").write_text(config_text(case))
        (folder_of(case) / f"{case.name}.safetensors").write_bytes(data)
        total += len(data)
        print(f"{case.name}: {len(data)} bytes, margin >= {tensors['margin'].min():.2e}")
    print(f"{len(cases)} cases, {total} bytes")


def check(cases):
    """Compares stored files, read with the safetensors package, with a new run."""
    from safetensors.numpy import load_file

    problems, same_bytes = [], 0
    for case in cases:
        path = folder_of(case) / f"{case.name}.safetensors"
        if not path.exists() or not path.with_suffix(".json").exists():
            problems.append(f"{case.name}: files missing")
            continue
        if path.with_suffix(".json").read_text() != config_text(case):
            problems.append(f"{case.name}.json: differs from the script")
        want, got = tensors_of(case), load_file(path)
        same_bytes += path.read_bytes() == to_safetensors(want)
        if set(want) != set(got):
            problems.append(f"{case.name}: tensors {sorted(got)}, want {sorted(want)}")
            continue
        for name, array in want.items():
            if array.dtype != got[name].dtype or array.shape != got[name].shape:
                problems.append(
                    f"{case.name}: {name} is {got[name].dtype} {got[name].shape}, "
                    f"want {array.dtype} {array.shape}"
                )
            elif not np.abs(array - got[name]).max() <= CHECK_TOLERANCE * (array.dtype.kind == "f"):
                worst = np.abs(array - got[name]).max()
                problems.append(f"{case.name}: {name} differs by {worst:.3e}")
    problems += cross_check(cases)
    print(f"{len(cases)} cases, {same_bytes} byte-identical, {len(problems)} problems")
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


def cross_check(cases):
    """Checks relations between cases that hold for any weights."""
    by_name = {case.name: case for case in cases}
    problems = []
    same = [
        ("grok2_12", "grok2_40"),
        ("grok1_12", "grok1_40"),
        ("grok2_no_rope_type_40", "grok2_linear_40"),
    ]
    for a, b in same:
        if a in by_name and b in by_name:
            x, y = run(by_name[a])["logits"], run(by_name[b])["logits"]
            worst = (x - y[: len(x)]).abs().max().item()
            if worst > CHECK_TOLERANCE:
                problems.append(f"{a} and {b} should agree and differ by {worst:.3e}")
    return problems


def difference(a, b, rows):
    return (a["logits"][rows].double() - b["logits"][rows].double()).abs().max().item()


SHOWN = ("grok2_40", "grok2_1100", "grok1_40")  # columns of the sensitivity table
VISIBLE = 1e-3


def sensitivity(cases):
    """A Markdown table: the largest logit difference of each wrong model."""
    right = {case.name: run(case) for case in cases}
    shown = [case.name for case in cases if case.name in SHOWN]

    def cell(value):
        return f"{value:.0e}" if value > 1e-12 else "–"

    titles = ["wrong model", "largest", "in case", f"cases above {VISIBLE:g}", *shown]
    print("| " + " | ".join(titles) + " |")
    print("| --- " * len(titles) + "|")
    for wrong, meaning in WRONG.items():
        worst = {}
        for case in cases:
            rows = case.positions or list(range(case.n))
            worst[case.name] = difference(run(case, wrong=wrong), right[case.name], rows)
        top = max(worst, key=worst.get)
        above = sum(value > VISIBLE for value in worst.values())
        row = [meaning, cell(worst[top]), top, above, *(cell(worst[name]) for name in shown)]
        print("| " + " | ".join(str(item) for item in row) + " |")


def float32(cases):
    for case in cases:
        a, b = run(case), run(case, dtype=torch.float32)
        rows = case.positions or list(range(case.n))
        kept = difference(a, b, rows)
        every = difference(a, b, list(range(case.n)))
        rms = (a["logits"][rows] - b["logits"][rows].double()).square().mean().sqrt().item()
        chosen = [out["experts"].sort(-1).values for out in (a, b)]
        flips = (chosen[0] != chosen[1]).any(-1).sum().item()
        largest = a["logits"].abs().max().item()
        print(
            f"{case.name}: kept {kept:.2e} (rms {rms:.1e}), all positions {every:.2e}, "
            f"largest logit {largest:.1f}, routing changes {flips}, "
            f"smallest margin {a['margin'].min().item():.2e}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true")
    mode.add_argument("--sensitivity", action="store_true")
    mode.add_argument("--f32", action="store_true")
    parser.add_argument("--only", default="", metavar="TEXT")
    args = parser.parse_args()

    torch.set_num_threads(1)
    self_check()
    cases = [case for case in CASES if args.only in case.name]
    if not cases:
        raise SystemExit(f"--only {args.only}: no such case")
    if args.check:
        return check(cases)
    if args.sensitivity:
        sensitivity(cases)
    elif args.f32:
        float32(cases)
    else:
        write(cases)
    return 0


if __name__ == "__main__":
    with torch.no_grad():
        sys.exit(main())
