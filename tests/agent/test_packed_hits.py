"""Answers out of the cache, given again as bytes for as long as their TTLs stand (rules D25, D27)."""

import math

import attrs
import dns.edns
import dns.message
import dns.rrset
from twisted.trial.unittest import SynchronousTestCase

from meshdns.agent.ledger import Ledger
from tests.agent.mesh import HOSTS, Mesh

OUTSIDE = "www.example.org."
TTL = 300


def said(query: dns.message.Message) -> dns.message.Message:
    reply = dns.message.make_response(query)
    name = query.question[0].name
    if name.to_text().lower() == "into.example.org.":
        reply.answer.append(dns.rrset.from_text(name, TTL, "IN", "CNAME", "productpage.ns1.svc.cluster.local."))
    elif name.to_text() == "toward.example.org.":
        reply.answer.append(dns.rrset.from_text(name, TTL, "IN", "CNAME", "later.example.com."))
        reply.answer.append(dns.rrset.from_text("later.example.com.", TTL, "IN", "A", "192.0.2.2"))
    else:
        reply.answer.append(dns.rrset.from_text(name, TTL, "IN", "A", "192.0.2.1"))
    return reply


class PackedHitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.mesh = Mesh(reply=said)
        self.ledger = Ledger(self.mesh.resolver.packs.datagrams)

    def packet(self, name: str = OUTSIDE, number: int = 7, **options: object) -> bytes:
        query = dns.message.make_query(name, "A", **options)  # type: ignore[arg-type]
        query.id = number
        return query.to_wire()

    def ordinary(self, packet: bytes, *, tcp: bool = False) -> bytes:
        """The answer that the resolver gives."""
        (answered,) = self.mesh.packet(packet, tcp=tcp)
        return answered.message

    def door(self, packet: bytes) -> tuple[bytes, bool]:
        """The answer that the UDP door gives, and whether from a pack."""
        known = self.mesh.resolver.packs.datagrams.known.get(packet[2:])
        if known is None or self.mesh.now >= known.until:
            return self.ordinary(packet), False
        known.hits += 1
        return packet[:2] + (known.tail or known.next_tail()), True

    def is_packed(self, packet: bytes, *, tcp: bool = False) -> bool:
        """Whether it is after a miss and a hit."""
        for _ in range(2):
            self.ordinary(packet, tcp=tcp)
            self.mesh.clock.advance(0.01)
        return packet[2:] in self.mesh.resolver.packs.datagrams.known

    def test_hits_are_packed(self) -> None:
        self.ordinary(self.packet())
        self.assertEqual({}, self.mesh.resolver.packs.datagrams.known)  # that was the upstream's word
        self.assertTrue(self.is_packed(self.packet()))
        self.assertTrue(self.is_packed(self.packet("mail.example.org.", use_edns=0)))

    def test_never_otherwise(self) -> None:
        """D8, D24: what hangs on more than one word, or on the client alone, takes the ordinary way."""
        cookie = [dns.edns.GenericOption(10, b"12345678")]
        self.assertFalse(self.is_packed(self.packet(options=cookie)))
        self.assertFalse(self.is_packed(self.packet("tcp.example.org."), tcp=True))
        self.assertFalse(self.is_packed(self.packet("into.example.org.")))
        self.assertFalse(self.is_packed(self.packet("www.example.org.ns1.svc.cluster.local.")))

    def test_same_as_ordinary(self) -> None:
        """D18, D25: byte for byte, and no TTL above what is left, at any time of its life."""
        began, packed = self.mesh.now, 0
        for step in range(1200):
            packet = self.packet(number=step)
            message, was_packed = self.door(packet)
            packed += was_packed
            if was_packed:
                self.assertEqual(message, self.ordinary(packet))
            ttl = dns.message.from_wire(message).answer[0].ttl
            if self.mesh.now - began > TTL * 0.9 and ttl > TTL * 0.9:
                began = self.mesh.now - 0.25  # the question before set off a prefetch
            left = TTL - (self.mesh.now - began)
            self.assertTrue(left - 1 <= ttl <= left, (ttl, left))
            self.mesh.clock.advance(0.25)
        self.assertGreater(packed, 500)

    def test_prefetch(self) -> None:
        """D27: who is asked for through packs is found popular; who was asked for once is not."""
        while self.mesh.now < TTL * 0.95:
            self.door(self.packet())
            self.mesh.clock.advance(0.3)
        self.assertEqual(2, len(self.mesh.asked))
        self.assertEqual(1, self.mesh.lookups.cache.prefetches)

    def test_forgotten(self) -> None:
        """D28: a new table or another place counts from the very next packet on."""
        self.assertTrue(self.is_packed(self.packet()))
        self.mesh.adopt([{"host": "www.example.org", "ips": ["10.4.0.9"], "registry": "External"}])
        self.assertIn("10.4.0.9", dns.message.from_wire(self.door(self.packet())[0]).answer[0].to_text())
        self.assertTrue(self.is_packed(self.packet("mail.example.org.")))
        self.mesh.resolver.move(attrs.evolve(self.mesh.resolver.place, namespace="ns2"))
        self.assertEqual({}, self.mesh.resolver.packs.datagrams.known)

    def test_forgotten_by_a_delta(self) -> None:
        """D24, D28: a change of one host leaves the answers of other names, but not those of aliases that may lead to it."""
        self.assertTrue(self.is_packed(self.packet()))
        self.assertTrue(self.is_packed(self.packet("toward.example.org.")))
        later = {"host": "later.example.com", "ips": ["10.4.0.9"], "registry": "External"}
        self.mesh.adopt_delta([*HOSTS, later])
        self.assertTrue(self.door(self.packet())[1])
        message, was_packed = self.door(self.packet("toward.example.org."))
        self.assertFalse(was_packed)
        self.assertIn("10.4.0.9", dns.message.from_wire(message).to_text())

    def test_counted(self) -> None:
        """Each under source cache, also those of packs that others took the place of."""
        given = 0
        for _ in range(40):
            given += self.door(self.packet())[1]
            self.mesh.clock.advance(0.1)
        self.assertGreater(given, 30)
        self.assertEqual(given, self.ledger.queries()["udp", "A", "NOERROR", "cache"])
        self.assertEqual(given, self.mesh.resolver.packs.datagrams.cache_hits)
        self.assertEqual(40, given + self.mesh.lookups.cache.hits + self.mesh.lookups.cache.misses)

    def test_stale(self) -> None:
        """D26: a stale answer is never packed, so that whoever asks sets off a refresh."""
        self.assertTrue(self.is_packed(self.packet()))
        self.mesh.reply = None
        self.mesh.clock.advance(TTL + 1)
        known = self.mesh.resolver.packs.datagrams.known[self.packet()[2:]]
        self.assertGreaterEqual(self.mesh.now, known.until)
        self.assertEqual([], self.mesh.packet(self.packet()))
        self.mesh.clock.advance(5)
        self.assertLess(known.until, math.inf)
        self.assertIs(known, self.mesh.resolver.packs.datagrams.known[self.packet()[2:]])
