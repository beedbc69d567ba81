#!/usr/bin/env python3
"""Answers that keep to a JSON schema or a grammar: from the command line and over HTTP."""
import http.client
import json
import re
import unittest

from renga_process import LIMIT_S, ProcessTest, demo_model, free_port

# In the order of the answer's members, which is not that of the alphabet.
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "kind": {"enum": ["city", "river", "mountain"]},
        "inhabitants": {"type": ["integer", "null"]},
        "districts": {"type": "array", "items": {"$ref": "#/$defs/district"}, "minItems": 1,
                      "maxItems": 2},
    },
    "required": ["name", "kind", "inhabitants", "districts"],
    "additionalProperties": False,
    "$defs": {"district": {"type": "object", "properties": {"title": {"type": "string",
                                                                      "maxLength": 20},
                                                            "big": {"type": "boolean"}},
                           "required": ["title", "big"], "additionalProperties": False}},
}
QUESTION = "Describe Tokyo as JSON."
GREEDY, SEEDED = [], ["--temperature", "0.9", "--seed", "11"]


class GrammarTest(ProcessTest):

    def check(self, text):
        """That a text is what SCHEMA says."""
        value = json.loads(text)
        self.assertEqual(list(value), list(SCHEMA["properties"]))
        self.assertLessEqual(len(value["name"]), 30)
        self.assertIn(value["kind"], ("city", "river", "mountain"))
        self.assertTrue(value["inhabitants"] is None or isinstance(value["inhabitants"], int))
        self.assertIn(len(value["districts"]), (1, 2))
        for district in value["districts"]:
            self.assertEqual(list(district), ["title", "big"])
            self.assertIsInstance(district["big"], bool)

    def file(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def test_text_is_the_same_however_it_is_computed(self):
        schema = self.file("schema.json", json.dumps(SCHEMA))
        for sampling in (GREEDY, SEEDED, ["--temperature", "1", "--top-p", "0.9", "--seed", "3"]):
            expected = None
            for extra in (["--speculation", "off"], [], ["--workers", 2, "--head-blocks", 2],
                          ["--workers", 2, "--near-rows", "30%", "--optimistic"]):
                with self.subTest(sampling=sampling, extra=extra):
                    done = self.renga("run", demo_model(), QUESTION, "--json-schema", schema, "-n",
                                      300, "--context", 512, "--timings", *sampling, *extra)
                    self.assertEqual(done.returncode, 0, done.stderr.decode())
                    text = done.stdout.decode()
                    self.check(text)
                    expected = expected or text
                    self.assertEqual(text, expected)
                    self.assertRegex(done.stderr.decode(), r"the grammar looked for the allowed")

    def test_files_that_make_no_sense_are_refused(self):
        grammar = self.file("bad.gbnf", 'root ::= "a"\n  | other')
        self.assert_refused(self.renga("run", demo_model(), "x", "--grammar", grammar), "bad.gbnf",
                            "names a rule other")
        schema = self.file("bad.json", '{"type": "array", "uniqueItems": true}')
        self.assert_refused(self.renga("run", demo_model(), "x", "--json-schema", schema),
                            "keyword uniqueItems is not supported")
        self.assert_refused(self.renga("run", demo_model(), "x", "--json-schema", "/no/such"),
                            "/no/such")


class ServedGrammarTest(ProcessTest):
    check = GrammarTest.check

    def setUp(self):
        super().setUp()
        self.port = free_port()
        server = self.start("serve", demo_model(), "--http", f"127.0.0.1:{self.port}",
                            "--context", "512")
        server.wait_for("ready")

    def post(self, path, **body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read().decode()
        connection.close()
        return response.status, content

    def chat(self, **body):
        return self.post("/v1/chat/completions",
                         messages=[{"role": "user", "content": QUESTION}], temperature=0, **body)

    def test_json_schema(self):
        wanted = {"type": "json_schema",
                  "json_schema": {"name": "place", "strict": True, "schema": SCHEMA}}
        status, content = self.chat(response_format=wanted)
        self.assertEqual(status, 200, content)
        answer = json.loads(content)
        text = answer["choices"][0]["message"]["content"]
        self.check(text)
        self.assertEqual(answer["choices"][0]["finish_reason"], "stop")
        self.assertGreater(answer["timings"]["grammar_masks"], 0)
        status, content = self.chat(response_format=wanted, stream=True)
        self.assertEqual(status, 200)
        events = [line[6:] for line in content.splitlines() if line.startswith("data: ")]
        self.assertEqual(events[-1], "[DONE]")
        chunks = [json.loads(event)["choices"][0] for event in events[:-1]]
        self.assertEqual("".join(c["delta"].get("content") or "" for c in chunks), text)
        self.assertEqual([c["finish_reason"] for c in chunks if c["finish_reason"]], ["stop"])
        # The answer is cut where it becomes too long, as any other.
        status, content = self.chat(response_format=wanted, max_tokens=5)
        self.assertEqual(json.loads(content)["choices"][0]["finish_reason"], "length")

    def test_any_object(self):
        status, content = self.chat(response_format={"type": "json_object"}, max_tokens=200)
        self.assertEqual(status, 200, content)
        choice = json.loads(content)["choices"][0]
        self.assertTrue(choice["message"]["content"].startswith("{"))
        if choice["finish_reason"] == "stop":
            self.assertIsInstance(json.loads(choice["message"]["content"]), dict)

    def test_grammar(self):
        for path, asked in (("/v1/completions", {"prompt": "Water is"}),
                            ("/v1/chat/completions",
                             {"messages": [{"role": "user", "content": "Is water wet?"}]})):
            status, content = self.post(path, grammar='root ::= ("yes" | "no") ", " [a-z ]{5,40} "."',
                                        temperature=1, seed=4, max_tokens=60, **asked)
            self.assertEqual(status, 200, content)
            choice = json.loads(content)["choices"][0]
            text = choice["text"] if "text" in choice else choice["message"]["content"]
            self.assertTrue(re.fullmatch(r"(yes|no), [a-z ]{5,40}\.", text), text)
            self.assertEqual(choice["finish_reason"], "stop")

    def test_what_is_refused(self):
        def schema(value):
            return {"response_format": {"type": "json_schema", "json_schema": {"schema": value}}}
        for body, says in (
                ({"grammar": "root ::= ["}, "grammar: line 1"),
                ({"grammar": 3}, "grammar must be a string"),
                ({"grammar": 'root ::= root "a" | "b"'}, "left recursive"),
                ({"grammar": 'root ::= "a"', "response_format": {"type": "json_object"}},
                 "together"),
                ({"response_format": {"type": "xml"}}, "json_schema"),
                ({"response_format": {"type": "json_schema"}}, "with a schema"),
                (schema({"type": "array", "uniqueItems": True}), "keyword uniqueItems is not supported"),
                (schema({"properties": {"a": {"$ref": "#/$defs/b"}}}), "names nothing"),
                (schema({"$ref": "#"}), "can never end")):
            status, content = self.chat(**body)
            self.assertEqual(status, 400, content)
            message = json.loads(content)["error"]["message"]
            self.assertIn(says, message)
            self.assertNotIn("\n", message)


if __name__ == "__main__":
    unittest.main(verbosity=2)
