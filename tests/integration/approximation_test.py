#!/usr/bin/env python3
"""Approximate modes: off by default, exact where a cap leaves no room, their cost measured and told."""
import array
import json
import re
import subprocess
import unittest

from renga_process import LIMIT_S, MAKE_MODEL, ProcessTest

SHAPE = ["--layers", "3", "--d-model", "64", "--heads", "4", "--kv-heads", "2", "--ffn", "160",
         "--vocab", "400", "--type", "F32"]
# 6 layers of 2.2 MiB.
LARGE = ["--layers", "6", "--d-model", "256", "--heads", "8", "--kv-heads", "4", "--ffn", "2048",
         "--vocab", "400", "--type", "Q8_0"]
HOT = ["--approximate", "hot-rows=25%"]
LATE = ["--approximate", "late-slice=40%"]
COLD = ["--approximate", "cold-neurons=75%"]
NEVER = ["--approximate-at-most", "0%"]


class ApproximationTest(ProcessTest):

    def setUp(self):
        super().setUp()
        self.model = self.folder / "model.gguf"
        subprocess.run([MAKE_MODEL, *SHAPE, self.model], check=True, timeout=LIMIT_S,
                       stdout=subprocess.DEVNULL)

    def logits(self, *extra):
        out = self.folder / "logits.f32"
        text = self.renga_ok("logits", self.model, "--tokens", "7,300,12,44,301,9", "-o", out,
                             "--greedy", "8", *extra)
        return out.read_bytes(), json.loads(text)["greedy"]

    def perplexity(self, *extra):
        """Perplexity, perplexity of the approximation, mean KL and share of the same best token."""
        text = self.folder / "text"
        text.write_text("What is written here, the model was never told. " * 40)
        out = self.renga_ok("perplexity", self.model, text, *extra)
        numbers = re.search(r"perplexity ([\d.]+) .*approximate: perplexity ([\d.]+); "
                            r"KL\(exact \|\| approximate\) ([\d.]+) .* in ([\d.]+)%", out, re.S)
        self.assertIsNotNone(numbers, out)
        return [float(number) for number in numbers.groups()]

    def test_a_mode_that_may_touch_nothing_changes_no_bit(self):
        exact = self.logits()
        self.assertEqual(self.logits(*HOT, *NEVER), exact)
        self.assertEqual(self.logits(*HOT, *NEVER, "--workers", "2"), exact)
        self.assertNotEqual(self.logits(*HOT), exact)
        self.assertNotEqual(self.logits(*LATE), exact)

    def test_the_cost_is_measured_and_told(self):
        run = ("run", self.model, "Once", "--raw", "--temperature", "0", "-n", "20", "--timings")
        told = self.renga(*run, *LATE)
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertIn(b"renga perplexity", told.stderr)
        self.assertIn(b"20 tokens were approximated", told.stderr)

        exact, approximate, kl, same = self.perplexity(*LATE)
        self.assertNotEqual(exact, approximate)
        self.assertGreater(kl, 0)
        self.assertLess(same, 100)
        told = self.renga(*run, *LATE)
        self.assertIn(b"as measured before", told.stderr)
        told = self.renga(*run)
        self.assertNotIn(b"approximat", told.stderr)

        # A cap of its own is another mode, and costs less.
        _, _, capped, _ = self.perplexity(*LATE, "--approximate-at-most", "20%")
        self.assertLess(capped, kl)
        exact, approximate, kl, same = self.perplexity(*HOT, *NEVER)
        self.assertEqual((exact, kl, same), (approximate, 0, 100))
        told = self.renga(*run, *LATE, "--approximate-at-most", "20%")
        self.assertRegex(told.stderr.decode(), r"\b[45] tokens were approximated")

    def test_missing_feed_forwards_are_drawn_once_and_for_all(self):
        missing = ["--approximate", "missing=30%"]
        exact = self.logits()
        once, _ = self.logits(*missing)
        self.assertNotEqual(once, exact[0])
        self.assertEqual(self.logits(*missing)[0], once)
        self.assertEqual(self.logits(*missing, "--workers", "2")[0], once)
        self.assertEqual(self.logits(*missing, *NEVER), exact)
        one, approximate, kl, _ = self.perplexity(*missing)
        self.assertNotEqual(one, approximate)
        self.assertGreater(kl, 0)
        told = self.renga("run", self.model, "Once", "--raw", "-n", "4", "--timings", *missing)
        self.assertIn(b"as measured before", told.stderr)
        self.assertIn(b"4 tokens were approximated", told.stderr)

    def test_layers_that_are_left_out_take_no_memory(self):
        subprocess.run([MAKE_MODEL, *LARGE, self.model], check=True, timeout=LIMIT_S,
                       stdout=subprocess.DEVNULL)
        without = ["--approximate", "without-layers=1-2,4"]
        exact, _ = self.logits()
        left, _ = self.logits(*without)
        self.assertNotEqual(left, exact)
        self.assertEqual(self.logits(*without, "--workers", "2")[0], left)
        # Groups add up in another order.
        group, _ = self.logits(*without, "--workers", "2", "--tensor-parallel", "2")
        for one, other in zip(array.array("f", group), array.array("f", left), strict=True):
            self.assertAlmostEqual(one, other, delta=1e-2)
        parts = ["--approximate", "without-attention=1,2,4", "--approximate",
                 "without-feed-forward=4,1-2"]
        self.assertEqual(self.logits(*parts)[0], left)
        self.assertNotEqual(self.logits(*parts[:2])[0], left)
        # A plan counts what is held.
        small = ["run", self.model, "Once", "--raw", "-n", "4", "--context", "256", "--memory",
                 "17MiB", "--timings"]
        self.assert_refused(self.renga(*small), "needs")
        told = self.renga(*small, *without)
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertIn(b"are not held", told.stderr)
        self.assertIn(b"4 tokens were approximated", told.stderr)
        timed = self.renga("bench", self.model, "-p", "8", "-n", "2", "-r", "1", *without)
        self.assertEqual(timed.returncode, 0, timed.stderr)
        self.assertIn(b"its cost was not measured here", timed.stderr)

    def test_a_deadline_that_is_kept_changes_no_bit(self):
        subprocess.run([MAKE_MODEL, *LARGE, self.model], check=True, timeout=LIMIT_S,
                       stdout=subprocess.DEVNULL)
        lazy = ["--context", "256", "--memory", "17MiB", "--lazy"]
        exact = self.logits("--context", "256")
        self.assertEqual(self.logits(*lazy, "--approximate", "deadline=60000ms"), exact)
        self.assertEqual(self.logits(*lazy, "--approximate", "deadline=1ms", *NEVER), exact)
        told = self.renga("run", self.model, "Once", "--raw", "-n", "4", "--timings", *lazy,
                          "--approximate", "deadline=60000ms")
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertNotIn(b"approximated\n", told.stderr)
        self.assertIn(b"approximate (deadline=60000ms)", told.stderr)
        # The command that measures it is one that works.
        self.assertIn(b"--approximate deadline=60000ms --lazy --memory SIZE", told.stderr)

    def test_rows_come_from_a_report_of_the_same_model(self):
        report = self.folder / "regions.json"
        report.write_text(json.dumps({"vocabulary": 400, "hot_rows": list(range(399, 299, -1))}))
        rows, _ = self.logits(*HOT, "--regions", report)
        self.assertNotEqual(rows, self.logits(*HOT)[0])
        self.assert_refused(self.renga("run", self.model, "Once", *HOT, "--regions", self.model),
                            "no report")
        report.write_text(json.dumps({"vocabulary": 500, "hot_rows": [450]}))
        self.assert_refused(self.renga("run", self.model, "Once", *HOT, "--regions", report),
                            "this model")

    def test_cold_neurons_come_from_a_report(self):
        report = self.folder / "regions.json"
        # The first 120 of 160 neurons of each layer are the coldest.
        order = [*range(120, 160), *range(120)]
        report.write_text(json.dumps({"neurons": {"by_heat": [order] * 3}}))
        exact = self.logits()
        cold, _ = self.logits(*COLD, "--regions", report)
        self.assertNotEqual(cold, exact[0])
        self.assertEqual(self.logits(*COLD, "--regions", report, "--workers", "2")[0], cold)
        one, approximate, kl, same = self.perplexity(*COLD, "--regions", report)
        self.assertNotEqual(one, approximate)
        self.assertGreater(kl, 0)
        told = self.renga("run", self.model, "Once", "--raw", "-n", "4", "--timings", *COLD,
                          "--regions", report)
        self.assertIn(b"as measured before", told.stderr)
        self.assertRegex(told.stderr.decode(), r"approximate: .* are not held")
        self.assertIn(b"4 tokens were approximated", told.stderr)
        # Nothing of it stays on disk: the exact model is as before.
        self.assertEqual(self.logits(), exact)

        for extra, word in (([], "--regions"), (["--regions", self.model], "no report"),
                            (["--regions", report, "--lazy"], "--lazy"),
                            (["--regions", report, *NEVER], "cap")):
            self.assert_refused(self.renga("run", self.model, "Once", *COLD, *extra), word)
        report.write_text(json.dumps({"neurons": {"by_heat": [[0] * 160] * 3}}))
        self.assert_refused(self.renga("run", self.model, "Once", *COLD, "--regions", report),
                            "this model")

    def test_what_is_no_text_has_no_perplexity(self):
        text = self.folder / "binary"
        text.write_bytes(b"Once upon a time \xff\xfe" * 500)
        self.assert_refused(self.renga("perplexity", self.model, text), "UTF-8")

    def test_what_there_is_no_mode_of_is_refused(self):
        for extra, word in ((["--approximate", "everything"], "everything"),
                            (["--approximate", "hot-rows=0%"], "1%"),
                            (["--approximate", "late-slice=101"], "100%"),
                            ([*LATE, "--lazy"], "--lazy"),
                            (["--approximate", "deadline=5ms"], "needs --lazy"),
                            (["--approximate", "deadline=soon", "--lazy"], "milliseconds"),
                            (["--approximate", "deadline", "--lazy"], "milliseconds"),
                            ([*LATE, "--approximate", "missing=5%"], "late slice"),
                            (["--approximate", "without-layers=3"], "0 to 2"),
                            (["--approximate", "without-layers"], "3,7-9"),
                            (["--approximate", "without-attention=2-1"], "3,7-9"),
                            (["--approximate", "without-feed-forward=0-9999999"], "3,7-9"),
                            (["--approximate", "without-layers=1", "--lazy"], "--lazy"),
                            (["--approximate", "without-layers=1", *NEVER], "cap"),
                            (NEVER, "needs --approximate")):
            self.assert_refused(self.renga("run", self.model, "Once", *extra), word)


if __name__ == "__main__":
    unittest.main()
