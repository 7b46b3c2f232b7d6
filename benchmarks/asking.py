"""Asking a server as a client does, before anything is timed: is it up, is it right, how much was it asked?"""

import socket
import subprocess
import time
from collections.abc import Sequence

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

from benchmarks.processes import CannotMeasure, last_words
from benchmarks.servers import Server

_START = 15.0  # seconds for a server to give its first right answer
_ANSWER = 1.0  # seconds for an answer
_PAUSE = 0.05  # seconds between two looks at a server that starts


def wait_until_up(server: Server, process: subprocess.Popen[bytes], name: str) -> None:
    """Return once the server replies to a query for a name."""
    deadline = time.monotonic() + _START
    log = server.directory / "log"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise CannotMeasure(
                f"{server.name} ended with status {process.returncode} at its start:\n{last_words(log)}"
            )
        if _replies(server, name):
            return
        time.sleep(_PAUSE)
    raise CannotMeasure(f"{server.name} did not answer within {_START:.0f} s of its start:\n{last_words(log)}")


def _replies(server: Server, name: str) -> bool:
    query = dns.message.make_query(name, "A")
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(_PAUSE * 4)
        try:
            client.connect(("127.0.0.1", server.port))
            client.send(query.to_wire())
            reply = client.recv(4096)
        except OSError:
            return False
    if not server.answers:
        return True
    return dns.message.from_wire(reply).rcode() == dns.rcode.NOERROR


def check_answers(server: Server, sample: Sequence[tuple[str, str]]) -> None:
    """Raise unless each name of a sample is answered with its address and nothing else."""
    if not server.answers:
        return
    for name, address in sample:
        query = dns.message.make_query(name, "A")
        try:
            answer = dns.query.udp(query, "127.0.0.1", timeout=_ANSWER, port=server.port)
        except (dns.exception.DNSException, OSError) as error:
            raise CannotMeasure(f"{server.name} does not answer {name}: {error}") from None
        got = [str(record) for rrset in answer.answer for record in rrset if rrset.rdtype == dns.rdatatype.A]
        if answer.rcode() != dns.rcode.NOERROR or got != [address] or len(answer.answer) != 1:
            rcode = dns.rcode.to_text(answer.rcode())
            raise CannotMeasure(f"{server.name} answers {name} wrongly: {rcode}, {got}; right is {address}.")


def times_asked(upstream: Server) -> int:
    """How many queries the upstream has had, by its own count (unbound-control's protocol, on a local socket)."""
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(_ANSWER)
        control.connect(str(upstream.directory / "control"))
        control.sendall(b"UBCT1 stats_noreset\n")
        said = b"".join(iter(lambda: control.recv(65536), b"")).decode()
    counts = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    try:
        return int(counts["total.num.queries"])
    except KeyError:
        raise CannotMeasure(f"The upstream does not say how often it was asked: {said[:200]!r}") from None
