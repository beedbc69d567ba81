#!/usr/bin/env python3
"""What a LAN in a box promises: no frame before its time, no more than the rate, limits that hold,
and nothing left behind."""
import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest

import lan_box
from lan_box import LanBox, NotPermitted

HERE = pathlib.Path(__file__).resolve().parent
PYTHON = sys.executable
LIMIT_S = 30

# Answers each message of 64 bytes over one TCP connection.
ECHO = """
import socket, sys
with socket.create_server((sys.argv[1], 7000)) as server:
    print("listening", flush=True)
    peer, _ = server.accept()
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := peer.recv(1 << 16):
        peer.sendall(data)
"""
# Prints the round trips in seconds.
ASK = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 7000)) as peer:
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(20):
        begin = time.monotonic()
        peer.sendall(bytes(64))
        got = 0
        while got < 64:
            got += len(peer.recv(64))
        print(time.monotonic() - begin)
"""
# Takes everything, then says how many seconds lay between the first and the last byte.
SINK = """
import socket, sys, time
with socket.create_server((sys.argv[1], 7000)) as server:
    print("listening", flush=True)
    peer, _ = server.accept()
    size, begin = len(peer.recv(1)), time.monotonic()
    while data := peer.recv(1 << 16):
        size += len(data)
    print(size, time.monotonic() - begin)
"""
SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000)) as peer:
    peer.sendall(bytes(int(sys.argv[2])))
"""
SPIN = """
import time
end = time.monotonic() + 0.6
while time.monotonic() < end:
    pass
print(time.process_time())
"""


def make_box(**keywords):
    try:
        return LanBox(**keywords)
    except NotPermitted as error:
        raise unittest.SkipTest(str(error)) from error


def is_running(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


class LanBoxTest(unittest.TestCase):

    def box(self, **keywords):
        box = make_box(**keywords)
        self.addCleanup(box.close)
        return box

    def serve(self, box, machine, script):
        server = box.popen(machine, [PYTHON, "-c", script, box.address(machine)],
                           stdout=subprocess.PIPE, text=True)
        self.assertEqual(server.stdout.readline(), "listening\n")
        return server

    def test_a_round_trip_takes_two_delays_between_any_two_machines(self):
        box = self.box(machines=3, delay_ms=20, mbit_s=0)
        for asker, server in ((0, 2), (2, 1)):
            self.serve(box, server, ECHO)
            answer = box.run(asker, [PYTHON, "-c", ASK, box.address(server)], timeout=LIMIT_S)
            times = sorted(float(line) for line in answer.stdout.split())
            print(f"round trips {asker} to {server}: {times[0] * 1000:.2f} ms at least, median "
                  f"{times[len(times) // 2] * 1000:.2f} ms")
            self.assertEqual(len(times), 20)
            self.assertGreaterEqual(times[0], 2 * 0.020)
            # Far more than scheduling costs; a delay that were applied twice would be seen.
            self.assertLess(times[0], 4 * 0.020)

    def test_a_machine_does_not_reach_beyond_the_box(self):
        box = self.box(machines=2, delay_ms=0)
        with open("/proc/net/dev", encoding="ascii") as file:
            self.assertNotIn(f"{lan_box.DEVICE}:", file.read())
        devices = box.run(0, ["cat", "/proc/net/dev"]).stdout
        names = {line.split(":")[0].strip() for line in devices.splitlines()[2:]}
        self.assertLessEqual({"lo", lan_box.DEVICE}, names)
        self.assertNotIn("eth0", names)

    def test_the_rate_is_not_exceeded(self):
        box = self.box(machines=2, delay_ms=1, mbit_s=20)
        sink = self.serve(box, 1, SINK)
        size = 1_000_000
        box.run(0, [PYTHON, "-c", SEND, box.address(1), str(size)], timeout=LIMIT_S)
        got, seconds = sink.stdout.readline().split()
        self.assertEqual(int(got), size)
        print(f"{size * 8 / float(seconds) / 1e6:.1f} of 20 Mbit/s")
        # The first frame has come when the clock starts; nothing else was saved up.
        self.assertGreaterEqual(float(seconds), (size - 1500) * 8 / 20e6)

    def test_processor_time_is_limited(self):
        box = self.box(machines=1, delay_ms=0, cpu=0.5)
        if box.not_enforced:
            self.skipTest(box.not_enforced[0])
        used = float(box.run(0, [PYTHON, "-c", SPIN]).stdout)
        # 0.6 s are at most 13 periods of 50 ms, each with half of it; Python itself starts first.
        self.assertLessEqual(used, 13 * 0.025 + 0.1)

    def test_memory_is_limited(self):
        box = self.box(machines=1, delay_ms=0, memory=48 << 20)
        if box.not_enforced:
            self.skipTest(box.not_enforced[0])
        box.run(0, [PYTHON, "-c", "bytearray(8 << 20)"])
        done = box.run(0, [PYTHON, "-c", "bytearray(128 << 20)"], check=False)
        self.assertNotEqual(done.returncode, 0)

    def test_nothing_is_left_after_closing(self):
        box = self.box(machines=2, delay_ms=0, cpu=1.0, memory=256 << 20)
        sleeper = box.popen(1, ["sleep", "1000"])
        pids = [sleeper.pid, box._switch.pid]
        groups = [group for groups in box._groups for group in groups]
        box.close()
        box.close()
        self.assertEqual([pid for pid in pids if is_running(pid)], [])
        self.assertEqual([group for group in groups if group.exists()], [])

    def test_nothing_is_left_after_a_crash(self):
        script = ("import sys, time; sys.path.insert(0, sys.argv[1])\n"
                  "from lan_box import LanBox, NotPermitted\n"
                  "try: box = LanBox(machines=2, delay_ms=0, memory=256 << 20)\n"
                  "except NotPermitted as error: sys.exit(f'skip: {error}')\n"
                  "sleeper = box.popen(1, ['sleep', '1000'])\n"
                  "print(sleeper.pid, box._switch.pid, *box._groups[0], flush=True)\n"
                  "time.sleep(1000)\n")
        with subprocess.Popen([PYTHON, "-c", script, str(HERE)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as crasher:
            words = crasher.stdout.readline().split()
            if not words:
                self.skipTest(crasher.stderr.read())
            crasher.send_signal(signal.SIGKILL)
        pids, groups = words[:2], [pathlib.Path(group) for group in words[2:]]
        deadline = time.monotonic() + LIMIT_S
        while any(is_running(pid) for pid in pids):
            self.assertLess(time.monotonic(), deadline, "processes outlive their box")
            time.sleep(0.01)
        self.box(machines=1, delay_ms=0, memory=256 << 20)  # removes what the other one left
        self.assertEqual([group for group in groups if group.exists()], [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
