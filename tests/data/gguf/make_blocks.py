#!/usr/bin/env python3
"""Writes blocks.gguf: blocks of every type that the engine reads, and their dequantized values.

The numbers are those of `gguf.quants.dequantize` of the PyPI package, which shares no code with the
engine. Needs `gguf` 0.17 or later. Run: python3 make_blocks.py
"""

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants

ROWS, COLS = 2, 512
rng = np.random.default_rng(7)


def half(values):
    return np.asarray(values, dtype=np.float16).view(np.uint8).reshape(len(values), 2)


def blocks(kind):
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = ROWS * COLS // block
    raw = rng.integers(0, 256, (count, size), dtype=np.uint8)
    d = rng.uniform(0.002, 0.02, count) * rng.choice([-1, 1], count)
    if kind in (T.Q8_0, T.Q4_0):
        raw[:, :2] = half(d)
        if kind == T.Q8_0:
            # llama.cpp's converter never writes -128.
            values = raw[:, 2:]
            values[values == 128] = 129
    elif kind == T.Q4_K:
        raw[:, :2] = half(np.abs(d) / 32)
        raw[:, 2:4] = half(np.abs(d) / 4)
    elif kind == T.Q6_K:
        raw[:, 192:208] = rng.integers(-127, 128, (count, 16)).astype(np.int8).view(np.uint8)
        raw[:, 208:] = half(d / 64)
    return raw.reshape(ROWS, -1)


def main():
    writer = gguf.GGUFWriter(Path(__file__).with_name("blocks.gguf"), "grok")
    writer.add_uint32("test.unsigned", 4_000_000_000)
    writer.add_int32("test.signed", -5)
    writer.add_float32("test.number", 1e-5)
    writer.add_string("test.text", "größer")
    writer.add_array("test.texts", ["a", "", "Ġthe", "你好"])
    writer.add_array("test.integers", [1, -2, 3])
    writer.add_bool("test.flag", True)
    for kind in (T.Q8_0, T.Q4_0, T.Q4_K, T.Q6_K):
        raw = blocks(kind)
        writer.add_tensor(kind.name, raw, raw_dtype=kind)
        writer.add_tensor(f"{kind.name}.values", quants.dequantize(raw, kind).astype(np.float32))
    floats = rng.normal(size=(ROWS, COLS)).astype(np.float32)
    writer.add_tensor("F32", floats)
    writer.add_tensor("F16", floats.astype(np.float16))
    writer.add_tensor("F16.values", floats.astype(np.float16).astype(np.float32))
    brain = quants.quantize(floats, T.BF16)
    writer.add_tensor("BF16", brain, raw_dtype=T.BF16)
    writer.add_tensor("BF16.values", quants.dequantize(brain, T.BF16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
