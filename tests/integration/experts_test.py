#!/usr/bin/env python3
"""Mixtures of experts against an independent pass in double precision, and split in every way."""
import json
import subprocess
import unittest

from expert_reference import Model
from renga_process import LIMIT_S, MAKE_MODEL, ProcessTest, read_floats

SHAPE = ["--layers", "2", "--d-model", "64", "--heads", "4", "--kv-heads", "2", "--head-dim", "32",
         "--ffn", "32", "--vocab", "260", "--experts", "8", "--experts-used", "2"]
TOKENS = [1] + [3 + i * 41 % 250 for i in range(23)]


def nmse(actual, expected):
    """Sum of squared differences over sum of squares."""
    return (sum((a - e) ** 2 for a, e in zip(actual, expected)) /
            sum(e * e for e in expected))


class ExpertsTest(ProcessTest):

    def make(self, architecture, kind, seed, *extra):
        model = self.folder / f"{architecture}-{kind}.gguf"
        subprocess.run([MAKE_MODEL, *SHAPE, "--architecture", architecture, "--type", kind,
                        "--seed", str(seed), *extra, model], check=True, timeout=LIMIT_S,
                       stdout=subprocess.DEVNULL)
        return model

    def logits(self, model, *extra):
        """(the logits file's bytes, greedy tokens)."""
        out = self.folder / "logits.f32"
        text = self.renga_ok("logits", model, "--tokens", ",".join(map(str, TOKENS)), "-o", out,
                             "--greedy", "6", *extra)
        return out.read_bytes(), json.loads(text)["greedy"]

    def check(self, architecture, kind, seed, limit):
        """`seed` makes a model whose routers leave no near ties: rounding to 8 bits would decide
        those, and another expert gives other numbers."""
        path = self.make(architecture, kind, seed)
        reference = Model(path)
        rows = reference.logits(TOKENS)
        expected = [number for row in rows for number in row]
        self.assertGreater(reference.least_margin, 0.02 if kind == "F32" else 0.05)
        self.assertGreater(len(reference.used_experts), 12)
        for device, bound in (("cpu", limit), ("reference", 1e-8)):
            self.logits(path, "--device", device, "--kv", "F32")
            error = nmse(read_floats(self.folder / "logits.f32"), expected)
            print(f"{architecture} {kind} on {device}: NMSE {error:.1e}, "
                  f"least margin {reference.least_margin:.3f}")
            self.assertLessEqual(error, bound)
        bits = self.logits(path)
        for split in (("--workers", 2), ("--chunk", 3), ("--workers", 2, "--chunk", 5,
                                                         "--head-blocks", 2)):
            with self.subTest(split=split):
                self.assertEqual(self.logits(path, *split), bits)

    def test_qwen3moe_f32(self):
        self.check("qwen3moe", "F32", 4, 1e-10)

    def test_qwen3moe_q8_0(self):
        self.check("qwen3moe", "Q8_0", 7, 2e-3)

    def test_mixtral_f32(self):
        self.check("llama", "F32", 4, 1e-10)

    def test_mixtral_q4_0(self):
        self.check("llama", "Q4_0", 29, 2e-3)

    def test_groups_are_refused_and_plans_tell_what_a_token_reads(self):
        path = self.make("qwen3moe", "Q8_0", 1)
        refused = self.renga("run", path, "hello", "--workers", "2", "--tensor-parallel", "2")
        self.assert_refused(refused, "experts", "--tensor-parallel")
        plan = self.renga_ok("plan", path, "--worker", "64MiB")
        self.assertIn("8 in each layer, a token uses 2", plan)


if __name__ == "__main__":
    unittest.main(verbosity=2)
