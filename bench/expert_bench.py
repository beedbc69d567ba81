#!/usr/bin/env python3
"""What a mixture of experts reads from disk for a token, beside a dense model of the same size.

  bench/expert_bench.py FOLDER --budgets 100,75,50,30

Writes two models with random weights into FOLDER, a mixture (--experts, of which --used are used)
and a dense one whose feed-forward is as wide as all experts together, and runs `renga run --lazy`
with a part of what each needs, drawing tokens at random (a temperature so high that all are alike:
the best token of random weights soon repeats itself, and then so do the experts). Bytes read are
counted by the system (getrusage: blocks that processes read from disks), as the difference of a
long run and a short one: what is read at the start counts nowhere. "expected" is what `renga plan`
says. A router with random weights chooses all experts about alike, which is the worst case: those
of real models have favourites.
"""
import argparse
import os
import pathlib
import re
import resource
import statistics
import subprocess

MIB = 1 << 20
CONTEXT = ["--context", "1024"]


def run(binary, environment, *arguments):
    """(standard output, bytes read from disks)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True,
                          check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout, 512 * (resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock - before)


class Bench:

    def __init__(self, args):
        self.args = args
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(args.folder / "cache")}

    def make(self, name, width, *extra):
        path = self.args.folder / f"{name}.gguf"
        if not path.exists():
            run(self.args.make_model, self.environment, path, "--layers", self.args.layers,
                "--d-model", 1024, "--heads", 16, "--kv-heads", 4, "--vocab", 4000, "--type", "Q4_0",
                "--ffn", width, "--architecture", "qwen3moe" if extra else "qwen3", *extra)
        return path

    def read(self, model, memory, tokens):
        """Bytes read for a text of so many tokens."""
        return run(self.args.renga, self.environment, "run", model, "once upon a time", "--raw",
                   "--temperature", 100, "--top-k", 0, "--top-p", 1, "--min-p", 0, "--seed", 7,
                   "-n", tokens, "--lazy", "--memory", memory, "--speculation", "off",
                   *CONTEXT)[1]

    def expected(self, model, memory):
        """What the planner says of a token, in MiB."""
        plan, _ = run(self.args.renga, self.environment, "plan", model, "--lazy", "--worker",
                      memory, *CONTEXT)
        found = re.search(r"reads ([\d.]+) MiB of weights", plan)
        return float(found[1]) if found else 0.0

    def measure(self, name, model, rest, short, long):
        """`rest` MiB beside the weights: keys, values and scratch. The short text, in tokens, is
        long enough to fill the memory."""
        size = os.path.getsize(model)
        self.read(model, size // 2 + rest * MIB, 4)  # packs what is not packed yet
        for percent in map(int, self.args.budgets.split(",")):
            memory = size * percent // 100 + rest * MIB
            more = [self.read(model, memory, long) - self.read(model, memory, short)
                    for _ in range(self.args.rounds)]
            print(f"{name:8} {percent:4} % of {size / MIB:.0f} MiB: "
                  f"{statistics.median(more) / (long - short) / MIB:8.1f} MiB read per token, "
                  f"{self.expected(model, memory):8.1f} expected", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--budgets", default="100,75,50,30")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--used", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--renga", default="build/release/renga")
    parser.add_argument("--make-model", default="build/release/bench/renga-make-model")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(args)
    width = 512
    bench.measure("mixture", bench.make("mixture", width, "--experts", args.experts,
                                        "--experts-used", args.used), 24, 300, 600)
    # A step of 256 tokens has three buffers of its width.
    bench.measure("dense", bench.make("dense", width * args.experts),
                  24 + 3 * width * args.experts * 4 * 256 // MIB, 8, 24)


if __name__ == "__main__":
    main()
