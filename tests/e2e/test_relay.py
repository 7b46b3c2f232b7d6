"""What is not the mesh's: relayed to a real unbound, as if nobody stood in between (rules D4, D5, D18, D20 to D22)."""

import struct
from collections.abc import Iterator
from itertools import count, pairwise, product
from typing import NamedTuple

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from tests.e2e.agent import SERVICE, SERVICE_ADDRESS, Agent
from tests.e2e.stage import PATIENCE, Stage, framed, read_frame
from tests.e2e.upstreams import Authority, Knotd, Named, Reply, Scripted, Unbound

ZONE = "relay.example"
_SIGNATURE = "oTnZ4P3q0b3fYEqFQlJbvVkMVGaVvyv3SvFIcTSVX0sPVTJJXcGIKzJjF5x9SkGzHrV7y2XAhHY4AR1YbHfYlw=="
_SIGNED_BY = f"13 3 300 20300101000000 20200101000000 34505 {ZONE}. {_SIGNATURE}"
_DIGEST = "be74359954660069d5c63d200c39f5603827d7dd02b56f120ee9f3a86764247c"
RECORDS = rf"""
@ SOA ns hostmaster 7 3600 600 86400 60
@ NS ns
ns A 192.0.2.53
a A 192.0.2.1
a A 192.0.2.2
aaaa AAAA 2001:db8::1
mx MX 10 mail
mx MX 20 a
mail A 192.0.2.25
txt TXT "one" "two; three" "\200\"\\"
ptr PTR host
_sip._tcp SRV 1 2 5060 a
naptr NAPTR 100 10 "s" "SIP+D2U" "!^.*$!sip:info@{ZONE}!" _sip._tcp
www CNAME a
old DNAME new
host.new A 192.0.2.9
caa CAA 128 issue "ca.example.net; policy=ev"
svcb SVCB 1 a alpn=h2 port=8443 ipv4hint=192.0.2.1
https HTTPS 1 . alpn=h2,h3 ipv6hint=2001:db8::1 key65400=odd
dnskey DNSKEY 257 3 13 mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ==
sub NS ns.sub
ns.sub A 192.0.2.54
sub DS 370 13 2 {_DIGEST}
signed A 192.0.2.3
signed RRSIG A {_SIGNED_BY}
sigs RRSIG MX {_SIGNED_BY}
_443._tcp TLSA 3 1 1 {_DIGEST}
sshfp SSHFP 4 2 {_DIGEST}
loc LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m
_ftp._tcp URI 10 1 "ftp://ftp.{ZONE}/public"
odd TYPE65280 \# 6 0a0000010203
MiXeD A 192.0.2.77
*.any A 192.0.2.99
"""
BIG = "".join(f'big TXT "{number:03}{"x" * 97}"\n' for number in range(20))  # 2.2 KB, in no datagram of ours
MIDDLE = "".join(f'middle TXT "{number:03}{"y" * 97}"\n' for number in range(7))  # between 512 and 1232 octets
# Twenty types and more, and what is none: an alias followed, a synthesised one, a referral, no data, no name.
QUESTIONS = [
    ("a", "A"), ("aaaa", "AAAA"), ("@", "NS"), ("@", "SOA"), ("mx", "MX"), ("txt", "TXT"), ("ptr", "PTR"),
    ("_sip._tcp", "SRV"), ("naptr", "NAPTR"), ("www", "CNAME"), ("old", "DNAME"), ("caa", "CAA"), ("svcb", "SVCB"),
    ("https", "HTTPS"), ("dnskey", "DNSKEY"), ("sub", "DS"), ("sigs", "RRSIG"), ("_443._tcp", "TLSA"),
    ("sshfp", "SSHFP"), ("loc", "LOC"), ("_ftp._tcp", "URI"), ("odd", "TYPE65280"),
    ("www", "A"), ("host.old", "A"), ("signed", "A"), ("host.sub", "A"), ("a", "AAAA"), ("a", "TYPE65281"), ("no", "A"),
    ("WwW", "A"), ("mixed", "A"), ("a", "ANY"),
]  # fmt: skip


class Way(NamedTuple):
    """How a question is put: EDNS -1 for none."""

    tcp: bool
    edns: int
    dnssec: bool


WAYS = [Way(tcp, *rest) for tcp in (False, True) for rest in ((-1, False), (0, False), (0, True))]
FORTH, BACK = dns.edns.OptionType.make(65001), dns.edns.OptionType.make(65002)  # nobody's options
_FREE_FLAGS = dns.flags.AA | dns.flags.RA


def whole_name(first: str) -> str:
    return ZONE if first == "@" else f"{first}.{ZONE}"


def without_freedoms(message: bytes) -> tuple[int, int, list[int], bytes, bytes]:
    """A message but for what rule D18 lets differ: flags without AA and RA, rcode, counts, question, records without OPT
    and with their TTLs zeroed, byte for byte."""
    parsed = dns.message.from_wire(message)
    _, flags, *counts = struct.unpack_from("!6H", message)
    end = len(message)
    if parsed.opt is not None:
        counts[3] -= 1
        end -= 11 + sum(4 + len(option.to_wire() or b"") for option in parsed.options)
        if message[end : end + 3] != b"\x00\x00\x29":
            raise AssertionError(f"OPT is not the last record of\n{parsed}")
    question = 12 + len(parsed.question[0].name.to_wire() or b"") + 4
    return flags & ~_FREE_FLAGS, parsed.rcode(), counts, message[12:question], without_ttls(message[question:end])


def without_ttls(records: bytes) -> bytes:
    """Records with zeros for TTLs: each is an owner, type, class, TTL, length and RDATA (RFC 1035 section 4.1.3)."""
    found, at = bytearray(records), 0
    while at < len(records):
        while 0 < records[at] < 0xC0:
            at += 1 + records[at]
        at += 2 if records[at] else 1
        found[at + 4 : at + 8] = bytes(4)
        at += 10 + struct.unpack_from("!H", records, at + 8)[0]
    return bytes(found)


class RelayTests(Stage):
    """One agent before one unbound."""

    def setUp(self) -> None:
        super().setUp()
        self.unbound = Unbound.start(self, ZONE, RECORDS + BIG + MIDDLE)
        self.agent = Agent.start(self, servers=[self.unbound.address])

    def differences(self) -> Iterator[str]:
        """Every question in every way, asked of both."""
        for (first, rdtype), way in product(QUESTIONS, WAYS):
            query = dns.message.make_query(
                whole_name(first), rdtype, use_edns=way.edns, want_dnssec=way.dnssec, payload=1232
            ).to_wire()
            direct = self.unbound.exchange(query, tcp=way.tcp)
            relayed = self.agent.exchange(query, tcp=way.tcp)
            yield from self.compared(f"{first} {rdtype} {way}", query, direct, relayed)

    def compared(self, what: str, query: bytes, direct: bytes, relayed: bytes) -> Iterator[str]:
        if relayed[:2] != query[:2]:
            yield f"{what}: the id is not the client's"
        wanted, got = without_freedoms(direct), without_freedoms(relayed)
        if any(rrset.rdtype == dns.rdatatype.DNAME for rrset in dns.message.from_wire(direct).answer):
            # unbound makes a CNAME out of the question as we put it, and that has random case (D20).
            wanted, got = ((*said[:-1], said[-1].lower()) for said in (wanted, got))
        if wanted != got:
            yield f"{what}:\n{dns.message.from_wire(direct)}\nbut relayed\n{dns.message.from_wire(relayed)}"
        answer = dns.message.from_wire(relayed)
        if answer.flags & _FREE_FLAGS != dns.flags.RA:
            yield f"{what}: RA must be set and AA not, in {dns.flags.to_text(answer.flags)}"
        asked = dns.message.from_wire(query)
        if (answer.opt is None) != (asked.opt is None) or answer.ednsflags != asked.ednsflags:
            yield f"{what}: OPT is {answer.opt}, asked was {asked.opt}"

    def test_message_for_message(self) -> None:
        """D18, D4: twenty record types and more arrive as unbound says them, byte for byte behind the header."""
        types = {rdtype for _, rdtype in QUESTIONS}
        self.assertGreaterEqual(len(types - {"ANY", "TYPE65281"}), 20)
        self.assertEqual([], list(self.differences()))
        self.assertEqual([], self.agent.complaints())

    def test_records_are_those_of_the_zone(self) -> None:
        """D18: the comparison compares something: some answers, in plain text."""
        shown = {
            first: [str(record) for rrset in self.agent.ask(whole_name(first), rdtype).answer for record in rrset]
            for first, rdtype in [("odd", "TYPE65280"), ("caa", "CAA"), ("www", "A"), ("naptr", "NAPTR")]
        }
        self.assertEqual(
            {
                "odd": [r"\# 6 0a0000010203"],
                "caa": ['128 issue "ca.example.net; policy=ev"'],
                "www": [f"a.{ZONE}.", "192.0.2.1", "192.0.2.2"],
                "naptr": [f'100 10 "s" "SIP+D2U" "!^.*$!sip:info@{ZONE}!" _sip._tcp.{ZONE}.'],
            },
            shown,
        )
        signed = self.agent.ask(f"signed.{ZONE}", want_dnssec=True).answer
        self.assertTrue(all(290 <= rrset.ttl <= 300 for rrset in signed))
        self.assertEqual([dns.rdatatype.A, dns.rdatatype.RRSIG], [rrset.rdtype for rrset in signed])

    def test_question_case(self) -> None:
        """D4, D20: the question comes back in the case it was asked, whatever case the upstream was asked in."""
        query = dns.message.make_query("wWw.ReLaY.eXaMpLe", "A").to_wire()
        for tcp in (False, True):
            self.assertIn(b"\x03wWw\x05ReLaY\x07eXaMpLe\x00\x00\x01\x00\x01", self.agent.exchange(query, tcp=tcp))

    def test_flags(self) -> None:
        """D29: RD, CD and AD pass as sent; both come back as from unbound itself."""
        for flags in (0, dns.flags.RD, dns.flags.RD | dns.flags.CD, dns.flags.RD | dns.flags.AD):
            query = dns.message.make_query(f"a.{ZONE}", "A")
            query.flags = dns.flags.Flag(flags)
            packet = query.to_wire()
            differences = self.compared(str(flags), packet, self.unbound.exchange(packet), self.agent.exchange(packet))
            self.assertEqual([], list(differences))

    def test_too_long_for_a_datagram(self) -> None:
        """D5, D21: TC=1 and whole records over UDP; over TCP everything, fetched from upstream over TCP."""
        name = f"big.{ZONE}"
        for edns, limit in ((False, 512), (0, 1232)):
            query = dns.message.make_query(name, "TXT", use_edns=edns, payload=4096)
            packet = self.agent.exchange(query.to_wire())
            short = dns.message.from_wire(packet)  # raises where a record is cut in the middle
            self.assertTrue(short.flags & dns.flags.TC)
            self.assertTrue(query.is_response(short))
            self.assertLessEqual(len(packet), limit)
            query_wire = query.to_wire()
            direct, relayed = (each.exchange(query_wire, tcp=True) for each in (self.unbound, self.agent))
            self.assertEqual([], list(self.compared(f"EDNS {edns}", query_wire, direct, relayed)))
            self.assertEqual(20, len(dns.message.from_wire(relayed).answer[0]))

    def test_limit_of_the_client(self) -> None:
        """D5: what fits into 1232 octets goes whole to a client with EDNS, and cut to one without."""
        whole = self.agent.ask(f"middle.{ZONE}", "TXT", use_edns=0, payload=1232)
        self.assertFalse(whole.flags & dns.flags.TC)
        self.assertEqual(7, len(whole.answer))
        cut = self.agent.ask(f"middle.{ZONE}", "TXT")
        self.assertTrue(cut.flags & dns.flags.TC)
        self.assertLess(len(cut.answer), 7)

    def test_one_tcp_connection(self) -> None:
        """D1: mesh and relayed questions on one connection, all sent before the first answer is read."""
        queries = [dns.message.make_query(name, "A") for name in (f"a.{ZONE}", SERVICE, f"no.{ZONE}", f"www.{ZONE}")]
        with self.agent.place.make_socket() as connection:
            connection.settimeout(5)
            connection.connect(("127.0.0.1", self.agent.port))
            connection.sendall(b"".join(framed(query.to_wire()) for query in queries))
            answers = [dns.message.from_wire(read_frame(connection)) for _ in queries]
        by_id = {answer.id: answer for answer in answers}
        self.assertEqual([query.id for query in queries if not query.is_response(by_id[query.id])], [])
        self.assertEqual(3, by_id[queries[2].id].rcode())


def answer_with(query: dns.message.Message, address: str) -> dns.message.Message:
    """A response with one A record."""
    answer = dns.message.make_response(query)
    answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", address))
    return answer


def failing(rcode: dns.rcode.Rcode) -> Reply:
    def fail(query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        answer.set_rcode(rcode)
        return answer

    return fail


class ScriptedUpstreamTests(Stage):
    """What only an upstream that obeys the test can show."""

    def test_options_pass(self) -> None:
        """D18: EDNS options that we do not know go to the upstream and come back from it; so do EDE codes."""

        def reply(query: dns.message.Message) -> dns.message.Message:
            answer = answer_with(query, "192.0.2.1")
            answer.use_edns(0, 0, 4096, options=[
                dns.edns.GenericOption(BACK, b"back"), dns.edns.EDEOption(dns.edns.EDECode.PROHIBITED, "")])  # fmt: skip
            return answer

        upstream = Scripted(self, reply)
        agent = Agent.start(self, servers=[upstream.address])
        option = dns.edns.GenericOption(FORTH, b"\x00\x01forth")
        answer = agent.ask("x.example.org", use_edns=0, payload=1400, options=[option])
        self.assertEqual([(FORTH, b"\x00\x01forth")], [(o.otype, o.to_wire()) for o in upstream.asked[0].options])
        self.assertEqual([BACK, dns.edns.EDE], [option.otype for option in answer.options])
        self.assertEqual(1232, answer.payload)

    def test_fresh_id_and_port(self) -> None:
        """D20: upstream sees neither the client's id nor a row of ids, and each question comes from another port."""
        upstream = Scripted(self, lambda query: answer_with(query, "192.0.2.1"))
        agent = Agent.start(self, servers=[upstream.address])
        for number in range(50):
            query = dns.message.make_query(f"x{number}.example.org", "A", id=7)
            self.assertTrue(query.is_response(dns.message.from_wire(agent.exchange(query.to_wire()))))
        ids = [message.id for message in upstream.asked]
        self.assertGreater(len(set(ids)), 45)
        self.assertLess(ids.count(7), 3)
        self.assertLess(sum(later - earlier == 1 for earlier, later in pairwise(ids)), 3)
        self.assertGreater(len(set(upstream.ports)), 25)

    def next_server(self, reply: Reply) -> None:
        """The first server fails so, the second knows; the client sees nothing of it."""
        bad = Scripted(self, reply)
        good = Scripted(self, lambda query: answer_with(query, "192.0.2.2"), latency=0.01)
        agent = Agent.start(
            self, upstream={"servers": [bad.address, good.address], "timeout": "300ms", "deadline": "3s"}
        )
        names = [f"x{number}.example.org" for number in range(20)]
        self.assertEqual([["192.0.2.2"]] * 20, [agent.addresses(name) for name in names])
        self.assertTrue(bad.asked)
        self.assertTrue(set(bad.names()) <= set(names))
        self.assertEqual([], agent.complaints())

    def test_servfail(self) -> None:
        """D21: SERVFAIL: the next server."""
        self.next_server(failing(dns.rcode.SERVFAIL))

    def test_refused(self) -> None:
        """D21: REFUSED: the next server."""
        self.next_server(failing(dns.rcode.REFUSED))

    def test_notimp(self) -> None:
        """D21: NOTIMP: the next server."""
        self.next_server(failing(dns.rcode.NOTIMP))

    def test_silence(self) -> None:
        """D21: a timeout: the next server."""
        self.next_server(lambda query: None)

    def test_garbage(self) -> None:
        """D24: garbage is no answer."""
        self.next_server(lambda query: query.to_wire()[:2] + b"\xff" * 7)

    def test_all_fail(self) -> None:
        """D21: all fail: SERVFAIL with an EDE, within the deadline; and mesh names are answered as ever."""
        upstream = Scripted(self, lambda query: None)
        agent = Agent.start(self, upstream={"servers": [upstream.address], "timeout": "300ms", "deadline": "1s"})
        answer = agent.ask("x.example.org", use_edns=0, payload=1232, wait=3)
        self.assertEqual(dns.rcode.SERVFAIL, answer.rcode())
        self.assertIn(answer.options[0].otype, [dns.edns.EDE])
        self.assertIn(answer.options[0].code, [22, 23])
        self.assertEqual([SERVICE_ADDRESS], agent.addresses(SERVICE))


class AwayAndBack:
    """Real servers that end. No name is asked twice, so no cache has part in it."""

    kind: type[Authority]

    def setUp(self) -> None:
        super().setUp()
        self.unasked = (f"n{number}.any.{ZONE}" for number in count())

    def end(self, server: Authority) -> None:
        server.process.terminate()
        server.process.wait(timeout=PATIENCE)

    def test_upstream_restarts(self) -> None:
        """D21: with the only upstream gone names outside fail, mesh names do not; it is used again when it is back."""
        server = self.kind.start(self, ZONE, RECORDS)
        agent = Agent.start(self, upstream={"servers": [server.address], "timeout": "300ms", "deadline": "1s"})
        self.assertEqual(["192.0.2.99"], agent.addresses(next(self.unasked)))
        self.end(server)
        for _ in range(5):
            self.assertEqual(dns.rcode.SERVFAIL, agent.ask(next(self.unasked)).rcode())
            self.assertEqual([SERVICE_ADDRESS], agent.addresses(SERVICE))
        self.kind.start(self, ZONE, RECORDS, port=server.port)
        agent.await_true("an answer from upstream", lambda: not agent.ask(next(self.unasked)).rcode(), patience=10)
        self.assertEqual([], agent.complaints())

    def test_second_takes_over(self) -> None:
        """D21: of two real servers one ends, and nobody waits long for it."""
        pair = [self.kind.start(self, ZONE, RECORDS) for _ in range(2)]
        agent = Agent.start(self, servers=[server.address for server in pair])
        self.assertEqual(["192.0.2.99"], agent.addresses(next(self.unasked)))
        self.end(pair[0])
        for _ in range(30):
            self.assertEqual(["192.0.2.99"], agent.addresses(next(self.unasked), wait=2))


class UnboundAwayAndBackTests(AwayAndBack, Stage):
    kind = Unbound


class NamedAwayAndBackTests(AwayAndBack, Stage):
    kind = Named


class KnotdAwayAndBackTests(AwayAndBack, Stage):
    kind = Knotd
