#!/usr/bin/env python3
"""What the planner predicts for a token, beside what it then takes, for eight plans on shaped links.

    bench/predict_bench.py model.gguf -n 48 --rounds 3

The plans are chosen here, before any is run: pipelines of 1 to 3 workers, tensor-parallel groups and
head blocks, over links with delays and a narrow one. Each runs in a LAN in a box; workers measure
their own speed when they join, the coordinator the links, and the plan is made from nothing else.
Rounds are interleaved; each figure is a median over them.
"""
import argparse
import json
import pathlib
import statistics
import tempfile

import lan_bench

# Name, workers, one-way delay in ms, Mbit/s, options of renga bench.
PLANS = [
    ("one worker", 1, 0, 1000, []),
    ("pipeline of 2, 0 ms", 2, 0, 1000, []),
    ("pipeline of 2, 1 ms", 2, 1, 1000, []),
    ("pipeline of 2, 20 ms", 2, 20, 1000, []),
    ("pipeline of 3, 5 ms", 3, 5, 1000, []),
    ("pipeline of 2, 5 ms, 50 Mbit/s", 2, 5, 50, []),
    ("2 head blocks, 5 ms", 2, 5, 1000, ["--head-blocks", "2"]),
    ("group of 2, 1 ms", 2, 1, 1000, ["--tensor-parallel", "2"]),
]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("model")
    parser.add_argument("-t", "--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--memory", default="2GiB", help="that each worker offers")
    parser.add_argument("-n", "--generate", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3, help="of all plans")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    runs = {plan[0]: [] for plan in PLANS}
    with tempfile.TemporaryDirectory(prefix="renga-predict-") as folder:
        for number in range(arguments.rounds):
            for name, workers, delay_ms, mbit, option in PLANS:
                run = argparse.Namespace(
                    model=arguments.model, workers=workers, threads=arguments.threads, mbit=mbit,
                    cpu=None, memory=arguments.memory, prompt=0, generate=arguments.generate,
                    repetitions=1, option=option, limit=600)
                # A folder of its own: nothing is remembered of another plan.
                place = pathlib.Path(folder) / f"{number}-{len(runs[name])}-{name}"
                runs[name].append(lan_bench.measure(run, delay_ms, place))
    rows = []
    for name, results in runs.items():
        predicted = statistics.median(r["predicted_ms_per_token"] for r in results)
        measured = statistics.median(r["decode_ms_per_token"] for r in results)
        rows.append({"plan": name, "predicted_ms": predicted, "measured_ms": measured,
                     "off": predicted / measured - 1})
    if arguments.json:
        print(json.dumps(rows))
        return
    print("| plan | predicted, ms | measured, ms | predicted is off by |")
    print("|---|---:|---:|---:|")
    for row in rows:
        print(f"| {row['plan']} | {row['predicted_ms']:.2f} | {row['measured_ms']:.2f} | "
              f"{row['off'] * 100:+.1f} % |")


if __name__ == "__main__":
    main()
