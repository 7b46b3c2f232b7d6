"""Outside: the mesh's names as a resolver of twisted.names, for anybody's server to put into its chain.

Names and types enter as twisted.names has them, records leave; a name that is not the mesh's fails with DomainError, at
which a `ResolverChain` asks the next resolver. It must never answer for a name itself.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.names import dns, error
from twisted.names.common import ResolverBase

from meshdns import names, wire
from meshdns.agent.resolver import Answered, Resolver

Records = tuple[list[dns.RRHeader], list[dns.RRHeader], list[dns.RRHeader]]
_ERRORS = {wire.NXDOMAIN: error.AuthoritativeDomainError, wire.SERVFAIL: error.DNSServerError}


class MeshResolver(ResolverBase):
    """An IResolver (twisted.internet.interfaces) of one workload's mesh names."""

    def __init__(self, resolver: Resolver, clock: Callable[[], float]) -> None:
        """`clock` is the monotonic one that the resolver's upstreams go by."""
        super().__init__()
        self._clock = clock
        self._resolver = resolver

    def _lookup(self, name: bytes, cls: int, type: int, timeout: Any) -> Deferred[Records]:  # noqa: A002
        """From ResolverBase: an answer's three sections, or AuthoritativeDomainError, DNSServerError or DomainError."""
        try:
            asked = names.parse(name.decode("ascii"))
        except (names.BadName, UnicodeDecodeError):
            return fail(error.DomainError(name))
        if cls != wire.IN or self._resolver.decide(asked, type).rule == "D10":
            return fail(error.DomainError(name))
        question = asked + type.to_bytes(2, "big") + cls.to_bytes(2, "big")
        answer: Deferred[Answered] = Deferred()
        packet = wire.HEADER.pack(0, wire.RD, 1, 0, 0, 0) + question
        self._resolver.answer(packet, tcp=True, now=self._clock(), done=answer.callback)
        return answer.addCallback(_sections, name)


def _sections(answered: Answered, name: bytes) -> Records:
    if answered.rcode:
        raise _ERRORS.get(answered.rcode, error.DNSServerError)(name)
    message = dns.Message()
    message.fromStr(answered.message)
    return message.answers, message.authority, message.additional
