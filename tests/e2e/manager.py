"""A service manager of one service, as systemd is to it: told how it is, holds its sockets, and hands them to the next process."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from tests.e2e.stage import PATIENCE, Stage

# Fetches the sockets, puts them where a service looks for them, and becomes the service.
_LAUNCH = """\
import os, socket, sys
with socket.socket(socket.AF_UNIX) as fetching:
    fetching.connect(sys.argv[1])
    message, descriptors, _, _ = socket.recv_fds(fetching, 100, 100)
moved = [os.dup2(each, 100 + number, inheritable=False) for number, each in enumerate(descriptors)]
for each in descriptors:
    os.close(each)
for number, each in enumerate(moved):
    os.dup2(each, 3 + number)
count = str(len(moved))
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=count, LISTEN_FDNAMES=":".join(["doors"] * len(moved)))
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """Hears what its service says from the first moment on; `said` are the messages, `store` the sockets that are held."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.said: list[str] = []
        self.store: list[int] = []
        self._news = threading.Condition()
        self._notify = stage.folder / "notify"
        self._hand = stage.folder / "hand"
        self._hearing = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._hearing.bind(str(self._notify))
        self._thread = threading.Thread(target=self._hear)
        self._thread.start()
        stage.addCleanup(self._end)

    def start(self, command: Sequence[str | Path], log: Path, watchdog: float = 0) -> subprocess.Popen[bytes]:
        """The service, with the sockets that are held; returns at once."""
        self.said.clear()
        words = ["env", f"NOTIFY_SOCKET={self._notify}"]
        if watchdog:
            words.append(f"WATCHDOG_USEC={int(watchdog * 1e6)}")
        with socket.socket(socket.AF_UNIX) as handing:
            self._hand.unlink(missing_ok=True)
            handing.bind(str(self._hand))
            handing.listen()
            handing.settimeout(PATIENCE)
            process = self._stage.start([*words, sys.executable, "-c", _LAUNCH, self._hand, *command], log)
            connection, _ = handing.accept()
            with connection:
                socket.send_fds(connection, [b"sockets"], self.store)
        return process

    def await_word(self, word: str, log: Path, patience: float = PATIENCE) -> None:
        """Until a message with this line has come."""
        end = monotonic() + patience
        with self._news:
            while not any(word in each.split("\n") for each in self.said):
                if not self._news.wait(end - monotonic()):
                    raise AssertionError(f"the service never said {word}, but {self.said}; its log:\n{log.read_text()}")

    def count(self, word: str) -> int:
        with self._news:
            return sum(word in each.split("\n") for each in self.said)

    def drop(self) -> None:
        """The service has ended for good."""
        while self.store:
            os.close(self.store.pop())

    def _hear(self) -> None:
        while True:
            message, descriptors, _, _ = socket.recv_fds(self._hearing, 4096, 253)
            if message == b"end":
                return
            with self._news:
                lines = message.decode().split("\n")
                if "FDSTOREREMOVE=1" in lines:
                    self.drop()
                self.store += descriptors
                self.said.append(message.decode())
                self._news.notify_all()

    def _end(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
            telling.sendto(b"end", str(self._notify))
        self._thread.join()
        self._hearing.close()
        self.drop()
