#!/usr/bin/env python3
"""Plans 13B and 70B on 4 to 16 small cards that need not exist, and simulates the plans.

Runs `renga plan --simulate --json` for every combination of model, card, number of machines,
network, way of dividing (stages, tensor-parallel groups, or as the planner chooses) and speculation,
prints the tables of docs/STUDY.md as Markdown on standard output and draws their pictures as SVG.
Nothing here is measured: cards and links come from data sheets with assumed efficiencies
(`renga plan --devices` prints both).

Example:
  bench/plan_study.py --renga build/release/renga --out docs/study

Needs matplotlib (PyPI) for the pictures.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

MODELS = ["llama-2-13b", "llama-3-70b"]
CARDS = ["gtx-1050-ti", "gtx-1650", "rtx-3050-laptop"]
NETWORKS = ["1gbe", "2.5gbe", "wifi"]
COUNTS = [4, 6, 8, 10, 12, 13, 14, 16]
COLOURS = {"stages": "#4477aa", "groups of 2": "#ccbb44", "groups of 4": "#228833",
           "chosen": "#ee6677"}
WAYS = {"stages": 1, "groups of 2": 2, "groups of 4": 4, "chosen": 0}
DRAFT_TOKENS = 4
DRAFT_MS = 12


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renga", required=True, help="path of the renga command")
    parser.add_argument("--out", required=True, help="folder for the SVGs")
    parser.add_argument("--context", type=int, default=2048)
    return parser.parse_args()


class Planner:
    """Plans of one cluster each; None where the model does not fit. Machines are (device, count), with
    further (key, value) pairs of cluster_file.h."""

    def __init__(self, renga, context):
        self.renga = renga
        self.context = context
        self.known = {}

    def plan(self, model, machines, network, way=0, objective="one-stream", streams=1,
             acceptance=None, prompt=512):
        key = (model, json.dumps(machines), network, way, objective, streams, acceptance, prompt)
        if key not in self.known:
            self.known[key] = self.run(model, machines, *key[2:])
        return self.known[key]

    def run(self, model, machines, network, way, objective, streams, acceptance, prompt):
        cluster = {"machines": [{"device": card, "count": count, **dict(more)}
                                for card, count, *more in machines],
                   "network": network}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(cluster, file)
            file.flush()
            command = [self.renga, "plan", model, "--cluster", file.name, "--json", "--simulate",
                       "--objective", objective, "--tensor-parallel", str(way), "--context",
                       str(self.context), "--kv", "Q8_0", "--wire", "q8", "--streams", str(streams), "--sequences",
                       str(streams), "--prompt", str(prompt), "--answer", "128"]
            if acceptance is not None:
                command += ["--draft", str(DRAFT_TOKENS), "--acceptance", str(acceptance),
                            "--draft-ms", str(DRAFT_MS)]
            result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            if "does not fit" in result.stderr or "cannot be divided" in result.stderr:
                return None
            sys.exit(f"{' '.join(command)}: {result.stderr}")
        return json.loads(result.stdout)


def rate(plan):
    """Tokens per second of one stream's decode."""
    return None if plan is None else 1e3 / plan["ms_per_token"]


def shape(plan):
    """"2+2+1 x 3": workers of each stage."""
    sizes = [stage["workers"] for stage in plan["stages"]]
    if len(set(sizes)) == 1:
        if sizes[0] == 1:
            return f"{len(sizes)} stages"
        return f"{len(sizes)} group{'s' if len(sizes) > 1 else ''} of {sizes[0]}"
    return "stages of " + "+".join(map(str, sizes))


def cell(value, form="{:.1f}"):
    return "-" if value is None else form.format(value)


def print_table(title, header, rows):
    print(f"\n{title}\n")
    print("| " + " | ".join(header) + " |")
    print("|---" + "|---:" * (len(header) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def one_stream_tables(planner):
    for model in MODELS:
        rows = []
        for card in CARDS:
            for network in NETWORKS:
                for count in (4, 8, 13, 16):
                    plans = [planner.plan(model, [(card, count)], network, way)
                             for way in WAYS.values()]
                    if all(plan is None for plan in plans):
                        continue
                    chosen = plans[-1]
                    rows.append([f"{count} x {card}, {network}"] + [cell(rate(p)) for p in plans] +
                                [shape(chosen)])
        print_table(f"{model} Q4_K_M, tok/s of one stream",
                    ["machines"] + list(WAYS) + ["what was chosen"], rows)


def first_token_table(planner):
    rows = []
    for model, count in (("llama-2-13b", 4), ("llama-2-13b", 8), ("llama-3-70b", 16)):
        for network in NETWORKS:
            plans = [planner.plan(model, [("gtx-1050-ti", count)], network, way)
                     for way in WAYS.values()]
            times = [None if p is None else p["simulated"]["first_token_ms"] / 1e3 for p in plans]
            rows.append([f"{model}, {count} x gtx-1050-ti, {network}"] + [cell(t) for t in times])
    print_table("Seconds to the first token after a prompt of 512 (simulated)",
                ["machines"] + list(WAYS), rows)


def speculation_table(planner):
    rows = []
    for model, count in (("llama-2-13b", 4), ("llama-2-13b", 8), ("llama-3-70b", 16)):
        for network in NETWORKS:
            row = [f"{model}, {count} x gtx-1050-ti, {network}"]
            for way in (1, 0):
                for acceptance in (None, 0.6, 0.8):
                    plan = planner.plan(model, [("gtx-1050-ti", count)], network, way,
                                        acceptance=acceptance)
                    row.append(cell(None if plan is None
                                    else 1e3 / plan["simulated"]["ms_per_token"]))
            rows.append(row)
    print_table(f"Speculation: tok/s of one stream, {DRAFT_TOKENS} guesses per step, {DRAFT_MS} ms "
                "to make them (simulated)",
                ["machines", "stages, none", ".6 right", ".8 right", "chosen, none", ".6 right",
                 ".8 right"], rows)


def streams_table(planner):
    rows = []
    for model, count in (("llama-2-13b", 4), ("llama-2-13b", 8), ("llama-3-70b", 16)):
        for network in NETWORKS:
            row = [f"{model}, {count} x gtx-1050-ti, {network}"]
            for streams in (1, 2, 4):
                plan = planner.plan(model, [("gtx-1050-ti", count)], network, 1, "many-streams",
                                    streams, prompt=64)
                row.append(cell(None if plan is None
                                else plan["simulated"]["tokens_per_second"]))
            rows.append(row)
    print_table("Several streams over stages: tok/s of all together (simulated)",
                ["machines", "1", "2", "4"], rows)


def draw(planner, out):
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plot
    for model in MODELS:
        figure, axes = plot.subplots(1, len(NETWORKS), figsize=(4.0 * len(NETWORKS), 3.6),
                                     sharey=True)
        for axis, network in zip(axes, NETWORKS):
            for way, size in WAYS.items():
                points = [(count, rate(planner.plan(model, [("gtx-1050-ti", count)], network, size)))
                          for count in COUNTS]
                points = [(count, value) for count, value in points if value is not None]
                if points:
                    axis.plot(*zip(*points), marker="o", markersize=4, linewidth=1,
                              color=COLOURS[way], label=way)
            axis.set(title=network, xlabel="machines with a GTX 1050 Ti")
            axis.grid(True, linewidth=0.3)
        axes[0].set_ylabel("tok/s, one stream (predicted)")
        axes[0].legend(fontsize=8)
        figure.suptitle(f"{model} Q4_K_M", fontsize=10)
        figure.tight_layout()
        figure.savefig(os.path.join(out, f"{model}.svg"), metadata={"Date": None})


def main():
    arguments = parse_arguments()
    os.makedirs(arguments.out, exist_ok=True)
    planner = Planner(arguments.renga, arguments.context)
    one_stream_tables(planner)
    first_token_table(planner)
    speculation_table(planner)
    streams_table(planner)
    draw(planner, arguments.out)


if __name__ == "__main__":
    main()
