#!/usr/bin/env python3
"""The first token of a mixture of experts that its worker does not have: how long, and how much
came over the link.

    bench/shipped_experts_bench.py MODEL.gguf --memory 1400MiB --binary before=PATH --binary now=PATH

Two machines of a LAN in a box (tests/lan/lan_box.py): `renga up --lazy` with the file, and a worker
with less memory and nothing on its disk. In turn, with each binary: the worker starts, joins and
loads; as soon as the cluster is ready, one token of a prompt of --prompt words is asked for, then
--generate more of a second request. Seconds count from the moment when the worker has joined; bytes
are those that its network device received since then. With --all it then waits until the whole
shard is on the worker's disk and says when that was, while nothing else was asked for. The
coordinator keeps its folder (hashes of the file) over all runs, the worker's is new each time. What
the machine has of the model file in memory stays there: the coordinator's disk is not measured.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "lan"))
import lan_box  # noqa: E402

PORT, HTTP = 7400, 8080
ASK = """
import http.client, json, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=600)
connection.request("POST", "/v1/completions", sys.argv[2], {"Content-Type": "application/json"})
response = connection.getresponse()
body = response.read().decode()
if response.status != 200:
    raise SystemExit(body)
print(json.loads(body)["choices"][0]["text"])
"""
STATUS = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=60)
connection.request("GET", "/renga/status")
print(connection.getresponse().read().decode())
"""


def received(box, machine):
    """Bytes that came over the machine's link so far."""
    text = box.run(machine, ["cat", "/proc/net/dev"]).stdout
    return int(re.search(rf"{lan_box.DEVICE}:\s*(\d+)", text).group(1))


def wait_for(process, text):
    for line in process.stdout:
        if text in line:
            return line
    raise SystemExit(f"{process.args[0]} ended before it said {text!r}")


def on_disk(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


class Run:
    """One start of the worker with an empty disk."""

    def __init__(self, args, binary, state):
        self.args, self.binary, self.state = args, binary, state

    def ask(self, box, words, tokens):
        body = {"prompt": " ".join(["once upon a time"] * (words // 4)), "max_tokens": tokens,
                "temperature": 0, "ignore_eos": True}
        return box.run(0, [sys.executable, "-c", ASK, f"{box.address(0)}:{HTTP}",
                           json.dumps(body)], timeout=600).stdout

    def status(self, box):
        return json.loads(box.run(0, [sys.executable, "-c", STATUS,
                                      f"{box.address(0)}:{HTTP}"]).stdout)["workers"][0]

    def measure(self, box, folder):
        def environment(name):
            return {**os.environ, "XDG_STATE_HOME": f"{name}/state", "XDG_CACHE_HOME": f"{name}/cache"}

        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        up = box.popen(0, [self.binary, "up", self.args.model, "--listen",
                           f"{box.address(0)}:{PORT}", "--http", f"{box.address(0)}:{HTTP}",
                           "--memory", "0", "--lazy", "--context", self.args.context],
                       env=environment(self.state), **both)
        token = re.search(r"--token (\S+)", wait_for(up, "renga worker ")).group(1)
        worker = box.popen(1, [self.binary, "worker", f"{box.address(0)}:{PORT}", "--token", token,
                               "--memory", self.args.memory, "-t", self.args.threads, "--name", "w"],
                           env=environment(folder), **both)
        wait_for(worker, "joined")
        begin, before = time.monotonic(), received(box, 1)
        row = {}

        def note(name):
            row[f"{name}_s"] = time.monotonic() - begin
            row[f"{name}_bytes"] = received(box, 1) - before

        wait_for(up, "ready")
        note("ready")
        row["first"] = self.ask(box, self.args.prompt, 1)
        note("first_token")
        row["text"] = self.ask(box, self.args.prompt, self.args.generate)
        note("answer")
        if self.args.all:
            while self.status(box).get("weight_bytes_to_come", 0) > 0:
                time.sleep(0.5)
            note("all")
        row["disk_bytes"] = on_disk(folder)
        return row

    def __call__(self):
        with tempfile.TemporaryDirectory(prefix="renga-shipped-", dir=self.args.folder) as folder:
            with lan_box.LanBox(machines=2, delay_ms=self.args.delay,
                                mbit_s=self.args.mbit) as box:
                for sentence in box.not_enforced:
                    print(sentence, file=sys.stderr)
                return self.measure(box, pathlib.Path(folder))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("model")
    parser.add_argument("--binary", action="append", required=True, help="NAME=PATH, repeatable")
    parser.add_argument("--memory", default="1400MiB", help="that the worker offers")
    parser.add_argument("--context", default="1024")
    parser.add_argument("-t", "--threads", default="1", help="of the worker")
    parser.add_argument("--mbit", type=int, default=1000)
    parser.add_argument("--delay", type=float, default=0.2, help="one way, in milliseconds")
    parser.add_argument("--prompt", type=int, default=4, help="words")
    parser.add_argument("--generate", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--all", action="store_true", help="wait until all is on the disk")
    parser.add_argument("--folder", help="where the worker's disk is")
    args = parser.parse_args()
    binaries = dict(text.split("=", 1) for text in args.binary)
    rows = {name: [] for name in binaries}
    with tempfile.TemporaryDirectory(prefix="renga-shipped-up-", dir=args.folder) as state:
        for _ in range(args.rounds):
            for name, binary in binaries.items():
                rows[name].append(Run(args, binary, state)())
                print(name, json.dumps(rows[name][-1]), flush=True)
    assert len({row["text"] for all_of in rows.values() for row in all_of}) == 1, "texts differ"
    for name, all_of in rows.items():
        for key in all_of[0]:
            if key.endswith(("_s", "_bytes")):
                middle = statistics.median(row[key] for row in all_of)
                print(f"{name:8} {key:18} " + (f"{middle:8.1f} s" if key.endswith("_s")
                                               else f"{middle / (1 << 20):8.0f} MiB"))


if __name__ == "__main__":
    main()
