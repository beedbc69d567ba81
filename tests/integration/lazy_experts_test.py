#!/usr/bin/env python3
"""Mixtures of experts larger than the memory offered: the same answers, experts read as tokens
choose them."""
import re
import signal
import subprocess
import time
import unittest

from cluster_test import bytes_on_disk
from faults_test import own_mounts
from lazy_test import ENOUGH, LazyTest
from renga_process import LIMIT_S, MAKE_MODEL

# 6 layers of 16 experts, 0.4 MiB each, of which a token uses 2; the rest takes some 8 MiB at a
# context of 256.
SHAPE = ["--architecture", "qwen3moe", "--layers", "6", "--d-model", "256", "--heads", "4",
         "--kv-heads", "2", "--ffn", "512", "--experts", "16", "--experts-used", "2", "--vocab",
         "1000", "--type", "Q8_0"]
HALF, LITTLE, TOO_LITTLE = "28MiB", "20MiB", "8MiB"
PIECES = 6 * 16
EXPERTS = PIECES * 3 * 256 * 512 * 34 // 32  # bytes


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
        self.assertGreater(len(packed), PIECES)
        self.assertGreater(self.damage(packed), PIECES)
        self.assertEqual(self.complete(), whole)
        self.assertGreater(self.damage(packed, size=5000), 0)
        self.assertEqual(self.complete(), whole)

    # ---- Shipped by the coordinator: the worker has no file ---------------------------------------

    def wait_for_worker(self, fits):
        deadline = time.monotonic() + LIMIT_S
        while True:
            status = self.status()
            if status["state"] == "ready" and fits(status["workers"][0]):
                return status["workers"][0]
            self.assertLess(time.monotonic(), deadline, status)
            time.sleep(0.1)

    def resident(self):
        return self.renga_ok("run", self.model, "once upon a time", "--raw", "--temperature", "0",
                             "-n", "24", "--context", "256", "--memory", ENOUGH).rstrip("\n")

    def kept(self, what):
        return bytes_on_disk(self.folder / "cache-a" / "renga" / what)

    def test_shipped_experts_come_when_tokens_choose_them_and_the_rest_in_time(self):
        whole = self.resident()
        up, join = self.up(self.model, "--lazy", "--context", "256")
        worker = self.worker(join, "a", HALF)
        up.wait_for("ready")
        self.assertLess(self.fetched_bytes(worker), self.model.stat().st_size // 8)
        self.complete(tokens=1)
        # A prompt of some tokens does not choose all, and what nobody waits for waits.
        self.assertLess(self.kept("packed"), EXPERTS * 3 // 4)
        now = self.wait_for_worker(lambda now: "n" in now["weight_places"])
        self.assertGreater(now["weight_bytes_to_come"], 0)
        self.assertIn("are not on its disk yet",
                      self.renga_ok("status", "--http", f"127.0.0.1:{self.http}"))
        self.assertEqual(self.complete(), whole)
        self.wait_for_worker(lambda now: now["weight_bytes_to_come"] == 0)
        self.assertGreater(self.kept("shards"), EXPERTS)
        self.assertNotIn("are not on its disk yet",
                         self.renga_ok("status", "--http", f"127.0.0.1:{self.http}"))
        self.assertEqual(self.complete(), whole)

        # Whatever else is needed lies on the disk now, though the coordinator's file is wrong.
        self.assertIn(worker.stop(), (0, 130))
        self.put(self.spoiled(self.model.read_bytes()))
        worker = self.worker(join, "a", HALF)
        self.assertEqual(self.fetched_bytes(worker), 0, "a restart must ship nothing")
        self.wait_for_worker(lambda now: now["state"] == "active")
        self.assertEqual(self.complete(), whole)
        for prompt in ("a", "to be or not", "2 + 2 ="):
            self.complete(prompt)

    def spoiled(self, right):
        """Other bytes in the middle: most of it is experts."""
        begin, end = len(right) // 8, len(right) * 7 // 8
        flip = bytes.maketrans(bytes(range(256)), bytes(byte ^ 0x10 for byte in range(256)))
        return right[:begin] + right[begin:end].translate(flip) + right[end:]

    def put(self, content):
        """In place: the coordinator has hashed and mapped this file."""
        with self.model.open("r+b") as file:
            file.write(content)

    def test_wrong_bytes_for_an_expert_end_the_answer_and_the_next_try_is_right(self):
        whole = self.resident()
        up, join = self.up(self.model, "--lazy", "--context", "256")
        right = self.model.read_bytes()
        wrong = self.spoiled(right)
        self.worker(join, "a", HALF)
        up.wait_for("ready")
        self.put(wrong)
        status, body = self.request("/v1/completions", {
            "prompt": "once upon a time", "max_tokens": 24, "temperature": 0})
        self.assertGreaterEqual(status, 500, body)
        self.assertIn("came with other bytes than the manifest says", body["error"]["message"])
        self.put(right)
        self.wait_until_ready(up)
        self.assertEqual(self.complete(), whole)

    def worker_on_a_disk_of(self, join, size):
        """A worker whose cache is on a disk of its own."""
        disk = self.folder / f"disk-{size}"
        disk.mkdir()
        prefix = own_mounts()
        script = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
        return self.start(*join, "--name", "a", "--memory", HALF, "--listen", "127.0.0.1:0", "-t",
                          "1", "--cache", disk, prefix=[*prefix, "sh", "-c", script, disk])

    def test_a_disk_that_holds_the_model_once_and_one_that_does_not(self):
        whole = self.resident()
        up, join = self.up(self.model, "--lazy", "--context", "256")
        worker = self.worker_on_a_disk_of(join, "30m")
        up.wait_for("need a place on disk, but experts cannot be kept there")
        self.assertIn(worker.stop(), (0, 130))
        worker = self.worker_on_a_disk_of(join, "64m")
        self.wait_until_ready(up)
        # Some pieces have room beside what will be packed of all.
        worker.wait_for("stay where they are, until a token chooses them")
        self.assertEqual(self.complete(), whole)
        for prompt in ("a", "to be or not", "2 + 2 =", "and so it goes on and on and on"):
            self.complete(prompt)
        self.assertGreater(self.status()["workers"][0]["weight_bytes_to_come"], 0)
        self.assertEqual(self.complete(), whole)

    def test_a_worker_that_waits_for_experts_ends_when_it_is_told_to(self):
        up, join = self.up(self.model, "--lazy", "--context", "256")
        worker = self.worker(join, "a", HALF)
        up.wait_for("ready")
        # Nobody ships any more, and nobody says so.
        up.process.send_signal(signal.SIGSTOP)
        try:
            self.assertIn(worker.stop(), (0, 130))
        finally:
            up.process.send_signal(signal.SIGCONT)


if __name__ == "__main__":
    own = [f"LazyExpertsTest.{name}" for name in vars(LazyExpertsTest) if name.startswith("test")]
    unittest.main(argv=["lazy_experts_test", *own], verbosity=2)
