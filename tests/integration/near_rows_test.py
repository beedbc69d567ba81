#!/usr/bin/env python3
"""Rows of the output matrix placed by use, and answers that do not wait for the far ones."""
import json
import re
import unittest

from renga_process import ProcessTest, golden

PROMPT = "once upon a time there was a little girl"
SAMPLINGS = ([], ["--temperature", "0.8", "--top-k", "40", "--seed", "3"],
             ["--temperature", "1.0", "--min-p", "0.05", "--seed", "5"],
             ["--temperature", "0.9", "--seed", "6"])


def guesses(stderr):
    """(sent, right, refuted)"""
    match = re.search(r"guessed (\d+) tokens ahead, (\d+) were right, (\d+) refuted", stderr)
    return tuple(map(int, match.groups())) if match else (0, 0, 0)


class NearRowsTest(ProcessTest):

    def answer(self, *extra):
        """(text, what was said on standard error) of a raw continuation."""
        model, _, _ = golden("story-f32")
        done = self.renga("run", model, PROMPT, "--raw", "-n", 60, "--timings", "--context", "256",
                          "--speculation", "off", *extra)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout, done.stderr.decode()

    def test_text_is_that_of_one_head(self):
        # Every third row: the near ones lie all over the vocabulary.
        _, data, expected = golden("story-f32")
        vocabulary = len(expected) // len(data["token_ids"])
        report = self.folder / "report.json"
        report.write_text(json.dumps({"vocabulary": vocabulary,
                                      "hot_rows": list(range(1, vocabulary, 3))}))
        right = refuted = 0
        for sampling in SAMPLINGS:
            whole, _ = self.answer(*sampling)
            for extra in (["--near-rows", "30%", "--regions", report],
                          ["--near-rows", "30%", "--regions", report, "--optimistic"],
                          ["--near-rows", "60%", "--optimistic"],
                          ["--head-blocks", "2", "--optimistic"]):
                with self.subTest(sampling=sampling, extra=extra):
                    text, stderr = self.answer("--workers", 2, *extra, *sampling)
                    self.assertEqual(text, whole)
                    counted = guesses(stderr)
                    right += counted[1]
                    refuted += counted[2]
        # How many depends on who answers first, and both happen.
        print(f"{right} guesses of near rows were right, {refuted} refuted")

    def test_what_makes_no_sense_is_said(self):
        model, _, _ = golden("story-f32")
        for extra, says in ((["--optimistic"], "--near-rows"),
                            (["--near-rows", "lots"], "percent"),
                            (["--near-rows", "20%", "--approximate", "hot-rows"], "not go together")):
            done = self.renga("run", model, PROMPT, "-n", 1, *extra)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(says, done.stderr.decode())


if __name__ == "__main__":
    unittest.main()
