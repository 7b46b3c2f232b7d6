"""The cache: who gets what is kept (D25), expired answers and refreshes (D26), what a table lets go (D28)."""

import struct
from collections.abc import Sequence
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns import messages, names, wire
from meshdns.agent.cache import Cache, Hit, Kept
from meshdns.agent.lifetimes import Limits
from meshdns.agent.steps import Failed
from meshdns.wire import AD, CD, DO, RD, Ask
from tests.agent.saying import COOKIE, NXDOMAIN, SOA, TIMEOUT, A, CacheCase, ask, is_hit, parsed, reply, ttls


class KeyTests(CacheCase):
    """D25: name, type, class, DO and CD; nothing else of one client's shows in another's answer."""

    def test_do_and_cd(self) -> None:
        """D25, CVE-2024-0874: what was asked with CD is not given to those without."""
        variants = [RD, RD | CD, RD | DO, RD | CD | DO]
        for n, flags in enumerate(variants):
            for each in variants[n:]:
                self.assertIsNone(self.cache.look_up(ask(flags=each), 1.0))
            self.put(ask(flags=flags), f"www.example.net. 60 A 192.0.2.{n}")
        for n, flags in enumerate(variants):
            hit = self.cache.look_up(ask(flags=flags), 1.0)
            assert isinstance(hit, Hit)
            self.assertEqual(f"192.0.2.{n}", str(parsed(hit.message).answer[0][0]))

    def test_class(self) -> None:
        self.put(ask(), A)
        self.assertIsNone(self.cache.look_up(Ask(ask().question[:-1] + b"\xff", RD, b""), 1.0))

    def test_authentic_data(self) -> None:
        """D25, RFC 6840 section 5.8: AD goes to those who set AD or DO. Where nobody had asked for it, it is asked anew."""
        cases: list[tuple[int, int, int, bool | None]] = [
            # asked with, the reply's AD, then asked with: its AD, None for a miss
            (AD, AD, AD, True), (AD, AD, 0, False), (AD, 0, AD, False), (AD, 0, 0, False),
            (0, 0, AD, None), (0, 0, 0, False), (0, AD, 0, False), (DO, AD, DO, True), (DO, AD, DO | AD, True),
            (DO, 0, DO, False), (DO | AD, AD, DO, True),
        ]  # fmt: skip
        for first, said, second, expected in cases:
            self.cache.clear()
            self.put(ask(flags=RD | first), A, flags=said)
            for time in (0.5, 0.7, 0.9):  # the same second, so the first is remembered
                hit = self.cache.look_up(ask(flags=RD | second), time)
                seen = bool(parsed(hit.message).flags & dns.flags.AD) if isinstance(hit, Hit) else None
                self.assertEqual(expected, seen, (first, said, second))

    def test_authentic_data_while_upstream_fails(self) -> None:
        """D25: what is fresh goes out without AD rather than not at all."""
        self.put(ask(), A)
        self.assertIsNone(self.cache.look_up(ask(flags=RD | AD), 1.0))
        self.cache.failed(ask(flags=RD | AD), TIMEOUT, 2.0)
        self.assertTrue(is_hit(self.cache.look_up(ask(flags=RD | AD), 3.0)))

    def test_nobodys(self) -> None:
        """D25: nothing of the question that brought it is left: neither its id nor its case."""
        self.put(ask(), A)
        hit = self.cache.look_up(ask(), 0.0)
        assert isinstance(hit, Hit)
        self.assertEqual((b"\x00\x00", ask().question), (hit.message[:2], hit.message[12 : 12 + len(ask().question)]))

    def test_many_dresses(self) -> None:
        """D25: one stored answer, dressed for each client: id, case, OPT, size and CD are the client's own."""
        lines = [f"www.example.net. 60 A 192.0.2.{n}" for n in range(1, 60)]
        self.put(ask(), *lines, options=[COOKIE, dns.edns.EDEOption(18, "prohibited"), COOKIE])
        for number, (name, edns, limit) in enumerate(
            [("WWW.example.net.", False, 512), ("www.EXAMPLE.net.", True, 65535)]
        ):
            client = dns.message.make_query(name, "A", id=number, use_edns=edns)
            query = wire.read_query(client.to_wire())
            assert isinstance(query, wire.Query)
            hit = self.cache.look_up(query.ask, 10.0)
            assert isinstance(hit, Hit)
            message = parsed(messages.relay(query, hit.message, limit, hit.body))
            self.assertEqual((number, name), (message.id, message.question[0].name.to_text()))
            self.assertEqual({name}, {rrset.name.to_text() for rrset in message.answer})
            self.assertEqual((not edns, 59 if edns else 29), (bool(message.flags & dns.flags.TC), len(message.answer)))
            self.assertEqual(
                ["EDE 18 (Prohibited): prohibited"] if edns else [], [o.to_text() for o in message.options]
            )

    def test_opt_not_last(self) -> None:
        """D25: OPT in the middle stays if it says nothing of its own; with a cookie the answer is not kept."""
        for options, kept in ([[], True], [[COOKIE], False]):
            message = bytearray(reply(ask(), A, options=options))
            message[wire.body(message).opt + 7] = 0x80  # DO, where a record has its TTL
            behind = b"\x02ns\xc0\x0c" + struct.pack("!HHIH", wire.A, 1, 50, 4) + b"\xc0\x00\x02\x07"
            moved = bytes(message[:11] + b"\x02" + message[12:] + behind)
            self.cache.put(ask(), moved, wire.body(moved), 0.0)
            self.assertEqual(kept, self.has(ask(), 0.0))
            self.assertEqual([[58, 48] if kept else None], self.ages(ask(), 2.0))
            for time in (3.0, 70.0) if kept else ():
                hit = self.cache.look_up(ask(), time)
                assert isinstance(hit, Hit)
                self.assertEqual(DO, parsed(hit.message).ednsflags)


class FailureTests(CacheCase):
    """D25, RFC 9520: failures for 5 s, never shadowing a good answer."""

    def test_five_seconds(self) -> None:
        self.cache.failed(ask(), TIMEOUT, 0.0)
        self.assertEqual([TIMEOUT, TIMEOUT, None], [self.cache.look_up(ask(), time) for time in (0.0, 4.9, 5.0)])

    def test_is_of_the_question(self) -> None:
        self.cache.failed(ask(), TIMEOUT, 0.0)
        for other in (ask(rdtype="AAAA"), ask("example.net"), ask(flags=RD | CD)):
            self.assertIsNone(self.cache.look_up(other, 1.0))

    def test_good_answer_stays(self) -> None:
        """D25: a failure hides neither a fresh answer nor a stale one; with stale ones not served it is kept."""
        self.put(ask(), A)
        self.cache.failed(ask(), TIMEOUT, 59.0)
        self.assertTrue(is_hit(self.cache.look_up(ask(), 59.5)))
        self.assertTrue(is_hit(self.cache.look_up(ask(), 61.0), stale=True))
        self.cache.use(Limits(serve_stale=0.0))
        self.assertIsNone(self.cache.look_up(ask(), 62.0))
        self.cache.failed(ask(), TIMEOUT, 63.0)
        self.assertEqual(TIMEOUT, self.cache.look_up(ask(), 64.0))

    def test_good_answer_comes(self) -> None:
        self.cache.failed(ask(), TIMEOUT, 0.0)
        self.put(ask(), A, at=1.0)
        self.assertTrue(is_hit(self.cache.look_up(ask(), 1.0)))
        self.cache.forget(names.ROOT)
        self.assertIsNone(self.cache.look_up(ask(), 2.0))

    def test_own_business(self) -> None:
        """D25: too many questions, no servers and our own end say nothing of the question."""
        for reason in ("shed", "none", "stopped"):
            self.cache.failed(ask(), Failed(reason, 22, ""), 0.0)
            self.assertIsNone(self.cache.look_up(ask(), 0.0))

    def test_recovered(self) -> None:
        """D21, D25: when a server is back, failures are forgotten at once."""
        self.cache.failed(ask(), TIMEOUT, 0.0)
        self.cache.recovered(1.0)
        self.assertIsNone(self.cache.look_up(ask(), 1.0))
        self.assertEqual((0, 0), (self.cache.entries, self.cache.octets))

    def test_flood(self) -> None:
        """D27: 50,000 failures take a small part of the room, and push out no answer."""
        self.put(ask(), A)
        for n in range(50_000):
            self.cache.failed(ask(f"n{n}.example.org"), TIMEOUT, n * 1e-5)
        self.assertLess(self.cache.octets, Limits().max_bytes / 15)
        self.assertEqual((TIMEOUT, None), tuple(self.cache.look_up(ask(f"n{n}.example.org"), 1.0) for n in (49_999, 0)))
        self.assertTrue(is_hit(self.cache.look_up(ask(), 1.0)))
        self.cache.failed(ask("last.example.org"), TIMEOUT, 10.0)
        self.assertEqual(2, self.cache.entries)


class StaleTests(CacheCase):
    """D26, RFC 8767."""

    def test_held_in_readiness(self) -> None:
        """D26: an expired answer waits for what upstream says: TTL 30 on all records, until serve_stale is over."""
        self.put(ask(), A, authority=["example.net. 3600 NS ns.example.net."])
        for time in (60.0, 61.0, 3659.9):
            hit = self.cache.look_up(ask(), time)
            self.assertTrue(is_hit(hit, stale=True, refresh=True))
            self.assertEqual([30, 30], ttls(hit))
        self.assertIsNone(self.cache.look_up(ask(), 3660.0))
        self.assertEqual((0, 0), (self.cache.entries, self.cache.octets))

    def test_never_above_what_came(self) -> None:
        """D26: a TTL that was smaller than 30 is not raised."""
        self.put(ask(), "www.example.net. 7 A 192.0.2.1")
        self.assertEqual([7], ttls(self.cache.look_up(ask(), 100.0)))

    def test_negative(self) -> None:
        """D26: denials may be stale like anything else."""
        self.put(ask(), **NXDOMAIN)
        hit = self.cache.look_up(ask(rdtype="AAAA"), 121.0)
        self.assertTrue(is_hit(hit, stale=True, refresh=True))
        self.assertEqual([30], ttls(hit))

    def test_off(self) -> None:
        self.cache.use(Limits(serve_stale=0.0))
        self.put(ask(), A)
        self.assertIsNone(self.cache.look_up(ask(), 60.0))

    def test_failed_refresh(self) -> None:
        """D26, RFC 8767 section 5: after a failure it is given at once for 30 s; then one asks, and nobody else waits."""
        self.put(ask(), A)
        self.assertTrue(is_hit(self.cache.look_up(ask(), 70.0), stale=True, refresh=True))
        self.assertTrue(is_hit(self.cache.look_up(ask(), 70.1), stale=True, refresh=True))  # joins it
        self.cache.failed(ask(), TIMEOUT, 72.0)
        for time in (72.0, 80.0, 101.9):
            self.assertTrue(is_hit(self.cache.look_up(ask(), time), stale=True))
        self.assertTrue(is_hit(self.cache.look_up(ask(), 102.0), stale=True, refresh=True))
        self.assertTrue(is_hit(self.cache.look_up(ask(), 102.0), stale=True))
        self.assertTrue(is_hit(self.cache.look_up(ask(), 131.9), stale=True))
        self.put(ask(), A, at=131.95)
        self.assertEqual([[59]], self.ages(ask(), 132.0))

    def test_recovered(self) -> None:
        """D21, D26: when a server is back, the next who asks waits for it again."""
        self.put(ask(), A)
        self.cache.failed(ask(), TIMEOUT, 70.0)
        self.cache.recovered(71.0)
        for time in (71.5, 72.0):
            self.assertTrue(is_hit(self.cache.look_up(ask(), time), stale=True, refresh=True))

    def test_denial_replaces(self) -> None:
        """D26, RFC 8767 section 4: NXDOMAIN and NODATA are answers, so the stale one is not used again."""
        for denial in (NXDOMAIN, {"authority": [SOA]}, {"rcode": "NXDOMAIN"}):
            self.put(ask(), A)
            self.put(ask(), **denial, at=70.0)
            self.cache.failed(ask(), TIMEOUT, 300.0)
            found = self.cache.look_up(ask(), 300.0)
            self.assertFalse(isinstance(found, Hit) and parsed(found.message).answer)

    def test_denial_by_another_type(self) -> None:
        """D26: when AAAA says that the name is gone, a stale A is not used again, but the denial, fresh or stale."""
        self.put(ask(rdtype="A"), A)
        self.put(ask(rdtype="AAAA"), **NXDOMAIN, at=70.0)
        for time in (71.0, 200.0):
            hit = self.cache.look_up(ask(rdtype="A"), time)
            assert isinstance(hit, Hit)
            self.assertEqual((time > 190, []), (hit.stale, parsed(hit.message).answer))


class PrefetchTests(CacheCase):
    """D26: an answer asked at least twice is refreshed in its last 10 %."""

    def asks(self, *times: float, asked: Ask | None = None) -> list[bool]:
        found = [self.cache.look_up(asked or ask(), time) for time in times]
        return [isinstance(each, Hit) and each.refresh and not each.stale for each in found]

    def test_once(self) -> None:
        """D26: the question that brought it and one in its last tenth are two; one refresh is asked for, and no more."""
        self.put(ask(), A)
        self.assertEqual([False, False, True, False, False], self.asks(1.0, 53.9, 54.0, 54.0, 59.0))
        self.assertEqual(1, self.cache.prefetches)

    def test_refreshed_must_earn_it(self) -> None:
        """D26: an answer that a refresh brought has not been asked yet: one question is not enough."""
        self.put(ask(), A)
        self.asks(55.0)
        self.put(ask(), A, at=55.1)
        self.assertEqual([False, True], self.asks(55.1 + 58.1, 55.1 + 58.3))
        self.put(ask(), A, at=114.2)
        self.assertEqual([False, True], self.asks(120.0, 114.2 + 59.0))

    def test_expires_meanwhile(self) -> None:
        """D26: whoever comes after the end while the refresh is under way waits for it: upstream has not failed."""
        self.put(ask(), A)
        self.asks(59.9)
        self.assertTrue(is_hit(self.cache.look_up(ask(), 60.0), stale=True, refresh=True))

    def test_failed(self) -> None:
        """D26: a refresh that failed is tried again after 30 s, within the last tenth or after the end."""
        self.put(ask(), "www.example.net. 1000 A 192.0.2.1")
        self.assertEqual([True], self.asks(900.0))
        self.cache.failed(ask(), TIMEOUT, 902.0)
        self.assertEqual([False, False, True, False], self.asks(902.0, 931.9, 932.0, 990.0))
        self.cache.failed(ask(), TIMEOUT, 999.0)
        self.assertTrue(is_hit(self.cache.look_up(ask(), 1001.0), stale=True))
        self.assertTrue(is_hit(self.cache.look_up(ask(), 1029.0), stale=True, refresh=True))

    def test_begins_in_time(self) -> None:
        """D26: the last tenth begins when it begins, not at the next whole second."""
        self.put(ask(), "www.example.net. 15 A 192.0.2.1")
        self.assertEqual([False, True], self.asks(13.2, 13.6))

    def test_recovered(self) -> None:
        """D21, D26: when a server is back, a refresh that failed is tried again at once."""
        self.put(ask(), A)
        self.asks(55.0)
        self.cache.failed(ask(), TIMEOUT, 56.0)
        self.cache.recovered(57.0)
        self.assertEqual([True], self.asks(58.0))

    def test_short_lives(self) -> None:
        """D26: what lives less than 10 s would be asked anew all the time."""
        self.put(ask(), "www.example.net. 9 A 192.0.2.1")
        self.assertEqual([False, False], self.asks(1.0, 8.9))

    def test_off(self) -> None:
        self.cache.use(Limits(prefetch=False))
        self.put(ask(), A)
        self.assertEqual([False, False], self.asks(1.0, 59.0))

    def test_denial(self) -> None:
        """D26: a name that is asked for in vain is as popular as any."""
        self.put(ask(), **NXDOMAIN)
        self.assertEqual([False, True], self.asks(1.0, 110.0, asked=ask(rdtype="AAAA")))


class TableTests(CacheCase):
    """D28: a new table may let go of what was said of its names."""

    def test_forget(self) -> None:
        for name in ("corp.example.com", "a.corp.example.com", "xcorp.example.com", "example.com"):
            self.put(ask(name), f"{name}. 60 A 192.0.2.1")
            self.put(ask(f"no.{name}", "AAAA", RD | DO), **NXDOMAIN)
        self.cache.failed(ask("b.corp.example.com"), TIMEOUT, 0.0)
        self.assertEqual(5, self.cache.forget(names.parse("corp.example.com")))
        self.assertIsNone(self.cache.look_up(ask("a.corp.example.com"), 1.0))
        self.assertTrue(is_hit(self.cache.look_up(ask("xcorp.example.com"), 1.0)))
        self.put(ask(r"z\004corp\007example\003com\000.org"), "x. 60 A 192.0.2.1")  # one label that looks like the zone
        self.assertEqual(0, self.cache.forget(names.parse("corp.example.com")))
        self.assertEqual(5, self.cache.forget(names.ROOT))
        self.assertEqual((0, 0), (self.cache.entries, self.cache.octets))

    def test_clear(self) -> None:
        self.put(ask(), A)
        self.cache.look_up(ask(), 1.0)
        self.cache.failed(ask("example.org"), TIMEOUT, 1.0)
        self.cache.clear()
        self.assertEqual((0, 0, 1), (self.cache.entries, self.cache.octets, self.cache.hits))
        self.assertIsNone(self.cache.look_up(ask(), 1.0))


class CounterTests(CacheCase):
    def test_counters(self) -> None:
        """D25, D26: each look-up counts as one of hit, stale or miss; a glance counts nothing and moves nothing."""
        self.put(ask(), A)
        for time in (1.0, 1.0, 1.5, 59.0, 61.0, 5000.0):
            self.cache.look_up(ask(), time)
        self.cache.look_up(ask(options=b"\x00\x03\x00\x00"), 1.0)
        self.cache.failed(ask(), TIMEOUT, 6000.0)
        self.cache.look_up(ask(), 6001.0)
        self.assertEqual((5, 1, 2, 1), (self.cache.hits, self.cache.stale, self.cache.misses, self.cache.prefetches))
        self.assertEqual(TIMEOUT, self.cache.glance(ask(), 6001.0))
        self.put(ask(), A, at=7000.0)
        kept = self.cache.glance(ask(), 7100.0)
        assert isinstance(kept, Kept)
        self.assertEqual((-40.0, 1), (kept.seconds, len(parsed(kept.message).answer)))
        self.assertEqual((5, 1, 2, 1), (self.cache.hits, self.cache.stale, self.cache.misses, self.cache.prefetches))


# The naive model: everything that was ever said, in order, unbounded, read by dnspython.

NAMES = ("a.example.net", "b.example.net", "a.a.example.net")
RRTYPES = ("A", "TXT")
TTLS = st.sampled_from([0, 1, 2, 5, 12, 29, 60, 300, 4000])
PUT = st.tuples(
    st.just("put"), st.sampled_from(NAMES), st.sampled_from(RRTYPES), st.sampled_from([RD, RD | CD, RD | AD]),
    st.sampled_from(["data", "nodata", "nxdomain", "chain", "no-soa", "tc"]), TTLS, TTLS, TTLS,
)  # fmt: skip
GET = st.tuples(
    st.just("get"), st.sampled_from(NAMES), st.sampled_from(RRTYPES), st.sampled_from([RD, RD | CD, RD | AD, 0])
)
FAIL = st.tuples(st.just("fail"), st.sampled_from(NAMES), st.sampled_from(RRTYPES))
PASS = st.tuples(st.just("pass"), st.sampled_from([0.0, 0.3, 0.5, 1.0, 4.0, 11.7, 40.0, 250.0, 3000.0]))
LIMITS = st.builds(
    Limits,
    max_bytes=st.sampled_from([1 << 20, 9000]),
    min_ttl=st.sampled_from([0.0, 3.0]),
    max_ttl=st.sampled_from([50.0, 3600.0]),
    serve_stale=st.sampled_from([0.0, 100.0]),
)


class Said:
    """One reply, and what the contract makes of it."""

    def __init__(self, message: bytes, kind: str, limits: Limits, now: float) -> None:
        self.message, self.at, self.limits = parsed(message), now, limits
        self.records = [rrset for section in self.message.sections[1:] for rrset in section]
        lives = [rrset.ttl for rrset in self.records]
        soas = [rrset[0].minimum for rrset in self.message.authority if rrset.rdtype == dns.rdatatype.SOA]
        if kind == "data":
            self.life = min(max(min(lives), limits.min_ttl), limits.max_ttl)
        else:
            self.life = min([*lives, *soas, 300, limits.max_ttl]) if soas else 0

    def allows(self, hit: Hit, now: float) -> bool:
        """Whether this may be given: the same records, in time, no TTL above what is left of it, 30 when it is stale."""
        got = [rrset for section in parsed(hit.message).sections[1:] for rrset in section]
        age = now - self.at
        in_time = self.life <= age < self.life + self.limits.serve_stale if hit.stale else age < self.life
        left = [min(30, each.ttl) if hit.stale else max(0, each.ttl - age) for each in self.records]
        return in_time and got == self.records and all(each.ttl <= most for each, most in zip(got, left, strict=True))


class Model:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.answers: dict[tuple[str, str, int], Said] = {}
        self.denials: dict[tuple[str, int], Said] = {}

    def put(self, name: str, rdtype: str, flags: int, kind: str, said: Said) -> None:
        key = name, rdtype, flags & CD
        self.answers.pop(key, None)
        self.denials.pop((name, flags & CD), None)
        if said.life > 0 and kind == "nxdomain":
            self.denials[name, flags & CD] = said
        elif said.life > 0:
            self.answers[key] = said

    def get(self, name: str, rdtype: str, flags: int, now: float) -> Said | None:
        answer, denial = self.answers.get((name, rdtype, flags & CD)), self.denials.get((name, flags & CD))
        if answer and now < answer.at + answer.life:
            return answer
        known = [said for said in (denial, answer) if said and now < said.at + said.life + self.limits.serve_stale]
        return known[0] if known else None


class LateTests(SynchronousTestCase):
    def test_denied_meanwhile(self) -> None:
        """D25: an answer worth nothing that is looked at only when the whole name has been denied leaves the denial alone."""
        cache = Cache(Limits())
        gone = reply(ask("a.example.net", "TXT"), 'a.example.net. 0 TXT "x"')
        soa = "example.net. 60 SOA ns.example.net. r.example.net. 1 1 1 1 60"
        denial = reply(ask("a.example.net"), authority=[soa], rcode="NXDOMAIN")
        for what, rdtype in ((gone, "TXT"), (denial, "A")):
            cache.put(ask("a.example.net", rdtype), what, wire.body(what), 1000.0)
        for _ in range(2):
            found = cache.look_up(ask("a.example.net", "TXT"), 1001.0)
            self.assertTrue(isinstance(found, Hit) and found.message[3] & 0x0F == wire.NXDOMAIN, found)


class ModelTests(SynchronousTestCase):
    def said(self, name: str, rdtype: str, kind: str, lives: Sequence[int], number: int) -> bytes:
        first, second, third = lives
        soa = f"example.net. {second} SOA ns.example.net. r.example.net. {number} 1 1 1 {third}"
        data = f"{name}. {first} {rdtype} " + (f"10.0.{number >> 8}.{number & 255}" if rdtype == "A" else f'"{number}"')
        chain = f"{name}. {first} CNAME x{number}.example.org."
        delegation = [f"example.net. {second} NS n{number}.example.net.", f"net. {third} NS ns.net."]
        return {
            "data": lambda: reply(ask(name, rdtype), data, authority=delegation, options=[]),
            "tc": lambda: reply(ask(name, rdtype), data, flags=dns.flags.TC),
            "nodata": lambda: reply(ask(name, rdtype), authority=[soa]),
            "nxdomain": lambda: reply(ask(name, rdtype), authority=[soa], rcode="NXDOMAIN"),
            "chain": lambda: reply(ask(name, rdtype), chain, authority=[soa], rcode="NXDOMAIN"),
            "no-soa": lambda: reply(ask(name, rdtype), authority=delegation),
        }[kind]()

    @settings(max_examples=300, deadline=None)
    @given(LIMITS, st.lists(st.one_of(PUT, GET, GET, FAIL, PASS), min_size=15, max_size=80))
    def test_random(self, limits: Limits, steps: list[tuple[Any, ...]]) -> None:
        """D25, D26, D27: whatever happens, the octets stay bounded, no answer is wrong, late or lives longer than it may, and
        where there is room for all nothing is missing."""
        cache, model, now = Cache(limits), Model(limits), 1000.0
        for number, (what, *rest) in enumerate(steps):
            if what == "pass":
                now += rest[0]
            elif what == "fail":
                cache.failed(ask(*rest), TIMEOUT, now)
            elif what == "put":
                name, rdtype, flags, kind, *lives = rest
                message = self.said(name, rdtype, kind, lives, number)
                cache.put(ask(name, rdtype, flags), message, wire.body(message), now)
                said = Said(message, kind, limits, now)
                if kind != "tc":
                    model.put(name, rdtype, flags, kind, said)
            else:
                name, rdtype, flags = rest
                found, expected = cache.look_up(ask(*rest), now), model.get(name, rdtype, flags, now)
                if isinstance(found, Hit):
                    self.assertTrue(expected and expected.allows(found, now), (found, now))
                elif expected and limits.max_bytes > 9000:
                    # Only where AD is asked for and unknown, or an expired answer not wanted.
                    self.assertTrue(flags & AD or (not flags & RD and now >= expected.at + expected.life), found)
            self.assertLessEqual(cache.octets, limits.max_bytes)
        cache.forget(names.ROOT)
        self.assertEqual((0, 0), (cache.entries, cache.octets))
