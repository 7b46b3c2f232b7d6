"""One host of a table: its fields (X1), its one text and what that weighs (X2)."""

import json
from hashlib import blake2b
from typing import Any

from hypothesis import example, given, settings
from twisted.trial.unittest import SynchronousTestCase

from meshdns import entries, names, table
from meshdns.table import BadTable, Port
from tests.tables import (
    DB1,
    HEADER,
    OBJECTS,
    PRODUCTPAGE,
    BadCase,
    lines,
    reference,
)

# Canonical text -> BLAKE2b-128, by `printf %s TEXT | b2sum -l 128`.
VECTORS = {
    '{"ttl":30,"zones":["cluster.local"]}': "652e025e5cdca18c2b01be62f5d16545",
    '{"host":"db1.example.com","ips":["240.240.0.1","2001:2::1"],"registry":"External","vip":true}': (
        "1a89a6a422399aa9142eb85a16ae0bbb"
    ),
    '{"host":"productpage.ns1.svc.cluster.local","ips":["10.4.0.5"],"namespace":"ns1",'
    '"ports":[{"name":"http","number":9080,"protocol":"TCP"}],"registry":"Kubernetes","shortname":"productpage"}': (
        "e3f6ebf37421f73d8b8cd3a58070d513"
    ),
    '{"host":"a.b","note":"ü/\\"\\\\\\n😀","z":[1,2.5,null,true]}': "3893acf2c9f88f1bf0780965a3f9e0a5",
}


class EntryTests(BadCase):
    def test_every_field(self) -> None:
        """X1: Istio's four and ours; unknown ones are kept out of the way."""
        obj = PRODUCTPAGE | {"ips": ["::1", "10.4.0.5", "::1"], "ttl": 5, "pods": ["web-0", "x.y"], "colour": "blue"}
        entry = table.entry(obj)
        self.assertEqual(entry.host, "productpage.ns1.svc.cluster.local")
        self.assertEqual(entry.name, names.parse("productpage.ns1.svc.cluster.local"))
        self.assertEqual((entry.v4, entry.v6), ((b"\x0a\x04\x00\x05",), (bytes(15) + b"\x01",)))
        self.assertEqual((entry.registry, entry.shortname, entry.namespace), ("Kubernetes", "productpage", "ns1"))
        self.assertEqual(entry.ports, (Port("http", 9080, "TCP"),))
        self.assertEqual((entry.alias, entry.vip, entry.ttl, entry.wildcard), (None, False, 5, False))
        pods = ("web-0.productpage.ns1.svc.cluster.local", "x.y")
        self.assertEqual(entry.pods, tuple(names.parse(pod) for pod in pods))
        self.assertEqual(entry.line, reference(obj))

    def test_wildcard(self) -> None:
        """X1, D7: `*.` may stand first, the name is what follows it."""
        entry = table.entry({"host": "*.wild.example"})
        self.assertEqual((entry.name, entry.wildcard), (names.parse("wild.example"), True))
        for host in ("*", "*.", "a.*.b", "*.*.b", "*a.b"):
            self.assertRaises(BadTable, table.entry, {"host": host})

    def test_alias(self) -> None:
        """X1, D14: an alias names somebody else's host, which may be written as people do."""
        entry = table.entry({"host": "ext.ns1.svc.cluster.local", "alias": "WWW.Example.com."})
        self.assertEqual(entry.alias, names.parse("www.example.com"))

    def test_longest_names(self) -> None:
        longest = ".".join(["a" * 63] * 3 + ["b" * 61])
        self.assertEqual(table.entry({"host": longest}).name, names.parse(longest))
        self.assertRaises(BadTable, table.entry, {"host": longest + "b"})
        self.assertRaises(BadTable, table.entry, {"host": longest, "pods": ["p"]})

    def test_host_sentences(self) -> None:
        """X1: lower case, no final dot."""
        for host, reason in [
            ("A.b", "write it in lower case"),
            ("a.b.", "write it without the final dot"),
            ("a." * 127 + "b", "it has 255 characters, at most 253 fit"),
            ("a b", 'labels have 1 to 63 of a-z, 0-9, "-" and "_"; a "*" may only be the whole first one'),
            ("a\x00b", 'labels have 1 to 63 of a-z, 0-9, "-" and "_"; a "*" may only be the whole first one'),
        ]:
            error = self.assertRaises(BadTable, table.entry, {"host": host})
            self.assertEqual(error.reason, f"{entries.shown(host)} is no host name of a table: {reason}")
        error = self.assertRaises(BadTable, table.entry, {"ips": []})
        self.assertEqual(error.reason, 'an entry needs a text as "host", not nothing')

    def test_field_sentences(self) -> None:
        for fields, sentence in [
            ({"ips": "10.0.0.1"}, 'a.b has "10.0.0.1" as "ips": write a list'),
            ({"ips": None}, 'a.b has nothing as "ips": write a list'),
            (
                {"ips": ["10.0.0.0/32"]},
                'a.b has "10.0.0.0/32" in "ips": write an IPv4 or IPv6 address, without "/" or "%"',
            ),
            ({"ips": [1]}, 'a.b has 1 in "ips": write an IPv4 or IPv6 address, without "/" or "%"'),
            ({"registry": 7}, 'a.b has 7 as "registry": write a text without control characters'),
            ({"shortname": "a\x00"}, 'a.b has "a\\u0000" as "shortname": write a text without control characters'),
            ({"ports": [1]}, 'a.b has 1 in "ports": write objects with "name", "number", "protocol"'),
            ({"ports": [{"number": 0}]}, 'a port of a.b has 0 as "number": write a whole number from 1 to 65535'),
            ({"ports": [{"name": "a b", "number": 1}]}, 'a.b has a port named "a b": use letters, digits, - and _'),
            (
                {"ports": [{"number": 1, "protocol": "HTTP"}]},
                'a.b has a port of protocol "HTTP": write TCP, UDP or SCTP',
            ),
            ({"alias": "x..y"}, 'the "alias" of a.b is no name: "\\"x..y\\" has an empty label"'),
            ({"alias": "."}, 'the "alias" of a.b is the root: name a host'),
            ({"alias": "x.y", "ips": ["::1"]}, 'a.b has both "ips" and an "alias": keep one of them'),
            ({"vip": 1}, 'a.b has 1 as "vip": write true or false'),
            ({"ttl": 2**31}, 'a.b has 2147483648 as "ttl": write a whole number from 0 to 2147483647'),
            ({"ttl": True}, 'a.b has true as "ttl": write a whole number from 0 to 2147483647'),
            ({"ttl": 1.5}, 'a.b has 1.5 as "ttl": write a whole number from 0 to 2147483647'),
            ({"pods": [{}]}, 'a.b has an object in "pods": write host names'),
            ({"removed": True}, 'a.b is "removed", which stands in a delta only: leave the line out'),
        ]:
            self.refused_entry(sentence, **fields)

    def test_addresses_are_whole_or_nothing(self) -> None:
        for ip in (
            "",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "01.2.3.4",
            " 1.2.3.4",
            "1.2.3.4\n",
            "fe80::1%eth0",
            "::g",
            "1_0.1.1.1",
        ):
            self.assertIsNone(entries.pack(ip), ip)

    def test_at_most_4096_addresses(self) -> None:
        ips = [f"10.0.{number // 256}.{number % 256}" for number in range(4097)]
        self.assertEqual(len(table.entry({"host": "a", "ips": ips[:-1]}).v4), 4096)
        self.refused_entry('a.b has 4097 "ips": at most 4096 are taken', ips=ips)

    @given(OBJECTS)
    @example({"host": "a", "ips": [], "ports": [], "pods": [], "registry": "", "vip": False})
    @example({"host": "a", "ports": []})
    @example({"host": "a", "ips": ["::ffff:1.2.3.4", "2001:DB8::1"]})
    @settings(max_examples=300)
    def test_line_is_canonical(self, obj: dict[str, Any]) -> None:
        """X1, X2: what was sent counts in the hash, all of it, in one form, whatever form it came in."""
        text = reference(obj)
        came = [table.entry(obj)]
        for told in (text, json.dumps(obj), json.dumps(obj, ensure_ascii=False, indent=1).replace("\n", " ")):
            came += table.read(lines(HEADER, told)).entries.values()
        for entry in came:
            self.assertEqual(entry.line, text)
            self.assertEqual(entry, came[0])

    def test_plain_entries_hold_no_text(self) -> None:
        """The text of an entry that its fields tell is not kept: it is most of a table."""
        for obj in (PRODUCTPAGE, DB1):
            entry = table.entry(obj)
            self.assertEqual((entry.raw, entry.line), ("", reference(obj)))


class WeightTests(SynchronousTestCase):
    def test_vectors(self) -> None:
        """X2: canonical JSON and BLAKE2b-128, against b2sum."""
        for text, digest in VECTORS.items():
            self.assertEqual(entries.canonical(json.loads(text)), text)
            self.assertEqual(f"{table.weigh(text):032x}", digest)
            self.assertEqual(blake2b(text.encode(), digest_size=16).hexdigest(), digest)
