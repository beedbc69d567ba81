#!/usr/bin/env python3
"""How much of the machine's bandwidth a model's decode takes.

    bench/decode_share.py tl-*.gguf -t 1 -t 2 --rounds 3

Every weight is read once for each token, so the bound is bandwidth over bytes per token: the file's
tensors but for the embedding, of which one row is read. The bandwidth (renga-kernel-bench
--bandwidth: what the best of 16 ways to read gives on the average) is measured right before and
after each decode, since neighbours make it drift; a share is of the mean of the two. Rounds go
through all models and thread counts in turn; each cell is the median of its shares. In brackets the
median share of the best single reading, which no average reaches.

Packed weights must be in the cache already (run it twice if in doubt): a first start writes them.
"""
import argparse
import json
import pathlib
import statistics
import struct
import subprocess
import sys

# GGUF's metadata value types (docs/FORMATS.md): bytes of the plain ones.
VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9


class Header:
    """Walks through what precedes a GGUF file's tensors."""

    def __init__(self, path):
        self.file = open(path, "rb")

    def number(self, form):
        return struct.unpack(form, self.file.read(struct.calcsize(form)))[0]

    def string(self):
        return self.file.read(self.number("<Q")).decode()

    def skip_value(self, kind):
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            kind, count = self.number("<I"), self.number("<Q")
            if kind in VALUE_BYTES:
                self.file.seek(count * VALUE_BYTES[kind], 1)
            else:
                for _ in range(count):
                    self.skip_value(kind)
        else:
            self.file.seek(VALUE_BYTES[kind], 1)

    def offsets(self):
        """Where each tensor begins, by name, counted from the first one."""
        if self.file.read(4) != b"GGUF":
            sys.exit(f"{self.file.name} is no GGUF file")
        self.number("<I")
        tensors, values = self.number("<Q"), self.number("<Q")
        for _ in range(values):
            self.string()
            self.skip_value(self.number("<I"))
        found = {}
        for _ in range(tensors):
            name = self.string()
            self.file.seek(8 * self.number("<I") + 4, 1)
            found[name] = self.number("<Q")
        return found, self.file.tell()


def bytes_per_token(path):
    offsets, header = Header(path).offsets()
    ends = sorted(offsets.values())[1:] + [pathlib.Path(path).stat().st_size - header]
    sizes = dict(zip(sorted(offsets, key=offsets.get), ends))
    sizes = {name: end - offsets[name] for name, end in sizes.items()}
    if "output.weight" in sizes:
        del sizes["token_embd.weight"]
    return sum(sizes.values())


class Bandwidth:
    """A process that says what the threads read now, as often as it is asked."""

    def __init__(self, arguments, threads):
        command = [arguments.bench, "--bandwidth", f"--threads={threads}",
                   f"--working-set-mib={arguments.working_set_mib}"]
        self.process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def measure(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def decode(arguments, model, threads):
    command = [arguments.renga, "bench", model, "-p", "0", "-n", str(arguments.generate), "-r", "1",
               "-t", str(threads), "--context", "512", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    return json.loads(done.stdout)["decode_tokens_per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--renga", default="build/release/renga")
    parser.add_argument("--bench", default="build/release/bench/renga-kernel-bench")
    parser.add_argument("-t", "--threads", type=int, action="append")
    parser.add_argument("-n", "--generate", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--working-set-mib", type=int, default=1024,
                        help="what the bandwidth is measured on: as large as a model, for a server's "
                             "last cache may hold some of less")
    arguments = parser.parse_args()
    threads = arguments.threads or [1, 2]
    sizes = {model: bytes_per_token(model) * 1e-9 for model in arguments.models}
    probes = {count: Bandwidth(arguments, count) for count in threads}
    runs = {(model, count): [] for model in arguments.models for count in threads}
    for number in range(arguments.rounds):
        for (model, count), results in runs.items():
            before = probes[count].measure()
            speed = decode(arguments, model, count)
            after = probes[count].measure()
            mean = {name: (before[name] + after[name]) / 2 for name in before}
            results.append((speed, mean["sustained_gb_per_s"], mean["best_gb_per_s"]))
        print(f"round {number + 1} of {arguments.rounds} done", file=sys.stderr, flush=True)
    for probe in probes.values():
        probe.close()
    print("| model | threads | tok/s | GB/s read | bandwidth, GB/s | share (from, to) [of the best reading] |")
    print("|---|---:|---:|---:|---:|---:|")
    for (model, count), results in runs.items():
        speeds, bandwidths, _ = map(list, zip(*results))
        shares = sorted(100 * speed * sizes[model] / sustained for speed, sustained, _ in results)
        of_best = [100 * speed * sizes[model] / best for speed, _, best in results]
        speed = statistics.median(speeds)
        print(f"| {pathlib.Path(model).stem} | {count} | {speed:.1f} | {speed * sizes[model]:.1f} | "
              f"{statistics.median(bandwidths):.1f} | {statistics.median(shares):.0f} % "
              f"({shares[0]:.0f}, {shares[-1]:.0f}) [{statistics.median(of_best):.0f} %] |")


if __name__ == "__main__":
    main()
