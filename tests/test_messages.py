"""Answers as bytes: compression and truncation (D5), the echo (D4), what relaying may change (D18)."""

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns import messages, names, wire
from meshdns.messages import Record, Sections
from tests.test_names import NAMES

TYPES_WITH_TEXT = {
    "A": "192.0.2.1", "AAAA": "2001:db8::1", "NS": "ns.example.net.", "CNAME": "Target.example.net.",
    "SOA": "ns.example.net. root.example.net. 1 2 3 4 5", "PTR": "host.example.net.", "MX": "10 mail.example.net.",
    "TXT": '"hello" "world"', "SRV": "0 5 80 Target.example.net.", "NAPTR": '1 2 "s" "SIP+D2U" "" _sip._udp.example.net.',
    "CAA": '0 issue "ca.example.net"', "HTTPS": "1 . alpn=h2 ipv4hint=192.0.2.9", "SVCB": "2 svc.example.net. port=53",
    "TLSA": "3 1 1 " + "ab" * 32, "DS": "1 8 2 " + "cd" * 32, "DNAME": "other.example.net.", "RP": "a.example.net. b.example.net.",
    "AFSDB": "1 afs.example.net.", "SSHFP": "1 1 " + "ef" * 20, "TYPE65280": r"\# 3 010203",
}  # fmt: skip


def asked(name: str = "www.Example.net.", rdtype: str = "A", **options: object) -> wire.Query:
    read = wire.read_query(dns.message.make_query(name, rdtype, **options).to_wire())  # type: ignore[arg-type]
    assert isinstance(read, wire.Query)
    return read


def upstream_reply(
    rdtype: str = "A", count: int = 1, *, opt: bool = True, flags: int = 0, name: str = "www.example.net."
) -> bytes:
    query = dns.message.make_query(name, rdtype, use_edns=opt)
    reply = dns.message.make_response(query, our_payload=4096)
    reply.flags |= dns.flags.AA | dns.flags.AD | flags
    for n in range(count):
        text = TYPES_WITH_TEXT[rdtype] if count == 1 else f"192.0.2.{n + 1}"
        reply.answer.append(dns.rrset.from_text(name, 60, "IN", rdtype, text))
    reply.authority.append(dns.rrset.from_text("example.net.", 60, "IN", "NS", "ns.example.net."))
    if opt:
        reply.use_edns(0, 0, 4096, options=[dns.edns.EDEOption(18, "prohibited")])
    return reply.to_wire()


class RenderTests(SynchronousTestCase):
    def test_echo(self) -> None:
        """D4: question byte for byte, RD and CD as asked, RA set, AA as told."""
        query = asked(flags=dns.flags.CD)
        message = dns.message.from_wire(messages.render(query, Sections(), limit=512, aa=True))
        self.assertEqual(message.flags, dns.flags.QR | dns.flags.CD | dns.flags.RA | dns.flags.AA)
        self.assertEqual(str(message.question[0].name), "www.Example.net.")
        self.assertEqual(message.edns, -1)

    def test_opt_for_opt(self) -> None:
        """D4: a query with OPT gets OPT back: our size 1232, DO echoed, none of its options."""
        query = asked(want_dnssec=True, payload=4096, options=[dns.edns.GenericOption(65001, b"x")])
        message = dns.message.from_wire(messages.render(query, Sections(), limit=1232))
        self.assertEqual((message.payload, message.ednsflags, message.options), (1232, dns.flags.DO, ()))

    def test_compression(self) -> None:
        """D5: owners and the names in NS, CNAME, PTR, SOA and MX point back; an SRV target never does (RFC 2782)."""
        name, target = names.parse("www.example.net"), names.parse("target.example.net")
        records = [
            Record(name, wire.CNAME, 1, target),
            Record(target, wire.A, 1, bytes(4)),
            Record(target, wire.MX, 1, b"\x00\x01" + target),
            Record(target, wire.SRV, 1, messages.srv_rdata(0, 0, 80, target)),
            Record(name, wire.SOA, 1, messages.soa_rdata(target, name, 1, 5)),
        ]
        packed = messages.render(asked("www.example.net."), Sections(records), limit=512)
        self.assertEqual(packed.count(b"\x06target"), 2)
        self.assertEqual(messages.records(packed).answer, records)

    def test_whole_records_or_none(self) -> None:
        """D5: beyond the limit whole records are left out and TC is set; OPT stays."""
        records = [Record(names.parse("www.example.net"), wire.A, 30, bytes([192, 0, 2, n])) for n in range(100)]
        for options, limit in [({}, 512), ({"use_edns": 0}, 600)]:
            packed = messages.render(asked(**options), Sections(records), limit=limit)
            message = dns.message.from_wire(packed)
            self.assertTrue(message.flags & dns.flags.TC)
            self.assertLessEqual(len(packed), limit)
            self.assertGreater(len(packed), limit - 16)
            self.assertEqual(message.edns, 0 if options else -1)
        self.assertFalse(messages.render(asked(), Sections(records), limit=65535)[2] & 0x02)

    def test_extended_error(self) -> None:
        packed = messages.render(
            asked(use_edns=0), Sections(), limit=512, rcode=2, options=messages.extended_error(22, "why")
        )
        option = dns.message.from_wire(packed).options[0]
        self.assertEqual((option.code, option.text), (22, "why"))

    @given(st.lists(st.tuples(NAMES, NAMES), max_size=12), NAMES, st.integers(12, 2000))
    def test_what_is_written_is_read_back(self, pairs: list[tuple[bytes, bytes]], name: bytes, limit: int) -> None:
        """D5: any names, any limit: what was written reads back the same, in order, and is never longer than allowed."""
        query = wire.read_query(wire.HEADER.pack(1, 0, 1, 0, 0, 0) + name + b"\x00\x05\x00\x01")
        assert isinstance(query, wire.Query)
        records = [Record(owner, wire.CNAME, 1, target) for owner, target in pairs]
        packed = messages.render(query, Sections(records), limit=limit)
        read = list(messages.records(packed).answer)
        self.assertEqual(read, records[: len(read)])
        self.assertEqual(bool(packed[2] & 0x02), len(read) < len(records))
        self.assertTrue(len(packed) <= limit or not read)


class RefuseTests(SynchronousTestCase):
    def test_each(self) -> None:
        """D2: FORMERR and NOTIMP without a question, REFUSED and BADVERS with it; the opcode comes back."""
        packet = dns.message.make_query("www.example.net.", "A").to_wire()
        notify = packet[:2] + b"\x21" + packet[3:]
        self.assertEqual(messages.refuse(notify, wire.NOTIMP), packet[:2] + b"\xa1\x84" + bytes(8))
        self.assertEqual(messages.refuse(packet[:12], wire.FORMERR), packet[:2] + b"\x81\x81" + bytes(8))
        refused = dns.message.from_wire(messages.refuse(packet, wire.REFUSED))
        self.assertEqual((refused.rcode(), len(refused.question)), (5, 1))
        badvers = dns.message.from_wire(messages.refuse(packet, wire.BADVERS))
        self.assertEqual((badvers.rcode(), badvers.payload), (16, 1232))


class RelayTests(SynchronousTestCase):
    def test_bytes_unchanged(self) -> None:
        """D18: for every type all behind the question stays byte for byte; id, case, RD, RA, AA and OPT are ours."""
        for rdtype in TYPES_WITH_TEXT:
            query = asked(rdtype=rdtype, use_edns=0, want_dnssec=True)
            upstream = upstream_reply(rdtype)
            relayed = messages.relay(query, upstream, 1232)
            opt = len(wire.opt_record(0, 0, False, wire.edns_at(upstream, wire.body(upstream).opt).options))
            self.assertEqual(relayed[:2], query.id.to_bytes(2, "big"))
            self.assertEqual(relayed[12 : 12 + len(query.question)], query.question)
            self.assertEqual(relayed[12 + len(query.question) : -opt], upstream[12 + len(query.question) : -opt])
            message = dns.message.from_wire(relayed)
            self.assertEqual(message.flags, dns.flags.QR | dns.flags.RD | dns.flags.RA | dns.flags.AD)
            self.assertEqual((message.payload, message.ednsflags), (1232, dns.flags.DO))
            self.assertEqual((message.options[0].code, message.options[0].text), (18, "prohibited"))

    def test_no_opt_without_opt(self) -> None:
        """D4, D18: a client without OPT gets none; a client with one gets one though the upstream sent none."""
        self.assertEqual(dns.message.from_wire(messages.relay(asked(), upstream_reply(), 512)).edns, -1)
        self.assertEqual(
            dns.message.from_wire(messages.relay(asked(use_edns=0), upstream_reply(opt=False), 512)).payload, 1232
        )

    def test_truncated_to_the_client(self) -> None:
        """D5, D18: cut at a record's end, TC set, counts right."""
        relayed = messages.relay(asked(), upstream_reply(count=60), 512)
        message = dns.message.from_wire(relayed)
        self.assertTrue(message.flags & dns.flags.TC)
        self.assertTrue(496 < len(relayed) <= 512)
        self.assertEqual((len(message.answer[0]), message.authority), (29, []))

    def test_extended_rcode_survives(self) -> None:
        upstream = bytearray(upstream_reply())
        spot = wire.spots(bytes(upstream))[-1]
        upstream[spot.start + 5] = 1
        upstream[3] = upstream[3] & 0xF0 | 7
        self.assertEqual(wire.rcode(bytes(upstream)), 23)
        self.assertEqual(dns.message.from_wire(messages.relay(asked(use_edns=0), bytes(upstream), 512)).rcode(), 23)

    def test_opt_in_the_middle(self) -> None:
        """D18: an upstream may put a record behind OPT; nothing is lost, with or without OPT for the client."""
        plain = upstream_reply(opt=False)
        extra = b"\xc0\x10\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x63"
        odd = plain[:11] + b"\x02" + plain[12:] + wire.opt_record(4096, 0, False, b"") + extra
        for options in ({}, {"use_edns": 0}):
            message = dns.message.from_wire(messages.relay(asked(**options), odd, 512))
            self.assertEqual([str(rrset) for rrset in message.additional], ["Example.net. 60 IN A 192.0.2.99"])
            self.assertEqual(message.edns, 0 if options else -1)


class RecordsTests(SynchronousTestCase):
    def test_names_inside_rdata_are_whole(self) -> None:
        """D18: taken apart and written anew, each type says the same (names in RDATA uncompressed first)."""
        for rdtype in TYPES_WITH_TEXT:
            upstream = upstream_reply(rdtype)
            anew = messages.render(asked("www.example.net.", rdtype), messages.records(upstream), limit=65535)
            self.assertEqual(dns.message.from_wire(anew).answer, dns.message.from_wire(upstream).answer, rdtype)

    @given(st.data())
    def test_mutations_only_raise_malformed(self, data: st.DataObject) -> None:
        """D24: whatever an upstream sends, taking it apart gives records or Malformed."""
        message = bytearray(upstream_reply(data.draw(st.sampled_from(sorted(TYPES_WITH_TEXT)))))
        for _ in range(data.draw(st.integers(1, 8))):
            message[data.draw(st.integers(12, len(message) - 1))] = data.draw(st.integers(0, 255))
        try:
            found = messages.records(bytes(message))
        except wire.Malformed:
            return
        messages.render(asked(), found, limit=512)
