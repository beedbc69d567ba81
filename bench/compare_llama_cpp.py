#!/usr/bin/env python3
"""renga beside a given llama.cpp build: interleaved runs, medians, ratios with their spread.

  bench/compare_llama_cpp.py MODEL.gguf --llama-bench PATH [--rpc-server PATH] [-t 1] [-p 512] [-n 32]

With --rpc-server both sides also run over two worker processes of one thread each on loopback.
Machines are shared and noisy: only ratios of medians out of one interleaved run mean something.
"""
import argparse
import json
import pathlib
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


def renga(args, workers):
    command = [args.renga, "bench", args.model, "-p", str(args.prompt), "-n", str(args.generate),
               "-t", str(args.threads), "--repetitions", "1", "--json"]
    if workers:
        command += ["--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    result = json.loads(done.stdout)
    return result["prefill_tokens_per_second"], result["decode_tokens_per_second"]


def llama(args, rpc=None):
    command = [args.llama_bench, "-m", args.model, "-p", str(args.prompt), "-n",
               str(args.generate), "-t", str(args.threads), "-r", "1", "-o", "json"]
    if rpc:
        command += ["--rpc", rpc, "-ngl", "99"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    rows = json.loads(done.stdout)
    prefill = next(r["avg_ts"] for r in rows if r["n_prompt"] > 0 and r["n_gen"] == 0)
    decode = next(r["avg_ts"] for r in rows if r["n_gen"] > 0 and r["n_prompt"] == 0)
    return prefill, decode


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


def report(name, ours, theirs):
    """One line for prefill and one for decode."""
    for index, kind in enumerate(("prefill", "decode")):
        a = [run[index] for run in ours]
        b = [run[index] for run in theirs]
        ratios = sorted(x / y for x, y in zip(a, b))
        print(f"{name:<28} {kind:<8} renga {statistics.median(a):8.2f} tok/s   llama.cpp "
              f"{statistics.median(b):8.2f} tok/s   ratio of medians "
              f"{statistics.median(a) / statistics.median(b):.2f} (pairs {ratios[0]:.2f} to "
              f"{ratios[-1]:.2f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--renga", default="build/release/renga")
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--rpc-server")
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("-p", "--prompt", type=int, default=512)
    parser.add_argument("-n", "--generate", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(cpu_flags())

    cases = [("one process", lambda: renga(args, 0), lambda: llama(args))]
    servers = []
    try:
        if args.rpc_server:
            servers, addresses = start_rpc_servers(args)
            cases.append(("2 workers, 1 thread each", lambda: renga(args, 2),
                          lambda: llama(args, addresses)))
        results = {name: ([], []) for name, _, _ in cases}
        for number in range(args.rounds):
            for name, ours, theirs in cases:
                results[name][0].append(ours())
                results[name][1].append(theirs())
            print(f"round {number + 1} of {args.rounds} done", file=sys.stderr)
    finally:
        for process in servers:
            process.terminate()
            process.wait()
    for name, (ours, theirs) in results.items():
        report(f"{name}, t={args.threads}", ours, theirs)
    if len(cases) == 2:
        alone, split = (results[cases[i][0]][0] for i in (0, 1))
        for index, kind in enumerate(("prefill", "decode")):
            print(f"renga, 2 workers over one process: {kind} "
                  f"{statistics.median(r[index] for r in split) / statistics.median(r[index] for r in alone):.3f}")


if __name__ == "__main__":
    main()
