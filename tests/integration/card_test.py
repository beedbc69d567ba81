#!/usr/bin/env python3
"""Cards in whole processes: the real program over a made-up driver, whose card is an emulated one."""
import os
import pathlib
import re
import time
import unittest

from cluster_test import ClusterTest as Cluster
from renga_process import LIMIT_S, ProcessTest, free_port, golden

DRIVER = os.environ.get("RENGA_MADE_UP_DRIVER", "build/release/tests/made_up_driver")
NCCL = os.environ.get("RENGA_MADE_UP_NCCL", "build/release/tests/made_up_nccl")
CONTEXT = ["--context", "256"]
# The golden model needs 5.9 MiB with this context: neither half holds it.
CARD_PART = "5.5MiB"
HOST_PART = "5.5MiB"


class CardTest(ProcessTest):
    up = Cluster.up
    status = Cluster.status
    request = Cluster.request
    complete = Cluster.complete
    wait_until_ready = Cluster.wait_until_ready

    def setUp(self):
        super().setUp()
        if not (pathlib.Path(DRIVER) / "libcuda.so.1").exists():
            self.skipTest(f"no made-up driver in {DRIVER}: this build has no emulated card")
        self.without_card = dict(self.environment)
        self.environment["LD_LIBRARY_PATH"] = str(pathlib.Path(DRIVER).resolve())
        self.model, _, _ = golden("story-f32")
        probe = self.renga("run", self.model, "--device", "cuda", "-n", "1", "once")
        if b"without a CUDA compiler" in probe.stderr:
            self.skipTest("this build has no code for cards: it was made without nvcc")

    def text(self, *options, environment=None):
        return self.renga_ok("run", self.model, "--raw", "--temperature", "0", "-n", "24", *CONTEXT,
                             *options, "once upon a time",
                             environment=environment or self.environment)

    def worker(self, join, *options):
        """All workers of a test are on one machine: they share a state folder and the card."""
        return self.start(*join, "--listen", "127.0.0.1:0", "-t", "1", *options)

    def test_two_workers_on_one_card_answer_as_one(self):
        alone = self.text("--device", "cuda", "--memory", "16MiB")
        self.assertEqual(alone, self.text("--device", "reference"))
        self.assertEqual(alone, self.text("--device", "cuda", "--memory", "6MiB", "--workers", "2"))

    def test_two_commands_on_one_machine_share_its_card(self):
        alone = self.text("--device", "cuda").strip()
        up, join = self.up(self.model, "--wait-for", "2", *CONTEXT)
        for name in ("a", "b"):
            self.worker(join, "--name", name, "--device", "cuda", "--memory", "6MiB")
        up.wait_for("ready")
        self.assertEqual(self.complete().strip(), alone)
        workers = self.status()["workers"]
        self.assertEqual(sorted(w["name"] for w in workers), ["a", "b"])
        for worker in workers:
            self.assertEqual(worker["state"], "active")
            self.assertIn("GTX Made Up (4.0 GiB)", worker["device"])
            self.assertTrue(worker["path"].startswith("cuda-"))
        self.assertIn("GTX Made Up",
                      self.renga_ok("status", "--http", f"127.0.0.1:{self.http}"))

    def test_what_does_not_fit_on_the_card_is_computed_by_the_host(self):
        alone = self.text("--device", "cuda")
        refused = self.renga("run", self.model, "--device", "cuda", "--memory", CARD_PART, *CONTEXT,
                             "once")
        self.assert_refused(refused, "does not fit")
        card = ["--device", "cuda", "--memory", CARD_PART, "--host-memory", HOST_PART]
        self.assertEqual(alone, self.text(*card))
        self.assertEqual(alone, self.text(*card, "--workers", "1"))
        # Not used when the card suffices.
        enough = self.renga("run", self.model, "--device", "cuda", "--host-memory", HOST_PART, "-n",
                            "4", *CONTEXT, "once")
        self.assertIn(b"local-host is idle: memory beside a card", enough.stderr)
        refused = self.renga("run", self.model, "--host-memory", "1GiB", "once")
        self.assert_refused(refused, "--memory 1GiB")

    def test_one_command_offers_a_card_and_memory_beside_it(self):
        alone = self.text("--device", "cuda").strip()
        up, join = self.up(self.model, *CONTEXT)
        worker = self.worker(join, "--name", "desk", "--device", "cuda", "--memory", CARD_PART,
                             "--host-memory", HOST_PART)
        up.wait_for("ready")
        self.assertEqual(self.complete().strip(), alone)
        layers = {}
        for part in self.status()["workers"]:
            self.assertEqual(part["state"], "active")
            self.assertGreater(part["weight_bytes_per_second"], 0)
            self.assertLessEqual(part["used_bytes"], part["offered_bytes"])
            layers[part["name"]] = (part["path"].split("-")[0], part["layers"])
        self.assertEqual({name: path for name, (path, _) in layers.items()},
                         {"desk": "cuda", "desk-host": "cpu"})
        self.assertEqual(sum(end - begin for _, (begin, end) in layers.values()), 5)
        self.assertEqual(worker.stop(), 0)

    def test_a_card_and_its_host_compute_each_layer_together(self):
        alone = self.text("--device", "cuda").strip()
        up, join = self.up(self.model, "--wait-for", "2", "--tensor-parallel", "2", "--group-sums",
                           "nccl", *CONTEXT)
        self.worker(join, "--name", "desk", "--device", "cuda", "--memory", "16MiB",
                    "--host-memory", "16MiB")
        up.wait_for("ready")
        status = self.status()
        self.assertEqual(status["stages"], 1)
        self.assertIn("over sockets, not over NCCL: desk-host is no NVIDIA card",
                      " ".join(status["warnings"]))
        self.assertEqual({w["path"].split("-")[0] for w in status["workers"]}, {"cuda", "cpu"})
        self.assertEqual(self.complete().strip(), alone)

    def test_memory_that_others_take_is_noticed_and_said(self):
        alone = self.text("--device", "cuda").strip()
        taken = self.folder / "taken"
        taken.write_text("0")
        self.environment["RENGA_MADE_UP_CARD_TAKEN"] = str(taken)
        self.environment["RENGA_MADE_UP_CARD_BYTES"] = str(200 << 20)
        up, join = self.up(self.model, *CONTEXT)
        worker = self.worker(join, "--name", "desk", "--device", "cuda", "--memory", "8MiB")
        up.wait_for("ready")
        self.assertEqual(self.status()["workers"][0]["trouble"], "")
        taken.write_text(str(200 << 20))  # a desktop takes all that is left
        self.assertIn("0 B are left", worker.wait_for("other programs have taken"))
        deadline = time.monotonic() + LIMIT_S
        while not self.status()["workers"][0]["trouble"] and time.monotonic() < deadline:
            time.sleep(0.1)
        shown = self.renga_ok("status", "--http", f"127.0.0.1:{self.http}")
        self.assertIn("desk: other programs have taken", shown)
        # What was offered is there all the same.
        self.assertEqual(self.complete().strip(), alone)
        taken.write_text("0")
        worker.wait_for("has room for other programs again")
        # A worker that comes too late is refused in one sentence.
        taken.write_text(str(200 << 20))
        late = self.renga(*join, "--device", "cuda", "--memory", "8MiB")
        self.assert_refused_last(late, "0 B of its 200.0 MiB are free now")

    def group_of_cards(self, sums, nccl, said):
        """Two cards of one machine that compute each layer together; `said`: what each says of it."""
        self.environment["RENGA_MADE_UP_CARDS"] = "2"
        broken = self.folder / "broken_nccl"  # this machine may have the real library
        broken.mkdir(exist_ok=True)
        (broken / "libnccl.so.2").write_text("no library")
        self.environment["LD_LIBRARY_PATH"] = os.pathsep.join(
            str(pathlib.Path(path).resolve()) for path in (DRIVER, NCCL if nccl else broken))
        up, join = self.up(self.model, "--wait-for", "2", "--tensor-parallel", "2", "--group-sums",
                           sums, *CONTEXT)
        cards = [("--name", f"card-{i}", "--device", f"cuda:{i}", "--memory", "16MiB")
                 for i in (0, 1)]
        workers = [self.worker(join, *card) for card in cards]
        up.wait_for("ready")
        self.assertEqual(self.status()["stages"], 1)
        text = self.complete()
        for worker in workers:
            if said:
                worker.wait_for(said)
            else:
                self.assertNotIn("adds up over", worker.output())
        return text, up, lambda i: self.worker(join, *cards[i]), workers

    def test_a_group_of_cards_adds_up_over_nccl_as_over_sockets(self):
        text, up, again, workers = self.group_of_cards("auto", True, "2 cards adds up over NCCL")
        # A member that dies in the middle of a step: the other one does not wait for it.
        response = self.request("/v1/completions", {
            "prompt": "once", "max_tokens": 200, "stream": True, "ignore_eos": True}, stream=True)
        response.readline()
        workers[1].kill()
        self.assertIn("error", response.read().decode())
        workers[1] = again(1)
        self.wait_until_ready(up)
        self.assertEqual(self.complete(), text)
        for process in (*workers, up):
            self.assertEqual(process.stop(), 0)
        for sums, nccl, said in (("sockets", True, ""),
                                 ("nccl", False, "over sockets: member 1 of 2: this machine has no "
                                                 "NCCL")):
            with self.subTest(sums=sums):
                other, up, _, workers = self.group_of_cards(sums, nccl, said)
                self.assertEqual(other, text)
                for process in (*workers, up):
                    process.stop()

    def assert_refused_last(self, done, *words):
        """As assert_refused, after what a worker says at its start."""
        self.assertGreater(done.returncode, 0)
        last = done.stderr.decode().strip().splitlines()[-1]
        for word in ("renga: ", *words):
            self.assertIn(word, last)

    def own_worker(self, environment, *options):
        http = free_port()
        up = self.start("up", self.model, "--listen", f"127.0.0.1:{free_port()}", "--http",
                        f"127.0.0.1:{http}", "-t", "1", *CONTEXT, *options, environment=environment)
        up.wait_for("ready")
        self.http = http
        workers = {re.sub("^.*-host$", "host", w["name"]): w for w in self.status()["workers"]}
        return workers, up

    def test_up_takes_the_card_when_there_is_one(self):
        # Little memory, so that measuring the emulated card takes no time.
        workers, _ = self.own_worker({}, "--memory", "8MiB", "--host-memory", "8MiB")
        host = workers.pop("host")
        self.assertEqual((host["state"], host["path"].split("-")[0]), ("idle", "cpu"))
        (card,) = workers.values()
        self.assertEqual((card["state"], card["path"].split("-")[0]), ("active", "cuda"))

    def test_up_takes_the_processor_where_there_is_no_card_or_an_old_one(self):
        for environment in ({"LD_LIBRARY_PATH": ""}, {"RENGA_MADE_UP_CARD_OLD": "1"}):
            workers, up = self.own_worker(environment, "--memory", "64MiB")
            (worker,) = workers.values()
            self.assertEqual(worker["path"].split("-")[0], "cpu")
            if "RENGA_MADE_UP_CARD_OLD" in environment:
                self.assertIn("GTX Made Up is too old", up.output())
            up.stop()


del Cluster  # its tests are not this file's

if __name__ == "__main__":
    unittest.main()
