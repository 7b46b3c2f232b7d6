"""One question to each address of this host, put by a client that takes an answer only from there; run in a network namespace.

`python -m tests.agent.round_trips BOUND ASKED …` prints, for both kinds of `Datagrams`, what each client got.
"""

import json
import socket
import sys

from meshdns.agent.datagrams import Batched, Single
from meshdns.agent.slots import NAME, PACKET, SLOT, Datagrams

KINDS = (Batched, Single)
WAIT = 2.0


def bound(host: str, port: int = 0) -> socket.socket:
    door = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    door.bind((host, port))
    return door


def client_of(door: socket.socket, host: str) -> socket.socket:
    """Connected, so that the kernel passes on only what comes from the address asked. `host` may have a scope."""
    client = socket.socket(door.family, socket.SOCK_DGRAM)
    client.settimeout(WAIT)
    name, _, scope = host.partition("%")
    more = (0, socket.if_nametoindex(scope)) if scope else ()
    client.connect((name, door.getsockname()[1], *more))
    return client


def heard(client: socket.socket) -> bytes | None:
    try:
        return client.recv(65535)
    except OSError:
        return None


def receive(datagrams: Datagrams, door: socket.socket) -> int:
    """A batch, waited for."""
    door.settimeout(WAIT)
    door.recv(1, socket.MSG_PEEK)
    door.setblocking(False)  # as a reactor has it
    return datagrams.receive()


def write(datagrams: Datagrams, number: int, answer: bytes) -> None:
    """An answer over its question."""
    start = number * SLOT + PACKET
    datagrams.octets[start : start + len(answer)] = answer
    datagrams.leaving[number] = len(answer)


def source(datagrams: Datagrams, number: int) -> bytes:
    return datagrams.octets[number * SLOT : number * SLOT + NAME]


def ask(kind: type[Batched | Single], door_host: str, asked: str) -> list[str | None]:
    """Who the door says asks, and what the client heard: an answer in place, and one sent later."""
    with bound(door_host) as door, client_of(door, asked) as client:
        datagrams = kind(door)
        client.send(b"question")
        receive(datagrams, door)
        origin = datagrams.origin(0)
        host = datagrams.host(origin)
        write(datagrams, 0, b"in place")
        lost = datagrams.answer(0, 1) + datagrams.send([(b"later", origin)])
        got = [None if lost else (heard(client) or b"nothing").decode() for _ in range(2)]
        return [host, *got]


if __name__ == "__main__":
    print(
        json.dumps([[kind.__name__, asked, *ask(kind, sys.argv[1], asked)] for kind in KINDS for asked in sys.argv[2:]])
    )
