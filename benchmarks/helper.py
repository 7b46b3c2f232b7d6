"""Processes of the bench's own beside the server under test: told and heard in lines of JSON, and the last to get the core."""

import json
import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.processes import CannotMeasure, end, last_words, pinned
from benchmarks.servers import ROOT

_SPARE = 100  # file descriptors beside those of connections


class Helper:
    """One that runs."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self._rest = b""

    def say(self, **what: object) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(json.dumps(what).encode() + b"\n")
        stdin.flush()

    def hear(self, patience: float) -> Any:
        """Its next line, which must come within so many seconds."""
        stdout = self._process.stdout
        assert stdout is not None
        deadline = time.monotonic() + patience
        while b"\n" not in self._rest:
            if not select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise CannotMeasure(f"{self._log.name} has said nothing for {patience:.0f} s:\n{last_words(self._log)}")
            came = os.read(stdout.fileno(), 65536)
            if not came:
                raise CannotMeasure(f"{self._log.name} has ended:\n{last_words(self._log)}")
            self._rest += came
        line, _, self._rest = self._rest.partition(b"\n")
        said = json.loads(line)
        if "trouble" in said:
            raise CannotMeasure(str(said["trouble"]))
        return said


@contextmanager
def helper(module: str, words: Sequence[object], core: int, log: Path) -> Iterator[Helper]:
    """`python -m MODULE WORDS` for the length of a `with`; what it complains of goes into the log."""
    command = pinned([sys.executable, "-m", module, *map(str, words)], core)
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        yield Helper(process, log)
    finally:
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()
        end(process)


def stand_back() -> None:
    """Whoever else is on our core, an agent or the one who asks it, goes first."""
    os.nice(19)
    with suppress(OSError):  # without autogroups (sched(7)) the line above is enough; with them it counts for nothing
        Path("/proc/self/autogroup").write_text("19")


def tell(**what: object) -> None:
    """What a helper says, as one line."""
    print(json.dumps(what), flush=True)


def allow_descriptors(connections: int) -> None:
    """Let this process, and all that it starts, have so many connections; a sentence where the host does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise CannotMeasure(
            f"{connections:,} pollers take {wanted:,} file descriptors, and a process may have {hard:,} here: "
            f"allow more (ulimit -Hn {wanted}, as root), or measure fewer with --pollers."
        )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
