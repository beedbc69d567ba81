#!/usr/bin/env python3
"""deploy/gpu-check without a card: on the imitated one, on none, and with parts that go wrong."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[1]
BINARIES = [pathlib.Path(path) for path in os.environ["RENGA_GPU_CHECK_BINARIES"].split(":")]
SHARED_DATA = pathlib.Path(os.environ.get("RENGA_SHARED_DATA", SOURCE / "../shared/data"))

sys.dont_write_bytecode = True
sys.path.insert(0, str(SOURCE / "deploy"))
from gpu_check import parts, report  # noqa: E402


class GpuCheckTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        (self.folder / "bin").mkdir()
        for binary in BINARIES:
            (self.folder / "bin" / binary.name).symlink_to(binary.resolve())
        if (SHARED_DATA / "models").is_dir():
            (self.folder / "data").symlink_to(SHARED_DATA.resolve())

    def check(self, *arguments, environment=None):
        return subprocess.run(
            [sys.executable, SOURCE / "deploy/gpu-check", "--folder", self.folder, *arguments],
            env=dict(os.environ, OUT=str(self.folder / "out"), **(environment or {})),
            capture_output=True, text=True, timeout=120)

    def replace(self, name, script):
        binary = self.folder / "bin" / name
        binary.unlink()
        binary.write_text("#!/bin/sh\n" + script)
        binary.chmod(0o755)

    def told(self):
        told = json.loads((self.folder / "out" / "gpu-check.json").read_text())
        return told, {part["name"]: part for part in told["parts"]}

    def test_an_imitated_card_passes(self):
        ran = self.check("--device", "emulated-cuda", "--small")
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        told, by_name = self.told()
        self.assertTrue(told["passed"])
        self.assertEqual(by_name["conformance"]["result"], "passed")
        self.assertGreater(by_name["conformance"]["tests"]["OK"], 3)
        self.assertEqual(by_name["goldens"]["result"],
                         "passed" if (self.folder / "data").exists() else "skipped")
        self.assertEqual(by_name["memcheck"]["result"], "skipped")
        self.assertEqual(by_name["NCCL, one rank"]["result"], "skipped")
        kinds = {figure["kind"] for figure in by_name["benchmarks"]["figures"]}
        self.assertLessEqual({"copy", "peak", "vector", "matrix", "attention", "step", "launches"}, kinds)
        self.assertEqual({figure["path"] for figure in by_name["benchmarks"]["figures"]
                          if figure["kind"] == "matrix"}, {"dp4a", "mma"})
        self.assertTrue(by_name["steps as graphs"]["figures"][1]["graphs"])
        text = (self.folder / "out" / "gpu-check.md").read_text()
        self.assertIn("| conformance | passed |", text)
        self.assertIn("| small | Q4_K | 512 x 256 | 1 |", text)

    def test_no_card_is_one_sentence(self):
        ran = self.check("--device", "cuda:77")
        self.assertNotEqual(ran.returncode, 0)
        self.assertEqual(ran.stdout, "")
        self.assertEqual(len(ran.stderr.splitlines()), 1, ran.stderr)
        self.assertIn("deploy/gpu-check: ", ran.stderr)
        self.assertFalse((self.folder / "out").exists())

    def test_parts_that_fail_or_hang_are_told_and_the_rest_goes_on(self):
        self.replace("kernels_test", "echo '[ RUN      ] A.B'; echo '[       OK ] A.B (1 ms)'\n"
                                     "echo '[ RUN      ] A.C'; sleep 60\n")
        self.replace("engine_test", "echo '[ RUN      ] A.D'\n"
                                    "echo '[  FAILED  ] A.D, where GetParam() = x (1 ms)'\n"
                                    "echo ' 1 FAILED TEST'; exit 1\n")
        (self.folder / "data" / "models").mkdir(parents=True, exist_ok=True)
        ran = self.check("--device", "emulated-cuda", "--small", "--part-limit", "2")
        self.assertEqual(ran.returncode, 1, ran.stdout + ran.stderr)
        told, by_name = self.told()
        self.assertFalse(told["passed"])
        self.assertEqual(by_name["conformance"]["result"], "out of time")
        self.assertEqual(by_name["conformance"]["running"], "A.C")
        self.assertEqual(by_name["goldens"]["result"], "failed")
        self.assertEqual(by_name["goldens"]["failures"], ["A.D"])
        self.assertEqual(by_name["benchmarks"]["result"], "passed")


class ReadingTest(unittest.TestCase):
    def test_each_path_of_a_card_is_tested_by_name(self):
        cards = parts.card_names("cuda:1", ["dp4a", "mma"])
        self.assertEqual(cards, ["cuda-dp4a:1", "cuda-mma:1"])
        self.assertEqual(parts.kernels_filter(cards[:1], ["Test."]),
                         "*Test.*/cudadp4a1:*Test.*/cudadp4a1_*")
        self.assertEqual(parts.golden_filter(cards[1:], ["*"]), "*/*_cuda_mma_1_*")

    def test_the_sanitizers_summary(self):
        read = parts.read_sanitizer("[       OK ] A.B (7 ms)\n"
                                    "========= ERROR SUMMARY: 3 errors\n")
        self.assertEqual(read["sanitizer"], ["ERROR SUMMARY: 3 errors"])
        result, detail = parts.judge(9, read, "========= ERROR SUMMARY: 3 errors\n")
        self.assertEqual(result, "failed")
        self.assertIn("3 errors", detail)

    def test_a_run_without_tests_has_not_passed(self):
        self.assertEqual(parts.judge(0, parts.read_tests("[==========] 0 tests ran."), "")[0],
                         "failed")

    def test_shares_are_of_the_copies(self):
        figures = [{"kind": "card", "name": "GTX Made Up", "capability": "6.1"},
                   {"kind": "copy", "gb_per_s": 100.0},
                   {"kind": "vector", "model": "7B", "type": "Q4_K", "rows": 11008, "columns": 4096,
                    "tokens": 1, "seconds": 3e-4, "gb_per_s": 84.0}]
        text = report.markdown([{"name": "benchmarks", "result": "passed", "seconds": 1,
                                 "detail": "", "figures": figures}], {"commit": "abc"}, "today")
        self.assertIn("| 7B | Q4_K | 11008 x 4096 | 1 | 300.0 | 84.0 | 84 % |", text)
        self.assertIn("gpu-check: GTX Made Up", text)


if __name__ == "__main__":
    unittest.main()
