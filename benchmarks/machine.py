"""The machine: its cores, the CPU time of a process, and what a reader of the figures must know of it."""

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import attrs

import meshdns
from benchmarks.processes import find

_PROC = Path("/proc")


@attrs.frozen
class Cores:
    """Where the server under test runs, and where all else does: dnsperf, the upstream, ourselves."""

    server: int
    load: int


def cores() -> Cores:
    """Two of the cores we may use; the first, which often serves interrupts, is not the server's."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(server=allowed[-1] if len(allowed) < 3 else allowed[1], load=allowed[0])


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, user and system, all threads and all children.

    That is utime + stime of /proc/PID/stat, read from the process's CPU clock, which counts nanoseconds, not ticks.
    """
    return sum(time.clock_gettime(~one << 3 | 2) + _reaped_seconds(one) for one in _family(pid))


def memory(pid: int) -> int:
    """Resident memory of a process, in octets (VmRSS of proc(5))."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", (_PROC / str(pid) / "status").read_text(), re.MULTILINE)
    if found is None:
        raise ProcessLookupError(f"process {pid} has ended")
    return int(found[1]) * 1024


def waited_seconds(pid: int) -> float:
    """How long its threads were ready to run and the core was somebody else's (proc(5), schedstat)."""
    stats = [path for one in _family(pid) for path in (_PROC / str(one) / "task").glob("*/schedstat")]
    return sum(int(path.read_text().split()[1]) for path in stats) / 1e9


def _family(pid: int) -> Iterator[int]:
    yield pid
    for path in (_PROC / str(pid) / "task").glob("*/children"):
        for child in path.read_text().split():
            yield from _family(int(child))


def _reaped_seconds(pid: int) -> float:
    """The CPU time of children that have ended: cutime and cstime of proc(5)."""
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def on(core: int) -> Iterator[None]:
    """This process on one core for the length of a `with`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def description(used: Cores) -> dict[str, str]:
    """What was measured on and with, for the reader."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "pinned": f"server to core {used.server}, dnsperf and upstream to core {used.load}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "meshdns": f"{meshdns.__version__}, Twisted {version('twisted')}",
        "unbound": _said(["unbound", "-V"], r"Version (\S+)"),
        "dnsmasq": _said(["dnsmasq", "--version"], r"[Vv]ersion (\S+)"),
        "named": _said(["named", "-v"], r"^BIND (\S+)"),
        "envoy": _said([find("envoy") or "envoy", "--version"], r"version: \w+/([\d.]+)/"),
        "dnsperf": _said(["dnsperf", "-h"], r"[Vv]ersion (\S+)") or _said(["dnsperf", "-H"], r"Version (\S+)"),
    }


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", (_PROC / "cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _said(command: list[str], pattern: str) -> str:
    """What a program says of itself."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return "not installed"
    found = re.search(pattern, said.stdout + said.stderr)
    return found[1] if found else "version unknown"
