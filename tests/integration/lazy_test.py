#!/usr/bin/env python3
"""Models larger than the memory offered: the same answers, read from disk as they are needed."""
import os
import subprocess
import time
import unittest

from cluster_test import ClusterTest
from renga_process import LIMIT_S, MAKE_MODEL

# 12 layers of 4.5 MiB; the rest takes some 12 MiB at a context of 256.
SHAPE = ["--layers", "12", "--d-model", "512", "--heads", "8", "--kv-heads", "4", "--ffn", "2048",
         "--vocab", "1000", "--type", "Q8_0"]
CONTEXT = ["--context", "256"]
ENOUGH, HALF, LITTLE, TOO_LITTLE = "128MiB", "40MiB", "28MiB", "6MiB"


class LazyTest(ClusterTest):

    def setUp(self):
        super().setUp()
        self.model = self.folder / "model.gguf"
        subprocess.run([MAKE_MODEL, *SHAPE, self.model], check=True, timeout=LIMIT_S,
                       stdout=subprocess.DEVNULL)

    def answer(self, *extra):
        done = self.renga("run", self.model, "Once upon a time", "--raw", "--temperature", "0",
                          "-n", "24", *CONTEXT, *extra)
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))
        return done.stdout

    def wait_until_pinned(self):
        """The worker as its heartbeats tell it: they come later than the answer they are about."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            worker = self.status()["workers"][0]
            if worker["pinned_now_bytes"] == worker["pinned_weight_bytes"] > 0:
                return worker
            self.assertLess(time.monotonic(), deadline, worker)
            time.sleep(0.1)

    def damage(self, paths, size=None):
        """Damaged files in the place of these, as a failing disk gives them: what is mapped of the
        old ones stays. Returns how many were there."""
        damaged = 0
        for path in paths:
            try:
                content = bytearray(path.read_bytes())
            except FileNotFoundError:  # being written under another name, or found damaged before
                continue
            content[6000:6007] = b"damaged"
            other = path.with_name(path.name + ".tmp")
            other.write_bytes(content[:size])
            os.replace(other, path)
            damaged += 1
        return damaged

    def test_the_same_answers_from_less_memory(self):
        whole = self.answer("--memory", ENOUGH)
        # For the first time on this disk, and again.
        self.assertEqual(self.answer("--memory", HALF, "--lazy"), whole)
        self.assertEqual(self.answer("--memory", HALF, "--lazy"), whole)
        self.assertEqual(self.answer("--memory", LITTLE, "--lazy"), whole)
        self.assertEqual(self.answer("--memory", ENOUGH, "--lazy"), whole)
        self.assertEqual(self.answer("--memory", LITTLE, "--lazy", "--workers", "2"), whole)

    def test_refusals_name_the_flag_and_what_it_would_give(self):
        refused = self.renga("run", self.model, "hello", "--memory", HALF, *CONTEXT)
        self.assert_refused(refused, "--lazy", "from disk for every token", "tokens/s")
        refused = self.renga("run", self.model, "hello", "--memory", TOO_LITTLE, "--lazy", *CONTEXT)
        self.assert_refused(refused, "not even --lazy")
        refused = self.renga("run", self.model, "hello", "--memory", HALF, "--lazy",
                             "--no-packed-cache", *CONTEXT)
        self.assert_refused(refused, "--no-packed-cache", "disk")
        plan = self.renga_ok("plan", self.model, "--worker", HALF, "--lazy", *CONTEXT)
        self.assertIn("of weights from disk for every step", plan)
        self.assertIn("bound by reading weights from disk", plan)

    def test_damage_on_disk_changes_no_token(self):
        up, join = self.up(self.model, "--lazy", *CONTEXT)
        self.worker(join, "a", HALF)
        up.wait_for("ready")
        whole = self.complete()
        worker = self.wait_until_pinned()
        self.assertGreater(worker["streamed_weight_bytes"], 10 << 20)
        self.assertLessEqual(worker["used_bytes"], 40 << 20)
        text = self.renga_ok("status", "--http", f"127.0.0.1:{self.http}")
        self.assertIn("read from disk for every step", text)
        self.assertRegex(text, r"a: layers 0(-\d+)? [ms]+")

        files = [path for path in (self.folder / "cache-a").rglob("*") if path.is_file()]
        packed = [path for path in files if "packed" in path.parts and path.name != "checked"]
        self.assertGreater(self.damage(packed), 20)
        self.assertEqual(self.complete(), whole)
        self.assertGreater(self.damage(packed, size=5000), 0)
        self.assertEqual(self.complete(), whole)
        # The pieces it was packed from too: the coordinator has them.
        self.assertGreater(self.damage(packed), 0)
        self.assertGreater(self.damage([path for path in files if "packed" not in path.parts]), 20)
        self.assertEqual(self.complete(), whole)


if __name__ == "__main__":
    own = [f"LazyTest.{name}" for name in vars(LazyTest) if name.startswith("test")]
    unittest.main(argv=["lazy_test", *own], verbosity=2)
