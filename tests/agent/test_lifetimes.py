"""What is kept of what upstreams say, for how long, and its bytes as they grow older (D25)."""

import struct

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from meshdns import messages, wire
from meshdns.agent.cache import Hit
from meshdns.agent.lifetimes import Limits
from meshdns.wire import CD, DO, RD
from tests.agent.saying import CNAME, NXDOMAIN, SOA, TIMEOUT, A, CacheCase, ask, is_hit, parsed, reply


class PositiveTests(CacheCase):
    """D25: for the smallest TTL, counting down."""

    def test_counts_down(self) -> None:
        """D25: TTLs count down, in whole seconds, none above what is really left, none below 0."""
        self.put(ask(), A, authority=["example.net. 3600 NS ns.example.net."], at=100.0)
        self.assertEqual([[60, 3600], [59, 3599], [59, 3599], [58, 3598]], self.ages(ask(), 100.0, 100.2, 101.0, 101.1))
        self.assertEqual([[0, 3540], None], self.ages(ask(), 159.9, 160.0))

    def test_repeated_hit_is_one_look_up(self) -> None:
        """D25: within a second the same object is handed out, so that a hot name costs no more than finding it."""
        self.put(ask(), A)
        self.assertIs(self.cache.look_up(ask(), 7.1), self.cache.look_up(ask(), 7.9))

    def test_smallest_of_all_sections(self) -> None:
        """D25: whichever section the smallest TTL stands in; OPT has none, though its flags stand at that place."""
        for section in ("answer", "authority", "additional"):
            lines = {"answer": [A], "authority": ["net. 70 NS ns.net."], "additional": ["ns.net. 80 A 192.0.2.2"]}
            lines[section] = [lines[section][0], "x.example.net. 9 NS ns.net."]
            self.put(ask(), **lines, options=[dns.edns.EDEOption(18)])
            self.assertEqual([False, True], [each is None for each in self.ages(ask(), 8.9, 9.0)], section)

    def test_max_ttl(self) -> None:
        """D25: clamped to max_ttl, and from then on the client sees no more than that."""
        self.put(ask(), "www.example.net. 86400 A 192.0.2.1")
        self.assertEqual([[3600], [1], None], self.ages(ask(), 0.0, 3599.0, 3600.0))

    def test_fraction(self) -> None:
        """D25: a limit need not be of whole seconds."""
        self.cache.use(Limits(max_ttl=2.5))
        self.put(ask(), A)
        self.assertEqual([[2], [0], None], self.ages(ask(), 0.0, 2.2, 2.6))

    def test_min_ttl(self) -> None:
        """D25: kept for min_ttl at least, also where the TTL is 0; yet the TTL that goes out is never above what came."""
        self.cache.use(Limits(min_ttl=10.0))
        for ttl in (3, 0):
            self.put(ask(), f"www.example.net. {ttl} A 192.0.2.1")
            self.assertEqual([[ttl], [0], [0], None], self.ages(ask(), 0.0, 3.0, 9.9, 10.0))

    def test_top_bit(self) -> None:
        """D25, RFC 8767 section 4: a TTL with its top bit set is a large one, not 0."""
        message = bytearray(reply(ask(), A))
        body = wire.body(message)
        struct.pack_into("!I", message, body.fixed[0] + 4, 0x80000000)
        self.cache.put(ask(), bytes(message), body, 0.0)
        self.assertTrue(self.has(ask(), 0.0))
        self.assertEqual([[3600], [1], None], self.ages(ask(), 0.0, 3599.0, 3600.0))

    def test_zero(self) -> None:
        """D25: TTL 0 is for this once; it outdates what was kept before, and a failure as well."""
        self.put(ask(), A)
        self.cache.failed(ask("other.example.net"), TIMEOUT, 1.0)
        for name in ("www.example.net", "other.example.net"):
            self.assertFalse(self.put(ask(name), f"{name}. 0 A 192.0.2.1", at=2.0))
            self.assertIsNone(self.cache.look_up(ask(name), 2.0))

    def test_newer_answer(self) -> None:
        """D25: the newer answer replaces the older, with its own time."""
        self.put(ask(), A)
        self.put(ask(), "www.example.net. 7 A 192.0.2.2", at=5.0)
        self.assertEqual([[6], None], self.ages(ask(), 6.0, 12.0))

    def test_any(self) -> None:
        """D25: whatever ANY brings is what was asked."""
        self.assertTrue(self.put(ask(rdtype="ANY"), 'www.example.net. 60 TXT "x"'))
        self.assertIsNone(self.cache.look_up(ask(), 1.0))

    def test_clock_steps_back(self) -> None:
        """D25: whatever the clock does, no TTL rises above what came."""
        self.put(ask(), A, at=5000.0)
        self.assertEqual([[50], [50], [49]], self.ages(ask(), 5010.0, 1400.0, 5011.0))


class NegativeTests(CacheCase):
    """D25: NXDOMAIN and NODATA as RFC 2308 says."""

    def test_nxdomain(self) -> None:
        """D25: for the SOA's minimum where that is smaller, and SOA goes out with no more (RFC 2308 section 5)."""
        self.put(ask(), **NXDOMAIN)
        self.assertEqual([[120], [119], None], self.ages(ask(), 0.0, 1.0, 120.0))
        self.assertEqual(dns.rcode.NXDOMAIN, parsed(self.cache.look_up(ask(), 121.0).message).rcode())  # type: ignore[union-attr]

    def test_soa_ttl(self) -> None:
        """D25: for the SOA's own TTL where that is smaller."""
        self.put(ask(), authority=[SOA.replace("900", "50")], rcode="NXDOMAIN")
        self.assertEqual([[50], None], self.ages(ask(), 0.0, 50.0))

    def test_at_most(self) -> None:
        """D25: never longer than 5 min, nor than max_ttl."""
        soa = SOA.replace(" 120", " 86400")
        self.put(ask(), authority=[soa], rcode="NXDOMAIN")
        self.assertEqual([[300], [1], None], self.ages(ask(), 0.0, 299.0, 300.0))
        self.cache.use(Limits(max_ttl=20.0))
        self.put(ask(), authority=[soa], rcode="NXDOMAIN")
        self.assertEqual([[20], None], self.ages(ask(), 0.0, 20.0))

    def test_nxdomain_is_of_all_types(self) -> None:
        """D25, RFC 2308 section 5: the name is not there, whatever is asked of it; other names and keys are untouched."""
        self.put(ask(rdtype="A"), **NXDOMAIN)
        for rdtype in ("A", "AAAA", "HTTPS", "ANY"):
            self.assertTrue(is_hit(self.cache.look_up(ask(rdtype=rdtype), 1.0)), rdtype)
        for other in (ask("x.www.example.net"), ask("example.net"), ask(flags=RD | CD), ask(flags=RD | DO)):
            self.assertIsNone(self.cache.look_up(other, 1.0))

    def test_nxdomain_relayed_for_another_type(self) -> None:
        """D25: the question that goes out is the client's own."""
        self.put(ask(rdtype="A"), **NXDOMAIN)
        query = wire.read_query(dns.message.make_query("wWw.example.NET.", "HTTPS", id=99).to_wire())
        assert isinstance(query, wire.Query)
        hit = self.cache.look_up(query.ask, 1.0)
        assert isinstance(hit, Hit)
        message = parsed(messages.relay(query, hit.message, 512, hit.body))
        self.assertEqual(("wWw.example.NET. IN HTTPS", 99), (message.question[0].to_text(), message.id))
        self.assertEqual([119], [rrset.ttl for rrset in message.authority])

    def test_nxdomain_behind_alias(self) -> None:
        """D25, RFC 2308 section 2.1: NXDOMAIN behind a CNAME is of the CNAME's target, so it is kept for this type only."""
        self.put(ask(), CNAME, **NXDOMAIN)
        self.assertEqual([[59, 59]], self.ages(ask(), 1.0))
        self.assertIsNone(self.cache.look_up(ask(rdtype="AAAA"), 1.0))

    def test_nodata(self) -> None:
        """D25: NODATA is of one type."""
        self.put(ask(rdtype="AAAA"), authority=[SOA])
        self.assertEqual([[120], None], self.ages(ask(rdtype="AAAA"), 0.0, 120.0))
        self.assertIsNone(self.cache.look_up(ask(), 1.0))

    def test_nodata_behind_alias(self) -> None:
        """D25, RFC 2308 section 2.2: a chain that does not end in the type is NODATA: for its CNAME's TTL at most, and only
        with SOA; asked for as such, a CNAME is an answer like any other."""
        self.assertFalse(self.put(ask(), CNAME))
        self.assertTrue(self.put(ask(), CNAME, authority=[SOA]))
        self.assertEqual([[59, 59], None], self.ages(ask(), 0.1, 60.0))
        self.assertTrue(self.put(ask(rdtype="CNAME"), CNAME))

    def test_without_soa(self) -> None:
        """D25, RFC 2308 section 5: without SOA nothing is kept, nor what it contradicts; a referral has none either."""
        self.put(ask(), A)
        self.assertFalse(self.put(ask(), rcode="NXDOMAIN", at=1.0))
        self.assertIsNone(self.cache.look_up(ask(), 1.0))
        self.assertFalse(self.put(ask(), authority=["example.net. 60 NS ns.example.net."]))
        self.assertFalse(self.put(ask(), additional=[SOA]))

    def test_zero_minimum(self) -> None:
        """D25: minimum 0 is for this once, as TTL 0 is."""
        self.assertFalse(self.put(ask(), authority=[SOA.replace(" 120", " 0")], rcode="NXDOMAIN"))

    def test_name_comes_into_being(self) -> None:
        """D25: an answer of any type proves an older NXDOMAIN wrong."""
        self.put(ask(rdtype="AAAA"), **NXDOMAIN)
        self.put(ask(rdtype="A"), A, at=1.0)
        self.assertIsNone(self.cache.look_up(ask(rdtype="AAAA"), 2.0))

    def test_fresh_answer_beside_nxdomain(self) -> None:
        """D25, RFC 4074 section 4.2: a server that says NXDOMAIN for want of AAAA does not hide an A still fresh."""
        self.put(ask(rdtype="A"), A)
        self.put(ask(rdtype="AAAA"), **NXDOMAIN, at=1.0)
        self.assertEqual([[58]], self.ages(ask(rdtype="A"), 2.0))
        self.assertEqual([[119]], self.ages(ask(rdtype="AAAA"), 2.0))


class NeverKeptTests(CacheCase):
    """D25: what is no answer to the question is not kept, and takes nothing away either."""

    def refused(self, message: bytes) -> None:
        self.put(ask(), A)
        self.cache.put(ask(), message, wire.body(message), 1.0)
        self.assertEqual([[58]], self.ages(ask(), 2.0))

    def test_truncated(self) -> None:
        self.refused(reply(ask(), "www.example.net. 60 A 192.0.2.9", flags=dns.flags.TC))

    def test_another_question(self) -> None:
        """D25: another name of the same length, another type, another class."""
        self.refused(reply(ask("ftp.example.net"), "ftp.example.net. 60 A 192.0.2.9"))
        self.refused(reply(ask(rdtype="AAAA"), "www.example.net. 60 AAAA ::1"))
        odd = reply(ask(rdtype="TYPE97"), authority=[SOA])  # a small a, and HTTPS a large one
        self.cache.put(ask(rdtype="HTTPS"), odd, wire.body(odd), 0.0)
        self.assertFalse(self.has(ask(rdtype="HTTPS"), 0.0))
        self.refused(reply(ask(), A)[:31] + b"\x03" + reply(ask(), A)[32:])

    def test_failures(self) -> None:
        for rcode in ("SERVFAIL", "REFUSED", "FORMERR", "NOTIMP", "YXDOMAIN"):
            self.refused(reply(ask(), A, rcode=rcode, authority=[SOA]))

    def test_upper_bits_of_rcode(self) -> None:
        """D25: BADVERS looks like NOERROR to who forgets the bits in OPT."""
        message = bytearray(reply(ask(), A, options=[]))
        message[wire.body(message).opt + 5] = 1
        self.refused(bytes(message))

    def test_own_options(self) -> None:
        """D25: an ask with EDNS options (client subnet, cookie) is nobody else's."""
        own = ask(options=b"\x00\x08\x00\x04\x00\x01\x00\x00")
        self.assertFalse(self.put(own, A))
        self.put(ask(), A)
        self.assertIsNone(self.cache.look_up(own, 1.0))
        self.cache.look_up(ask(), 1.2)
        self.assertIsNone(self.cache.look_up(own, 1.4))
        self.cache.failed(own, TIMEOUT, 100.0)
        self.assertIsNone(self.cache.glance(own, 1.0))

    def test_without_rd(self) -> None:
        """D25: what a server says without RD is what it happens to hold. Such asks get what is fresh (RFC 1034 section
        4.3.2), and neither keep nor refresh anything."""
        bare = ask(flags=0)
        self.assertFalse(self.put(bare, A))
        self.put(ask(), A)
        self.assertEqual([[60], [1], None], self.ages(bare, 0.0, 59.0, 60.0))
        self.assertTrue(is_hit(self.cache.look_up(bare, 59.5)))
        self.assertIsNone(self.cache.look_up(bare, 61.0))
        self.assertEqual(0, self.cache.prefetches)
        self.cache.failed(ask("gone.example.net"), TIMEOUT, 0.0)
        self.assertIsNone(self.cache.look_up(ask("gone.example.net", flags=0), 1.0))
