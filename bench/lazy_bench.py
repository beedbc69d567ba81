#!/usr/bin/env python3
"""A model in less memory than it needs: renga --lazy beside a given llama.cpp build.

  bench/lazy_bench.py MODEL.gguf --cache FOLDER --budgets 100,75,50,30 --llama-bench PATH
  bench/lazy_bench.py MODEL.gguf --cache FOLDER --first-token --llama-simple PATH

Every run, of either program, is put into a memory cgroup with the same limit: the budget (that part
of the model file's size, over all workers) plus --headroom for the processes themselves. Before
each, the page cache drops the model file and renga's packed matrices. Rounds are interleaved: every
program once, then again. "bound" is max(compute, missing bytes / disk rate): compute is a token with
everything in memory and as many workers, loaded eagerly (two of one thread take turns with one text,
so they compute as one thread does), missing bytes are those that renga says it reads for every
token, and the disk rate is that of O_DIRECT reads of 4 MiB of renga's packed matrices, once in every
round; medians of all. "planned" is what renga's planner said before.

With --disk 500 every run, and the measurement of the disk's rate, reads at most 500 MB/s from the
disk of --cache, all processes together: workers share a disk, so their missing bytes are added up.
Without it the figures of a virtual machine say little: its host may keep in memory what is read
again for every token.
Needs root for the cgroups; without, it says what is not limited.
"""
import argparse
import json
import mmap
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import time

MIB = 1 << 20
BLOCK = 4 * MIB
UNLIMITED = 64 * 1024 * MIB


class Limits:
    """Control groups, version 1 or 2, that limit one process tree."""

    def __init__(self, memory_bytes, disk):
        """`disk` is ("MAJOR:MINOR", bytes per second), or None."""
        self.paths = []
        device, rate = disk or (None, None)
        if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
            self.limit("memory", "/sys/fs/cgroup", "memory.max", str(memory_bytes))
            if disk:
                self.limit("the disk", "/sys/fs/cgroup", "io.max", f"{device} rbps={rate}")
        else:
            self.limit("memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                       str(memory_bytes))
            if disk:
                self.limit("the disk", "/sys/fs/cgroup/blkio", "blkio.throttle.read_bps_device",
                           f"{device} {rate}")

    def limit(self, what, root, name, value):
        path = pathlib.Path(root, f"renga-lazy-bench-{os.getpid()}")
        try:
            path.mkdir(exist_ok=True)
            if path not in self.paths:
                self.paths.append(path)
            (path / name).write_text(value)
        except OSError as error:
            print(f"{what} is not limited: {error}", file=sys.stderr)

    def enter(self):
        """For the child, before it becomes the program."""
        for path in self.paths:
            (path / "cgroup.procs").write_text(str(os.getpid()))

    def close(self):
        for path in self.paths:
            for _ in range(50):
                try:
                    path.rmdir()
                    break
                except OSError:
                    time.sleep(0.1)  # a process is still ending


def drop(path):
    """The page cache forgets the file."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def read_rate(paths):
    """Bytes per second past the page cache, of these files one after the other."""
    room, done, begin = mmap.mmap(-1, BLOCK), 0, time.monotonic()
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        offset = 0
        while (count := os.preadv(descriptor, [room], offset)) == BLOCK:
            offset += count
        done += offset + count
        os.close(descriptor)
    return done / (time.monotonic() - begin)


class Bench:

    def __init__(self, args):
        self.args = args
        self.size = os.path.getsize(args.model)
        self.environment = {**os.environ, "XDG_CACHE_HOME": args.cache}
        self.rates = []
        self.disk = None
        if args.disk:
            device = os.stat(args.cache).st_dev
            self.disk = f"{os.major(device)}:{os.minor(device)}", int(args.disk * 1e6)

    def packed(self):
        """renga's packed matrices of this model: there are no others in a cache of its own."""
        return [path for path in pathlib.Path(self.args.cache, "renga/packed").rglob("*-*-*-*-*")
                if path.is_file()]

    def needed(self):
        """Those of them that one worker needs: workers that divide the output matrix keep parts."""
        largest = {}
        for path in sorted(self.packed(), key=lambda path: path.stat().st_size):
            largest[path.name.split("-")[0]] = path
        return list(largest.values())

    def measure_disk(self):
        """Adds the disk's rate, as a process within the limits sees it, to the others."""
        limits = Limits(UNLIMITED, self.disk)
        with multiprocessing.get_context("fork").Pool(1, limits.enter) as child:
            self.rates.append(child.apply(read_rate, (self.needed(),)))
            child.close()
            child.join()
        limits.close()

    def run(self, command, limit_bytes):
        """(standard output, seconds) of a cold run within the limit; None when it failed."""
        drop(self.args.model)
        for path in self.packed():
            drop(path)
        limits = Limits(limit_bytes, self.disk)
        begin = time.monotonic()
        try:
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                                  errors="replace", env=self.environment, check=False,
                                  timeout=self.args.limit, preexec_fn=limits.enter)
        except subprocess.TimeoutExpired:
            print(f"{command[0]}: more than {self.args.limit} s", file=sys.stderr)
            return None
        finally:
            seconds = time.monotonic() - begin
            limits.close()
        if done.returncode != 0:
            print(f"{command[0]}: {done.stderr.strip()[-300:]}", file=sys.stderr)
            return None
        return done.stdout, seconds

    def renga(self, budget, workers, lazy=True, tokens=None):
        """(tokens per second, bytes per token from disk, seconds per token as planned) of a run of
        `renga bench`."""
        memory = int(budget) // max(workers, 1) if budget else 0
        command = [self.args.renga, "bench", self.args.model, "-p", 0, "-n",
                   tokens or self.args.generate, "-r", 1, "-t",
                   max(1, self.args.threads // max(workers, 1)), "--context", self.args.context,
                   "--speculation", "off", "--json", "--quiet"]
        command += ["--workers", workers] if workers > 1 else []
        command += ["--memory", memory] if budget else []
        command += ["--lazy"] if lazy else []
        limit = (int(budget) if budget else UNLIMITED) + self.args.headroom * MIB * workers
        done = self.run(command, limit)
        if done is None:
            return None
        result = json.loads(done[0])
        return (result["decode_tokens_per_second"], result["streamed_bytes_per_step"],
                result["predicted_ms_per_token"] / 1e3)

    def llama(self, budget):
        """Tokens per second of llama-bench with the file mapped, as it is by default."""
        done = self.run([self.args.llama_bench, "-m", self.args.model, "-p", 0, "-n",
                         self.args.generate, "-r", 1, "-t", self.args.threads, "-o", "json"],
                        int(budget) + self.args.headroom * MIB)
        if done is None:
            return None
        rows = json.loads(done[0][done[0].index("["):])
        return next(row["avg_ts"] for row in rows if row["n_gen"] > 0)

    def pack(self):
        """Runs until every matrix is kept on disk: a thread of the lowest priority writes them."""
        before = -1
        while before < (now := len(self.packed())):
            before = now
            self.renga(0, 1, lazy=False, tokens=self.args.context // 2)

    def decode(self):
        self.pack()
        eager = {workers: [] for workers in self.args.workers}
        cases = [(percent, workers) for percent in self.args.budgets
                 for workers in self.args.workers]
        ours = {case: [] for case in cases}
        theirs = {percent: [] for percent in self.args.budgets}
        for number in range(self.args.rounds):
            for workers in self.args.workers:
                eager[workers].append(self.renga(0, workers, lazy=False))
            self.measure_disk()
            for percent in self.args.budgets:
                budget = self.size * percent / 100
                for workers in self.args.workers:
                    ours[percent, workers].append(self.renga(budget, workers))
                if self.args.llama_bench:
                    theirs[percent].append(self.llama(budget))
            print(f"round {number + 1} of {self.args.rounds} done", file=sys.stderr)
        self.report(eager, ours, theirs)

    def report(self, eager, ours, theirs):
        compute_s = {workers: 1 / statistics.median(run[0] for run in runs if run)
                     for workers, runs in eager.items()}
        for workers, seconds in compute_s.items():
            print(f"all in memory, workers: {workers}: {1e3 * seconds:.1f} ms per token")
        rate = statistics.median(self.rates)
        print(f"disk: {rate / 1e6:.0f} MB/s ({min(self.rates) / 1e6:.0f} to "
              f"{max(self.rates) / 1e6:.0f})")
        print("memory  workers   tok/s  from disk/token   bound tok/s  of bound  of planned"
              "  llama.cpp  ratio")
        for (percent, workers), runs in ours.items():
            runs = [run for run in runs if run]
            if not runs:
                print(f"{percent:5d} %  {workers:7d}   failed")
                continue
            speed = statistics.median(run[0] for run in runs)
            missing = statistics.median(run[1] for run in runs)
            planned = statistics.median(run[2] for run in runs)
            bound = 1 / max(compute_s[workers], missing / rate)
            line = (f"{percent:5d} %  {workers:7d}  {speed:6.2f}  {missing / MIB:11.1f} MiB  "
                    f"{bound:12.2f}  {speed / bound:8.2f}  {speed * planned:10.2f}")
            peer = [run for run in theirs[percent] if run]
            if peer:
                line += f"  {statistics.median(peer):9.2f}  {speed / statistics.median(peer):5.2f}"
            print(line, flush=True)

    def first_token(self):
        """Seconds from the start of the process to its end with one token, on a cold page cache."""
        prompt, limit = "Once upon a time", UNLIMITED
        ours = [self.args.renga, "run", self.args.model, prompt, "--raw", "-n", 1, "-q", "-t",
                self.args.threads, "--context", self.args.context]
        programs = {"eager": ours, "lazy": [*ours, "--lazy"]}
        if self.args.llama_simple:
            programs["llama.cpp"] = [self.args.llama_simple, "-m", self.args.model, "-n", 1, prompt]
        self.pack()
        times = {name: [] for name in programs}
        for number in range(self.args.rounds):
            self.measure_disk()
            # Who comes first may find more in a cache of the disk's host.
            for name in list(programs)[::1 if number % 2 == 0 else -1]:
                done = self.run(programs[name], limit)
                if done is not None:
                    times[name].append(done[1])
        rate = statistics.median(self.rates)
        needed = sum(path.stat().st_size for path in self.needed())
        print(f"disk: {rate / 1e6:.0f} MB/s; reading {needed / MIB:.0f} MiB of packed matrices: "
              f"{needed / rate:.2f} s ({needed / max(self.rates):.2f} to "
              f"{needed / min(self.rates):.2f})")
        for name, seconds in times.items():
            if seconds:
                print(f"{name:<10} {statistics.median(seconds):6.2f} s "
                      f"({min(seconds):.2f} to {max(seconds):.2f}), "
                      f"{statistics.median(seconds) * rate / needed:.2f} times the reading")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--renga", default="build/release/renga")
    parser.add_argument("--llama-bench")
    parser.add_argument("--llama-simple")
    parser.add_argument("--first-token", action="store_true", help="time to the first token instead")
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("--budgets", type=numbers, default=[100, 75, 50, 30])
    parser.add_argument("--workers", type=numbers, default=[1, 2])
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count(), help="in all")
    parser.add_argument("-n", "--generate", type=int, default=24)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--headroom", type=int, default=96, help="MiB for each process")
    parser.add_argument("--limit", type=float, default=600, help="seconds for one run")
    parser.add_argument("--disk", type=float, help="MB/s that the disk gives at most")
    parser.add_argument("--cache", required=True, help="folder for renga's caches, of its own")
    args = parser.parse_args()
    bench = Bench(args)
    bench.first_token() if args.first_token else bench.decode()


if __name__ == "__main__":
    main()
