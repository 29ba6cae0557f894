"""Tests of the report of `scripts/bench_gpu`: python3 -m unittest discover scripts/gpu"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.dom.minidom

import page
import report

HERE = pathlib.Path(__file__).resolve().parent
CEILINGS = {
    "read_bytes_per_second": 2e12,
    "copy_bytes_per_second": 1.5e12,
    "flops_per_second": 5e13,
}
COST = {"host_seconds": 1e-6, "device_seconds": 2e-6}
DEVICE = {
    "format": "grok-wgpu device",
    "program": "0.1.0",
    "adapter": "A <card> & its driver",
    "ceilings": CEILINGS,
    "round_trip_seconds": 5e-5,
    "dispatch": {"dependent": COST, "independent": COST, "apart": COST},
}


def kernel(name, shape, seconds, flops=0):
    return {
        "kernel": name,
        "shape": shape,
        "runs": 1,
        "seconds": seconds,
        "bytes": 1_000_000,
        "flops": flops,
        "gigabytes_per_second": 1e-3 / seconds,
        "gigaflops_per_second": flops * 1e-9 / seconds,
        "share": 0.25,
        "limit": "flops" if flops > 10**9 else "bytes",
    }


def kernels():
    passes = [
        {
            "phase": phase,
            "tokens": tokens,
            "positions": 4096,
            "dispatches": 3,
            "seconds": 1e-3,
            "kernels": [
                kernel("matvec.lanes/q4", [8192, 8192], 3e-5, 10**8 * tokens),
                kernel("matvec.lanes/q4", [10240, 8192], 4e-5, 10**8 * tokens),
                kernel("rms_norm", [1, 8192], 1e-5),
            ],
        }
        for phase, tokens in [("decode", 1), ("decode", 4), ("prefill", 256)]
    ]
    return DEVICE | {"format": "grok-wgpu kernels", "passes": passes}


def bench(seconds):
    phase = {
        "tokens_per_second": 1 / seconds,
        "seconds": seconds,
        "host_seconds": 1e-4,
        "device_seconds": None,
        "dispatches": 20,
        "gigabytes_per_second": 100.0,
        "gigaflops_per_second": 200.0,
    }
    return {
        "prompt": 256,
        "load_seconds": 1.5,
        "weights_bytes": 2 << 30,
        "prefill": phase,
        "decode": phase,
    }


class Folder:
    """A folder of raw outputs."""

    def __init__(self, **files):
        self.temporary = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.temporary.name)
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (self.path / f"{name.replace('_', '-')}.json").write_text(text)

    def report(self, predicted=None):
        with self.temporary:
            return report.collect(self.path, predicted or {})


class Report(unittest.TestCase):
    def test_an_empty_folder_is_a_report_too(self):
        found = Folder().report()
        self.assertIsNone(report.is_right(found))
        self.assertEqual([found["passes"], found["slices"], found["layers"]], [[], [], []])
        self.check_page(found)

    def test_what_was_cut_off_is_left_out(self):
        found = Folder(device='{"ceilings": {', kernels_q8=kernels()).report()
        self.assertEqual({one["type"] for one in found["passes"]}, {"q8"})
        self.assertEqual(found["ceilings"], CEILINGS)

    def test_a_failed_self_test_is_in_the_head(self):
        rows = [{"row": "a"}, {"row": "b"}]
        bad = {"rows": rows, "models": [{}], "failures": ["b"], "unfinished": None, "seconds": 1}
        for selftest, right, words in [
            (bad, False, "Self-test failed"),
            (bad | {"failures": []}, True, "Self-test passed"),
            (bad | {"failures": [], "unfinished": "the device was lost"}, False, "did not end"),
            (bad | {"rows": [], "failures": []}, False, "Self-test failed"),
        ]:
            found = Folder(selftest=selftest, device=DEVICE).report()
            self.assertIs(report.is_right(found), right)
            text = self.check_page(found)
            self.assertIn(words, text[: text.index("<section>")])

    def test_the_longest_prediction_that_fits_counts(self):
        predicted = {"q4/decode-1/matvec": 0.5, "q4/decode-1/matvec/8192x8192": 0.75, "q8": 1}
        found = Folder(kernels_q4=kernels()).report(predicted)
        first, second, norm = found["passes"][0]["kernels"]
        self.assertEqual((first["predicted"], second["predicted"]), (0.75, 0.5))
        self.assertNotIn("predicted", norm)
        self.assertEqual(norm["name"], "q4/decode-1/rms_norm/1x8192")
        self.assertAlmostEqual(norm["part"], 1 / 8)
        self.assertEqual(self.check_page(found).count(">predicted<"), 1)

    def test_a_layer_is_the_difference_of_slices(self):
        slices = {f"slice_q4_{n}": bench(0.5 + n * 0.25) for n in (1, 2, 4)}
        found = Folder(tuned=bench(0.5), **slices).report()
        self.assertEqual(len(found["slices"]), 4)
        [layer] = found["layers"]
        self.assertEqual((layer["type"], layer["from"], layer["to"]), ("q4", 1, 4))
        self.assertAlmostEqual(layer["decode"]["seconds"], 0.25)
        self.assertAlmostEqual(layer["decode"]["all_layers_seconds"], 0.5 + 64 * 0.25)
        self.assertIn("1 × q4, tuned", self.check_page(found))

    def test_the_best_way_stands_beside_the_default(self):
        ways = [{"way": "lanes 32 4", "nanoseconds": 4e3}, {"way": "spread 8", "nanoseconds": 2e3}]
        product = {"product": "matvec q4 8192x8192", "best": "spread 8", "ways": ways}
        tune = {"bytes_per_second": 1, "products": [product]}
        found = Folder(tune=tune).report()
        [one] = found["tune"]["products"]
        self.assertEqual((one["best"], one["default"]), ("spread 8", "lanes 32 4"))
        self.assertIn("2.00×", self.check_page(found))

    def test_all_of_it_is_a_page(self):
        torch = {
            "torch": "2",
            "device": "A card",
            "measurements": [{"name": "copy", "seconds": 1e-3, "bytes": 10**9, "flops": 0}],
        }
        steps = [{"name": "torch", "file": "torch.json", "ended": "stopped: it had 60 s"}]
        found = Folder(
            device=DEVICE,
            kernels_q4=kernels(),
            kernels_bf16=kernels(),
            slice_bf16_1=bench(0.1),
            torch=torch,
            steps=steps,
        ).report()
        self.assertFalse(report.is_good(found))
        text = self.check_page(found)
        self.assertNotIn("<card>", text)
        # A mark for each product in each of two times three passes, and their keys.
        self.assertEqual(text.count('class="mark"'), 2 * 3 * 2 + 2 * 3)
        self.assertIn("stopped: it had 60 s", "\n".join(report.summary(found)))

    def check_page(self, found):
        """Writes the page; returns it. Its picture must be good XML."""
        text = page.page(found)
        if "<svg" in text:
            svg = text[text.index("<svg") : text.index("</svg>") + len("</svg>")]
            xml.dom.minidom.parseString(svg)
        self.assertNotIn("None", text)
        self.assertNotIn("nan", text)
        return text


class Numbers(unittest.TestCase):
    def test_numbers_have_three_digits_and_a_prefix(self):
        for value, words in [
            (0, "0 s"),
            (2.5e-8, "25 ns"),
            (1.234e-5, "12.3 µs"),
            (9.999e-4, "1 ms"),
            (0.5, "500 ms"),
            (1.5, "1.5 s"),
            (1234, "1.23 ks"),
        ]:
            self.assertEqual(" ".join(page.si(value, "s")), words)
        self.assertEqual(page.si(2.731e12, "B/s"), ("2.73", "TB/s"))
        self.assertEqual([page.plain(x) for x in (0.001234, 12, 640)], ["0.0012", "12", "640"])
        self.assertEqual([page.percent(x) for x in (None, 0.004, 0.5)], ["–", "0.4 %", "50 %"])

    def test_decades_enclose(self):
        self.assertEqual(page.decades([0.5, 30]), (-1, 2))
        self.assertEqual(page.decades([10, 10]), (1, 2))


class Torch(unittest.TestCase):
    def test_without_pytorch_it_says_so(self):
        # `-S` leaves out the folders in which packages are installed.
        command = [sys.executable, "-S", HERE / "torch_layer.py", "--quick"]
        found = json.loads(subprocess.check_output(command))
        self.assertIn("PyTorch", found["skipped"])


if __name__ == "__main__":
    unittest.main()
