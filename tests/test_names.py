"""Domain names: parse and print, suffixes, zones label by label (D6 compares "label by label and case-insensitive")."""

import ipaddress

import dns.name
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns import names

LABEL = st.binary(min_size=1, max_size=12)
NAMES = st.lists(LABEL, max_size=8).map(
    lambda parts: b"".join(bytes([len(part)]) + part for part in parts).lower() + names.ROOT
)


class ParseTests(SynchronousTestCase):
    def test_lower_case_wire(self) -> None:
        """D6: case never matters, so there is only lower case."""
        self.assertEqual(names.parse("WWW.Example.com"), b"\x03www\x07example\x03com\x00")

    def test_final_dot_and_root(self) -> None:
        self.assertEqual(names.parse("example.com."), names.parse("example.com"))
        self.assertEqual(names.parse("."), names.ROOT)

    def test_escapes(self) -> None:
        self.assertEqual(names.parse(r"a\.b\065\200.c"), b"\x05a.ba\xc8\x01c\x00")
        self.assertEqual(names.parse("a\\.."), b"\x02a.\x00")

    def test_sentences(self) -> None:
        for text, sentence in [
            ("", "a name must not be empty"),
            ("a..b", '"a..b" has an empty label'),
            (".a", '".a" has an empty label'),
            ("café.example", '"café.example" is not ASCII: write an internationalised name in its xn-- form'),
            ("a\\", '"a\\" has a wrong escape: write \\DDD with DDD up to 255, or \\ and one character'),
            ("a\\256", '"a\\256" has a wrong escape: write \\DDD with DDD up to 255, or \\ and one character'),
        ]:
            self.assertEqual(str(self.assertRaises(names.BadName, names.parse, text)), sentence)
        self.assertIn("a label of 64 octets", str(self.assertRaises(names.BadName, names.parse, "a" * 64)))
        self.assertIn("takes 256 octets", str(self.assertRaises(names.BadName, names.parse, ".".join(["a" * 50] * 5))))

    @given(NAMES)
    def test_text_and_back(self, name: bytes) -> None:
        self.assertEqual(names.parse(names.text(name)), name)

    @given(NAMES)
    def test_dnspython_reads_our_text(self, name: bytes) -> None:
        self.assertEqual(dns.name.from_text(names.text(name)).to_wire(), name)

    @given(st.text(max_size=80))
    def test_any_text_is_a_name_or_a_sentence(self, text: str) -> None:
        try:
            self.assertLessEqual(len(names.parse(text)), names.MAX_NAME)
        except names.BadName as problem:
            self.assertTrue(str(problem))


class ZoneTests(SynchronousTestCase):
    def test_label_by_label(self) -> None:
        """D6: never by plain string suffix: myns1.svc is not below ns1.svc, whatever Istio's suffix test says."""
        zone = names.parse("ns1.svc.cluster.local")
        self.assertEqual(names.strip(names.parse("a.b.ns1.svc.cluster.local"), zone), b"\x01a\x01b")
        self.assertEqual(names.strip(zone, zone), b"")
        self.assertIsNone(names.strip(names.parse("svc.myns1.svc.cluster.local"), zone))

    def test_label_that_looks_like_a_zone(self) -> None:
        """D6: a label whose content is the bytes of the zone does not lie in the zone."""
        self.assertFalse(names.within(b"\x0ax\x07example\x00"[:11] + b"\x00", names.parse("example")))
        inside_a_label = bytes([8]) + b"\x07example" + b"\x00"
        self.assertTrue(inside_a_label.endswith(names.parse("example")))
        self.assertFalse(names.within(inside_a_label, names.parse("example")))

    @given(NAMES, NAMES)
    def test_strip_undoes_join(self, front: bytes, zone: bytes) -> None:
        self.assertEqual(names.strip(front[:-1] + zone, zone), front[:-1])

    @given(NAMES, NAMES)
    def test_within_as_dnspython_says(self, name: bytes, zone: bytes) -> None:
        parsed = dns.name.from_wire(name, 0)[0], dns.name.from_wire(zone, 0)[0]
        self.assertEqual(names.within(name, zone), parsed[0].is_subdomain(parsed[1]))

    @given(NAMES)
    def test_suffixes_end_at_the_root(self, name: bytes) -> None:
        found = list(names.suffixes(name))
        self.assertEqual((found[0], found[-1], len(found)), (name, names.ROOT, len(names.labels(name)) + 1))

    def test_join_knows_the_longest_name(self) -> None:
        long = names.parse(".".join(["a" * 50] * 4))
        self.assertIsNone(names.join(long[:-1], long))


class ReverseTests(SynchronousTestCase):
    @given(st.ip_addresses())
    def test_there_and_back(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
        """D13: the PTR name of an address stands for that address."""
        self.assertEqual(names.address(names.reverse(str(address))), address.packed)

    def test_what_is_no_whole_reverse_name(self) -> None:
        for text in ["3.2.1.in-addr.arpa", "4.3.2.256.in-addr.arpa", "04.3.2.1.in-addr.arpa", "x.3.2.1.in-addr.arpa",
                     "0.4.3.2.1.in-addr.arpa", "in-addr.arpa", "1.0.ip6.arpa", "g" + ".0" * 31 + ".ip6.arpa", "a.b"]:  # fmt: skip
            self.assertIsNone(names.address(names.parse(text)), text)
