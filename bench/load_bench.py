#!/usr/bin/env python3
"""How long a model takes to load, beside a parallel copy of its file into fresh memory.

    bench/load_bench.py model.gguf -t 2 --rounds 3

All from the page cache, each way once a round, in turn:
  copy          the file read into memory that the system gives then, by so many threads
  copy, huge    the same, on huge pages where the system has them
  packing       `renga run` of one token without a cache of packed weights, less the prompt's time
  mapping       the same with the cache, which holds everything by then
Ratios are of pairs of one round, loading over the faster copy: machines that get their memory from
a host give it at a speed that changes by the second.
"""
import argparse
import mmap
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PIECE = 8 << 20
# Four tokens with the synthetic models' vocabulary, five at most with others.
PROMPT = "abc"


def copy(path, threads, huge):
    """Seconds to read the file into fresh memory."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        begin = time.perf_counter()
        memory = mmap.mmap(-1, size)
        if huge:
            memory.madvise(mmap.MADV_HUGEPAGE)
        view = memoryview(memory)

        def read(first):
            for at in range(first * PIECE, size, threads * PIECE):
                end = min(at + PIECE, size)
                while at < end:
                    at += os.preadv(file.fileno(), [view[at:end]], at)

        readers = [threading.Thread(target=read, args=(i,)) for i in range(threads)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        seconds = time.perf_counter() - begin
        view.release()
        memory.close()
    return seconds


def load(arguments, environment, flags):
    """Seconds from the start of a process to its end, and those of its prompt."""
    command = [arguments.renga, "run", arguments.model, PROMPT, "--raw", "-n", "1", "--timings",
               "--context", "512", "-t", str(arguments.threads), *flags]
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600,
                          check=False)
    seconds = time.perf_counter() - begin
    timings = re.search(r"prompt (\d+) tokens in ([\d.]+) s", done.stderr)
    if done.returncode != 0 or timings is None:
        sys.exit(f"{' '.join(command)} failed: {done.stderr}")
    return seconds, float(timings[2])


def fill_cache(arguments, environment):
    """Answers until the cache grows no more: it is written behind an answer, when nothing else
    wants the processor. Afterwards the file is in memory again."""
    command = [arguments.renga, "bench", arguments.model, "-p", "0", "-n", "100", "-r", "1", "-t",
               "1"]
    files = None
    while files != (files := sorted(map(str, pathlib.Path(environment["XDG_CACHE_HOME"]).rglob("*")))):
        subprocess.run(command, capture_output=True, env=environment, timeout=1800, check=True)
    copy(arguments.model, arguments.threads, False)


def show(name, values, unit="s"):
    values = sorted(values)
    print(f"{name:<24} {statistics.median(values):6.2f} {unit} "
          f"({values[0]:.2f} to {values[-1]:.2f})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="GGUF file; twice as much memory as it takes should be free")
    parser.add_argument("--renga", default="build/release/renga")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", help="folder that holds or gets the packed weights "
                        "(default: a new one beside the model, removed afterwards)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(arguments.model))) as new:
        environment = dict(os.environ, XDG_CACHE_HOME=arguments.cache or new)
        fill_cache(arguments, environment)
        results = {}

        def note(name, seconds):
            results.setdefault(name, []).append(seconds)

        for _ in range(arguments.rounds):
            plain = copy(arguments.model, arguments.threads, False)
            huge = copy(arguments.model, arguments.threads, True)
            note("copy", plain)
            note("copy, huge", huge)
            for name, flags in (("packing", ["--no-packed-cache"]), ("mapping", [])):
                whole, prompt = load(arguments, environment, flags)
                note(f"{name}, less its prompt", whole - prompt)
                note(f"{name}, its prompt", prompt)
                note(f"{name}, all of it", whole)
                if name == "packing":
                    note("packing / copy", (whole - prompt) / min(plain, huge))
        for name, values in results.items():
            show(name, values, "x" if "/" in name else "s")


if __name__ == "__main__":
    main()
