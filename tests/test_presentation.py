"""Records as text: dnspython must read back the same bytes (RFC 1035 section 5.1, RFC 3597 section 5)."""

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns import names, wire
from meshdns.messages import Record, soa_rdata, srv_rdata, txt_rdata
from meshdns.presentation import name_text, rdata_text, record_text
from tests.test_messages import TYPES_WITH_TEXT
from tests.test_names import NAMES

KNOWN = ("A", "AAAA", "NS", "CNAME", "DNAME", "PTR", "SOA", "SRV", "MX", "TXT", "HINFO")
OWNER = names.parse("www.example.com")


def read_back(record: Record) -> bytes:
    """The wire form of our text, as dnspython reads it."""
    rdata = dns.rdata.from_text("IN", dns.rdatatype.from_text(wire.type_text(record.type)), rdata_text(record))
    return rdata.to_wire() or b""


class RecordTests(SynchronousTestCase):
    def test_every_type(self) -> None:
        """What dnspython writes as wire, it reads from our text; types not known here are written as bytes."""
        for word, text in {**TYPES_WITH_TEXT, "HINFO": '"a b" "c\\"d"'}.items():
            rdata = dns.rdata.from_text("IN", word, text)
            record = Record(OWNER, wire.parse_type(word), 30, rdata.to_wire() or b"")
            self.assertEqual(read_back(record), record.rdata, word)
            self.assertEqual(rdata_text(record).startswith("\\# "), word not in KNOWN, word)

    def test_as_dnspython_writes_it(self) -> None:
        """The text itself is the usual one."""
        for word in KNOWN:
            text = {**TYPES_WITH_TEXT, "HINFO": '"a" "b"'}[word]
            rdata = dns.rdata.from_text("IN", word, text)
            self.assertEqual(rdata_text(Record(OWNER, wire.parse_type(word), 30, rdata.to_wire() or b"")), str(rdata))

    def test_line(self) -> None:
        self.assertEqual(
            record_text(Record(OWNER, wire.A, 30, b"\xc0\x00\x02\x01")), "www.example.com. 30 IN A 192.0.2.1"
        )
        self.assertEqual(
            record_text(Record(OWNER, 65280, 0, b"\x01\xff", 255)), "www.example.com. 0 CLASS255 TYPE65280 \\# 2 01ff"
        )
        self.assertEqual(record_text(Record(names.ROOT, wire.TXT, 0, txt_rdata("x"), wire.CH)), '. 0 CH TXT "x"')
        self.assertEqual(
            rdata_text(Record(OWNER, wire.SRV, 5, srv_rdata(0, 50, 80, OWNER))), "0 50 80 www.example.com."
        )
        self.assertIn(" 7 7200 1800 86400 5", rdata_text(Record(OWNER, wire.SOA, 5, soa_rdata(OWNER, OWNER, 7, 5))))

    def test_of_another_class(self) -> None:
        """An A record of Chaosnet is a name and a number, and must not pass for an address."""
        self.assertEqual(rdata_text(Record(OWNER, wire.A, 0, b"\x00\x00\x01\x01", wire.CH)), "\\# 4 00000101")

    def test_no_bytes(self) -> None:
        self.assertEqual(rdata_text(Record(OWNER, 65280, 0, b"")), "\\# 0")

    @given(st.sampled_from(KNOWN), st.binary(max_size=40))
    def test_any_bytes(self, word: str, rdata: bytes) -> None:
        """Whatever a server sends: text without control characters, which means the same bytes or gives them in hex."""
        record = Record(OWNER, wire.TYPES[word], 0, rdata)
        text = rdata_text(record)
        self.assertTrue(text.isascii() and text.isprintable(), text)
        if text.startswith("\\#"):
            self.assertEqual(text, f"\\# {len(rdata)} {rdata.hex()}".rstrip())
        else:
            self.assertEqual(read_back(record), rdata)

    @given(NAMES)
    def test_names(self, name: bytes) -> None:
        self.assertEqual(dns.name.from_text(name_text(name)).to_wire(), name)
