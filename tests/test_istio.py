"""Istio's own JSON as a name table (X4)."""

import json

from hypothesis import given

from meshdns import table
from meshdns.table import Entry, Table
from tests.tables import (
    TABLES,
    BadCase,
)

TYPE = "type.googleapis.com/istio.networking.nds.v1.NameTable"


def istio(document: object) -> Table:
    return table.read(json.dumps(document, indent=2).encode())


class IstioTests(BadCase):
    """X4: Istio's own JSON is accepted wherever a table file is."""

    def setUp(self) -> None:
        self.info = {"ips": ["10.4.0.5"], "registry": "Kubernetes", "shortname": "productpage", "namespace": "ns1"}
        self.rows = {"productpage.ns1.svc.cluster.local": self.info, "db1.example.com": {"ips": ["240.240.0.1"]}}
        row = {"host": "productpage.ns1.svc.cluster.local", **self.info}
        self.held = Table.of([table.entry(row), table.entry({"host": "db1.example.com", "ips": ["240.240.0.1"]})])

    def test_every_wrapping(self) -> None:
        """X4: alone, with @type, in a list, in xDS resources; on one line or many."""
        one, other = ({host: info} for host, info in self.rows.items())
        for document in (
            {"table": self.rows},
            {"@type": TYPE, "table": self.rows},
            [{"@type": TYPE, "table": self.rows}],
            [{"table": one}, {"@type": TYPE, "table": other}, {"@type": TYPE}],
            {"resource": {"@type": TYPE, "table": self.rows}},
            [{"resource": {"@type": TYPE, "table": self.rows}}],
            {"versionInfo": "1", "resources": [{"@type": TYPE, "table": self.rows}], "typeUrl": TYPE},
        ):
            self.assertEqual(istio(document), self.held)
            self.assertEqual(table.read(json.dumps(document).encode()), self.held)

    def test_cleaned_as_istio_does(self) -> None:
        """Hosts in any case, bad addresses dropped, hosts without one skipped, alt_hosts left aside."""
        found = istio(
            {
                "table": {
                    "ProductPage.NS1.svc.cluster.local": self.info | {"altHosts": ["x"], "alt_hosts": ["y"]},
                    "db1.example.com.": {"ips": ["", "240.240.0.1", "10.0.0.0/8", 7, "240.240.0.1"], "registry": None},
                    "none.example.com": {"ips": ["bad"]},
                    "empty.example.com": {},
                    "not a host": {"ips": ["10.0.0.1"]},
                }
            }
        )
        self.assertEqual(found, self.held)

    def test_merged_as_istio_does(self) -> None:
        """Kubernetes wins entirely, external addresses unite without repeats, the first Kubernetes stays."""
        outside = {"ips": ["1.1.1.1", "2.2.2.2"], "registry": "External"}
        more = {"ips": ["2.2.2.2", "3.3.3.3"], "registry": "External"}
        first, second = {"ips": ["4.4.4.4"], "registry": "Kubernetes"}, {"ips": ["5.5.5.5"], "registry": "Kubernetes"}
        for given_rows, ips in [
            ([outside, more], ["1.1.1.1", "2.2.2.2", "3.3.3.3"]),
            ([outside, first], ["4.4.4.4"]),
            ([first, outside], ["4.4.4.4"]),
            ([first, second], ["4.4.4.4"]),
        ]:
            found = istio([{"table": {"h.example": row}} for row in given_rows])
            self.assertEqual(found.entries["h.example"].ips, ips)

    def test_print_of_the_agent(self) -> None:
        """Istio's agent prints the short forms it serves, too, with a final dot: here they are D6's, not hosts."""
        spoken = {"ips": ["10.4.0.5"], "registry": "Kubernetes"}
        added = {
            "productpage.ns1.svc.cluster.local.": spoken,
            "productpage.ns1.svc.": spoken,
            "productpage.ns1.": spoken,
            "productpage.": spoken,
            "db1.example.com.": {"ips": ["240.240.0.1"], "registry": "Kubernetes"},
        }
        self.assertEqual(istio({"table": added | self.rows}), self.held)
        found = istio({"table": {"other.example.": spoken} | self.rows})
        self.assertEqual(found.entries["other.example"].ips, ["10.4.0.5"])

    def test_sentences(self) -> None:
        no_table = 'is neither JSON lines nor Istio\'s JSON: the object has no "table" of hosts in it'
        empty = "is an empty list: Istio had no table for this proxy, turn DNS capture on and print it again"
        for document, line, sentence in [
            ([{}], 0, no_table),
            ({"table": []}, 0, no_table),
            ({"@type": "x", "a": 1}, 0, no_table),
            ([], 0, empty),
            ([1], 0, '1 stands where Istio\'s JSON has an object with "table"'),
            ({"table": {"a": 1}}, 0, '"a" has 1 as value: write an object with "ips"'),
            ({"table": {"a": {"ips": "x"}}}, 0, '"a" has "x" as "ips": write a list'),
            (
                {"table": {"a": {"ips": ["::1"], "registry": 1}}},
                0,
                'a has 1 as "registry": write a text without control characters',
            ),
        ]:
            self.refused(json.dumps(document).encode(), line, sentence)
        self.refused(b'{"table": {\n"a": {"ips":\n}}', 3, "is not JSON: Expecting value (column 1)")
        self.refused(
            b'{"table": {"a": {}, "a": {}}}',
            0,
            'is not usable JSON: the key "a" stands twice in one object, keep one of them',
        )
        self.refused(b'{"table": {\n"\xff": {}}}', 2, "is not UTF-8: save the file as UTF-8")
        self.refused(b"{}", 1, 'the header is missing: let the first line be {"nametable": 1}')

    @given(TABLES)
    def test_round_trip(self, held: Table) -> None:
        """X4: what `Accept: application/json` returns reads back as the same hosts, addresses and words."""
        found = istio(table.to_istio(held)).entries
        expected = {host: entry for host, entry in held.entries.items() if entry.v4 or entry.v6}
        self.assertEqual(found.keys(), expected.keys())
        for host, entry in expected.items():
            self.assertEqual(self.shape(found[host]), self.shape(entry))

    def shape(self, entry: Entry) -> tuple[object, ...]:
        return (entry.v4, entry.v6, entry.registry, entry.shortname, entry.namespace)
