"""Facts of a resolver on the test mesh, for those who look into an agent, and an upstream that knows a few records."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import dns.message
import dns.rrset
from dns.rdatatype import CNAME

from meshdns.agent.facts import Facts
from meshdns.agent.ledger import Ledger
from tests.agent.mesh import Mesh, nothing


@attrs.define
class Source:
    """A table source as TableFile looks from outside."""

    updates: int = 1
    failures: int = 0
    last_change: float | None = 100.0
    confirmed: float | None = 100.0
    trouble: str = ""
    polls: dict[str, int] = attrs.field(factory=dict)

    def start(self) -> None: ...
    def stop(self) -> None: ...


def server(label: str = "10.0.0.53:53", state: str = "up", **changes: Any) -> dict[str, Any]:
    """One upstream server as Upstream.status() has it."""
    return {
        "server": label,
        "state": state,
        "latency": 0.0021,
        "requests": {"ok": 5, "nxdomain": 0, "timeout": 2},
        "answers": 5,
        "seconds": 0.0105,
        **changes,
    }


@attrs.define
class Servers:
    """The upstream side as Upstream looks from outside."""

    held: Sequence[Mapping[str, Any]] = attrs.field(factory=lambda: [server()])
    inflight: int = 0
    joined: int = 3
    shed: int = 1
    dropped: Mapping[str, int] = attrs.field(factory=lambda: {"question": 2})

    def status(self) -> Sequence[Mapping[str, Any]]:
        return self.held


def facts_of(mesh: Mesh, *, now: float = 112.0, **changes: Any) -> Facts:
    """Facts at a time of the clock that stands still."""
    given: dict[str, Any] = {
        "resolver": mesh.resolver,
        "ledger": Ledger(mesh.resolver.packs.datagrams),
        "upstream": Servers(),
        "table": Source(),
        "clock": lambda: now,
        "started": 10.0,
        "config": "/etc/meshdns/agent.yaml",
        "table_source": "file /etc/meshdns/nametable.jsonl",
    }
    return Facts(**{**given, **changes})


def zone(*lines: str) -> Callable[[dns.message.Message], dns.message.Message]:
    """An upstream that knows these records, and of each name only the types that stand here."""
    rrsets = [
        dns.rrset.from_text(owner, 60, "IN", *rest.split(None, 1)) for owner, rest in (s.split(None, 1) for s in lines)
    ]

    def reply(query: dns.message.Message) -> dns.message.Message:
        name, rdtype = query.question[0].name, query.question[0].rdtype
        if all(rrset.name != name for rrset in rrsets):
            return nothing(query)
        message = dns.message.make_response(query)
        while chosen := [rrset for rrset in rrsets if rrset.name == name and rrset.rdtype in (rdtype, CNAME)]:
            message.answer += chosen
            if chosen[0].rdtype != CNAME:
                return message
            name = chosen[0][0].target
        message.authority += nothing(query).authority
        return message

    return reply
