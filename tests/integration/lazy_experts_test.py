#!/usr/bin/env python3
"""Mixtures of experts larger than the memory offered: the same answers, experts read as tokens
choose them."""
import re
import subprocess
import unittest

from lazy_test import ENOUGH, LazyTest
from renga_process import LIMIT_S, MAKE_MODEL

# 6 layers of 16 experts, 0.4 MiB each, of which a token uses 2; the rest takes some 8 MiB at a
# context of 256.
SHAPE = ["--architecture", "qwen3moe", "--layers", "6", "--d-model", "256", "--heads", "4",
         "--kv-heads", "2", "--ffn", "512", "--experts", "16", "--experts-used", "2", "--vocab",
         "1000", "--type", "Q8_0"]
HALF, LITTLE, TOO_LITTLE = "28MiB", "20MiB", "8MiB"
PIECES = 6 * 16


class LazyExpertsTest(LazyTest):

    def setUp(self):
        super().setUp()
        subprocess.run([MAKE_MODEL, *SHAPE, self.model], check=True, timeout=LIMIT_S,
                       stdout=subprocess.DEVNULL)

    def test_the_same_answers_from_less_memory(self):
        whole = self.answer("--memory", ENOUGH)
        # For the first time on this disk, and again.
        self.assertEqual(self.answer("--memory", HALF, "--lazy"), whole)
        self.assertEqual(self.answer("--memory", LITTLE, "--lazy"), whole)
        self.assertEqual(self.answer("--memory", ENOUGH, "--lazy"), whole)
        self.assertEqual(self.answer("--memory", HALF, "--lazy"), whole)
        self.assertEqual(self.answer("--memory", "15MiB", "--lazy", "--workers", "2"), whole)

    def test_refusals_and_plans(self):
        refused = self.renga("run", self.model, "hello", "--memory", HALF, "--context", "256")
        self.assert_refused(refused, "--lazy", "from disk for every token", "tokens/s")
        refused = self.renga("run", self.model, "hello", "--memory", TOO_LITTLE, "--lazy",
                             "--context", "256")
        self.assert_refused(refused, "not even --lazy")
        plan = self.renga_ok("plan", self.model, "--worker", HALF, "--lazy", "--context", "256")
        self.assertIn("16 in each layer, a token uses 2", plan)
        self.assertIn("taken to be used alike", plan)

    def test_status_tells_what_is_expected_by_measured_usage(self):
        report = self.folder / "report"
        self.renga_ok("regions", self.model, "-o", report, "-q", "--no-screen")
        up, join = self.up(self.model, "--lazy", "--context", "256", "--regions", f"{report}.json")
        self.worker(join, "a", HALF)
        up.wait_for("ready")
        worker = self.wait_until_pinned()
        # Even random routers have favourites.
        self.assertGreater(worker["expected_missed_bytes"], 0)
        self.assertLess(worker["expected_missed_bytes"], worker["streamed_weight_bytes"])
        text = self.renga_ok("status", "--http", f"127.0.0.1:{self.http}")
        self.assertIn("of experts a token misses by the measured usage", text)

    def test_damage_on_disk_changes_no_token(self):
        up, join = self.up(self.model, "--lazy", "--context", "256")
        self.worker(join, "a", HALF)
        up.wait_for("ready")
        whole = self.complete()
        worker = self.wait_until_pinned()
        self.assertGreater(worker["streamed_weight_bytes"], 1 << 20)
        self.assertLessEqual(worker["used_bytes"], 28 << 20)
        text = self.renga_ok("status", "--http", f"127.0.0.1:{self.http}")
        self.assertIn("of experts a token misses", text)
        counts = re.findall(r"m\+(\d+)/16", text)
        self.assertGreater(len(counts), 1, text)
        self.assertGreater(sum(map(int, counts)), PIECES // 4, text)

        packed = [path for path in (self.folder / "cache-a").rglob("*")
                  if path.is_file() and "packed" in path.parts and path.name != "checked"]
        self.assertGreater(len(packed), 3 * PIECES)
        self.assertGreater(self.damage(packed), PIECES)
        self.assertEqual(self.complete(), whole)
        self.assertGreater(self.damage(packed, size=5000), 0)
        self.assertEqual(self.complete(), whole)


if __name__ == "__main__":
    own = [f"LazyExpertsTest.{name}" for name in vars(LazyExpertsTest) if name.startswith("test")]
    unittest.main(argv=["lazy_experts_test", *own], verbosity=2)
