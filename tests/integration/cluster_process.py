"""A coordinator, its workers and its HTTP side as real processes, for tests of clusters."""
import http.client
import json
import re
import time

from renga_process import LIMIT_S, ProcessTest, free_port


class ClusterProcessTest(ProcessTest):

    def up(self, model, *extra):
        """Starts a coordinator without a worker of its own; returns (process, join arguments)."""
        self.port = free_port()
        self.http = free_port()
        up = self.start("up", model, "--listen", f"127.0.0.1:{self.port}", "--http",
                        f"127.0.0.1:{self.http}", "--memory", "0", *extra)
        line = up.wait_for("renga worker ")
        token = re.search(r"--token (\S+)", line).group(1)
        return up, ["worker", f"127.0.0.1:{self.port}", "--token", token]

    def worker(self, join, name, memory="64MiB", *extra):
        """A worker with a cache of its own, as on a machine of its own."""
        return self.start(*join, "--name", name, "--memory", memory, "--listen", "127.0.0.1:0", "-t",
                          "1", *extra,
                          environment={"XDG_CACHE_HOME": str(self.folder / f"cache-{name}"),
                                       "XDG_STATE_HOME": str(self.folder / f"state-{name}")})

    def status(self):
        return json.loads(self.renga_ok("status", "--http", f"127.0.0.1:{self.http}", "--json"))

    def lost_workers(self):
        """Names, asked for by HTTP: on a busy machine a process for it takes seconds to start."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=LIMIT_S)
        try:
            connection.request("GET", "/renga/status")
            workers = json.loads(connection.getresponse().read())["workers"]
        finally:
            connection.close()
        return [worker["name"] for worker in workers if worker["state"] == "lost"]

    def request(self, path, body, stream=False):
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=LIMIT_S)
        self.addCleanup(connection.close)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response if stream else (response.status, json.loads(response.read()))

    def complete(self, prompt="once upon a time", tokens=24):
        status, body = self.request("/v1/completions", {
            "prompt": prompt, "max_tokens": tokens, "temperature": 0})
        self.assertEqual(status, 200, body)
        return body["choices"][0]["text"]

    def fetched_bytes(self, worker, nth=1):
        """What the worker's nth load took over the network, from its log line."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            lines = [line for line in worker.lines if line and "holding" in line]
            if len(lines) >= nth:
                return int(re.search(r"fetched (\d+) bytes", lines[nth - 1]).group(1))
            time.sleep(0.02)
        self.fail(f"no load:\n{worker.output()}")

    def wait_until_ready(self, up):
        deadline = time.monotonic() + LIMIT_S
        while self.status()["state"] != "ready":
            self.assertLess(time.monotonic(), deadline, up.output())
            time.sleep(0.1)
