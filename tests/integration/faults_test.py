#!/usr/bin/env python3
"""A disk that is full or slow, a coordinator that serves wrong bytes, an offer that changes: no wrong
token, a sentence that says what is wrong, and it goes on."""
import os
import pathlib
import subprocess
import time
import unittest

from cluster_test import ClusterTest
from renga_process import LIMIT_S, MAKE_MODEL

# 12 layers of 4.5 MiB; the rest takes some 12 MiB at a context of 256.
SHAPE = ["--layers", "12", "--d-model", "512", "--heads", "8", "--kv-heads", "4", "--ffn", "2048",
         "--vocab", "1000", "--type", "Q8_0"]
ENOUGH, HALF, LITTLE = "128MiB", "40MiB", "28MiB"
MIB = 1 << 20


def own_mounts():
    """How to start a process that may mount for itself; a skip where the system forbids it."""
    for prefix in (["unshare", "-m"], ["unshare", "-r", "-m"]):
        try:
            done = subprocess.run([*prefix, "mount", "-t", "tmpfs", "none", "/mnt"], check=False,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  timeout=LIMIT_S)
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            return prefix
    raise unittest.SkipTest("no small disk: this system lets no process mount one for itself")


class ReadLimit:
    """A cgroup whose processes read the disk under `folder` at a given speed; a skip where the
    system lets nobody make one."""

    def __init__(self, folder):
        device = os.stat(folder).st_dev
        self.device = f"{os.major(device)}:{os.minor(device)}"
        name = f"renga-test-{os.getpid()}"
        for parent, self.file, self.form in (
                ("/sys/fs/cgroup/blkio", "blkio.throttle.read_bps_device", "{} {}"),
                ("/sys/fs/cgroup", "io.max", "{} rbps={}")):
            self.group = pathlib.Path(parent, name)
            try:
                self.group.mkdir()
            except OSError:
                continue
            try:
                self.set(1 << 30)
                return
            except OSError:
                self.group.rmdir()
        raise unittest.SkipTest(f"no slow disk: this system throttles no reads of {self.device}")

    def set(self, bytes_per_second):
        (self.group / self.file).write_text(self.form.format(self.device, bytes_per_second))

    def add(self, process):
        (self.group / "cgroup.procs").write_text(str(process.pid))

    def remove(self):
        deadline = time.monotonic() + 20
        while True:
            try:
                return self.group.rmdir()
            except OSError:  # the process is still ending
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


class FaultsTest(ClusterTest):

    def setUp(self):
        super().setUp()
        self.model = self.folder / "model.gguf"
        subprocess.run([MAKE_MODEL, *SHAPE, self.model], check=True, timeout=LIMIT_S,
                       stdout=subprocess.DEVNULL)

    def up(self, *extra):
        return super().up(self.model, "--context", "256", *extra)

    def wait_for_worker(self, fits):
        """The first worker of the status, when what it says is so."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            status = self.status()
            if status["state"] == "ready" and fits(status["workers"][0]):
                return status["workers"][0]
            self.assertLess(time.monotonic(), deadline, status)
            time.sleep(0.1)

    def fails_and_says(self, *words):
        """One request that must not be answered."""
        status, body = self.request("/v1/completions", {
            "prompt": "once upon a time", "max_tokens": 24, "temperature": 0})
        self.assertGreaterEqual(status, 500, body)
        for word in words:
            self.assertIn(word, body["error"]["message"])

    def damage(self, folder):
        """Damaged files in the place of all there, as a failing disk gives them."""
        for path in folder.rglob("*"):
            try:
                content = bytearray(path.read_bytes())
            except OSError:  # a folder, or being renamed
                continue
            content[6000:6007] = b"damaged"
            other = path.with_name(path.name + ".tmp")
            other.write_bytes(content)
            os.replace(other, path)

    # ---- An offer that changes -------------------------------------------------------------------

    def test_an_offer_that_changes_in_mid_answer(self):
        offer = self.folder / "offer"
        offer.write_text(ENOUGH)
        up, join = self.up("--lazy")
        join += ["--memory-file", offer]
        worker = self.start(*join, "--name", "a", "--listen", "127.0.0.1:0", "-t", "1")
        up.wait_for("ready")
        whole = self.complete(tokens=150)
        for text, most in ((LITTLE, 28 * MIB), (ENOUGH, 128 * MIB)):
            with self.subTest(offer=text):
                response = self.request("/v1/completions", {
                    "prompt": "once upon a time", "max_tokens": 150, "temperature": 0,
                    "stream": True}, stream=True)
                response.readline()  # in flight
                offer.write_text(text)
                pieces = []
                for line in response.read().decode().splitlines():
                    if line.startswith("data: {"):
                        pieces.append(line)
                self.assertNotIn("error", "".join(pieces))
                self.wait_for_worker(lambda now: now["offered_bytes"] == most
                                     and 0 < now["used_bytes"] <= most
                                     and (now["streamed_weight_bytes"] > 0) == (text == LITTLE))
                worker.wait_for(f"offering {text[:-3]}.0 MiB instead of")
                self.assertEqual(self.complete(tokens=150), whole)
        offer.write_text("as much as you like")
        worker.wait_for("going on with 128.0 MiB")
        self.assertEqual(self.complete(tokens=150), whole)

    def test_an_offer_that_is_too_little_is_said_and_waited_for(self):
        offer = self.folder / "offer"
        offer.write_text(ENOUGH)
        up, join = self.up()
        self.start(*join, "--memory-file", offer, "--name", "a", "--listen", "127.0.0.1:0", "-t",
                   "1")
        up.wait_for("ready")
        whole = self.complete()
        offer.write_text("20MiB")
        up.wait_for("offers 20.0 MiB of memory instead of 128.0 MiB: planning anew")
        up.wait_for("--lazy")  # the refusal, with its numbers
        offer.write_text("100MiB")
        self.wait_for_worker(lambda now: now["offered_bytes"] == 100 * MIB)
        self.assertEqual(self.complete(), whole)

    # ---- A disk that is full ---------------------------------------------------------------------

    def worker_on_a_disk_of(self, join, size, memory):
        """A worker whose cache is on a disk of its own; (process, the disk's folder for us)."""
        disk = self.folder / "disk"
        disk.mkdir()
        prefix = own_mounts()
        script = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
        worker = self.start(*join, "--name", "a", "--memory", memory, "--listen", "127.0.0.1:0",
                            "-t", "1", "--cache", disk, prefix=[*prefix, "sh", "-c", script, disk])
        return worker, pathlib.Path(f"/proc/{worker.process.pid}/root{disk}")

    def test_a_disk_without_room_for_anything(self):
        up, join = self.up()
        worker, _ = self.worker_on_a_disk_of(join, "20m", ENOUGH)
        up.wait_for("ready")
        alone = self.renga_ok("run", self.model, "once upon a time", "--raw", "--temperature", "0",
                              "-n", "24", "--context", "256")
        self.assertEqual(self.complete(), alone.rstrip("\n"))
        worker.wait_for("going on without a cache of the model: less than 2.0 MiB of the disk")
        worker.wait_for("so the next start packs again: less than 2.0 MiB of the disk")

    def test_pieces_give_way_to_what_is_streamed(self):
        up, join = self.up("--lazy")
        # Some 50 MiB of layers are streamed; their pieces are as large again.
        worker, disk = self.worker_on_a_disk_of(join, "80m", LITTLE)
        up.wait_for("ready")
        whole = self.complete()
        worker.wait_for("the disk is full: removing the model's pieces")
        self.wait_for_worker(lambda now: now["streamed_weight_bytes"] > 10 * MIB)
        # Somebody else fills the disk, and what was there is damaged: nothing can be written.
        self.damage(disk / "packed")
        rest = os.statvfs(disk)
        (disk / "foreign").write_bytes(b"x" * (rest.f_bavail * rest.f_frsize - 64 * 1024))
        self.fails_and_says("cannot be kept there", "of the disk would be left")
        (disk / "foreign").unlink()
        deadline = time.monotonic() + LIMIT_S
        while self.status()["state"] != "ready":
            self.assertLess(time.monotonic(), deadline, up.output())
            time.sleep(0.1)
        self.assertEqual(self.complete(), whole)

    # ---- A disk that slows down ------------------------------------------------------------------

    def test_a_disk_that_slows_down(self):
        limit = ReadLimit(self.folder)
        self.addCleanup(limit.remove)
        up, join = self.up("--lazy")
        worker = self.worker(join, "a", LITTLE)
        self.addCleanup(worker.kill)
        up.wait_for("ready")
        whole = self.complete()
        fast = self.wait_for_worker(lambda now: now["streamed_bytes_per_second"] > 0)
        limit.add(worker.process)
        limit.set(30 * MIB)
        self.assertEqual(self.complete(tokens=6), self.complete(tokens=6))
        worker.wait_for("tokens wait for it")
        slow = self.wait_for_worker(lambda now: now["streamed_bytes_per_second"]
                                    < 0.25 * now["disk_bytes_per_second"])
        print(f"read {fast['streamed_bytes_per_second']:.3g} bytes/s, throttled "
              f"{slow['streamed_bytes_per_second']:.3g}")
        limit.set(1 << 30)
        self.assertEqual(self.complete(), whole)

    def test_a_disk_that_slows_down_is_not_waited_for_with_a_deadline(self):
        limit = ReadLimit(self.folder)
        self.addCleanup(limit.remove)
        up, join = self.up("--lazy", "--approximate", "deadline=1ms",
                           "--approximate-at-most", "50%")
        worker = self.worker(join, "a", LITTLE)
        self.addCleanup(worker.kill)
        up.wait_for("ready")
        self.complete()
        limit.add(worker.process)
        limit.set(30 * MIB)
        status, body = self.request("/v1/completions", {
            "prompt": "once upon a time", "max_tokens": 24, "temperature": 0})
        self.assertEqual(status, 200, body)
        timings = body["timings"]
        # Of some 24 tokens half may be approximated, of the prompt's none or few.
        self.assertGreater(timings["left_out_feed_forwards"], 0)
        self.assertGreater(timings["approximated_tokens"], 0)
        self.assertLessEqual(timings["approximated_tokens"], 13)
        self.wait_for_worker(lambda now: now["left_out"] > 0)
        self.assertIn("came too late and were left out",
                      self.renga_ok("status", "--http", f"127.0.0.1:{self.http}"))
        limit.set(1 << 30)

    # ---- A peer that serves wrong bytes ----------------------------------------------------------

    def test_a_coordinator_that_serves_wrong_bytes(self):
        up, join = self.up("--lazy")
        worker = self.worker(join, "a", LITTLE)
        up.wait_for("ready")
        whole = self.complete()
        # The middle of the file is layers: rewritten in place it is what the coordinator has
        # mapped, and no longer what it has hashed.
        right = self.model.read_bytes()
        begin, end = len(right) // 4, len(right) * 3 // 4
        with self.model.open("r+b") as file:
            file.seek(begin)
            file.write(bytes(byte ^ 0x10 for byte in right[begin:end]))
        # What the worker has is damaged, so it must ask.
        self.damage(self.folder / "cache-a")
        self.fails_and_says("came with other bytes than the manifest says")
        with self.model.open("r+b") as file:
            file.write(right)
        deadline = time.monotonic() + LIMIT_S
        while self.status()["state"] != "ready":
            self.assertLess(time.monotonic(), deadline, up.output())
            time.sleep(0.1)
        self.assertEqual(self.complete(), whole)
        self.assertIn("packing it again", worker.output())


if __name__ == "__main__":
    own = [f"FaultsTest.{name}" for name in vars(FaultsTest) if name.startswith("test")]
    unittest.main(argv=["faults_test", *own], verbosity=2)
