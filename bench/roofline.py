#!/usr/bin/env python3
"""Draws how near the matrix kernels come to what this machine can do.

Runs renga-kernel-bench for a few formats and numbers of tokens and draws each result as operations
per second over operations per byte of weights, under the roof that the bandwidth and the peak
measured beside it make. Writes an SVG, and the figures as a Markdown table on standard output.

Example:
  bench/roofline.py --bench build/release/bench/renga-kernel-bench --threads 1,2 --out docs/roofline.svg

Needs matplotlib (PyPI) for the picture.
"""
import argparse
import json
import statistics
import subprocess
import sys

COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#aa3377"]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True, help="path of renga-kernel-bench")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, one picture each")
    parser.add_argument("--types", default="Q4_0,Q4_K,Q5_K,Q6_K,Q8_0")
    parser.add_argument("--tokens", default="1,2,4,8,16,64,512")
    parser.add_argument("--shape", default="5632x2048", help="rows x columns of the matrix")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many runs counts")
    parser.add_argument("--out", required=True, help="SVG to write")
    return parser.parse_args()


def run_once(arguments, threads):
    rows, columns = arguments.shape.split("x")
    command = [arguments.bench, f"--threads={threads}", f"--types={arguments.types}",
               f"--tokens={arguments.tokens}", f"--rows={rows}", f"--columns={columns}", "--json"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def measure(arguments, threads):
    """One result per format and number of tokens: the run whose share of the roof is the median."""
    runs = []
    for number in range(arguments.rounds):
        print(f"{threads} threads, round {number + 1} of {arguments.rounds}", file=sys.stderr)
        runs.append(run_once(arguments, threads))
    results = []
    for same in zip(*runs):
        by_share = sorted(same, key=share_of_roof)
        middle = by_share[len(by_share) // 2]
        middle["shares"] = [share_of_roof(result) for result in same]
        results.append(middle)
    return results


def intensity(result):
    """Operations per byte of weights."""
    return result["gop_per_s"] / result["gb_per_s"]


def roof(result):
    return min(result["bandwidth_gb_per_s"] * intensity(result), result["peak_gop_per_s"])


def share_of_roof(result):
    return result["gop_per_s"] / roof(result)


def draw(axes, threads, results):
    bandwidth = statistics.median(r["bandwidth_gb_per_s"] for r in results)
    peak = statistics.median(r["peak_gop_per_s"] for r in results)
    least = min(map(intensity, results)) / 2
    most = max(map(intensity, results)) * 2
    knee = peak / bandwidth
    axes.plot([least, knee, most], [least * bandwidth, peak, peak], color="black", linewidth=1)
    axes.text(least, least * bandwidth * 1.6, f" {bandwidth:.0f} GB/s", rotation=33, fontsize=8)
    axes.text(most, peak * 1.08, f"{peak:.0f} GOP/s ", ha="right", fontsize=8)
    types = list(dict.fromkeys(r["type"] for r in results))
    for colour, name in zip(COLOURS, types):
        of_type = [r for r in results if r["type"] == name]
        axes.plot([intensity(r) for r in of_type], [r["gop_per_s"] for r in of_type], marker="o",
                  markersize=4, linewidth=0.8, color=colour, label=name)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte of weights",
             title=f"{threads} thread{'s' if threads > 1 else ''}, {results[0]['path']}")
    axes.grid(True, which="major", linewidth=0.3)


def print_table(threads, results):
    print(f"\n{threads} thread(s), {results[0]['path']}\n")
    tokens = sorted({r["tokens"] for r in results})
    print("| format | " + " | ".join(f"{t} tokens" for t in tokens) + " |")
    print("|---" * (len(tokens) + 1) + "|")
    for name in dict.fromkeys(r["type"] for r in results):
        cells = []
        for r in (r for r in results if r["type"] == name):
            low, high = min(r["shares"]), max(r["shares"])
            cells.append(f"{r['gb_per_s']:.1f} GB/s, {r['gop_per_s']:.0f} GOP/s, "
                         f"{100 * low:.0f} to {100 * high:.0f} %")
        print(f"| {name} | " + " | ".join(cells) + " |")


def main():
    arguments = parse_arguments()
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plot
    counts = [int(count) for count in arguments.threads.split(",")]
    figure, axes = plot.subplots(1, len(counts), figsize=(5.2 * len(counts), 4.2), sharey=True,
                                 squeeze=False)
    for axis, threads in zip(axes[0], counts):
        results = measure(arguments, threads)
        draw(axis, threads, results)
        print_table(threads, results)
    axes[0][0].set_ylabel("billion operations per second")
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(arguments.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
