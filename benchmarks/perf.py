"""Linux perf: where a process spends its time, sample by sample, and how often it calls the kernel.

Samples are of the CPU's clock as the kernel's timer sees it, which works in virtual machines, too; a stretch with interrupts off
counts where they come on again. System calls are counted by their tracepoints, which does not slow them as strace does.
"""

import os
import re
import select
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from benchmarks.processes import CannotMeasure, end, last_words, pinned

_FREQUENCY = 5000  # samples a second
_PATIENCE = 60.0  # seconds for perf to begin, to write what it has, and to read it
_CALLS = (
    "epoll_wait", "epoll_pwait", "epoll_ctl", "poll", "ppoll", "select", "recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg",
    "sendmmsg", "read", "write", "readv", "writev", "futex", "getrandom", "socket", "connect", "bind", "close",
)  # fmt: skip
_FRAME = re.compile(r"\s*[0-9a-f]+ (?P<symbol>.+?) \((?P<object>.*)\)$")
_SYSTEM_CALL = re.compile(r"__(?:x64_|arm64_)?sys_(\w+)")
KERNEL = "kernel"


@attrs.frozen
class Sample:
    """Where the process was: in the kernel, for the system call `call` or for none, or in an `object` of the program."""

    object: str
    call: str | None = None


def lacking() -> str:
    """What is missing, as a sentence; else nothing."""
    if shutil.which("perf") is None:
        return "perf is not installed. On Debian and Ubuntu: sudo apt-get install linux-perf"
    command = ["perf", "stat", "-e", _events(["read"]), "true"]
    tried = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=False)
    return "perf may not look into the kernel here: run as root." if tried.returncode else ""


@contextmanager
def recording(process: int, core: int, path: Path) -> Iterator[None]:
    """Samples of a process go into a file for the length of a `with`."""
    words = ["record", "-q", "-N", "-e", "cpu-clock", "-F", str(_FREQUENCY), "-g", "-o", str(path)]
    with _looking(words, process, core, path.with_suffix(".log")):
        yield


@contextmanager
def counting(process: int, core: int, path: Path) -> Iterator[None]:
    """System calls of a process are counted for the length of a `with`, and then written to a file."""
    words = ["stat", "-x", ",", "-e", _events(_CALLS), "-o", str(path)]
    with _looking(words, process, core, path.with_suffix(".log")):
        yield


def _events(calls: Sequence[str]) -> str:
    return ",".join(f"syscalls:sys_enter_{call}" for call in calls)


@contextmanager
def _looking(words: Sequence[str], process: int, core: int, log: Path) -> Iterator[None]:
    """perf attached to all threads of a process, from the beginning of the `with` to its end."""
    told, tell = os.pipe()
    heard, hear = os.pipe()
    command = ["perf", *words, "-p", str(process), "--delay", "-1", "--control", f"fd:{told},{hear}"]
    with log.open("wb") as output:
        perf = subprocess.Popen(
            pinned(command, core),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(told, hear),
            start_new_session=True,
        )
    try:
        os.write(tell, b"enable\n")
        if not select.select([heard], [], [], _PATIENCE)[0]:
            raise CannotMeasure(f"perf does not begin:\n{last_words(log)}")
        yield
        perf.send_signal(signal.SIGINT)  # at which it writes what it has
        perf.wait(_PATIENCE)
    finally:
        end(perf)
        for descriptor in (told, tell, heard, hear):
            os.close(descriptor)


def samples(path: Path) -> Counter[Sample]:
    """What was recorded."""
    command = ["perf", "script", "-i", str(path), "-F", "ip,sym,dso"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    if said.returncode:
        raise CannotMeasure(f"perf cannot read its own samples:\n{said.stderr[-500:]}")
    return read_samples(said.stdout)


def read_samples(text: str) -> Counter[Sample]:
    """What `perf script` says: a stack for each, the innermost frame first, and an empty line behind it."""
    stacks = ([found for line in stack.splitlines() if (found := _FRAME.match(line))] for stack in text.split("\n\n"))
    return Counter(_sample([(frame["symbol"], frame["object"]) for frame in frames]) for frames in stacks if frames)


def _sample(frames: Sequence[tuple[str, str]]) -> Sample:
    """Of a stack. The outermost system call is the one that the program made."""
    innermost = frames[0][1]
    if KERNEL not in innermost:
        return Sample(innermost.rsplit("/", 1)[-1])
    calls = [found[1] for symbol, _ in frames if (found := _SYSTEM_CALL.match(symbol))]
    return Sample(KERNEL, calls[-1] if calls else None)


def counts(path: Path) -> Counter[str]:
    """The system calls that were counted, by name."""
    found = re.findall(r"^(\d+),[^,]*,syscalls:sys_enter_(\w+),", path.read_text(), re.MULTILINE)
    return Counter({call: int(count) for count, call in found if int(count)})
