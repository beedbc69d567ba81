#!/usr/bin/env python3
"""Guessed tokens, verified several to a step by real stages, change no bit of an answer."""
import http.client
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from renga_process import BINARY, LIMIT_S, ProcessTest, demo_model, free_port, golden

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lan"))
import lan_box  # noqa: E402

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
                                     (4, "lookup"), (4, "auto")):
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


class LongLinksTest(ProcessTest):
    """Where links are long, frames of guesses follow each other, and those behind a miss are
    withdrawn while the stages compute them."""

    SAMPLING = ("--raw", "-n", "200", "--temperature", "0.6", "--seed", "9", "--context", "300")

    def answer(self, model, workers):
        """The text that a LAN with delays of 5 ms gives, with guesses as they pay."""
        with tempfile.TemporaryDirectory(prefix="renga-speculation-") as folder, \
                lan_box.LanBox(machines=workers + 1, delay_ms=5) as box:
            run = box.popen(0, [BINARY, "run", model, STORY * 3, *self.SAMPLING, "--speculation",
                                "auto", "--listen", f"{box.address(0)}:7400", "--workers", workers],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)
            line = next(line for line in run.stderr if "join with:" in line)
            _, command, address, option, token = line.split("join with:")[1].split()
            for number in range(1, workers + 1):
                environment = {**os.environ, "XDG_STATE_HOME": f"{folder}/{number}/state",
                               "XDG_CACHE_HOME": f"{folder}/{number}/cache"}
                box.popen(number, [BINARY, command, address, option, token, "-t", "1", "--memory",
                                   "64MiB", "--name", f"machine-{number}"],
                          env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            text, errors = run.communicate(timeout=LIMIT_S)
            self.assertEqual(run.returncode, 0, errors)
            return text

    def test_same_text_with_void_frames_withdrawn(self):
        model, _, _ = golden("story-f32")
        expected = self.renga_ok("run", model, STORY * 3, *self.SAMPLING, "--speculation", "off",
                                 "-t", "1")
        for workers in (1, 2, 4):
            with self.subTest(workers=workers):
                try:
                    self.assertEqual(self.answer(model, workers), expected)
                except lan_box.NotPermitted as error:
                    self.skipTest(str(error))


if __name__ == "__main__":
    unittest.main()
