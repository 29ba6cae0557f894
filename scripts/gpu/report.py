"""Reads the raw outputs of `scripts/bench_gpu` and joins them into one report."""

import datetime
import json

FORMAT = "grok-wgpu gpu"
VERSION = 1
TYPES = ["q4", "q8", "bf16"]
LAYERS = [1, 2, 4]
# Layers of the released Grok-2.
ALL_LAYERS = 64


def read(path):
    """The JSON of a file; nothing if there is none, or if it was cut off."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def collect(folder, predicted):
    """The report of what is in a folder."""
    steps = read(folder / "steps.json") or []
    device = read(folder / "device.json")
    kernels = [(kind, read(folder / f"kernels-{kind}.json")) for kind in TYPES]
    selftest = read(folder / "selftest.json")
    slices = [
        one_slice(read(folder / f"slice-{kind}-{layers}.json"), kind, layers, False)
        for kind in TYPES
        for layers in LAYERS
    ]
    slices.append(one_slice(read(folder / "tuned.json"), "q4", 1, True))
    slices = [one for one in slices if one]
    # Any of them tells the device.
    any_of = next((one for one in [device, *(one for _, one in kernels)] if one), {})
    try:
        card = (folder / "card.txt").read_text(encoding="utf-8")
    except OSError:
        card = None
    return {
        "format": FORMAT,
        "version": VERSION,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "program": any_of.get("program"),
        "commit": ((selftest or {}).get("build") or {}).get("commit"),
        "adapter": any_of.get("adapter") or ((selftest or {}).get("adapter") or {}).get("summary"),
        "card": card,
        "selftest": judged(selftest),
        "ceilings": any_of.get("ceilings"),
        "round_trip_seconds": any_of.get("round_trip_seconds"),
        "dispatch": any_of.get("dispatch"),
        "passes": [
            one_pass(one, kind, predicted) for kind, of in kernels if of for one in of["passes"]
        ],
        "slices": slices,
        "layers": [one for kind in TYPES if (one := another_layer(slices, kind))],
        "tune": tuned(read(folder / "tune.json")),
        "torch": read(folder / "torch.json"),
        "steps": steps,
        "seconds": round(sum(step.get("seconds", 0) for step in steps), 1),
    }


def judged(selftest):
    """What a self-test found."""
    if selftest is None:
        return None
    models = selftest.get("models") or []
    return {
        "rows": len(selftest.get("rows") or []),
        "models": len(models),
        "failed": len(selftest.get("failures") or []),
        "unfinished": selftest.get("unfinished"),
        "seconds": selftest.get("seconds"),
    }


def is_right(report):
    """Whether the self-test ran to its end without a failure; nothing if it did not run."""
    selftest = report["selftest"]
    if selftest is None:
        return None
    return selftest["failed"] == 0 and not selftest["unfinished"] and selftest["rows"] > 0


def is_good(report):
    """Whether the self-test passed, if it was wanted, and every step ended as it should."""
    return is_right(report) is not False and all(
        step["ended"] == "done" for step in report["steps"]
    )


def one_pass(found, kind, predicted):
    """A pass of `bench --kernels`, with the name, the type and the predicted share of each kernel."""
    kernels = []
    total = sum(kernel["seconds"] * kernel["runs"] for kernel in found["kernels"])
    for kernel in found["kernels"]:
        stem = kernel["kernel"].split("/")[0].split(".")[0]
        shape = "x".join(str(extent) for extent in kernel["shape"])
        name = f"{kind}/{found['phase']}-{found['tokens']}/{stem}/{shape}"
        matching = [key for key in predicted if name.startswith(key)]
        part = kernel["seconds"] * kernel["runs"] / total if total else None
        more = {"name": name, "part": part}
        if matching:
            more["predicted"] = predicted[max(matching, key=len)]
        kernels.append(kernel | more)
    return found | {"type": kind, "kernels": kernels}


def one_slice(bench, kind, layers, with_tuning):
    """What a run of `bench` says of some layers."""
    if bench is None:
        return None
    keys = [
        "tokens_per_second",
        "seconds",
        "host_seconds",
        "device_seconds",
        "dispatches",
        "gigabytes_per_second",
        "gigaflops_per_second",
    ]
    phases = {
        phase: {key: bench[phase].get(key) for key in keys} for phase in ("prefill", "decode")
    }
    return {
        "type": kind,
        "layers": layers,
        "tuned": with_tuning,
        "prompt": bench["prompt"],
        "load_seconds": bench["load_seconds"],
        "weights_bytes": bench["weights_bytes"],
    } | phases


def another_layer(slices, kind):
    """Seconds that one layer more takes, from the smallest and the largest slice of a type, and what
    all layers would take if a device held them."""
    of_type = [one for one in slices if one["type"] == kind and not one["tuned"]]
    if len(of_type) < 2:
        return None
    few, many = of_type[0], of_type[-1]
    found = {"type": kind, "from": few["layers"], "to": many["layers"]}
    for phase in ("prefill", "decode"):
        more = many[phase]["seconds"] - few[phase]["seconds"]
        each = more / (many["layers"] - few["layers"])
        rest = few[phase]["seconds"] - few["layers"] * each
        found[phase] = {
            "seconds": each,
            "all_layers_seconds": rest + ALL_LAYERS * each,
        }
    return found


def tuned(tune):
    """For each product, the fastest way, its time, and that of the default."""
    if tune is None:
        return None
    products = []
    for product in tune["products"]:
        times = {way["way"]: way["nanoseconds"] for way in product["ways"]}
        if product["best"] in times:
            default = product["ways"][0]
            products.append(
                {
                    "product": product["product"],
                    "best": product["best"],
                    "seconds": 1e-9 * times[product["best"]],
                    "default": default["way"],
                    "default_seconds": 1e-9 * default["nanoseconds"],
                }
            )
    return {"bytes_per_second": tune["bytes_per_second"], "products": products}


def summary(report):
    """The report in a few lines."""
    right = {True: "passed", False: "FAILED", None: "did not run"}[is_right(report)]
    yield f"adapter    {report['adapter'] or 'unknown'}"
    yield f"self-test  {right}"
    if ceilings := report["ceilings"]:
        yield (
            f"ceilings   {ceilings['read_bytes_per_second'] / 1e9:,.1f} GB/s read, "
            f"{ceilings['copy_bytes_per_second'] / 1e9:,.1f} GB/s copied, "
            f"{ceilings['flops_per_second'] / 1e9:,.1f} GFLOP/s"
        )
    if dispatch := report["dispatch"]:
        costs = (f"{1e6 * dispatch[kind]['device_seconds']:.2f} us {kind}" for kind in dispatch)
        trip = f"round trip {1e6 * report['round_trip_seconds']:.0f} us"
        yield f"dispatch   {', '.join(costs)}; {trip}"
    for one in report["slices"]:
        with_tuning = ", tuned" if one["tuned"] else ""
        yield (
            f"{one['layers']} layers {one['type']}{with_tuning}: "
            f"decode {one['decode']['tokens_per_second']:.1f} tokens/s, "
            f"prefill {one['prefill']['tokens_per_second']:.0f} tokens/s"
        )
    for step in report["steps"]:
        if step["ended"] != "done":
            yield f"{step['name']}: {step['ended']}"
