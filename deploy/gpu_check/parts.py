"""The parts of the check: what each runs, for how long at most, and how its output is read."""
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

EMULATED = "emulated-cuda"
TAIL_LINES = 40


def card_names(device, paths):
    """The names under which tests see the card: one for each way it multiplies matrices."""
    if device == EMULATED:
        return [EMULATED if path == "dp4a" else f"{EMULATED}-{path}" for path in paths]
    return [device.replace("cuda", f"cuda-{path}", 1) for path in paths]


def kernels_filter(cards, tests):
    """GoogleTest's filter for conformance tests of cards; names lose all but letters and digits."""
    names = [re.sub("[^A-Za-z0-9]", "", name) for name in cards]
    return ":".join(f"*{test}*/{name}{end}" for test in tests for name in names
                    for end in ("", "_*"))


def golden_filter(cards, models):
    names = [re.sub("[-:]", "_", name) for name in cards]
    return ":".join(f"*/{model}_{name}_*" for model in models for name in names)


def test_command(folder, binary, name_filter):
    return [str(folder / "bin" / binary), f"--gtest_filter={name_filter}", "--gtest_color=no"]


def card_part(folder, device):
    """(name, command, limit in seconds, reader) of what finds out which card it is."""
    return ("card", [str(folder / "bin" / "renga-card-bench"), f"--device={device}", "--parts="], 60,
            read_figures)


def other_parts(folder, device, cards, small):
    """The same of all that needs the card; for a command, or why there is none. `cards`: the names
    that tests know it by."""
    figures = [str(folder / "bin" / "renga-card-bench"), f"--device={device}"]
    figures += ["--small", "--seconds=0"] if small else []
    tests = ["RowOpsTest.", "LinearGroupTest.AGroup"] if small else ["Test."]
    goldens = ["llama_gqa_q4_k"] if small else ["*"]
    has_models = (folder / "data" / "models").is_dir()
    golden = (test_command(folder, "engine_test", golden_filter(cards, goldens)) if has_models
              else "no golden models were packed: set RENGA_SHARED_DATA for deploy/gpu-check --pack")
    return [
        ("conformance", test_command(folder, "kernels_test", kernels_filter(cards, tests)), 100,
         read_tests),
        ("goldens", golden, 50, read_tests),
        ("benchmarks", figures + ["--no-graphs"], 110, read_figures),
        ("steps as graphs", figures + ["--parts=step"], 30, read_figures),
        ("memcheck", sanitizer(folder, device, cards, "memcheck", [
            "RowOpsTest.", "TopKTest.", "AttentionTest.", "LinearGroupTest.", "LinearTest.AddsTheBias",
            "LinearTest.AMatrixCutInTwo"]), 60, read_sanitizer),
        ("racecheck", sanitizer(folder, device, cards, "racecheck", [
            "RowOpsTest.", "TopKTest.", "LinearTest.AddsTheBias", "LinearGroupTest.AGroup",
            "AttentionTest."]), 60, read_sanitizer),
        ("NCCL, one rank", nccl(folder, device), 40, read_tests),
    ]


def nccl(folder, device):
    if device == EMULATED:
        return "NCCL knows real cards only"
    try:
        ctypes.CDLL("libnccl.so.2")
    except OSError:
        return ("libnccl.so.2 is not found here: PyPI's nvidia-nccl-cu12 has it; name its folder in "
                "LD_LIBRARY_PATH")
    return test_command(folder, "kernels_test", "NcclOnACardTest.*")


def sanitizer(folder, device, cards, tool, tests):
    if device == EMULATED:
        return "compute-sanitizer looks at real cards only"
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not os.path.exists(program):
        return "compute-sanitizer is not installed here (it comes with the CUDA toolkit)"
    return [program, "--tool", tool, "--error-exitcode", "9",
            *test_command(folder, "kernels_test", kernels_filter(cards, tests))]


def run_limited(command, environment, limit_s):
    """(exit code or None when out of time, output); what it started ends with it."""
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL,
                                       stdout=output, stderr=subprocess.STDOUT,
                                       start_new_session=True)
        except OSError as error:
            return 127, f"cannot run {command[0]}: {error.strerror}"
        try:
            code = process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return code, output.read().decode(errors="replace")


def read_tests(output):
    """What GoogleTest's lines tell, also of a run that ended in the middle."""
    ended = re.compile(r"^\[ +(OK|FAILED|SKIPPED) +\] ([^ ,]+).*\(\d+ ms\)$")
    counts = {"OK": 0, "FAILED": 0, "SKIPPED": 0}
    failures = []
    running = ""
    for line in output.splitlines():
        if line.startswith("[ RUN      ] "):
            running = line[13:]
        match = ended.match(line)
        if not match:
            continue
        counts[match[1]] += 1
        running = ""
        if match[1] == "FAILED":
            failures.append(match[2])
    read = {"tests": counts, "failures": failures}
    if running:
        read["running"] = running
    return read


def read_figures(output):
    figures = []
    for line in output.splitlines():
        if line.startswith("{"):
            try:
                figures.append(json.loads(line))
            except ValueError:
                continue  # cut off in the middle
    return {"figures": figures}


def read_sanitizer(output):
    read = read_tests(output)
    read["sanitizer"] = [line.strip("= ") for line in output.splitlines() if "SUMMARY" in line]
    return read


def judge(code, read, output):
    """(result, detail) of a part that ran."""
    tests = read.get("tests")
    counted = ", ".join(f"{count} {name}" for name, count in (tests or {}).items() if count)
    if code is None:
        return "out of time", f"{counted or 'nothing'} before the limit; {read.get('running', '')}"
    if tests is not None and code == 0 and not tests["OK"]:
        return "failed", "no test ran"
    if code == 0:
        return "passed", "; ".join([counted, *read.get("sanitizer", [])]).strip("; ")
    last = output.strip().splitlines()[-1] if output.strip() else "no output"
    ended = f"ended by signal {-code}" if code < 0 else last
    where = f" in {read['running']}" if read.get("running") else ""
    return "failed", "; ".join(filter(None, [counted, ended + where]))


def run_part(part, environment, limit_s):
    name, command, _, reader = part
    if isinstance(command, str):
        return {"name": name, "result": "skipped", "seconds": 0, "detail": command}
    start = time.monotonic()
    code, output = run_limited(command, environment, limit_s)
    read = reader(output)
    result, detail = judge(code, read, output)
    told = {"name": name, "result": result, "seconds": round(time.monotonic() - start, 1),
            "detail": detail, **read}
    if result != "passed":
        told["command"] = " ".join(command)
        told["output"] = output.splitlines()[-TAIL_LINES:]
    return told


def describe_card():
    """What nvidia-smi says of the machine's cards, one line each; empty without it."""
    try:
        asked = subprocess.run(
            ["nvidia-smi", "--format=csv,noheader", "--query-gpu=name,driver_version,vbios_version,"
             "memory.total,clocks.max.sm,clocks.max.memory,power.limit,pcie.link.gen.current,"
             "pcie.link.width.current"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return asked.stdout.splitlines() if asked.returncode == 0 else []


def run_all(folder, device, small, limits_s):
    """The results of all parts, the card's first; only that when there is no card. Limits: for
    all parts together, and for any one."""
    folder = pathlib.Path(folder)
    environment = dict(os.environ, RENGA_SHARED_DATA=str(folder / "data"))
    begin = time.monotonic()
    part_limit_s = limits_s["part"]
    card = run_part(card_part(folder, device), environment, part_limit_s)
    results = [card]
    if card["result"] != "passed":
        return results
    card["nvidia_smi"] = describe_card() if device != EMULATED else []
    card["detail"] = card["figures"][0]["name"]
    cards = card_names(device, card["figures"][0]["paths"])
    if device != EMULATED:
        environment["RENGA_TEST_CARDS"] = ",".join(cards)
    for part in other_parts(folder, device, cards, small):
        left = limits_s["all"] - (time.monotonic() - begin)
        if left < 1:
            results.append({"name": part[0], "result": "out of time", "seconds": 0,
                            "detail": "the parts before it took all the time"})
            continue
        told = run_part(part, environment, min(left, part_limit_s, part[2]))
        results.append(told)
        print(f"{told['name']}: {told['result']} in {told['seconds']} s; {told['detail']}",
              flush=True)
    return results
