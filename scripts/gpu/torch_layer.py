#!/usr/bin/env python3
"""Measures PyTorch on the same GPU: a copy, large products, and the matrices of a layer of Grok-2.

    python3 scripts/gpu/torch_layer.py [--quick] > torch.json

Decode is a token through the matrices that it needs, as a CUDA graph; they take far more than caches
hold. Prefill is a prompt through the same matrices. Prints JSON; where PyTorch or CUDA is missing, an
object that says so.
"""

import json
import sys

QUICK = "--quick" in sys.argv[1:]
HIDDEN, DENSE, EXPERT = (256, 512, 256) if QUICK else (8192, 32768, 16384)
LARGE = 256 if QUICK else 8192
COPIED = 1 << 20 if QUICK else 1 << 30
PROMPTS = [16] if QUICK else [256, 1024]
# Rows and columns: query, key and value; their output; the dense path; two experts.
SHAPES = [
    (HIDDEN + HIDDEN // 4, HIDDEN),
    (HIDDEN, HIDDEN),
    (DENSE, HIDDEN),
    (DENSE, HIDDEN),
    (HIDDEN, DENSE),
    *[(EXPERT, HIDDEN), (EXPERT, HIDDEN), (HIDDEN, EXPERT)] * 2,
]
WEIGHTS = sum(rows * cols for rows, cols in SHAPES)


def main():
    try:
        import torch
    except ImportError:
        return {"skipped": "PyTorch is not installed"}
    if not torch.cuda.is_available():
        return {"skipped": "PyTorch has no CUDA device here"}
    torch.backends.cuda.matmul.allow_tf32 = False
    found = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(),
        "measurements": [],
    }
    measure = Measure(torch, found["measurements"])
    with torch.no_grad():
        ceilings(torch, measure)
        for dtype in (torch.bfloat16, torch.float32):
            layer(torch, measure, dtype)
        try:
            four_bits(torch, measure)
        except Exception as error:  # what it calls is private, and differs between versions
            found["int4"] = str(error).splitlines()[0]
    return found


class Measure:
    """Times functions on the device."""

    def __init__(self, torch, into):
        self.torch = torch
        self.into = into

    def __call__(self, name, run, nbytes=0, flops=0, repeats=20):
        """Adds the median time of `run` in a graph, with what it reads and computes."""
        cuda = self.torch.cuda
        # Libraries choose their kernels and allocate at the first call.
        stream = cuda.Stream()
        stream.wait_stream(cuda.current_stream())
        with cuda.stream(stream):
            run()
        cuda.current_stream().wait_stream(stream)
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            run()
        times = []
        for _ in range(repeats):
            begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
            begin.record()
            graph.replay()
            end.record()
            cuda.synchronize()
            times.append(begin.elapsed_time(end) * 1e-3)
        seconds = sorted(times)[repeats // 2]
        self.into.append({"name": name, "seconds": seconds, "bytes": nbytes, "flops": flops})
        print(f"{name}: {seconds * 1e3:.3f} ms", file=sys.stderr, flush=True)


def ceilings(torch, measure):
    """A copy, and large products."""
    a = torch.empty(COPIED, dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    measure(f"copy of {COPIED >> 20} MiB", lambda a=a, b=b: b.copy_(a), nbytes=2 * COPIED)
    for dtype, n in ((torch.bfloat16, LARGE), (torch.float32, LARGE // 2)):
        a = torch.randn(n, n, device="cuda", dtype=dtype)
        b = torch.randn_like(a)
        out = torch.empty_like(a)
        name = f"{label(dtype)} product of {n} cubed"
        measure(name, lambda a=a, b=b, out=out: torch.mm(a, b, out=out), flops=2 * n**3)


def layer(torch, measure, dtype):
    """The matrices of a layer, for a token and for prompts."""
    weights = [torch.randn(rows, cols, device="cuda", dtype=dtype) for rows, cols in SHAPES]
    size = torch.finfo(dtype).bits // 8
    for tokens in [1, 4, *PROMPTS]:
        xs = {
            cols: torch.randn(tokens, cols, device="cuda", dtype=dtype)
            for cols in {cols for _, cols in SHAPES}
        }

        def run(xs=xs, weights=weights):
            return [torch.nn.functional.linear(xs[w.shape[1]], w) for w in weights]

        name = f"layer in {label(dtype)}, {tokens} {'token' if tokens == 1 else 'tokens'}"
        repeats = 20 if tokens <= 4 else 5
        measure(name, run, WEIGHTS * size, 2 * WEIGHTS * tokens, repeats)


def four_bits(torch, measure):
    """The same for a token, with 4-bit weights in groups of 32 and bf16 activations."""
    packed = []
    for rows, cols in SHAPES:
        integers = torch.randint(0, 256, (rows, cols // 2), device="cuda", dtype=torch.uint8)
        scales = torch.ones(cols // 32, rows, 2, device="cuda", dtype=torch.bfloat16)
        packed.append((torch._convert_weight_to_int4pack(integers, 8), scales, cols))
    xs = {
        cols: torch.randn(1, cols, device="cuda", dtype=torch.bfloat16)
        for cols in {cols for _, cols in SHAPES}
    }

    def run():
        return [torch._weight_int4pack_mm(xs[cols], w, 32, s) for w, s, cols in packed]

    # Half a byte, and four bytes of scale and zero for each 32.
    measure("layer in int4, 1 token", run, WEIGHTS * 5 // 8, 2 * WEIGHTS)


def label(dtype):
    return {"bfloat16": "bf16", "float32": "f32"}[str(dtype).split(".")[1]]


if __name__ == "__main__":
    json.dump(main(), sys.stdout, indent=1)
    print()
