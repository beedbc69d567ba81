"""A LAN in a box: made-up machines on this one, joined by a switch with a delay.

    with LanBox(machines=3, delay_ms=5, mbit_s=1000, memory=512 << 20) as box:
        server = box.popen(0, ["renga", "up", ...])
        box.run(1, ["ping", "-c", "1", box.address(0)])

Each machine is a network namespace of renga-lan-switch (tests/lan/lan_switch.cc), so the delay and
the bandwidth hold for everything that runs there. Processor time and memory per machine are
limited by control groups (v1 or v2) where that is permitted; `not_enforced` says where not.

Nothing stays behind: whatever runs in the box ends with the process that made it, even when that
is killed, and the namespaces with it. Control groups are folders and can stay after a kill; their
names say whose they were, and the next box removes those of processes that are gone.
"""
import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import time

SWITCH = os.environ.get("RENGA_LAN_SWITCH", "build/release/tests/lan/renga-lan-switch")
DEVICE = "lan0"
NOT_PERMITTED = 77  # the switch's exit status
PREFIX = "renga-lan-"
CPU_PERIOD_US = 50_000
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


class NotPermitted(Exception):
    """This machine does not let us build a LAN: the text says what lacks."""


def _die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _start_time(pid):
    """The kernel's start time of a process, or None when there is none: with the pid it is unique."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


class _Hierarchy:
    """One mounted hierarchy of control groups, seen from this process's own group."""

    def __init__(self, own_group, version):
        self.own_group = own_group
        self.version = version

    @staticmethod
    def of(controller):
        """The hierarchy that has `controller` ("cpu", "memory"), or None."""
        mounts = {}  # what -> mount point
        for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
            head, _, tail = line.partition(" - ")
            kind, _, options = tail.split(maxsplit=2)
            if kind == "cgroup2":
                mounts[""] = head.split()[4]
            elif kind == "cgroup":
                for option in options.split(","):
                    mounts[option] = head.split()[4]
        for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(",") and controller in mounts:
                return _Hierarchy(pathlib.Path(mounts[controller] + path), 1)
            if not controllers and "" in mounts:
                group = pathlib.Path(mounts[""] + path)
                if controller in (group / "cgroup.subtree_control").read_text().split():
                    return _Hierarchy(group, 2)
        return None

    def remove_leftovers(self):
        """Groups of boxes whose processes are gone."""
        for group in self.own_group.glob(f"{PREFIX}*"):
            pid, start = group.name.removeprefix(PREFIX).split("-")[:2]
            if _start_time(pid) != start:
                _remove_group(group)


def _remove_group(group):
    deadline = time.monotonic() + 5
    while group.exists():
        try:
            group.rmdir()
        except OSError:  # its processes are still ending
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)


def _limit_files(controller, version, value):
    """(file, content) pairs that set the limit; the first must work, others where they exist."""
    if controller == "memory":
        if version == 2:
            return [("memory.max", value), ("memory.swap.max", 0)]
        return [("memory.limit_in_bytes", value), ("memory.memsw.limit_in_bytes", value)]
    quota = int(value * CPU_PERIOD_US)
    if version == 2:
        return [("cpu.max", f"{quota} {CPU_PERIOD_US}")]
    return [("cpu.cfs_period_us", CPU_PERIOD_US), ("cpu.cfs_quota_us", quota)]


class LanBox:
    """machines: how many. delay_ms: one way, between any two. mbit_s: of each machine's link, 0 for
    no limit. cpu: processors (0.5 is half of one) and memory: bytes, that each machine's processes
    have together; None for no limit. Raises NotPermitted. Make it on the main thread: what it
    starts ends with the thread that started it."""

    def __init__(self, machines=3, delay_ms=5.0, mbit_s=1000, cpu=None, memory=None):
        self.machines = machines
        self.not_enforced = []  # sentences
        self._processes = []
        self._groups = [[] for _ in range(machines)]
        self._namespaces = []
        self._addresses = []
        self._switch = None
        try:
            self._start_switch(machines, delay_ms, mbit_s)
            self._limit_senders(mbit_s)
            self._make_groups("cpu", cpu)
            self._make_groups("memory", memory)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def address(self, machine):
        """The IPv4 address of the machine."""
        return self._addresses[machine]

    def popen(self, machine, command, **keywords):
        """subprocess.Popen of `command` on a machine; the box ends it when it closes."""
        process = self._spawn(machine, command, **keywords)
        self._processes.append(process)
        return process

    def run(self, machine, command, timeout=60, check=True, **keywords):
        """subprocess.run on a machine, with its output captured as text."""
        keywords = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **keywords}
        process = self._spawn(machine, command, **keywords)
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        done = subprocess.CompletedProcess(command, process.returncode, output, errors)
        if check and done.returncode != 0:
            raise AssertionError(f"{command} on machine {machine} ended with {done.returncode}:\n"
                                 f"{output}{errors}")
        return done

    def close(self):
        """Ends everything in the box. May be called twice."""
        for process in [*self._processes, *([self._switch] if self._switch else [])]:
            if process.poll() is None:
                process.kill()
        for process in [*self._processes, *([self._switch] if self._switch else [])]:
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
        for groups in self._groups:
            for group in groups:
                self._kill_group(group)
                _remove_group(group)
        self._processes, self._switch = [], None

    def _spawn(self, machine, command, **keywords):
        groups = [str(group / "cgroup.procs") for group in self._groups[machine]]

        def enter():
            _die_with_parent()
            for path in groups:
                file = os.open(path, os.O_WRONLY)
                os.write(file, b"0")  # the writer itself
                os.close(file)

        return subprocess.Popen(
            ["nsenter", f"--net={self._namespaces[machine]}", "--", *map(str, command)],
            preexec_fn=enter, **keywords)

    def _start_switch(self, machines, delay_ms, mbit_s):
        if not shutil.which("nsenter"):
            raise NotPermitted("a LAN in a box needs nsenter: install util-linux")
        if not os.path.exists(SWITCH):
            raise NotPermitted(f"there is no {SWITCH}: build the target renga-lan-switch")
        self._switch = subprocess.Popen(
            [SWITCH, str(machines), str(round(delay_ms * 1000)), str(mbit_s)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_die_with_parent)
        for line in self._switch.stdout:
            words = line.split()
            if words[0] == "ready":
                return
            self._addresses.append(words[1])
            self._namespaces.append(words[2])
        errors = self._switch.stderr.read().strip()
        if self._switch.wait() == NOT_PERMITTED:
            raise NotPermitted(f"{errors}: a LAN in a box needs root and /dev/net/tun")
        raise AssertionError(f"the switch did not start: {errors}")

    def _limit_senders(self, mbit_s):
        """The switch limits what a machine gets; this limits what it sends, as a network card does:
        what is too much waits in the sender and is not dropped on the way."""
        if mbit_s == 0:
            return
        # A buffer of 4 ms, but room for the largest packet before it is cut into frames.
        burst = max(68_000, mbit_s * 1000 // 8 // 1000)
        for machine in range(self.machines):
            command = ["tc", "qdisc", "replace", "dev", DEVICE, "root", "tbf", "rate",
                       f"{mbit_s}mbit", "burst", burst, "limit", 4 << 20]
            if not shutil.which("tc") or self.run(machine, command, check=False).returncode != 0:
                self.not_enforced.append("tbf is not there: what is sent too fast is dropped by "
                                         "the switch instead of waiting in the sender")
                return

    def _make_groups(self, controller, value):
        if value is None:
            return
        hierarchy = _Hierarchy.of(controller)
        try:
            if hierarchy is None:
                raise OSError(f"no group with the controller {controller} may be made here")
            hierarchy.remove_leftovers()
            for machine in range(self.machines):
                self._make_group(hierarchy, controller, machine, value)
        except OSError as error:
            self.not_enforced.append(f"the limit of {controller} is not enforced: {error}")

    def _make_group(self, hierarchy, controller, machine, value):
        own = f"{PREFIX}{os.getpid()}-{_start_time('self')}-{id(self):x}-{machine}"
        group = hierarchy.own_group / own
        if group not in self._groups[machine]:  # both controllers in one hierarchy
            group.mkdir()
            self._groups[machine].append(group)
        (name, content), *others = _limit_files(controller, hierarchy.version, value)
        (group / name).write_text(str(content))
        for name, content in others:
            if (group / name).exists():
                (group / name).write_text(str(content))

    @staticmethod
    def _kill_group(group):
        """What the machine's processes have started themselves."""
        try:
            for pid in (group / "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        except OSError:
            pass
