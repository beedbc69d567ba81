#!/usr/bin/env python3
"""`renga plan`: for machines that are named, described, running or this one; what it assumes it says."""
import http.server
import json
import threading
import unittest

from cluster_process import ClusterProcessTest
from renga_process import golden

TWO = ("--worker", "64MiB@10", "--worker", "64MiB@10")


class PlanTest(ClusterProcessTest):

    def setUp(self):
        super().setUp()
        self.model, _, _ = golden("story-f32")

    def plan(self, *arguments):
        return self.renga_ok("plan", self.model, *arguments)

    def plan_json(self, *arguments):
        return json.loads(self.plan(*arguments, "--json"))

    def answer_with(self, body):
        """HOST:PORT of somebody who answers every request with `body`."""
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *arguments):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"127.0.0.1:{server.server_port}"

    def test_what_nobody_said_is_assumed_aloud(self):
        text = self.plan("--worker", "64MiB", "--worker", "64MiB@10")
        self.assertIn("how fast worker 1 reads weights was not said: taken for 10 GB/s", text)
        self.assertIn("the network was not said: taken for 1gbe", text)
        # A network that costs nothing would promise what no machines can keep.
        free = self.plan_json("--worker", "64MiB@10")
        two = self.plan_json(*TWO, "--tensor-parallel", "1", "--head-blocks", "2")
        self.assertGreater(two["ms_per_token"], free["ms_per_token"] + 0.24)
        self.assertEqual(free["remarks"], [])
        self.assertEqual(self.plan_json(*TWO, "--network", "wifi")["remarks"], [])

    def test_this_machine_is_measured(self):
        plan = self.plan_json()
        self.assertEqual(len(plan["remarks"]), 1)
        self.assertIn("this machine was measured", plan["remarks"][0])
        self.assertGreater(plan["ms_per_token"], 0)

    def test_json_says_who_holds_what(self):
        plan = self.plan_json(*TWO, "--tensor-parallel", "2", "--network", "10gbe", "--what-if")
        a, b = plan["workers"]
        self.assertEqual((a["name"], b["name"]), ("worker 1", "worker 2"))
        self.assertEqual(a["layers"], b["layers"])
        self.assertEqual(a["heads"][1], b["heads"][0])
        self.assertEqual(a["head_rows"][1], b["head_rows"][0])
        self.assertEqual(plan["stages"][0]["names"], ["worker 1", "worker 2"])
        self.assertEqual([change["name"] for change in plan["what_if"]],
                         ["without 'worker 2'", "one more like 'worker 1'", "links twice as fast",
                          "the link 'worker 1' - 'worker 2' twice as fast"])
        # Nothing fits on one: a group of two needs two.
        self.assertFalse(plan["what_if"][0]["fits"])
        self.assertLess(plan["what_if"][2]["ms"], plan["ms_per_token"])
        one = plan["what_if"][3]
        self.assertLess(one["ms"], plan["ms_per_token"])
        self.assertGreaterEqual(one["ms"], plan["what_if"][2]["ms"])
        self.assertEqual(one["link"]["between"], ["worker 1", "worker 2"])
        for key, factor in (("mb_per_s", 2), ("latency_us", 0.5)):
            self.assertEqual(one["link"]["then"][key], factor * one["link"]["now"][key])
        self.assertIn(" Gbit/s and ", self.plan(*TWO, "--network", "10gbe", "--what-if"))
        idle = self.plan_json("--worker", "64MiB@10", "--worker", "64MiB@0.01")["workers"][1]
        self.assertIn("hop", idle["idle"])

    def test_the_line_for_up_makes_the_same_plan(self):
        text = self.plan(*TWO, "--network", "10gbe", "--context", "96", "--lazy")
        line = next(l for l in text.splitlines() if "renga up" in l)
        self.assertEqual(line, f"such a plan is made by: renga up {self.model} --context 96 "
                               "--objective one-stream --tensor-parallel 0 --lazy")

    def test_a_running_cluster_as_it_was_measured(self):
        up, join = self.up(self.model, "--wait-for", "2", "--tensor-parallel", "1")
        workers = [self.worker(join, name) for name in ("a", "b")]
        self.wait_until_ready(up)
        status = self.status()
        plan = self.plan_json("--running", f"127.0.0.1:{self.http}", "--what-if")
        self.assertEqual(plan["remarks"],
                         [f"speeds and links are those that were measured at 127.0.0.1:{self.http}"])
        self.assertCountEqual([w["name"] for w in plan["workers"]], ["a", "b"])
        self.assertEqual([w["offered_bytes"] for w in plan["workers"]], [64 << 20] * 2)
        self.assertIn("links twice as fast", [c["name"] for c in plan["what_if"]])
        # As the cluster itself predicts, with the same request.
        same = self.plan_json("--running", f"127.0.0.1:{self.http}", "--objective", "many-streams",
                              "--tensor-parallel", "1")
        self.assertAlmostEqual(same["ms_per_token"], status["predicted_ms_per_token"],
                               delta=0.3 * status["predicted_ms_per_token"])
        more = self.plan_json("--running", f"127.0.0.1:{self.http}", "--worker", "64MiB@10")
        self.assertIn("worker 3", [w["name"] for w in more["workers"]])
        self.assertIn("not every link is known: taken for 1gbe", more["remarks"][1])
        for worker in workers:
            worker.stop()
        up.stop()

    def test_who_answers_something_else(self):
        done = self.renga("plan", self.model, "--running", self.answer_with("hello"))
        self.assert_refused(done, "not a renga coordinator")
        done = self.renga("plan", self.model, "--running", self.answer_with('{"workers": []}'))
        self.assert_refused(done, "no worker has joined")
        for workers in ('[3]', '3', '[{"name": 4}]', '[{"name": "a", "kernels": [{}]}]'):
            done = self.renga("plan", self.model, "--running",
                              self.answer_with('{"workers": %s}' % workers))
            self.assert_refused(done)
        links = '[{"name": "a", "offered_bytes": 99999999}], "links": [{"from": "a", "times": [{}]}]'
        done = self.renga("plan", self.model, "--running",
                          self.answer_with('{"workers": %s}' % links))
        self.assert_refused(done, "no times")

    def test_status_says_what_takes_longer_than_predicted(self):
        def stage(name, layers, hop, compute):
            return {"workers": [name], "layers": layers,
                    "hop": {"predicted_ms": hop[0], "measured_ms": hop[1]},
                    "compute": {"predicted_ms": compute[0], "measured_ms": compute[1]}}

        status = {"workers": [{"name": "a", "kernels": []}, {"name": "b", "kernels": []}],
                  "replicas": [{"stage_times": [stage("a", [0, 3], (1, 1.2), (10, 21)),
                                                stage("b", [3, 5], (1, 1.2), (10, 14))],
                                "answer_hop": {"predicted_ms": 1, "measured_ms": 2.4}}]}
        text = self.renga_ok("status", "--http", self.answer_with(json.dumps(status)))
        self.assertIn("computing layers 0-2 on a takes 2.1 times what was predicted", text)
        self.assertIn("the network takes 1.6 times what was predicted", text)
        self.assertEqual(text.count("what was predicted"), 2)
        # A speed that was only assumed tells nothing of the machine.
        del status["workers"][0]["kernels"]
        text = self.renga_ok("status", "--http", self.answer_with(json.dumps(status)))
        self.assertNotIn("what was predicted", text)

    def test_approximations_are_planned(self):
        exact = self.plan_json("--worker", "64MiB@10")["workers"][0]["weight_bytes"]
        less = self.plan_json("--worker", "64MiB@10", "--approximate", "without-layers=1")
        self.assertLess(less["workers"][0]["weight_bytes"], exact)
        done = self.renga("plan", "llama-2-7b", "--worker", "8GiB", "--approximate",
                          "without-layers=1")
        self.assert_refused(done, "known by name")

    def test_replicas_are_for_several_conversations(self):
        many = ("--objective", "many-streams", "--network", "10gbe")
        self.assertEqual(self.plan_json(*TWO, *many, "--replicas", "auto")["replicas"], 2)
        self.assertEqual(self.plan_json(*TWO, *many, "--replicas", "2")["replicas"], 2)
        one = self.plan_json(*TWO, *many, "--replicas", "auto", "--sequences", "1")
        self.assertEqual(one["replicas"], 1)

    def test_flags_that_do_not_go_together(self):
        cluster = self.folder / "c.json"
        cluster.write_text('{"machines": [{"device": "gtx-1650", "count": 2}]}')
        done = self.renga("plan", self.model, "--cluster", cluster, "--worker", "1GiB")
        self.assert_refused(done, "--worker")
        self.assertIn("the network was not said", self.plan("--cluster", cluster))
        cluster.write_text('{"machines": [{"device": "gtx-1650", "cuont": 2}]}')
        self.assert_refused(self.renga("plan", self.model, "--cluster", cluster), "cuont", "count")


if __name__ == "__main__":
    unittest.main()
