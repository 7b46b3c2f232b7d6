"""Messages as bytes: what a query says (D2, D4), which reply fits (D24), how the case is flipped (D20)."""

import dns.edns
import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns import names, wire


def query(name: str = "www.Example.com.", rdtype: str = "A", **options: object) -> bytes:
    return dns.message.make_query(name, rdtype, **options).to_wire()  # type: ignore[arg-type]


class ReadQueryTests(SynchronousTestCase):
    def test_question_as_asked_and_in_lower_case(self) -> None:
        """D4: the question's bytes are kept for the echo, its name is compared in lower case."""
        read = wire.read_query(query())
        assert isinstance(read, wire.Query)
        self.assertEqual(read.question, b"\x03www\x07Example\x03com\x00\x00\x01\x00\x01")
        self.assertEqual((read.name, read.type, read.cls, read.edns), (names.parse("www.example.com"), 1, 1, None))

    def test_edns(self) -> None:
        """D4, D5: size, DO and options of the OPT record."""
        option = dns.edns.GenericOption(65001, b"abc")
        read = wire.read_query(query(payload=4096, want_dnssec=True, options=[option]))
        assert isinstance(read, wire.Query)
        self.assertEqual(read.edns, wire.Edns(4096, 0, True, b"\xfd\xe9\x00\x03abc"))
        self.assertEqual(read.limit(1232), 1232)
        self.assertEqual(read.ask.flags, wire.RD | wire.DO)

    def test_size_limits(self) -> None:
        """D5: 512 without OPT, else min(max(512, asked), udp_max)."""
        for asked, limit in [(None, 512), (0, 512), (511, 512), (600, 600), (1232, 1232), (65535, 1232)]:
            message = dns.message.make_query("a.", "A", use_edns=asked is not None, payload=asked or 0)
            read = wire.read_query(message.to_wire())
            assert isinstance(read, wire.Query)
            self.assertEqual(read.limit(1232), limit, asked)

    def test_dropped(self) -> None:
        """D2: responses and what is shorter than a header get no answer at all."""
        good = query()
        for packet in [b"", good[:11], good[:2] + b"\x81" + good[3:]]:
            self.assertIsNone(wire.read_query(packet))

    def test_refused(self) -> None:
        """D2: the rcode for each kind of wrong packet."""
        good = query()
        opt = wire.opt_record(1232, 0, False, b"")
        for rcode, packet in [
            (wire.NOTIMP, good[:2] + b"\x29" + good[3:]),
            (wire.FORMERR, good[:5] + b"\x02" + good[6:]),
            (wire.FORMERR, good[:5] + b"\x00" + good[6:12]),
            (wire.FORMERR, good[:-1]),
            (wire.FORMERR, good + b"\x00"),
            (wire.FORMERR, good[:12] + b"\xc0\x0c\x00\x01\x00\x01"),
            (wire.FORMERR, good[:12] + b"\x41a\x00\x00\x01\x00\x01"),
            (wire.FORMERR, good[:12] + b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 3 + b"\x00\x00\x01\x00\x01"),
            (wire.FORMERR, good[:11] + b"\x01" + good[12:]),
            (wire.FORMERR, good[:11] + b"\x02" + good[12:] + opt + opt),
            (wire.FORMERR, good[:7] + b"\x01" + good[8:] + opt),
            (wire.FORMERR, good[:11] + b"\x01" + good[12:] + wire.opt_record(1232, 0, False, b"\x00\x0a\x00\x09ab")),
            (wire.FORMERR, good[:11] + b"\x01" + good[12:] + wire.opt_record(1232, 0, False, b"\x00\x0a\x00\x00" * 100)),
            (wire.BADVERS, good[:11] + b"\x01" + good[12:] + b"\x00\x00\x29\x04\xd0\x00\x01\x00\x00\x00\x00"),
        ]:  # fmt: skip
            self.assertEqual(wire.read_query(packet), rcode, packet.hex())

    @given(st.binary(max_size=100), st.booleans())
    def test_any_bytes(self, packet: bytes, head: bool) -> None:
        """D2: no bytes raise, and what reads as a query has its question inside the packet."""
        packet = query()[:12] + packet if head else packet
        read = wire.read_query(packet)
        if isinstance(read, wire.Query):
            self.assertEqual(packet[12 : 12 + len(read.question)], read.question)
        else:
            self.assertIn(read, (None, wire.FORMERR, wire.NOTIMP, wire.BADVERS))


class ReplyFitsTests(SynchronousTestCase):
    def setUp(self) -> None:
        asked = dns.message.make_query("www.example.com.", "A", use_edns=True)
        self.question = asked.to_wire()[12:33]
        reply = dns.message.make_response(asked)
        reply.answer.append(dns.rrset.from_text("www.example.com.", 30, "IN", "A", "192.0.2.1", "192.0.2.2"))
        reply.authority.append(dns.rrset.from_text("example.com.", 30, "IN", "NS", "ns.example.com."))
        self.reply = reply.to_wire()

    def test_the_true_one(self) -> None:
        self.assertIsNone(wire.reply_fits(self.reply, self.question))

    def test_each_kind_of_lie(self) -> None:
        """D24: what is not a well-formed reply to exactly the question asked has a reason."""
        reply = self.reply
        loop = reply[:33] + b"\xc0\x21" + reply[35:]
        for reason, message in [
            ("short", reply[:1]),
            ("short", reply[:2] + b"\xff" * 7),
            ("not-a-reply", reply[:2] + bytes([reply[2] & 0x7F]) + reply[3:]),
            ("opcode", reply[:2] + bytes([reply[2] | 0x20]) + reply[3:]),
            ("question", reply[:5] + b"\x00" + reply[6:]),
            ("question", reply.replace(b"\x03www", b"\x03wwv", 1)),
            ("question", reply[:30] + b"\x1c" + reply[31:]),
            ("case", reply.replace(b"\x03www", b"\x03wWw", 1)),
            ("malformed", reply[:-1]),
            ("malformed", reply[:60]),
            ("malformed", loop),
            ("malformed", reply[:7] + b"\x09" + reply[8:]),
            ("malformed", reply[:33] + b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x03" + reply[45:]),
        ]:
            self.assertEqual(wire.reply_fits(message, self.question), reason, message.hex())

    @given(st.data())
    def test_mutations_never_raise(self, data: st.DataObject) -> None:
        """D24: a mutated reply fits or has a reason; one that fits can be walked."""
        message = bytearray(self.reply)
        for _ in range(data.draw(st.integers(1, 8))):
            message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
        raw = bytes(message[: data.draw(st.integers(0, len(message)))])
        if wire.reply_fits(raw, self.question) is None:
            wire.spots(raw)
            wire.rcode(raw)


class CaseTests(SynchronousTestCase):
    def test_only_letters_of_the_name(self) -> None:
        """D20: 0x20 changes letters, never lengths, digits, type or class."""
        question = names.parse("a1-b.example") + b"\x00a\x00a"
        flipped = wire.flip_case(question, (1 << 400) - 1)
        self.assertEqual(flipped, b"\x04A1-B\x07EXAMPLE\x00\x00a\x00a")
        self.assertEqual(wire.flip_case(question, 0), question)

    @given(st.integers(0, 1 << 400))
    def test_the_question_stays_the_same(self, bits: int) -> None:
        question = names.parse("www.python.org") + b"\x00\x1c\x00\x01"
        self.assertEqual(wire.flip_case(question, bits).lower(), question)


class UpstreamQueryTests(SynchronousTestCase):
    def test_as_dnspython_reads_it(self) -> None:
        """D18, D29: CD, AD, DO and options pass as asked; our size is offered."""
        ask = wire.Ask(
            names.parse("example.com") + b"\x00\x30\x00\x01", wire.RD | wire.CD | wire.DO, b"\xfd\xe9\x00\x02hi"
        )
        message = dns.message.from_wire(wire.upstream_query(ask, 4711, ask.question, 1232))
        self.assertEqual((message.id, message.payload, message.ednsflags), (4711, 1232, dns.flags.DO))
        self.assertEqual(message.flags, dns.flags.RD | dns.flags.CD)
        self.assertEqual(message.options[0].to_wire(), b"hi")
        self.assertEqual(message.question[0].rdtype, dns.rdatatype.DNSKEY)

    def test_without_edns(self) -> None:
        ask = wire.Ask(names.parse("example.com") + b"\x00\x01\x00\x01", wire.RD, b"")
        self.assertEqual(dns.message.from_wire(wire.upstream_query(ask, 1, ask.question, None)).edns, -1)


class TypeTests(SynchronousTestCase):
    def test_words(self) -> None:
        self.assertEqual((wire.type_text(28), wire.type_text(65280)), ("AAAA", "TYPE65280"))
        self.assertEqual((wire.parse_type("aaaa"), wire.parse_type("type65280")), (28, 65280))
        for text in ["", "TYPE", "TYPE65536", "TYPE-1", "AAAAA"]:
            self.assertRaises(ValueError, wire.parse_type, text)

    def test_numbers_as_dnspython_has_them(self) -> None:
        for word, number in wire.TYPES.items():
            self.assertEqual(dns.rdatatype.from_text(word), number, word)
