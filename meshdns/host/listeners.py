"""Outside: who answers on this machine's own addresses. An address and port enter; the users of the processes that listen
there leave, by /proc.

A resolver that the agent asks must itself not be redirected to the agent: they would ask each other for ever.
"""

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from meshdns.values import Endpoint

_TABLES = ("udp", "udp6", "tcp", "tcp6")
_LISTENING = {"udp": "07", "tcp": "0A"}  # states as /proc/net writes them: bound, and LISTEN


def is_own(address: str) -> bool:
    """Whether an address belongs to this machine: a route to it then starts at itself. No packet is sent."""
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return bool(probe.getsockname()[0] == address.partition("%")[0])
    except OSError:
        return False


def users_behind(where: Endpoint, proc: str = "/proc") -> frozenset[int]:
    """The users of the processes that take what is sent to an address of ours. Needs root to see others'."""
    inodes = {inode for table in _TABLES for inode in _inodes(Path(proc, "self/net", table), table, where)}
    return frozenset(_owners(proc, inodes)) if inodes else frozenset()


def _inodes(path: Path, table: str, where: Endpoint) -> Iterator[str]:
    try:
        lines = path.read_text().splitlines()[1:]
    except OSError:  # no IPv6
        return
    address = where.host.partition("%")[0]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    wanted = {_hex(family, address), _hex(family, "::" if ":" in address else "0.0.0.0")}
    if family == socket.AF_INET:  # a dual-stack socket
        wanted |= {_hex(socket.AF_INET6, "::"), _hex(socket.AF_INET6, f"::ffff:{address}")}
    for line in lines:
        words = line.split()
        host, _, port = words[1].partition(":")
        if int(port, 16) == where.port and host in wanted and words[3] == _LISTENING[table[:3]]:
            yield words[9]


def _hex(family: int, address: str) -> str:
    """As /proc/net has it: words of 32 bits, each in the machine's order."""
    packed = socket.inet_pton(family, address)
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))


def _owners(proc: str, inodes: set[str]) -> Iterator[int]:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path(proc).glob("[0-9]*"):
        try:
            descriptors = os.listdir(process / "fd")
        except OSError:  # it has ended, or is somebody else's
            continue
        for descriptor in descriptors:
            try:
                if os.readlink(process / "fd" / descriptor) in wanted:
                    yield process.stat().st_uid
                    break
            except OSError:
                continue
