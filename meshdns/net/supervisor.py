"""Outside: systemd, or whoever else speaks its two protocols: what it is told (sd_notify(3)), and the sockets that it holds for us
while we are restarted (its file descriptor store, sd_pid_notify_with_fds(3)) and hands over at the start (sd_listen_fds(3)).

What a service is doing enters, and its listening sockets; sockets of the process before leave. Packets that come between two
processes wait in them, so that a restart loses none. Without a supervisor nothing happens. It must never know what is served.
"""

import array
import os
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from meshdns.defaults import SUPERVISOR_SOCKETS

_log = Logger()
_FIRST = 3  # the first descriptor that is handed over
_NAME = "doors"
_KINDS = (socket.SOCK_DGRAM, socket.SOCK_STREAM)


class Passed(socket.socket):
    """A socket that a process before this one has listened on: it has its address already."""

    def bind(self, address: object) -> None:
        pass


class Supervisor:
    """What stands above this process, as its environment says."""

    def __init__(self, reactor: Any, environment: Mapping[str, str] | None = None) -> None:
        """`environment` is by default the one that this process was started with."""
        said = _first_environment() if environment is None else environment
        self._reactor = reactor
        self._address = said.get("NOTIFY_SOCKET", "")
        self._beat = _microseconds(said) / 2e6 if _is_meant(said, "WATCHDOG_PID") else 0.0
        self._beating: IDelayedCall | None = None
        self._passed = _passed(said)
        self._complained = False

    # from the root

    def ready(self, status: str) -> None:
        """Once the reactor runs: we answer. Also the end of `reloading`."""
        self._reactor.callWhenRunning(self._ready, status)

    def reloading(self) -> None:
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """The watchdog goes on: a stop that hangs is seen, too."""
        self._tell("STOPPING=1")

    def take(self, kind: int, host: str, port: int) -> socket.socket | None:
        """A socket of this kind and address that was handed over, each of them once."""
        several = self._passed.get((kind, host, port))
        return several.pop(0) if several else None

    def hold(self, sockets: Iterable[socket.socket]) -> None:
        """Have these held, and no others any more."""
        descriptors = [each.fileno() for each in sockets]
        for stranger in chain.from_iterable(self._passed.values()):
            stranger.close()
        self._passed.clear()
        self._tell(f"FDSTOREREMOVE=1\nFDNAME={_NAME}")
        for start in range(0, len(descriptors), SUPERVISOR_SOCKETS):
            # FDPOLL=0: a socket with an error to report is not a broken one.
            self._tell(f"FDSTORE=1\nFDNAME={_NAME}\nFDPOLL=0", descriptors[start : start + SUPERVISOR_SOCKETS])

    # Inside

    def _ready(self, status: str) -> None:
        self._tell(f"READY=1\nSTATUS={' '.join(status.split())}")
        if self._beat and self._beating is None:
            self._watch()

    def _watch(self) -> None:
        self._beating = self._reactor.callLater(self._beat, self._watch)
        self._tell("WATCHDOG=1")

    def stop(self) -> None:
        """The last word is said."""
        if self._beating is not None and self._beating.active():
            self._beating.cancel()

    def _tell(self, message: str, descriptors: Iterable[int] = ()) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as telling:
                telling.setblocking(False)
                telling.sendmsg([message.encode()], rights, 0, address)
        except OSError as error:
            if not self._complained:
                self._complained = True
                _log.warn("the supervisor at {where} cannot be told: {why}", where=self._address, why=error.strerror)


def _first_environment() -> dict[str, str]:
    """What this process was started with. Importing twisted.internet.endpoints takes the variables of passed sockets out of
    os.environ, and twistd imports it before us."""
    with suppress(OSError), open("/proc/self/environ", "rb") as opened:
        pairs = (each.partition(b"=") for each in opened.read().split(b"\0") if each)
        return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
    return dict(os.environ)


def _is_meant(said: Mapping[str, str], variable: str) -> bool:
    """Whether the variables are for this process, and not for a parent."""
    return said.get(variable, str(os.getpid())) == str(os.getpid())


def _microseconds(said: Mapping[str, str]) -> int:
    word = said.get("WATCHDOG_USEC", "")
    return int(word) if word.isascii() and word.isdecimal() else 0


def _passed(said: Mapping[str, str]) -> dict[tuple[int, str, int], list[socket.socket]]:
    """The internet sockets that were handed over, by kind, host and port; whatever else was is closed."""
    count = said.get("LISTEN_FDS", "")
    if said.get("LISTEN_PID") != str(os.getpid()) or not (count.isascii() and count.isdecimal()):
        return {}
    found: dict[tuple[int, str, int], list[socket.socket]] = {}
    for descriptor in range(_FIRST, _FIRST + min(int(count), 1024)):
        try:
            os.set_inheritable(descriptor, False)
            passed = Passed(fileno=descriptor)
        except OSError:  # no socket
            with suppress(OSError):
                os.close(descriptor)
            continue
        if passed.family not in (socket.AF_INET, socket.AF_INET6) or passed.type not in _KINDS:
            passed.close()
            continue
        passed.setblocking(False)
        host, port = passed.getsockname()[:2]
        found.setdefault((passed.type, host, port), []).append(passed)
    return found
