#!/usr/bin/env python3
"""`renga regions` on mixtures of experts: who is used, what a cache would have, as page and JSON."""
import json
import re
import subprocess
import unittest

from renga_process import LIMIT_S, MAKE_MODEL, ProcessTest

LAYERS, EXPERTS, USED = 4, 16, 2
SHAPE = {"layers": LAYERS, "d-model": 64, "heads": 4, "kv-heads": 2, "head-dim": 32, "ffn": 32,
         "vocab": 300, "experts": EXPERTS, "experts-used": USED, "type": "Q8_0",
         "architecture": "qwen3moe", "router-skew": 0}
TEXTS = {"cats": "the cat sat on the mat and looked at the dog . " * 12,
         "numbers": "one two three four five six seven eight nine ten . " * 12,
         "rain": "rain fell on the roof all night and nobody slept . " * 12}


class ExpertRegionsTest(ProcessTest):

    def setUp(self):
        super().setUp()
        self.texts = self.folder / "texts"
        self.texts.mkdir()
        for name, text in TEXTS.items():
            (self.texts / f"{name}.txt").write_text(text)

    def make(self, name, changes):
        path = self.folder / f"{name}.gguf"
        options = [f"--{key}={value}" for key, value in {**SHAPE, **changes}.items()]
        subprocess.run([MAKE_MODEL, *options, path], check=True, timeout=LIMIT_S,
                       stdout=subprocess.DEVNULL)
        return path

    def regions(self, model, *extra):
        """(the JSON, the page, what was printed)."""
        out = self.folder / "report"
        text = self.renga_ok("regions", model, "--text", self.texts, "-o", out, "-q", *extra)
        return (json.loads((self.folder / "report.json").read_text()),
                (self.folder / "report.html").read_text(), text)

    def check(self, report):
        """What must be so of any mixture of this shape."""
        self.assertGreater(len(report["hot_rows"]), 0)
        self.assertNotIn("neurons", report)
        experts = report["experts"]
        self.assertEqual((experts["experts_per_layer"], experts["used_per_layer"]), (EXPERTS, USED))
        self.assertEqual(experts["positions"], report["positions"])
        self.assertEqual(len(experts["layers"]), LAYERS)
        for index, layer in enumerate(experts["layers"]):
            self.assertEqual(sum(layer["uses"]), USED * experts["positions"])
            of_topics = [topic["uses"][index * EXPERTS:(index + 1) * EXPERTS]
                         for topic in experts["topics"]]
            self.assertEqual(layer["uses"], [sum(uses) for uses in zip(*of_topics)])
            self.assertLessEqual(layer["for_half"], layer["for_nine_tenths"])
        for together in experts["layers_together"]:
            uses = experts["layers"][together["layer"]]["uses"]
            for expert in range(EXPERTS):
                row = together["tokens"][expert * EXPERTS:(expert + 1) * EXPERTS]
                self.assertEqual(sum(row), uses[expert] * (USED - 1))
        self.assertEqual([t["name"] for t in experts["topics"]], sorted(TEXTS))
        last = experts["caches"][-1]
        self.assertEqual((last["experts"], last["favourites"]), (LAYERS * EXPERTS, 1))
        self.assertEqual(last["bytes"], experts["expert_bytes"])
        return experts

    def test_both_kinds_of_mixtures(self):
        for architecture in ("llama", "qwen3moe"):
            with self.subTest(architecture):
                report, page, text = self.regions(
                    self.make(architecture, {"architecture": architecture, "router-skew": 1}))
                experts = self.check(report)
                self.assertIn(f"{experts['recommended_experts']} of the {LAYERS * EXPERTS} experts",
                              text)
                for words in ("Experts that are used together", "Hit rate against cache size",
                              "Feed-forward neurons are not looked at", "--lazy"):
                    self.assertIn(words, page)
                self.assertNotIn("nan", page)
                self.assertGreater(page.count("<svg"), 6)

    def test_favourites_are_found(self):
        alike = self.check(self.regions(self.make("alike", {}))[0])
        skewed = self.check(self.regions(
            self.make("skewed", {"router-skew": 2}))[0])
        for_most = [sum(layer["for_nine_tenths"] for layer in experts["layers"])
                    for experts in (alike, skewed)]
        self.assertLess(for_most[1] * 1.5, for_most[0])
        self.assertLess(skewed["recommended_experts"], alike["recommended_experts"])

    def test_plans_read_it(self):
        model = self.make("planned", {"router-skew": 1, "d-model": 256, "ffn": 256})
        self.regions(model)
        report = self.folder / "report.json"
        plan = ["plan", model, "--worker", "15MiB", "--lazy", "--context", "64"]
        self.assertIn("all are taken to be used alike", self.renga_ok(*plan))
        measured = self.renga_ok(*plan, "--regions", report)
        found = re.search(r"a token misses (\d+) % of the experts that it chooses; if all were used "
                          r"alike, (\d+) %", measured)
        self.assertIsNotNone(found, measured)
        self.assertLess(int(found[1]) * 2, int(found[2]))
        run = ["run", model, "the cat", "--raw", "-n", 12, "--context", "64", "--memory", "15MiB",
               "--lazy"]
        self.assertEqual(self.renga_ok(*run, "--regions", report), self.renga_ok(*run))
        self.assert_refused(self.renga(*plan, "--regions", model), "renga regions")
        report.write_text(report.read_text()[:-20])
        self.assert_refused(self.renga(*plan, "--regions", report), "renga regions")
        other = self.make("other", {"experts": 8})
        self.regions(other)
        self.assert_refused(self.renga(*plan, "--regions", report), "4 layers of 16 experts")

    def test_one_text_is_refused(self):
        for name in list(TEXTS)[1:]:
            (self.texts / f"{name}.txt").unlink()
        done = self.renga("regions", self.make("one", {}), "--text",
                          self.texts, "-o", self.folder / "r")
        self.assert_refused(done, "two texts")


if __name__ == "__main__":
    unittest.main(verbosity=2)
