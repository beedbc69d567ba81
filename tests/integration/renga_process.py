"""Starts the real `renga` binary for tests: free ports, time limits, nothing left behind."""
import array
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

BINARY = os.environ.get("RENGA_BINARY", "build/release/renga")
MAKE_MODEL = os.environ.get("RENGA_MAKE_MODEL", "build/release/bench/renga-make-model")
SOURCE = pathlib.Path(__file__).resolve().parents[2]
SHARED_DATA = pathlib.Path(os.environ.get("RENGA_SHARED_DATA", SOURCE / "../shared/data"))
# Sanitizers make everything slower; a limit is there to end a hang, not to measure.
LIMIT_S = float(os.environ.get("RENGA_TEST_LIMIT_S", "300"))
# Skips when a peer takes too much of the machine would hide faults, so there are none.


def free_port():
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def demo_model():
    """The demo model's path, or a skip that says how to get it."""
    path = os.environ.get("RENGA_DEMO_MODEL", "")
    if not path:
        cache = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
        path = f"{cache}/renga/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    if not os.path.exists(path):
        raise unittest.SkipTest("no demo model: run deploy/get-demo-model")
    return path


def golden(name):
    """(path of NAME.gguf, parsed golden JSON, float32 logits) of the shared data."""
    folder = SHARED_DATA / "models"
    if not folder.exists():
        raise unittest.SkipTest(f"no shared data at {SHARED_DATA}: set RENGA_SHARED_DATA")
    data = json.loads((folder / f"{name}.golden.json").read_text())
    logits = read_floats(folder / data["logits_file"])
    return str(folder / data["file"]), data, logits


def read_floats(path):
    """A file of little-endian float32."""
    values = array.array("f", pathlib.Path(path).read_bytes())
    if sys.byteorder == "big":
        values.byteswap()
    return values


def run(*arguments, input_text="", environment=None, limit_s=None):
    """Runs `renga ARGUMENTS` to its end."""
    return subprocess.run(
        [BINARY, *map(str, arguments)], input=input_text.encode(), capture_output=True,
        timeout=limit_s or LIMIT_S, check=False, env={**os.environ, **(environment or {})})


class Background:
    """`renga ARGUMENTS` in the background, its output collected line by line."""

    def __init__(self, *arguments, environment=None, prefix=()):
        self.process = subprocess.Popen(
            [*map(str, prefix), os.path.abspath(BINARY), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env={**os.environ, **(environment or {})})
        self.lines = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self.lines.append(None)
            self._changed.notify_all()

    def wait_for(self, text, limit_s=None):
        """The first line that contains `text`; fails when the process ends or time runs out."""
        deadline = time.monotonic() + (limit_s or LIMIT_S)
        with self._changed:
            while True:
                for line in self.lines:
                    if line is not None and text in line:
                        return line
                if self.lines and self.lines[-1] is None:
                    raise AssertionError(f"ended without '{text}':\n{self.output()}")
                if not self._changed.wait(timeout=max(0, deadline - time.monotonic())):
                    raise AssertionError(f"no '{text}' in time:\n{self.output()}")

    def output(self):
        return "\n".join(line for line in self.lines if line is not None)

    def peak_resident_bytes(self):
        """VmHWM, file-mapped pages included."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def stop(self):
        """Ends the process as Ctrl-C would; returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not end on SIGTERM:\n{self.output()}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self.process.stdout.close()


class ProcessTest(unittest.TestCase):
    """Gives each test a folder of its own (state and cache inside) and ends what it started."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="renga-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.environment = {"XDG_CACHE_HOME": str(self.folder / "cache"),
                            "XDG_STATE_HOME": str(self.folder / "state")}

    def start(self, *arguments, environment=None, prefix=()):
        """`prefix`: a command that ends by running the rest of its arguments."""
        process = Background(*arguments, environment={**self.environment, **(environment or {})},
                             prefix=prefix)
        self.addCleanup(process.kill)
        return process

    def renga(self, *arguments, **keywords):
        keywords.setdefault("environment", self.environment)
        return run(*arguments, **keywords)

    def renga_ok(self, *arguments, **keywords):
        """Standard output of a run that must succeed."""
        done = self.renga(*arguments, **keywords)
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))
        return done.stdout.decode()

    def assert_refused(self, done, *words):
        """One clear sentence, a non-zero exit, no crash."""
        text = done.stderr.decode(errors="replace")
        self.assertGreater(done.returncode, 0, text)
        lines = [line for line in text.splitlines() if line.strip()]
        self.assertEqual(len(lines), 1, text)
        self.assertTrue(lines[0].startswith("renga: "), text)
        for word in words:
            self.assertIn(word, text)
