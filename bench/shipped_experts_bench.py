#!/usr/bin/env python3
"""The first token of a mixture of experts that its worker does not have: how long, and how much
came over the link.

    bench/shipped_experts_bench.py MODEL.gguf --memory 1400MiB --binary before=PATH --binary now=PATH

Two machines of a LAN in a box (tests/lan/lan_box.py): `renga up --lazy` with the file, and a worker
with less memory and nothing on its disk. In turn, with each binary: the worker starts, joins and
loads; as soon as the cluster is ready, one token of a prompt of --prompt words is asked for, then
--generate more of a second request. Seconds count from the moment when the worker has joined; bytes
are those that its network device received since then. With --all it then waits until the whole
shard is on the worker's disk and says when that was, while nothing else was asked for. With
--beside N the second request is repeated meanwhile, with --pause seconds between, in which what
nobody waits for comes, and N times when all has come: "beside" and "after" are the medians of their
tokens per second and of the time to their first token (both as the coordinator tells them). With
--fresh N there are N requests first, with a pause before each, for one token of another prompt, which
chooses experts that have to come: "fresh" is the median of their times to it. The coordinator keeps its folder (hashes of the file) over all runs, the worker's is new each time. What
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
# Each prompt has some of its own: tokens of other texts choose other experts.
OTHER_LETTERS = "ZQ7KX#8WB$9VF%3GY&4HJ+5LD=6MS?1RT!2PNACEIOU"
# By how a key of a row ends, the first that fits.
UNITS = {"_bytes": (1 << 20, "MiB"), "_ms": (1, "ms"), "_per_s": (1, "tokens/s"), "_s": (1, "s")}
ASK = """
import http.client, json, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=3600)
connection.request("POST", "/v1/completions", sys.argv[2], {"Content-Type": "application/json"})
response = connection.getresponse()
body = response.read().decode()
if response.status != 200:
    raise SystemExit(body)
body = json.loads(body)
print(json.dumps({"text": body["choices"][0]["text"], **body["timings"]}))
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

    def ask(self, box, words, tokens, text="once upon a time"):
        body = {"prompt": " ".join([text] * (words // 4)), "max_tokens": tokens,
                "temperature": 0, "ignore_eos": True}
        return json.loads(box.run(0, [sys.executable, "-c", ASK, f"{box.address(0)}:{HTTP}",
                                      json.dumps(body)], timeout=3600).stdout)

    def status(self, box):
        return json.loads(box.run(0, [sys.executable, "-c", STATUS,
                                      f"{box.address(0)}:{HTTP}"]).stdout)["workers"][0]

    def to_come(self, box):
        """Bytes that are not on the worker's disk yet."""
        return self.status(box).get("weight_bytes_to_come", 0)

    def fresh(self, box):
        """How long prompts take that choose other experts than those before."""
        times = []
        for begin in range(0, 12 * self.args.fresh, 12):
            time.sleep(self.args.pause)
            text = " ".join(OTHER_LETTERS[begin + i:begin + i + 3] for i in range(0, 12, 3))
            times.append(self.ask(box, self.args.prompt, 1, text)["prefill_ms"])
        return {"fresh_ms": statistics.median(times), "fresh_all": times}

    def repeat(self, box):
        """Times of the second request, while the rest comes and after it."""
        times = {"beside": [], "after": []}
        while len(times["after"]) < self.args.beside:
            time.sleep(self.args.pause)
            comes = self.to_come(box) > 0
            answer = self.ask(box, self.args.prompt, self.args.generate)
            # One during which the last of it came belongs to neither.
            if comes != (self.to_come(box) > 0):
                continue
            times["beside" if comes else "after"].append(
                (answer["prefill_ms"], 1000 * (self.args.generate - 1) / answer["decode_ms"]))
        row = {}
        for name, found in times.items():
            row[f"{name}_count"] = len(found)
            for i, what in enumerate(("first_ms", "per_s")):
                numbers = sorted(pair[i] for pair in found)
                if not numbers:
                    continue
                row[f"{name}_{what}"] = statistics.median(numbers)
                row[f"{name}_{what}_range"] = [numbers[0], numbers[-1]]
        return row

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
        row["first"] = self.ask(box, self.args.prompt, 1)["text"]
        note("first_token")
        if self.args.fresh > 0:
            row.update(self.fresh(box))
            note("fresh_end")
        row["text"] = self.ask(box, self.args.prompt, self.args.generate)["text"]
        note("answer")
        if self.args.all:
            while self.to_come(box) > 0:
                time.sleep(0.5)
            note("all")
        if self.args.beside > 0:
            row.update(self.repeat(box))
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
    parser.add_argument("--beside", type=int, default=0,
                        help="repeat the second request while the rest comes, and so often after it")
    parser.add_argument("--fresh", type=int, default=0, choices=range(4), metavar="N",
                        help="requests with other prompts before")
    parser.add_argument("--pause", type=float, default=3, help="seconds before each of these")
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
            unit = next((unit for unit in UNITS if key.endswith(unit)), None)
            if unit is None:
                continue
            middle = statistics.median(row[key] for row in all_of if key in row)
            print(f"{name:8} {key:18} {middle / UNITS[unit][0]:8.1f} {UNITS[unit][1]}")


if __name__ == "__main__":
    main()
