#!/usr/bin/env python3
"""`renga serve` spoken to as OpenAI clients do."""
import concurrent.futures
import http.client
import json
import re
import unittest

from renga_process import LIMIT_S, ProcessTest, demo_model


class OpenAiTest(ProcessTest):

    def setUp(self):
        super().setUp()
        self.server = self.start("serve", demo_model(), "--http", "127.0.0.1:0", "--context", "512")
        ready = self.server.wait_for("ready")
        self.port = int(re.search(r"http://127\.0\.0\.1:([1-9]\d*)/v1$", ready)[1])

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        connection.request(method, path, None if body is None else json.dumps(body),
                           {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read().decode()
        connection.close()
        return response.status, content

    def chat(self, text, **extra):
        return self.call("POST", "/v1/chat/completions", {
            "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 24,
            **extra})

    def test_models(self):
        status, content = self.call("GET", "/v1/models")
        self.assertEqual(status, 200)
        self.assertEqual(len(json.loads(content)["data"]), 1)

    def test_chat_streamed_equals_not_streamed(self):
        status, content = self.chat("What is gravity?")
        self.assertEqual(status, 200, content)
        answer = json.loads(content)
        text = answer["choices"][0]["message"]["content"]
        self.assertIn("physics", text)
        self.assertEqual(answer["usage"]["total_tokens"],
                         answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"])
        status, content = self.chat("What is gravity?", stream=True)
        self.assertEqual(status, 200)
        events = [line[6:] for line in content.splitlines() if line.startswith("data: ")]
        self.assertEqual(events[-1], "[DONE]")
        pieces = [json.loads(e)["choices"][0]["delta"].get("content") or "" for e in events[:-1]]
        self.assertEqual("".join(pieces), text)

    def test_many_clients_get_the_text_each_would_get_alone(self):
        questions = ["What is the capital of France?", "Name a color.", "Count to five.",
                     "What is water made of?"]
        alone = [json.loads(self.chat(q)[1])["choices"][0]["message"]["content"] for q in questions]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            together = [json.loads(content)["choices"][0]["message"]["content"]
                        for _, content in pool.map(self.chat, questions)]
        self.assertEqual(together, alone)

    def test_bad_requests(self):
        for body in ({}, {"messages": "x"}, {"messages": [{"role": "user", "content": "x"}],
                                             "temperature": -1}):
            status, content = self.call("POST", "/v1/chat/completions", body)
            self.assertEqual(status, 400, content)
            self.assertIn("message", json.loads(content)["error"])
        status, content = self.chat("word " * 2000)
        self.assertEqual(status, 400, content)
        self.assertIn("512", json.loads(content)["error"]["message"])
        status, _ = self.call("GET", "/nowhere")
        self.assertEqual(status, 404)


if __name__ == "__main__":
    unittest.main(verbosity=2)
