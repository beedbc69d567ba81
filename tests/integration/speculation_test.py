#!/usr/bin/env python3
"""Guessed tokens, verified several to a step by real stages, change no bit of an answer."""
import http.client
import json
import unittest

from renga_process import LIMIT_S, ProcessTest, demo_model, free_port, golden

STORY = "once upon a time there was a little girl . she was very happy . "
BODIES = [
    {"prompt": STORY * 3, "max_tokens": 150, "temperature": 0, "logprobs": 3},
    {"prompt": STORY * 3, "max_tokens": 60, "temperature": 0.7, "top_k": 20, "seed": 5,
     "logprobs": 2},
    {"prompt": STORY, "max_tokens": 50, "temperature": 1, "top_p": 0.9, "seed": 6, "logprobs": 1},
    {"prompt": STORY * 2, "max_tokens": 50, "temperature": 0.5, "frequency_penalty": 0.3,
     "presence_penalty": 0.2, "seed": 7, "logprobs": 0},
    {"prompt": STORY * 3, "max_tokens": 60, "temperature": 0, "stop": ["girl"]},
]


class SpeculationTest(ProcessTest):

    def answers(self, workers, speculation, *more):
        """The choices of every request, and how many guesses were right."""
        model, _, _ = golden("story-f32")
        port = free_port()
        server = self.start("serve", model, "--http", f"127.0.0.1:{port}", "--workers", workers,
                            "-t", "1", "--memory", "64MiB", "--context", "256", "--speculation",
                            speculation, *more)
        server.wait_for("ready")
        choices = []
        for body in BODIES:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
            connection.request("POST", "/v1/completions", json.dumps(body),
                               {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
            connection.close()
            self.assertEqual(response.status, 200, answer)
            choices.append(answer["choices"])
        status = json.loads(self.renga_ok("status", "--http", f"127.0.0.1:{port}", "--json"))
        server.stop()
        return choices, status["speculation"]["accepted_tokens"]

    def test_same_bits_with_and_without(self):
        expected, right = self.answers(1, "off")
        self.assertEqual(right, 0)
        for workers, speculation in ((0, "lookup"), (1, "lookup"), (2, "lookup"), (3, "auto"),
                                     (4, "lookup")):
            with self.subTest(workers=workers, speculation=speculation):
                choices, right = self.answers(workers, speculation)
                self.assertEqual(choices, expected)
                if speculation == "lookup":
                    self.assertGreater(right, 20)

    def test_same_bits_with_a_draft_model(self):
        model, _, _ = golden("story-f32")
        expected, _ = self.answers(1, "off")
        choices, _ = self.answers(2, "auto", "--draft-model", model)
        self.assertEqual(choices, expected)

    def test_a_draft_model_with_other_tokens_is_refused(self):
        model, _, _ = golden("story-f32")
        other = demo_model()
        result = self.renga("run", model, "hello", "--draft-model", other)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn(b"choose a smaller model of the same family", result.stderr)

    def test_an_unknown_mode_is_refused(self):
        model, _, _ = golden("story-f32")
        result = self.renga("run", model, "hello", "--speculation", "wild")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn(b"--speculation can be auto, off or lookup", result.stderr)


if __name__ == "__main__":
    unittest.main()
