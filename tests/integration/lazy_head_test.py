#!/usr/bin/env python3
"""A head that stays on disk gives the same tokens; `renga regions` builds it and its report."""
import json
import os
import pathlib
import re
import unittest

from renga_process import ProcessTest, demo_model, golden

PROMPT = "once upon a time there was a little girl"
SAMPLINGS = ([], ["--temperature", "0.8", "--top-k", "40", "--seed", "3"],
             ["--temperature", "1.2", "--top-k", "8", "--top-p", "0.9", "--min-p", "0.02",
              "--seed", "4"],
             ["--temperature", "1.0", "--min-p", "0.05", "--seed", "5"],
             ["--temperature", "0.9", "--seed", "6"],
             ["--repetition-penalty", "1.3"])


def proved(stderr):
    match = re.search(r"the head proved (\d+) tokens", stderr)
    return int(match.group(1)) if match else 0


class LazyHeadTest(ProcessTest):

    def answer(self, model, tokens, *extra):
        """(text, what was said on standard error) of a raw continuation."""
        done = self.renga("run", model, PROMPT, "--raw", "-n", tokens, "--timings", "--context",
                          "512", *extra)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout, done.stderr.decode()

    def build(self, model, *extra):
        """The report as parsed JSON, and its page."""
        out = self.folder / "report"
        self.renga_ok("regions", model, "-o", out, "-q", *extra)
        page = pathlib.Path(f"{out}.html").read_text()
        return json.loads(pathlib.Path(f"{out}.json").read_text()), page

    def screen_file(self):
        files = list((self.folder / "cache" / "renga" / "screens").glob("*.screen"))
        self.assertEqual(len(files), 1)
        return files[0]

    def check_same_tokens(self, model, tokens, least_proved, workers=("0", "2")):
        """`least_proved`: by sampling, as in SAMPLINGS; the 40 best are proved less often than one."""
        for sampling, least in zip(SAMPLINGS, least_proved, strict=True):
            whole, stderr = self.answer(model, tokens, *sampling)
            self.assertEqual(proved(stderr), 0)
            for count in workers:
                with self.subTest(sampling=sampling, workers=count):
                    lazy, stderr = self.answer(model, tokens, "--lazy-head", "--workers", count,
                                               "-v", *sampling)
                    self.assertEqual(lazy, whole)
                    self.assertGreaterEqual(proved(stderr), least)
                    for line in stderr.splitlines():
                        if "outputs by screen" in line:
                            print(" ".join(sampling) or "greedy", line)

    def check_grammar(self, model, tokens, least_proved):
        """Allowed tokens: many in a string, a few at its end, one in the name of a member."""
        schema = self.folder / "schema.json"
        schema.write_text(json.dumps({
            "type": "object",
            "properties": {"who": {"type": "string", "maxLength": 60}, "old": {"type": "boolean"},
                           "where": {"type": "string", "maxLength": 200}},
            "required": ["who", "old", "where"]}))
        for sampling, least in zip(SAMPLINGS, least_proved, strict=True):
            asked = ["--json-schema", schema, *sampling]
            whole, _ = self.answer(model, tokens, *asked)
            for extra in (["--lazy-head"], ["--lazy-head", "--speculation", "off"],
                          ["--lazy-head", "--workers", "2", "--head-blocks", "2"]):
                with self.subTest(grammar=True, sampling=sampling, extra=extra):
                    lazy, stderr = self.answer(model, tokens, *extra, *asked)
                    self.assertEqual(lazy, whole)
                    self.assertGreaterEqual(proved(stderr), least)

    def test_small_model(self):
        model, _, _ = golden("story-f32")
        report, page = self.build(model, "--bits", "5")
        self.assertEqual(report["vocabulary"], 512)
        self.assertEqual(len(report["topics"]), 24)
        self.assertGreater(report["screen"]["resident_bytes"], 0)
        self.assertEqual(report["caches"][-1]["first_in_hot"], 1)
        neurons = report["neurons"]
        layers, width = neurons["layers"], neurons["neurons_per_layer"]
        for order in neurons["by_heat"]:
            self.assertEqual(sorted(order), list(range(width)))
        self.assertEqual(len(neurons["by_heat"]), layers)
        self.assertAlmostEqual(neurons["caches"][-1]["hottest"], 1)
        self.assertEqual(len(neurons["together"]), 24 * 24)
        self.assertGreaterEqual(neurons["groups"][0]["inside"],
                                neurons["groups"][0]["inside_by_chance"])
        self.assertIn("Feed-forward neurons", page)
        self.assertIn("<svg", page)
        self.assertNotIn("http", page)
        self.check_same_tokens(model, 60, (1, 1, 1, 1, 1, 0))
        self.check_what_all_rows_have_a_part_in(model)

    def test_a_report_has_its_folder_before_anything_is_measured(self):
        model, _, _ = golden("story-f32")
        out = self.folder / "new" / "folder" / "report"
        self.renga_ok("regions", model, "-o", out, "-q", "--no-screen")
        self.assertEqual(sorted(path.name for path in out.parent.iterdir()),
                         ["report.html", "report.json"])
        (self.folder / "file").write_text("")
        done = self.renga("regions", model, "-o", self.folder / "file" / "report", "-q")
        self.assertEqual(done.returncode, 1)
        said = done.stderr.decode()
        self.assertIn(str(self.folder / "file"), said)
        self.assertEqual(len(said.splitlines()), 1, said)

    def check_what_all_rows_have_a_part_in(self, model):
        top_p = ["--temperature", "0.8", "--top-p", "0.9", "--seed", "7"]
        whole, stderr = self.answer(model, 20, *top_p)
        self.assertNotIn("all of its rows", stderr)
        lazy, stderr = self.answer(model, 20, "--lazy-head", *top_p)
        self.assertEqual(lazy, whole)
        self.assertEqual(proved(stderr), 0)
        self.assertRegex(stderr, r"the head read all of its rows for \d+ tokens")

    def test_damage_and_absence_change_nothing(self):
        model, _, _ = golden("story-f32")
        whole, _ = self.answer(model, 30)
        absent, stderr = self.answer(model, 30, "--lazy-head", "-v")
        self.assertEqual(absent, whole)
        self.assertIn("renga regions", stderr)
        self.build(model, "--bits", "5")
        path = self.screen_file()
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
        damaged, stderr = self.answer(model, 30, "--lazy-head", "-v")
        self.assertEqual(damaged, whole)
        self.assertIn("damaged", stderr)

    def test_where_it_does_not_pay_is_said(self):
        model, _, _ = golden("llama-gqa-q4_0")
        done = self.renga("run", model, PROMPT, "--raw", "-n", 3, "--lazy-head", "-v")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertIn("it is small as it is", done.stderr.decode())
        model, _, _ = golden("story-f32")
        self.build(model, "--bits", "5")
        _, stderr = self.answer(model, 3, "--lazy-head", "-v")
        self.assertIn("all of it would fit", stderr)

    def test_texts_of_the_user(self):
        model, _, _ = golden("story-f32")
        folder = self.folder / "texts"
        folder.mkdir()
        (folder / "a.txt").write_text("once upon a time there was a cat .")
        done = self.renga("regions", model, "--text", folder, "-o", self.folder / "r")
        self.assert_refused(done, "two texts")
        (folder / "b.txt").write_text("the little dog was very happy .")
        report, _ = self.build(model, "--text", folder, "--no-screen")
        self.assertEqual([topic["name"] for topic in report["topics"]], ["a", "b"])
        self.assertNotIn("screen", report)

    def test_demo_model(self):
        model = demo_model()
        if os.environ.get("RENGA_TEST_SLOW"):
            # Sanitizers look for other faults than a screen from few texts that proves less.
            tokens, least_proved, texts = 20, (10, 1, 1, 1, 1, 0), ["--text", self.two_short_texts()]
        else:
            tokens, least_proved, texts = 100, (95, 20, 40, 60, 60, 10), []
        report, _ = self.build(model, *texts)
        screen = report["screen"]["resident_bytes"]
        self.assertLess(screen, 0.5 * report["vocabulary"] * report["head_row_bytes"])
        self.check_same_tokens(model, tokens, least_proved, workers=("0",))
        self.check_grammar(model, tokens // 2, [least // 4 for least in least_proved])
        by_screen, whole = self.needed(model, "--lazy-head"), self.needed(model, "--no-lazy-head")
        self.assertLess(by_screen, whole - screen)
        self.check_chosen_where_it_is_needed(model, int(by_screen + whole) // 2)

    def check_chosen_where_it_is_needed(self, model, memory):
        expected, stderr = self.answer(model, 20, "-v")
        self.assertNotIn("outputs by screen", stderr)
        little = ("--memory", f"{memory}B")
        for workers in ("0", "1"):
            answer, stderr = self.answer(model, 20, "-v", "--workers", workers, *little)
            self.assertEqual(answer, expected)
            self.assertIn("the output matrix stays on disk", stderr)
            self.assertGreater(proved(stderr), 10)
        self.assert_refused(self.renga("run", model, PROMPT, "--context", "512", "--no-lazy-head",
                                       *little), "does not fit")

    def two_short_texts(self):
        folder = self.folder / "texts"
        folder.mkdir()
        text = (pathlib.Path(__file__).parent / "english.txt").read_text()
        for name, begin in (("a", 0), ("b", len(text) // 2)):
            (folder / f"{name}.txt").write_text(text[begin:begin + 600])
        return folder

    def needed(self, model, *extra):
        """What a plan counts for the model, as a refusal says it, in bytes."""
        done = self.renga("run", model, PROMPT, "--raw", "--memory", "1MB", "--context", "512",
                          *extra)
        self.assertNotEqual(done.returncode, 0)
        number, unit = re.search(r"it needs ([0-9.]+) (KiB|MiB)", done.stderr.decode()).groups()
        return float(number) * {"KiB": 2**10, "MiB": 2**20}[unit]


if __name__ == "__main__":
    unittest.main(verbosity=2)
