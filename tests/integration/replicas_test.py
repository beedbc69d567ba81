#!/usr/bin/env python3
"""Several pipelines with the whole model at one time: the same texts, and a loss breaks one of them."""
import json
import threading
import time
import unittest

from cluster_process import ClusterProcessTest
from renga_process import LIMIT_S, demo_model, golden

PROMPTS = ("once upon a time", "the little dog", "one day", "there was a big")


class ReplicasTest(ClusterProcessTest):

    def wait_for_replicas(self, up, count):
        deadline = time.monotonic() + LIMIT_S
        while True:
            replicas = self.status()["replicas"]
            if [r["state"] for r in replicas] == ["ready"] * count:
                return
            self.assertLess(time.monotonic(), deadline, up.output())
            time.sleep(0.1)

    def complete_all(self):
        """Every prompt's text, asked for at the same time."""
        texts = {}
        threads = [threading.Thread(target=lambda p=p: texts.update({p: self.complete(p)}))
                   for p in PROMPTS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [texts.get(p) for p in PROMPTS]

    def test_two_replicas_answer_as_one_pipeline(self):
        model, _, _ = golden("story-f32")
        texts = []
        for replicas in ("1", "2"):
            up, join = self.up(model, "--wait-for", "2", "--sequences", "4", "--replicas", replicas)
            workers = [self.worker(join, name) for name in ("a", "b")]
            self.wait_for_replicas(up, int(replicas))
            texts.append(self.complete_all())
            status = self.status()
            for replica in status["replicas"]:
                self.assertGreater(replica["steps"], 0, "a replica had nothing to do")
            for process in (*workers, up):
                process.stop()
        self.assertNotIn(None, texts[0])
        self.assertEqual(texts[1], texts[0])
        self.assertEqual([w["layers"] for w in status["workers"]], [[0, 5], [0, 5]])
        self.assertEqual([w["replica"] for w in status["workers"]], [1, 2])

    def test_the_loss_of_a_worker_disturbs_its_replica_alone(self):
        model = demo_model()
        up, join = self.up(model, "--wait-for", "2", "--context", "512", "--replicas", "2")
        workers = {name: self.worker(join, name, "256MiB") for name in ("a", "b")}
        self.wait_for_replicas(up, 2)
        body = {"prompt": "once", "max_tokens": 200, "temperature": 1.0, "seed": 1, "stream": True,
                "ignore_eos": True}
        answers = [self.request("/v1/completions", body, stream=True) for _ in range(2)]
        # The first lines: both are under way, one on each replica.
        begun = [answer.readline() for answer in answers]
        workers["b"].kill()
        texts = [self.text_of(line, answer) for line, answer in zip(begun, answers)]
        self.assertEqual(len([t for t in texts if t is None]), 1, "one of them was on the lost worker")
        # What was asked of the other, and what is asked now, is answered as ever.
        again = self.text_of(b"", self.request("/v1/completions", body, stream=True))
        self.assertIn(again, texts)
        self.worker(join, "b", "256MiB")
        self.wait_for_replicas(up, 2)

    def text_of(self, begun, response):
        """A streamed answer's text; None when it ended with an error."""
        text = ""
        for line in (begun + response.read()).decode().splitlines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                return None
            text += event["choices"][0]["text"]
        self.assertTrue(text)
        return text

    def test_more_replicas_than_fit_are_refused_with_the_number_that_does(self):
        done = self.renga("plan", golden("story-f32")[0], "--worker", "64MiB", "--worker", "64MiB",
                          "--objective", "many-streams", "--sequences", "4", "--replicas", "3")
        self.assert_refused(done, "3 replicas do not fit", "--replicas 2")
        done = self.renga("plan", golden("story-f32")[0], "--worker", "64MiB", "--replicas", "2")
        self.assert_refused(done, "--objective many-streams")


if __name__ == "__main__":
    unittest.main(verbosity=2)
