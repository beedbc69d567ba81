#!/usr/bin/env python3
"""How long a model takes to load, beside a parallel copy of its file into fresh memory.

    bench/load_bench.py model.gguf -t 2 --rounds 3

All from the page cache, each way once a round, in an order that turns round every time:
  copy          the file read into memory that the system gives then, by so many threads
  copy, huge    the same, on huge pages where the system has them
  packing       `renga run` of one token without a cache of packed weights, less the prompt's time
  mapping       the same with the cache, which holds everything by then
A virtual machine may give free memory back to its host after a while, and then waits for it longer
than anything else takes. So each of them comes in two states, told apart:
  at hand       a process has touched as much memory and ended right before
  away          nothing has run for --pause seconds before
Ratios are of pairs of one round and state, loading over the faster copy.
"""
import argparse
import mmap
import multiprocessing
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


def fresh_memory(size, huge):
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if huge:
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def touch(size):
    """Has the host give so much memory, and frees it. For a process of its own."""
    memory = fresh_memory(size, True)
    for at in range(0, size, 2 << 20):
        memory[at] = 1


def copy(path, threads, huge):
    """Seconds to read the file into fresh memory."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        begin = time.perf_counter()
        memory = fresh_memory(size, huge)
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
    print(f"{name:<34} {statistics.median(values):6.2f} {unit} "
          f"({values[0]:.2f} to {values[-1]:.2f})", flush=True)


def prepare(state, arguments):
    """What happens before each timed run, the same before all of a state."""
    if state == "away":
        time.sleep(arguments.pause)
        return
    # Weights, caches and working memory.
    size = int(1.2 * os.path.getsize(arguments.model))
    toucher = multiprocessing.get_context("fork").Process(target=touch, args=(size,))
    toucher.start()
    toucher.join()


def measure(state, arguments, environment, backwards):
    """Every way once: seconds by name."""
    seconds = {}

    def copied(name, huge):
        seconds[name] = copy(arguments.model, arguments.threads, huge)

    def loaded(name, flags):
        whole, prompt = load(arguments, environment, flags)
        seconds[f"{name}, less its prompt"] = whole - prompt
        seconds[f"{name}, its prompt"] = prompt
        seconds[f"{name}, all of it"] = whole

    ways = [lambda: copied("copy", False), lambda: loaded("packing", ["--no-packed-cache"]),
            lambda: copied("copy, huge", True), lambda: loaded("mapping", [])]
    for way in reversed(ways) if backwards else ways:
        prepare(state, arguments)
        way()
    seconds["packing / copy"] = (seconds["packing, less its prompt"]
                                 / min(seconds["copy"], seconds["copy, huge"]))
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="GGUF file; twice as much memory as it takes should be free")
    parser.add_argument("--renga", default="build/release/renga")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--states", default="at hand,away", help="one of these, or both")
    parser.add_argument("--pause", type=float, default=6, help="seconds before runs with memory away")
    parser.add_argument("--cache", help="folder that holds or gets the packed weights "
                        "(default: a new one beside the model, removed afterwards)")
    parser.add_argument("--filled", action="store_true", help="that folder holds all of them already")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(arguments.model))) as new:
        environment = dict(os.environ, XDG_CACHE_HOME=arguments.cache or new)
        if not arguments.filled:
            fill_cache(arguments, environment)
        results = {}
        for number in range(arguments.rounds):
            for state in arguments.states.split(","):
                for name, seconds in measure(state, arguments, environment, number % 2).items():
                    results.setdefault(f"{state}: {name}", []).append(seconds)
        for name, values in results.items():
            show(name, values, "x" if "/" in name else "s")


if __name__ == "__main__":
    main()
