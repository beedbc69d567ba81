#!/usr/bin/env python3
"""renga beside a given llama.cpp build: interleaved runs, medians, ratios with their spread.

  bench/compare_llama_cpp.py MODEL.gguf ... --llama-bench PATH [--rpc-server PATH] [-t 1] [-p 512] [-n 32]
  bench/compare_llama_cpp.py MODEL.gguf --llama-bench PATH --also "ik=PATH -rtr 1 -fa 1" -t 1 -t 2

With --rpc-server both sides also run over two worker processes of one thread each on loopback.
--also takes another build's llama-bench with its own flags; several models and thread counts make a
table.
Machines are shared and noisy: only ratios of medians out of one interleaved run mean something.
"""
import argparse
import functools
import json
import pathlib
import shlex
import socket
import statistics
import subprocess
import sys
import time


def cpu_flags():
    """The instruction sets that matter for these kernels, as this machine has them."""
    text = pathlib.Path("/proc/cpuinfo").read_text()
    have = set(next(l for l in text.splitlines() if l.startswith("flags")).split())
    names = ("avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8")
    model = next(l for l in text.splitlines() if l.startswith("model name")).split(":")[1].strip()
    return f"{model}: {' '.join(n for n in names if n in have)}"


def renga(args, model, threads, workers):
    command = [args.renga, "bench", model, "-p", str(args.prompt), "-n", str(args.generate),
               "-t", str(threads), "--repetitions", "1", "--depth", str(args.depth), "--json"]
    if workers:
        command += ["--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=3600)
    result = json.loads(done.stdout)
    return (result.get("prefill_tokens_per_second", 0.0), result.get("decode_tokens_per_second", 0.0))


def llama(args, bench, model, threads, rpc=None):
    command = [*bench, "-m", model, "-p", str(args.prompt), "-n", str(args.generate),
               "-t", str(threads), "-r", "1", "-o", "json"]
    if rpc:
        command += ["--rpc", rpc, "-ngl", "99"]
    if args.depth:
        command += ["-d", str(args.depth)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=3600)
    rows = json.loads(done.stdout[done.stdout.index("["):])
    prefill = [r["avg_ts"] for r in rows if r["n_prompt"] > 0 and r["n_gen"] == 0]
    decode = [r["avg_ts"] for r in rows if r["n_gen"] > 0 and r["n_prompt"] == 0]
    return (prefill[0] if prefill else 0.0, decode[0] if decode else 0.0)


def start_rpc_servers(args):
    """Two servers of one thread each; ends them through the returned processes."""
    processes, addresses = [], []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        processes.append(subprocess.Popen(
            [args.rpc_server, "-H", "127.0.0.1", "-p", str(port), "-t", "1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        addresses.append(f"127.0.0.1:{port}")
    time.sleep(1)
    return processes, ",".join(addresses)


def report(case, runs):
    """One line for prefill and one for decode: renga's median, and each peer's with the ratio."""
    for index, kind in enumerate(("prefill", "decode")):
        ours = [run[index] for run in runs["renga"]]
        if not any(ours):
            continue
        line = f"{case:<32} {kind:<8} renga {statistics.median(ours):8.2f}"
        for peer, theirs in runs.items():
            if peer == "renga":
                continue
            theirs = [run[index] for run in theirs]
            ratios = sorted(a / b for a, b in zip(ours, theirs))
            line += (f" | {peer} {statistics.median(theirs):8.2f}, "
                     f"{statistics.median(ours) / statistics.median(theirs):.2f} x "
                     f"({ratios[0]:.2f} to {ratios[-1]:.2f})")
        print(line, flush=True)


def compare(args, case, runners):
    """Every runner once a round, in turn."""
    runs = {name: [] for name in runners}
    for number in range(args.rounds):
        for name, run in runners.items():
            runs[name].append(run())
        print(f"{case}: round {number + 1} of {args.rounds} done", file=sys.stderr)
    report(case, runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--renga", default="build/release/renga")
    parser.add_argument("--llama-bench", required=True, help="PATH and flags")
    parser.add_argument("--also", action="append", default=[], help='"NAME=PATH and flags"')
    parser.add_argument("--rpc-server")
    parser.add_argument("-t", "--threads", type=int, action="append")
    parser.add_argument("-p", "--prompt", type=int, default=512)
    parser.add_argument("-n", "--generate", type=int, default=32)
    parser.add_argument("-d", "--depth", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(cpu_flags())
    print("tokens per second, medians; ratio of medians (and of the pairs)")

    peers = {"llama.cpp": shlex.split(args.llama_bench)}
    for also in args.also:
        name, command = also.split("=", 1)
        peers[name] = shlex.split(command)
    for model in args.models:
        name = pathlib.Path(model).stem
        for threads in args.threads or [1]:
            runners = {"renga": functools.partial(renga, args, model, threads, 0)}
            for peer, bench in peers.items():
                runners[peer] = functools.partial(llama, args, bench, model, threads)
            compare(args, f"{name}, {threads} threads", runners)
        if args.rpc_server:
            servers, addresses = start_rpc_servers(args)
            try:
                compare(args, f"{name}, 2 workers x 1 thread", {
                    "renga": functools.partial(renga, args, model, 1, 2),
                    "llama.cpp": functools.partial(llama, args, peers["llama.cpp"], model, 1,
                                                   addresses)})
            finally:
                for process in servers:
                    process.terminate()
                    process.wait()


if __name__ == "__main__":
    main()
