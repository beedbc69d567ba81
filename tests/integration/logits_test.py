#!/usr/bin/env python3
"""`renga logits` against independent goldens, and its bits under every way of splitting."""
import json
import math
import pathlib
import unittest

from renga_process import ProcessTest, demo_model, golden, read_floats

FAMILIES = ["llama-f32", "llama-gqa-f32", "llama-gqa-f16", "llama-gqa-bf16", "llama-gqa-q8_0",
            "llama-gqa-q4_0", "llama-gqa-q4_1", "llama-gqa-q5_0", "llama-gqa-q5_1",
            "llama-gqa-q2_k", "llama-gqa-q3_k", "llama-gqa-q4_k", "llama-gqa-q5_k",
            "llama-gqa-q6_k", "llama-gqa-iq4_nl", "llama-gqa-iq4_xs", "mistral-f32", "qwen2-f32",
            "qwen3-f32", "gemma3-f32", "story-f32"]


def tolerance(name):
    if name.endswith("bf16") or name.endswith("f16"):
        return 1e-4
    return 1e-6 if name.endswith("f32") else 2e-3


def nmse(actual, expected):
    """Sum of squared differences over sum of squares."""
    error = sum((a - e) ** 2 for a, e in zip(actual, expected))
    return error / sum(e * e for e in expected)


def joined(tokens):
    return ",".join(map(str, tokens))


class LogitsTest(ProcessTest):

    def logits(self, path, tokens, *extra):
        """(bytes of the logits file, greedy tokens)."""
        out = self.folder / "logits.f32"
        text = self.renga_ok("logits", path, "--tokens", joined(tokens), "-o", out, *extra)
        greedy = json.loads(text)["greedy"] if text.strip() else []
        return out.read_bytes(), greedy

    def check_golden(self, name):
        path, data, expected = golden(name)
        bits, _ = self.logits(path, data["token_ids"])
        (self.folder / "raw").write_bytes(bits)
        actual = read_floats(self.folder / "raw")
        self.assertEqual(len(actual), len(expected))
        error = nmse(actual, expected)
        print(f"{name}: NMSE {error:.2e}")
        self.assertLessEqual(error, tolerance(name))

        greedy = data["greedy"]
        _, tokens = self.logits(path, greedy["prompt"], "--greedy", len(greedy["tokens"]))
        self.assertEqual(len(tokens), len(greedy["tokens"]))
        bound = 6 * math.sqrt(tolerance(name)) * data["logits_std"]
        compared = 0
        for step, margin in enumerate(greedy["margin"]):
            if margin < bound:
                break
            self.assertEqual(tokens[step], greedy["tokens"][step], f"{name}, step {step}")
            compared += 1
        print(f"{name}: {compared} of {len(tokens)} greedy tokens compared (margin >= {bound:.3f})")

    def check_same_bits(self, name, splits):
        path, data, _ = golden(name)
        tokens = data["token_ids"][:20]
        reference = self.logits(path, tokens, "--greedy", 8)
        for split in splits:
            with self.subTest(split=split):
                self.assertEqual(self.logits(path, tokens, "--greedy", 8, *split), reference)

    def test_chunks(self):
        for name in ("story-f32", "llama-gqa-q4_k"):
            self.check_same_bits(name, [("--chunk", n) for n in (1, 3, 7)])

    def test_workers(self):
        self.check_same_bits("story-f32", [("--workers", n) for n in (1, 2, 3, 4)])

    def check_group(self, model, tokens, vocabulary, splits, limit, margin):
        """Members of groups add up parts of sums: last bits differ, greedy tokens do not."""
        self.logits(model, tokens)
        exact = read_floats(self.folder / "logits.f32")
        rows = len(exact) // vocabulary
        for split in splits:
            with self.subTest(split=split):
                self.logits(model, tokens, *split)
                actual = read_floats(self.folder / "logits.f32")
                error = nmse(actual, exact)
                print(f"{split}: NMSE {error:.2e}")
                self.assertLessEqual(error, limit)
                compared = 0
                for row in range(rows):
                    part = slice(row * vocabulary, (row + 1) * vocabulary)
                    second, first = sorted(exact[part])[-2:]
                    if first - second < margin:
                        continue
                    compared += 1
                    self.assertEqual(actual[part].index(max(actual[part])),
                                     exact[part].index(first), f"row {row}")
                self.assertGreater(compared, rows // 4)

    def test_tensor_parallel_groups_of_small_models(self):
        for name, vocabulary, limit in (("story-f32", None, 1e-9), ("llama-gqa-q8_0", None, 1e-4)):
            path, data, expected = golden(name)
            tokens = data["token_ids"]
            self.check_group(path, tokens, len(expected) // len(tokens),
                             [("--workers", 2, "--tensor-parallel", 2),
                              ("--workers", 2, "--tensor-parallel", 2, "--head-blocks", 2,
                               "--chunk", 3)], limit, 6 * math.sqrt(limit) * data["logits_std"])

    def test_tensor_parallel_groups_of_a_real_model(self):
        # Three KV heads: groups of two are uneven.
        self.check_group(demo_model(), [1 + 37 * i % 4000 for i in range(12)], 49152,
                         [("--workers", 2, "--tensor-parallel", 2),
                          ("--workers", 3, "--tensor-parallel", 3),
                          ("--workers", 4, "--tensor-parallel", 2),
                          ("--workers", 3, "--tensor-parallel", 3, "--wire", "f16")], 1e-3, 0.5)

    def test_head_blocks(self):
        self.check_same_bits("llama-gqa-q6_k", [("--head-blocks", n) for n in (1, 2, 3)])

    def test_head_blocks_of_scattered_rows(self):
        report = self.folder / "report.json"
        _, data, expected = golden("llama-gqa-q6_k")
        vocabulary = len(expected) // len(data["token_ids"])
        report.write_text(json.dumps({"vocabulary": vocabulary,
                                      "hot_rows": list(range(0, vocabulary, 3))}))
        self.check_same_bits("llama-gqa-q6_k", [
            ("--workers", 2, "--near-rows", "20%", "--regions", report),
            ("--workers", 3, "--near-rows", "33%", "--regions", report, "--head-blocks", 3),
            ("--near-rows", "20%")])

    def test_workers_and_head_blocks_and_chunks(self):
        self.check_same_bits("story-f32", [("--workers", 3, "--head-blocks", 3, "--chunk", 5),
                                           ("--workers", 2, "--head-blocks", 2, "--chunk", 2)])

    def check_wire(self, wire, tolerance, *more):
        """Greedy tokens are those of F32 wherever the best logit leads by more than `tolerance`.

        The kernels round activations to 8 bits: a last bit that differs becomes another code here
        and there, and logits differ by more than the wire's own rounding."""
        model = demo_model()
        text = (pathlib.Path(__file__).parent / "english.txt").read_text()
        tokens = json.loads(self.renga_ok("tokenize", model, input_text=text))[:64]
        self.logits(model, tokens, "--workers", 2)
        exact = read_floats(self.folder / "logits.f32")
        self.logits(model, tokens, "--workers", 2, "--wire", wire, *more)
        narrow = read_floats(self.folder / "logits.f32")
        self.assertNotEqual(narrow, exact, "nothing became narrower")
        vocabulary = len(exact) // len(tokens)
        compared, equal = 0, 0
        for row in range(len(tokens)):
            here = slice(row * vocabulary, (row + 1) * vocabulary)
            second, first = sorted(exact[here])[-2:]
            same = narrow[here].index(max(narrow[here])) == exact[here].index(first)
            equal += same
            if first - second > tolerance:
                compared += 1
                self.assertTrue(same, f"row {row} leads by {first - second}")
        error = nmse(narrow, exact)
        print(f"{wire}: {equal} of {len(tokens)} greedy tokens are the same; all of the {compared} "
              f"that lead by more than {tolerance}; NMSE {error:.1e}")
        self.assertGreater(compared, len(tokens) // 3)

    def test_f16_activations_keep_greedy_tokens(self):
        self.check_wire("f16", 0.5)

    def test_q8_activations_keep_greedy_tokens(self):
        self.check_wire("q8", 1.0)

    def test_q8_sums_of_a_group_keep_greedy_tokens(self):
        self.check_wire("q8", 1.0, "--tensor-parallel", 2)

    def test_an_unknown_wire_type_is_refused(self):
        path, data, _ = golden("llama-gqa-q8_0")
        done = self.renga("logits", path, "--tokens", joined(data["token_ids"][:4]), "-o",
                          self.folder / "logits.f32", "--wire", "q4")
        self.assert_refused(done, "f32, f16 or q8", "q4")

    def test_more_workers_than_layers_leaves_the_rest_idle_and_says_so(self):
        path, data, _ = golden("llama-gqa-q8_0")
        out = self.folder / "logits.f32"
        done = self.renga("logits", path, "--tokens", joined(data["token_ids"][:4]), "-o", out,
                          "--workers", 4)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertIn("idle", done.stderr.decode())


def add_golden_test(name):
    def test(self):
        self.check_golden(name)
    setattr(LogitsTest, "test_golden_" + name.replace("-", "_"), test)


for family in FAMILIES:
    add_golden_test(family)

if __name__ == "__main__":
    unittest.main(verbosity=2)
