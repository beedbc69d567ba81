#!/usr/bin/env python3
"""Decode time per token over a LAN in a box, beside what compute and hops alone would take.

    bench/lan_bench.py model.gguf --workers 2 --delays 0,1,5,20 -n 64 --rounds 2 --json

The coordinator (`renga bench --listen`) and each worker are machines of their own, joined by links
with the given one-way delay. A token takes one hop from the coordinator to the first stage, one to
each next stage, and one back: workers + 1. "expected" is the measured compute plus that many times
the measured time of a message of the same size (half a round trip on an idle stream), or, as
"floor", plus that many times the delay alone. Rounds are interleaved: all delays, then again.
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

# The links of a worker that has joined are measured by then, but for slow ones, which take no time.
SURVEY_S = 2
BINARY = os.environ.get("RENGA_BINARY", "build/release/renga")


def start_workers(box, line, arguments, folder):
    """Joins every worker with the line that `renga bench --listen` printed, one after the other: a
    worker measures its speed before it joins, then its links, and these machines share two cores."""
    _, command, address, option, token = line.split("join with:")[1].split()
    for number in range(1, arguments.workers + 1):
        state = folder / f"machine-{number}"
        environment = {**os.environ, "XDG_STATE_HOME": f"{state}/state",
                       "XDG_CACHE_HOME": f"{state}/cache"}
        worker = box.popen(number, [BINARY, command, address, option, token, "--model",
                                    arguments.model, "--name", f"machine-{number}", "-t",
                                    arguments.threads, "--memory", arguments.memory,
                                    "--no-packed-cache"],
                           env=environment, stdout=subprocess.PIPE, text=True)
        worker.stdout.readline()  # that it has joined
        if number < arguments.workers:
            time.sleep(SURVEY_S)


def measure(arguments, delay_ms, folder):
    """The JSON of one `renga bench` at this delay."""
    with lan_box.LanBox(machines=arguments.workers + 1, delay_ms=delay_ms,
                        mbit_s=arguments.mbit, cpu=arguments.cpu) as box:
        for sentence in box.not_enforced:
            print(sentence, file=sys.stderr)
        bench = box.popen(0, [BINARY, "bench", arguments.model, "--listen",
                              f"{box.address(0)}:7400", "--workers", arguments.workers, "-p",
                              arguments.prompt, "-n", arguments.generate, "-r",
                              arguments.repetitions, "--hops", "--json", *arguments.option],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for line in bench.stderr:
            if "join with:" in line:
                start_workers(box, line, arguments, folder)
                break
        output, errors = bench.communicate(timeout=arguments.limit)
        if bench.returncode != 0:
            raise SystemExit(f"renga bench failed:\n{errors}")
        return json.loads(output)


def summary(results, delay_ms, workers):
    """Medians over the rounds of one delay, in milliseconds."""
    def median(value):
        return statistics.median(map(value, results))

    hops = workers + 1
    row = {
        "delay_ms": delay_ms,
        "token_ms": median(lambda r: r["decode_ms_per_token"]),
        "compute_ms": median(lambda r: r["decode_parts_ms"]["compute"]),
        "queue_ms": median(lambda r: r["decode_parts_ms"]["queue"]),
        "round_trip_ms": median(lambda r: r["decode_parts_ms"]["round_trip"]),
        "hop_ms": median(lambda r: r["hops"][0]["median_us"] / 1000),
        "hops": hops,
        "row_bytes": results[0]["hops"][0]["bytes"],
    }
    row["expected_ms"] = row["compute_ms"] + hops * row["hop_ms"]
    row["over_expected"] = row["token_ms"] / row["expected_ms"] - 1
    row["floor_ms"] = row["compute_ms"] + hops * delay_ms
    # All that is neither compute nor wire, for each hop.
    row["toll_us_per_hop"] = (row["token_ms"] - row["floor_ms"]) / hops * 1000
    return row


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("model")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-t", "--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--delays", default="0,1,5,20", help="one way, in milliseconds")
    parser.add_argument("--mbit", type=int, default=1000, help="of each machine's link")
    parser.add_argument("--cpu", type=float, help="processors of each machine")
    parser.add_argument("--memory", default="2GiB", help="that each worker offers")
    parser.add_argument("-p", "--prompt", type=int, default=0)
    parser.add_argument("-n", "--generate", type=int, default=64)
    parser.add_argument("-r", "--repetitions", type=int, default=3, help="in one process")
    parser.add_argument("--rounds", type=int, default=2, help="of all delays")
    parser.add_argument("--limit", type=float, default=600, help="seconds for one delay")
    parser.add_argument("--option", action="append", default=[],
                        help="another argument for renga bench")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    delays = [float(text) for text in re.split(",", arguments.delays)]
    results = {delay: [] for delay in delays}
    with tempfile.TemporaryDirectory(prefix="renga-lan-bench-") as folder:
        for _ in range(arguments.rounds):
            for delay in delays:
                results[delay].append(measure(arguments, delay, pathlib.Path(folder)))
    rows = [summary(results[delay], delay, arguments.workers) for delay in delays]
    if arguments.json:
        print(json.dumps({"rows": rows, "results": list(results.values())}))
        return
    print("| delay, ms | token, ms | compute | queue | hop | compute + hops | over | toll per hop, us |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(f"| {row['delay_ms']:g} | {row['token_ms']:.2f} | {row['compute_ms']:.2f} | "
              f"{row['queue_ms']:.2f} | {row['hop_ms']:.3f} | {row['expected_ms']:.2f} | "
              f"{row['over_expected'] * 100:+.1f} % | {row['toll_us_per_hop']:.0f} |")


if __name__ == "__main__":
    try:
        main()
    except lan_box.NotPermitted as error:
        raise SystemExit(f"lan_bench: {error}") from error
