#!/usr/bin/env python3
"""The NEON kernels, cross-compiled and run under qemu-user as processors of three generations.

Usage: neon_kernels_test.py SOURCE_DIR BUILD_DIR. Builds the conformance suite for aarch64 in
BUILD_DIR and runs each path on a processor that has it and nothing newer, so that an instruction
which does not belong there ends the test. Skips (77) where deploy/install-deps --arm64 was not run.
"""
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys

SKIPPED = 77
# A path, qemu's processor for it, and its devices, as the suite names them; the best comes first.
PROCESSORS = [
    ("cpuneoni8mm", "max", ["cpuneoni8mm", "cpuneondotprod", "cpuneon"]),
    ("cpuneondotprod", "cortex-a76", ["cpuneondotprod", "cpuneon"]),
    ("cpuneon", "cortex-a53", ["cpuneon"]),
]
EVERYWHERE = ["cpuportable", "reference"]
# Minutes under qemu. The paths have their floats in common, so one runs the second of them.
SLOW = "*TheEndOfALongContextTokenByTokenEqualsOneCall*"
ALSO_SLOW = "*ALongSequenceInChunksOfAnySizeEqualsOneCall*"
JOBS = 2


def sysroot():
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "renga" / "arm64-sysroot"


def missing():
    """What is not installed here, in words."""
    tools = [tool for tool in ("aarch64-linux-gnu-g++", "qemu-aarch64") if not shutil.which(tool)]
    return tools + ([] if sysroot().is_dir() else [f"arm64 libraries in {sysroot()}"])


def build(source, folder):
    """Returns the cross-compiled conformance suite."""
    subprocess.run(
        ["cmake", "--preset", "release", "-B", folder, "-DRENGA_NET=OFF",
         f"-DCMAKE_TOOLCHAIN_FILE={source}/cmake/aarch64-linux-gnu.cmake",
         f"-DRENGA_ARM64_SYSROOT={sysroot()}"], cwd=source, check=True)
    subprocess.run(["cmake", "--build", folder, "--target", "kernels_test", "-j", str(JOBS)],
                   check=True)
    return pathlib.Path(folder) / "worker" / "kernels" / "kernels_test"


def run(suite, cpu, *flags, shard=None):
    environment = dict(os.environ)
    environment.pop("RENGA_CPU_ISA", None)
    if shard is not None:
        environment |= {"GTEST_TOTAL_SHARDS": str(JOBS), "GTEST_SHARD_INDEX": str(shard)}
    done = subprocess.run(["qemu-aarch64", "-L", sysroot(), "-cpu", cpu, suite, *flags],
                          env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    return done.returncode, done.stdout


def devices(suite, cpu):
    """Those that the suite tests on this processor, in its order."""
    _, listed = run(suite, cpu, "--gtest_list_tests", "--gtest_filter=*RowOpsTest.RmsNorm/*")
    return re.findall(r"^  RmsNorm/(\w+)", listed, re.MULTILINE)


def conforms(suite, path, cpu, shard):
    """Runs a share of the path's tests; returns whether they passed and what to print."""
    slow = SLOW if cpu == "max" else f"{SLOW}:{ALSO_SLOW}"
    tests = f"BackendFactoryTest.*:*/{path}:*/{path}_*-{slow}"
    code, output = run(suite, cpu, f"--gtest_filter={tests}", shard=shard)
    passed = re.search(r"\[  PASSED  \] (\d+) tests?\.", output)
    if code == 0 and passed and int(passed.group(1)) > 0:
        return True, f"{path} on {cpu}, share {shard + 1} of {JOBS}: {passed.group(1)} tests passed"
    return False, f"{path} on {cpu}: exit status {code}\n{output}"


def main():
    source, folder = sys.argv[1:]
    if missing():
        print(f"skipped: no {', no '.join(missing())}; deploy/install-deps --arm64 installs them")
        return SKIPPED
    suite = build(source, folder)
    good = True
    for _, cpu, expected in PROCESSORS:
        found = devices(suite, cpu)
        print(f"{cpu} has {', '.join(found)}")
        good = good and found == expected + EVERYWHERE
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        shares = [pool.submit(conforms, suite, path, cpu, shard)
                  for path, cpu, _ in PROCESSORS for shard in range(JOBS)]
        for share in shares:
            passed, text = share.result()
            print(text, flush=True)
            good = good and passed
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
