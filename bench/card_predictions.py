#!/usr/bin/env python3
"""Predicts tokens per second of 7B, 13B and 70B on small cards, with the planner's cost model.

Prints the tables of docs/PREDICTIONS.md as Markdown. Nothing here is measured: bandwidths are those
of data sheets, what kernels reach of them is assumed (`renga plan --devices` prints both).

Example:
  bench/card_predictions.py --renga build/release/renga
"""
import argparse

from plan_study import Planner, cell, print_table, rate, shape

# Name in `renga plan --devices`, GB/s of the data sheet, share of it that is assumed there.
CARDS = [("gtx-1050-ti", 112, 0.60), ("gtx-1650", 128, 0.60), ("rtx-3050-laptop", 192, 0.65),
         ("rtx-3050-8gb", 224, 0.65)]
NETWORKS = ["1gbe", "2.5gbe"]
STAGES, CHOSEN = 1, 0
ENOUGH = [("llama-2-7b", 2), ("llama-2-13b", 3), ("llama-2-13b", 4), ("llama-3-70b", 13),
          ("llama-3-70b", 16)]
FEWER = [("llama-2-7b", 1), ("llama-2-13b", 1), ("llama-2-13b", 2), ("llama-3-70b", 4),
         ("llama-3-70b", 6), ("llama-3-70b", 8), ("llama-3-70b", 12)]
HOSTS = ["ddr3-1600-dual", "ddr4-2400-dual", "ddr5-5600-dual"]
USUAL_HOST = "ddr4-2400-dual"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renga", required=True, help="path of the renga command")
    parser.add_argument("--context", type=int, default=2048)
    return parser.parse_args()


def enough_table(planner):
    rows = []
    for model, count in ENOUGH:
        for card, _, _ in CARDS:
            row = [f"{model} on {count} x {card}"]
            for network in NETWORKS:
                plans = [planner.plan(model, [(card, count)], network, way)
                         for way in (STAGES, CHOSEN)]
                row += [cell(rate(plan)) for plan in plans]
                row.append("-" if plans[-1] is None else shape(plans[-1]))
            rows.append(row)
    print_table("Cards that hold the model: tok/s of one stream",
                ["machines", "1 GbE, stages", "as planned", "the plan", "2.5 GbE, stages",
                 "as planned", "the plan"], rows)


def efficiency_table(planner):
    rows = []
    for model, count in ENOUGH:
        for card, sheet, assumed in CARDS:
            row = [f"{model} on {count} x {card}"]
            for share in (0.4, assumed, 0.8, 0.9):
                plan = planner.plan(model, [(card, count, ("gb_per_s", sheet * share))], "1gbe",
                                    CHOSEN)
                row.append(cell(rate(plan)))
            rows.append(row)
    print_table("If kernels reach another share of the bandwidth: tok/s of one stream, 1 GbE, as planned",
                ["machines", "40 %", "60 or 65 % (assumed)", "80 %", "90 %"], rows)


def spill_table(planner):
    rows = []
    for model, count in FEWER:
        for card, _, _ in CARDS:
            if planner.plan(model, [(card, count)], "1gbe", STAGES) is not None:
                continue
            row = [f"{model} on {count} x {card}"]
            with_host = {host: [(card, count, ("host", {"device": host}))] for host in HOSTS}
            stages = {host: planner.plan(model, with_host[host], "1gbe", STAGES) for host in HOSTS}
            usual = stages[USUAL_HOST]
            row.append(cell(None if usual is None else usual["spilled_bytes"] / 2**30))
            row += [cell(rate(stages[host])) for host in HOSTS]
            chosen = planner.plan(model, with_host[USUAL_HOST], "1gbe", CHOSEN)
            rows.append(row + [cell(rate(chosen)), "-" if chosen is None else shape(chosen)])
    print_table("Fewer cards, the rest in the hosts' memory: tok/s of one stream, 1 GbE; over stages, and "
                "as planned",
                ["machines", "GiB on hosts (DDR4)"] + HOSTS + ["DDR4, as planned", "the plan"], rows)


def main():
    arguments = parse_arguments()
    planner = Planner(arguments.renga, arguments.context)
    enough_table(planner)
    efficiency_table(planner)
    spill_table(planner)


if __name__ == "__main__":
    main()
