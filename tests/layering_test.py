#!/usr/bin/env python3
"""Checks every #include of the project against the arrows of docs/ARCHITECTURE.md.

Usage: layering_test.py SOURCE_DIR. Prints file:line for each include that goes up, and fails.
Run with --self-test it proves that a wrong include is found.
"""
import pathlib
import re
import sys

# folder -> folders it may include (its own is always allowed).
ALLOWED = {
    "base": [],
    "model": ["base"],
    "partition": ["base", "model"],
    "worker/kernels": ["base"],
    "worker/engine": ["base", "model", "worker/kernels"],
    "proto": [],
    "transport": ["base", "model", "proto"],
    "worker/service": ["base", "model", "proto", "transport", "worker/kernels", "worker/engine"],
    "coordinator/cluster": ["base", "model", "partition", "proto", "transport"],
    "coordinator/serving": ["base", "model", "partition", "coordinator/cluster"],
    "coordinator/http": ["base", "model", "coordinator/cluster", "coordinator/serving"],
    "cli": ["base", "model", "partition", "proto", "transport", "worker/kernels", "worker/engine",
            "worker/service", "coordinator/cluster", "coordinator/serving", "coordinator/http"],
    "bench": ["base", "model", "partition", "worker/kernels", "worker/engine", "transport"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def folder_of(path):
    """The longest folder of ALLOWED that holds `path`, or None."""
    matches = [f for f in ALLOWED if path.startswith(f + "/")]
    return max(matches, key=len, default=None)


def violations(name, text):
    """Messages for the includes of file `name` that its folder may not have."""
    folder = folder_of(name)
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = folder_of(match.group(1))
        # Tests may use their own folder's and base's test helpers; only tests/ is above them all.
        if match.group(1).startswith("tests/"):
            found.append(f"{name}:{number}: nothing includes tests/")
        elif target and target != folder and target not in ALLOWED[folder]:
            found.append(f"{name}:{number}: {folder} may not include {target} ({match.group(1)})")
    return found


def self_test():
    assert violations("model/a.h", '#include "worker/engine/shard.h"\n') == [
        "model/a.h:1: model may not include worker/engine (worker/engine/shard.h)"]
    assert violations("coordinator/http/a.cc", '#include "worker/service/x.h"\n')
    assert not violations("worker/engine/a.cc", '#include "model/step.h"\n#include <vector>\n')


def main():
    self_test()
    root = pathlib.Path(sys.argv[1])
    found = []
    count = 0
    for folder in ALLOWED:
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.suffix in (".h", ".cc", ".cu") and folder_of(name) == folder:
                count += 1
                found += violations(name, path.read_text(encoding="utf-8"))
    print("\n".join(found))
    print(f"{count} files, {len(found)} includes against the arrows")
    return 1 if found or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
