"""What upstreams say to a cache, and what comes out of it, read by dnspython: so it is judged by another's code."""

import struct
from collections.abc import Sequence
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from twisted.trial.unittest import SynchronousTestCase

from meshdns import names, wire
from meshdns.agent.cache import Cache, Hit, Kept
from meshdns.agent.lifetimes import Limits
from meshdns.agent.steps import Failed
from meshdns.wire import RD, Ask

A = "www.example.net. 60 A 192.0.2.1"
CNAME = "www.example.net. 60 CNAME there.example.org."
SOA = "example.net. 900 SOA ns.example.net. root.example.net. 1 7200 1800 86400 120"
NXDOMAIN = {"authority": [SOA], "rcode": "NXDOMAIN"}
TIMEOUT = Failed("timeout", 22, "192.0.2.53:53 gave no answer in time")
_EVERY_OTHER = int.from_bytes(b"\x20\x00" * 128)
COOKIE = dns.edns.GenericOption(10, b"12345678")


def ask(name: str = "www.example.net", rdtype: str = "A", flags: int = RD, options: bytes = b"") -> Ask:
    return Ask(names.parse(name) + struct.pack("!2H", wire.parse_type(rdtype), 1), flags, options)


def reply(asked: Ask, *answer: str, rcode: str = "NOERROR", flags: int = 0, **sections: Sequence[Any]) -> bytes:
    """What an upstream says, with the case of the question flipped; sections are lines, `options` those of an OPT."""
    rdtype = dns.rdatatype.RdataType(int.from_bytes(asked.question[-4:-2]))
    message = dns.message.make_response(dns.message.make_query(names.text(asked.question[:-4]), rdtype))
    message.set_rcode(dns.rcode.from_text(rcode))
    message.flags |= flags
    for section, lines in {"answer": answer, **sections}.items():
        for line in lines if section != "options" else ():
            owner, ttl, kind, rdata = line.split(" ", 3)
            getattr(message, section).append(dns.rrset.from_text(owner, int(ttl), "IN", kind, rdata))
    if "options" in sections:
        message.use_edns(0, 0, 1232, options=list(sections["options"]))
    data = message.to_wire()
    end = 12 + len(asked.question)
    return b"\xab\xcd" + data[2:12] + wire.flip_case(data[12:end], _EVERY_OTHER) + data[end:]


def parsed(message: bytes) -> dns.message.Message:
    return dns.message.from_wire(message, one_rr_per_rrset=True)


def ttls(found: Hit | Failed | None) -> list[int]:
    """Of every record, in order; dnspython keeps OPT apart."""
    assert isinstance(found, Hit), found
    message = parsed(found.message)
    return [rrset.ttl for section in message.sections[1:] for rrset in section]


def is_hit(found: Hit | Failed | None, *, stale: bool = False, refresh: bool = False) -> bool:
    return isinstance(found, Hit) and (found.stale, found.refresh) == (stale, refresh)


class CacheCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.cache = Cache(Limits())

    def put(self, asked: Ask, *answer: str, at: float = 0.0, **said: Any) -> bool:
        message = reply(asked, *answer, **said)
        self.cache.put(asked, message, wire.body(message), at)
        return self.has(asked, at)

    def has(self, asked: Ask, at: float) -> bool:
        """Whether there is an answer, for which nothing is counted."""
        return isinstance(self.cache.glance(asked, at), Kept)

    def ages(self, asked: Ask, *times: float) -> list[list[int] | None]:
        """The TTLs of the fresh answers at these times, None where there is none."""
        found = [self.cache.look_up(asked, time) for time in times]
        return [ttls(each) if isinstance(each, Hit) and not each.stale else None for each in found]
