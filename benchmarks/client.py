"""A client that looks names up as glibc's getaddrinfo does: along the search list, A and AAAA at once, one after the other."""

import socket
from collections.abc import Sequence

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from benchmarks.processes import CannotMeasure

_TYPES = (dns.rdatatype.A, dns.rdatatype.AAAA)
_ANSWER = 5.0  # seconds for an answer; glibc's own timeout
_FOUND_OR_NOT = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)


def candidates(name: str, search: Sequence[str], ndots: int) -> list[str]:
    """The full names to try, in order (resolv.conf(5)). A final dot says that there is only the name itself."""
    if name.endswith("."):
        return [name[:-1]]
    expanded = [f"{name}.{domain}" for domain in search]
    return [name, *expanded] if name.count(".") >= ndots else [*expanded, name]


class Client:
    """One resolver of an application. It keeps nothing, and counts what it sends."""

    def __init__(self, server: str, port: int, search: Sequence[str], ndots: int) -> None:
        """`server` is what complaints call it; it is at a port of 127.0.0.1."""
        self.sent = 0
        self._server = server
        self._search = search
        self._ndots = ndots
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.settimeout(_ANSWER)
        self._socket.connect(("127.0.0.1", port))

    def close(self) -> None:
        self._socket.close()

    def look_up(self, name: str) -> frozenset[str]:
        """The addresses of the first candidate that has any; none when nothing has."""
        for candidate in candidates(name, self._search, self._ndots):
            if found := self._addresses(candidate):
                return found
        return frozenset()

    def _addresses(self, name: str) -> frozenset[str]:
        """Both questions go out before either answer is waited for."""
        asked = {}
        for qtype in _TYPES:
            self.sent += 1
            asked[self.sent & 0xFFFF] = qtype
            self._socket.send(query(self.sent & 0xFFFF, name, qtype))
        found: set[str] = set()
        while asked:
            reply = self._receive(name)
            answered = asked.pop(int.from_bytes(reply[:2]), None)
            if answered is not None:
                found |= self._read(reply, name, answered)
        return frozenset(found)

    def _receive(self, name: str) -> bytes:
        try:
            return self._socket.recv(4096)
        except OSError as error:
            raise CannotMeasure(f"{self._server} does not answer {name}: {error}") from None

    def _read(self, reply: bytes, name: str, qtype: dns.rdatatype.RdataType) -> set[str]:
        rcode = reply[3] & 0x0F
        if rcode not in _FOUND_OR_NOT:
            raise CannotMeasure(f"{self._server} answers {name} with {dns.rcode.to_text(dns.rcode.Rcode(rcode))}.")
        return addresses(reply, qtype) if reply[6:8] != b"\0\0" else set()


def query(query_id: int, name: str, qtype: int) -> bytes:
    """A question as glibc sends it: RD, no EDNS."""
    labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b"."))
    return query_id.to_bytes(2) + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0" + qtype.to_bytes(2) + b"\0\1"


def addresses(reply: bytes, qtype: dns.rdatatype.RdataType) -> set[str]:
    """All addresses of a type in an answer, behind whatever aliases."""
    try:
        answer = dns.message.from_wire(reply).answer
    except dns.exception.DNSException as error:
        raise CannotMeasure(f"An answer cannot be read: {error}") from None
    return {str(record) for rrset in answer if rrset.rdtype == qtype for record in rrset}
