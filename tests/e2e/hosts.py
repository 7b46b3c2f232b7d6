"""Hosts made up for a test: a network and a mount namespace with its own loopback, addresses and /etc/resolv.conf.

One lives as long as the process that holds it, which ends with its standard input: not even a test that was killed leaves
a namespace behind. `place` is where sockets can be made and programs run in it.
"""

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from unittest import SkipTest

from tests.e2e.stage import Place, Stage, end, until

ADDRESSES = ("10.255.0.1/32", "fd00:255::1/128")  # a pod has both families: AI_ADDRCONFIG looks
POD_RESOLV_CONF = """\
search ns1.svc.cluster.local svc.cluster.local cluster.local
nameserver 127.0.0.1
options ndots:5
"""
_FILES = {
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "hosts: files dns\n",  # nobody else may answer, like nss-resolve over D-Bus
    "resolv.conf": "",
}
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Wired(Protocol):
    """What a cable can be put into."""

    @property
    def process(self) -> int:
        """One that lives in its network."""


End = tuple[Wired, *tuple[str, ...]]  # of a cable, with the addresses there


class Host:
    """One made-up host."""

    def __init__(self, stage: Stage, resolv_conf: str = POD_RESOLV_CONF, name: str = "host") -> None:
        """Skips the test where namespaces cannot be made. `etc` holds its own files of /etc."""
        if missing := _why_not():
            raise SkipTest(missing)
        self._stage = stage
        self.etc = stage.folder / name
        self.etc.mkdir()
        log = stage.folder / f"{name}.log"
        self._holder = stage.start(["unshare", "--net", "--mount", "sh", "-c", _script(self.etc, resolv_conf)], log,
                                   stdin=subprocess.PIPE)  # fmt: skip
        stage.addCleanup(self._end)
        until("a namespace", lambda: log.read_text().endswith("ready\n"), self._holder, log)
        spaces = Path(f"/proc/{self._holder.pid}/ns")
        self._network = spaces / "net"
        prefix = ["nsenter", f"--net={spaces / 'net'}", f"--mount={spaces / 'mnt'}", "--"]
        self.place = Place(prefix, self._make_socket)

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs a program there."""
        return self._stage.run_to_end([*self.place.prefix, *command])

    def said_by(self, *command: str | Path) -> str:
        """What a program prints there; one that fails fails the test."""
        return self._stage.said_by([*self.place.prefix, *command])

    @property
    def process(self) -> int:
        return self._holder.pid

    def join(self, other: Wired, own: Sequence[str], others: Sequence[str], name: str = "cable") -> None:
        """A cable to another one, with addresses at its ends; `name` is that of its interface here."""
        connect(self._stage, (self, *own), (other, *others), name)

    def _make_socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket in this host's network; it may be used from anywhere."""
        made: list[socket.socket] = []
        thread = threading.Thread(target=lambda: made.append(self._socket(family, kind)))
        thread.start()
        thread.join()
        return made[0]

    def _socket(self, family: int, kind: int) -> socket.socket:
        """The same, for a thread that is not needed any more: it stays in the namespace."""
        with self._network.open() as space:
            if _libc.setns(space.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        return socket.socket(family, kind)

    def _end(self) -> None:
        assert self._holder.stdin
        self._holder.stdin.close()
        end(self._holder)


def connect(
    stage: Stage, first: tuple[Wired, *tuple[str, ...]], second: tuple[Wired, *tuple[str, ...]], name: str = "cable"
) -> None:
    """A cable between two, each with the addresses that it has at its end; `name` is that of the first one's interface."""
    ends = ((name, *first), ("cable", *second))
    link = ["ip", "link", "add", name, "netns", f"{first[0].process}", "type", "veth"]
    stage.said_by([*link, "peer", "name", "cable", "netns", f"{second[0].process}"])
    for device, host, *addresses in ends:
        ip = ["nsenter", f"--net=/proc/{host.process}/ns/net", "ip"]
        for address in addresses:
            words = ["address", "add", address, "dev", device, *(["nodad"] if ":" in address else [])]
            stage.said_by([*ip, *words])
        stage.said_by([*ip, "link", "set", device, "up"])


def _script(etc: Path, resolv_conf: str) -> str:
    """What the holder runs in the new namespaces, until its input ends."""
    lines = ["set -e", "ip link set lo up", *(f"ip address add {address} dev lo" for address in ADDRESSES)]
    for name, content in {**_FILES, "resolv.conf": resolv_conf}.items():
        file = etc / name
        file.write_text(content)
        if Path("/etc", name).exists():
            lines.append(f"mount --bind {file} /etc/{name}")
    return "\n".join([*lines, "echo ready", "exec cat"])


def _why_not() -> str:
    if os.geteuid():
        return "namespaces are made as root only"
    missing = [name for name in ("unshare", "nsenter", "ip", "mount") if not shutil.which(name)]
    if missing:
        return f"not installed: {', '.join(missing)} (packages util-linux, mount, iproute2)"
    return "" if _allowed() else "this kernel does not let us make namespaces"


def _allowed() -> bool:
    tried = subprocess.run(["unshare", "--net", "--mount", "true"], stdin=subprocess.DEVNULL, capture_output=True)
    return not tried.returncode
