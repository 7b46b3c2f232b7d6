"""py-spy: in which of our functions, and in which C below them, a Python process is, sample by sample."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import end, find, pinned

_FREQUENCY = 150  # samples a second; it stops the process for each
_FRAME = re.compile(r"(?P<function>\S+) \((?P<file>[^():]+\.py):\d+\)")
# Innermost C functions in which nothing is computed: the time there is the kernel's, or nobody's.
_WAITING = frozenset(
    {"epoll_wait", "recvmmsg", "sendmmsg", "recvfrom", "sendto", "recv", "send", "recvmsg", "sendmsg", "read"}
)


def lacking() -> str:
    """What is missing, as a sentence; else nothing."""
    return "" if find("py-spy") else "py-spy is not installed: python -m pip install py-spy"


@contextmanager
def recording(process: int, seconds: float, core: int, path: Path) -> Iterator[None]:
    """Stacks of a process go into a file; it takes so many seconds, for which the `with` is to last."""
    command = [
        find("py-spy") or "py-spy",
        "record",
        "--native",
        "--rate",
        str(_FREQUENCY),
        "--duration",
        f"{seconds:.0f}",
    ]
    command += ["--format", "raw", "--output", str(path), "--pid", str(process)]
    with path.with_suffix(".log").open("wb") as log:
        spy = subprocess.Popen(
            pinned(command, core), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
        spy.wait(seconds + 30)
    finally:
        end(spy)


def functions(text: str) -> Counter[str]:
    """Samples by the innermost Python function, `module.function`, those in a system call left out. Each line of the text is a
    stack, outermost first, and how often it was seen."""
    found: Counter[str] = Counter()
    for line in text.splitlines():
        stack, _, times = line.rpartition(" ")
        frames = stack.split(";")
        if frames[-1].split(" ")[0].lstrip("_") in _WAITING:
            continue
        python = [match for frame in frames if (match := _FRAME.fullmatch(frame))]
        if python:
            module = Path(python[-1]["file"]).with_suffix("").as_posix().replace("/", ".")
            found[f"{module}.{python[-1]['function']}"] += int(times)
    return found
