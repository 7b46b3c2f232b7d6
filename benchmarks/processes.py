"""Processes under our care: pinned to a core, their output in a file, ended whatever happens."""

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_PATIENCE = 3.0  # seconds for a process to end before it is killed


Core = int | str  # or several, as taskset takes them: `0,1`


class CannotMeasure(Exception):
    """Why there is no figure, as a sentence for the user."""


@contextmanager
def running(
    command: Sequence[str], core: Core, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the length of a `with`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned(command, core),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=environment,
            start_new_session=True,  # a Ctrl-C at the terminal is ours; we end them in order
        )
    try:
        yield process
    finally:
        end(process)


def pinned(command: Sequence[str], core: Core) -> list[str]:
    return ["taskset", "-c", str(core), *command]


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def find(name: str) -> str | None:
    """A program: the one that came with what Python runs this, or any."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def last_words(log: Path) -> str:
    """The end of what a process wrote."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-8:]) or "(it wrote nothing)"


def free_port() -> int:
    """A port of 127.0.0.1 that is free for UDP and TCP."""
    while True:
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            stream.bind(("127.0.0.1", 0))
            port: int = stream.getsockname()[1]
            try:
                datagram.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def end_on_sigterm() -> None:
    """Let SIGTERM unwind as Ctrl-C does, so that every `with` ends its process."""

    def leave(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
