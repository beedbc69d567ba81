#!/usr/bin/env python3
"""The output matrix in two places: time and bytes for each token, by which rows are near.

    bench/vocab_bench.py model.gguf --regions report.json --delay 20 -n 200

Two machines in a box (tests/lan): the coordinator and a worker with all layers are on one, a worker
with the far rows is on the other, behind a link with the given one-way delay. Ways to divide the
rows are run in turn, all rounds of them, on a raw continuation of each prompt; texts must be equal.
Bytes are those that the far machine's link carried after the first token, both ways. `near alone`
is one worker with the near rows only (--approximate hot-rows), which answers other tokens; `rows on
disk` is one with the screen that `renga regions` built (--lazy-head). Each run is also compared with
the one of `near alone` in the same round, medians of these ratios: machines have slow minutes.
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

BINARY = os.environ.get("RENGA_BINARY", "build/release/renga")
PROMPTS = ("The history of the city of Kyoto begins when",
           "To bake a simple loaf of bread at home you need",
           "A computer network is a set of machines that")


def ways(arguments):
    """(name, workers, flags) of every way to place the rows."""
    near = arguments.near
    report = ["--regions", arguments.regions]
    return [
        ("near alone", 1, ["--approximate", f"hot-rows={near}", *report]),
        ("one machine, all rows", 1, []),
        ("one machine, rows on disk", 1, []),
        ("even split", 2, ["--near-rows", "50%"]),
        ("token ids", 2, ["--near-rows", near]),
        ("regions", 2, ["--near-rows", near, *report]),
        ("even split, optimistic", 2, ["--near-rows", "50%", "--optimistic"]),
        ("token ids, optimistic", 2, ["--near-rows", near, "--optimistic"]),
        ("regions, optimistic", 2, ["--near-rows", near, *report, "--optimistic"]),
    ]


def link_bytes(box, machine):
    """Bytes that the machine's link has carried, both ways."""
    total = 0
    for line in box.run(machine, ["cat", "/proc/net/dev"]).stdout.splitlines()[2:]:
        name, numbers = line.split(":")
        if name.strip() != "lo":
            fields = numbers.split()
            total += int(fields[0]) + int(fields[8])
    return total


def start_workers(box, line, arguments, count, folder, on_disk):
    """Joins the near worker, on the coordinator's machine, and the far one."""
    _, command, address, option, token = line.split("join with:")[1].split()
    for machine in range(count):
        state = folder / f"machine-{machine}"
        environment = {**os.environ, "XDG_STATE_HOME": f"{state}/state"}
        if not on_disk:  # else the screen is where `renga regions` left it
            environment["XDG_CACHE_HOME"] = f"{state}/cache"
        box.popen(machine, [BINARY, command, address, option, token, "--model", arguments.model,
                            "--name", "far" if machine else "near", "-t", arguments.threads,
                            "--memory", arguments.memory, "--no-packed-cache", "--quiet",
                            "--lazy-head" if on_disk else "--no-lazy-head"],
                  env=environment, stdout=subprocess.DEVNULL)


def answer(box, arguments, count, flags, prompt, folder, on_disk):
    """One run: its text, ms per token, link bytes per token, and guesses (sent, right, refuted)."""
    run = box.popen(0, [BINARY, "run", arguments.model, prompt, "--raw", "--timings", "-n",
                        arguments.generate, "--listen", f"{box.address(0)}:7400", "--workers",
                        count, "--objective", "one-stream", "--speculation", "off", "--context",
                        1024, *flags, *arguments.option],
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in run.stderr:
        if b"join with:" in line:
            start_workers(box, line.decode(), arguments, count, folder, on_disk)
            break
    text = os.read(run.stdout.fileno(), 1 << 16)
    before = link_bytes(box, count - 1)
    output, errors = run.communicate(timeout=arguments.limit)
    moved = link_bytes(box, count - 1) - before
    errors = errors.decode()
    if run.returncode != 0:
        raise SystemExit(f"renga run failed:\n{errors}")
    tokens, rate = re.search(r"answer (\d+) tokens, ([0-9.]+) tokens/s", errors).groups()
    guesses = re.search(r"guessed (\d+) tokens ahead, (\d+) were right, (\d+) refuted", errors)
    return {"text": text + output, "tokens": int(tokens), "ms": 1000 / float(rate),
            "bytes": moved / (int(tokens) - 1) if count > 1 else 0,
            "guesses": [int(n) for n in guesses.groups()] if guesses else [0, 0, 0]}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("model")
    parser.add_argument("--regions", required=True, help="JSON of `renga regions`")
    parser.add_argument("--near", default="25%", help="share of the rows that are near")
    parser.add_argument("--delay", type=float, default=20, help="one way, in milliseconds")
    parser.add_argument("--mbit", type=int, default=1000, help="of each machine's link")
    parser.add_argument("-t", "--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--memory", default="2GiB", help="that each worker offers")
    parser.add_argument("-n", "--generate", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--only", default="",
                        help="ways whose name holds this, or one of these (commas between)")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one run")
    parser.add_argument("--option", action="append", default=[],
                        help="another argument for renga run")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    runs = {}
    with tempfile.TemporaryDirectory(prefix="renga-vocab-bench-") as folder:
        for _ in range(arguments.rounds):
            for prompt in PROMPTS[:arguments.prompts]:
                texts = set()
                for name, count, flags in ways(arguments):
                    if not any(part in name for part in arguments.only.split(",")):
                        continue
                    with lan_box.LanBox(machines=2, delay_ms=arguments.delay,
                                        mbit_s=arguments.mbit) as box:
                        result = answer(box, arguments, count, flags, prompt,
                                        pathlib.Path(folder), name.endswith("on disk"))
                        time.sleep(0.2)
                    runs.setdefault(name, []).append(result)
                    if name != "near alone":
                        texts.add(result["text"])
                if len(texts) > 1:
                    raise SystemExit(f"texts differ: {texts}")
    alone = runs.get("near alone", [])
    rows = [{"way": name, "ms_per_token": statistics.median(r["ms"] for r in results),
             "least_ms": min(r["ms"] for r in results), "most_ms": max(r["ms"] for r in results),
             "of_near_alone": statistics.median(
                 r["ms"] / a["ms"] for r, a in zip(results, alone)) if alone else 0,
             "bytes_per_token": statistics.median(r["bytes"] for r in results),
             "tokens": sum(r["tokens"] for r in results),
             "guessed": sum(r["guesses"][0] for r in results),
             "right": sum(r["guesses"][1] for r in results),
             "refuted": sum(r["guesses"][2] for r in results)} for name, results in runs.items()]
    if arguments.json:
        print(json.dumps(rows))
        return
    print("| rows | ms per token | least to most | x near alone, pairs | bytes per token | tokens | "
          "guessed | right | refuted |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(f"| {row['way']} | {row['ms_per_token']:.2f} | {row['least_ms']:.2f} to "
              f"{row['most_ms']:.2f} | {row['of_near_alone']:.2f} | {row['bytes_per_token']:.0f} | "
              f"{row['tokens']} | {row['guessed']} | {row['right']} | {row['refuted']} |")


if __name__ == "__main__":
    try:
        main()
    except lan_box.NotPermitted as error:
        raise SystemExit(f"vocab_bench: {error}") from error
