"""The mesh in somebody else's twisted.names server: the stock server and client, over a real socket."""

import time
from typing import Any

from twisted.internet import reactor
from twisted.names import client, dns, error, server
from twisted.names.common import ResolverBase
from twisted.trial.unittest import TestCase

from meshdns.agent.iresolver import MeshResolver
from tests.agent.mesh import Mesh


class Elsewhere(ResolverBase):
    """The next resolver of the chain."""

    def _lookup(self, name: bytes, cls: int, type: int, timeout: Any) -> Any:  # noqa: A002
        from twisted.internet.defer import succeed

        return succeed(([dns.RRHeader(name, dns.A, payload=dns.Record_A("192.0.2.1"))], [], []))


class ChainTests(TestCase):
    def setUp(self) -> None:
        mesh = MeshResolver(Mesh().resolver, time.monotonic)
        factory = server.DNSServerFactory(clients=[mesh, Elsewhere()])
        port = reactor.listenUDP(0, dns.DNSDatagramProtocol(factory), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        self.client = client.Resolver(servers=[("127.0.0.1", port.getHost().port)])

    async def test_mesh_names(self) -> None:
        """D6, D12: answers with their CNAME."""
        answers, _, _ = await self.client.lookupAddress("productpage.ns1")
        self.assertEqual([type(record.payload) for record in answers], [dns.Record_CNAME, dns.Record_A])
        self.assertEqual(answers[1].payload.dottedQuad(), "10.4.0.5")

    async def test_unknown_in_the_zone(self) -> None:
        """D9: NXDOMAIN, and the chain is not asked further."""
        with self.assertRaises(error.DNSNameError):
            await self.client.lookupAddress("nosuch.ns1.svc.cluster.local")

    async def test_not_ours(self) -> None:
        """D10: the next resolver answers."""
        answers, _, _ = await self.client.lookupAddress("www.example.org")
        self.assertEqual(answers[0].payload.dottedQuad(), "192.0.2.1")
