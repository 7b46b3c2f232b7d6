"""Tables to test with: two hosts of a mesh, and whatever Hypothesis thinks of."""

import json
from typing import Any

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns import table
from meshdns.table import BadTable, Loader, Table

PRODUCTPAGE: dict[str, Any] = {
    "host": "productpage.ns1.svc.cluster.local",
    "ips": ["10.4.0.5"],
    "registry": "Kubernetes",
    "shortname": "productpage",
    "namespace": "ns1",
    "ports": [{"name": "http", "number": 9080, "protocol": "TCP"}],
}
DB1: dict[str, Any] = {
    "host": "db1.example.com",
    "ips": ["240.240.0.1", "2001:2::1"],
    "registry": "External",
    "vip": True,
}
HEADER = '{"nametable":1,"zones":["cluster.local"],"ttl":30}'

LABELS = st.from_regex(r"[a-z0-9_-]{1,10}", fullmatch=True)
HOSTS = st.builds(
    lambda star, labels: star + ".".join(labels),
    st.sampled_from(["", "", "*."]),
    st.lists(LABELS, min_size=1, max_size=5),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
WORDS = st.sampled_from(["", "ns1", "Kubernetes", "x y", "ä", 'q"', "back\\slash"])
PORTS = st.fixed_dictionaries(
    {"number": st.integers(1, 65535)},
    optional={"name": LABELS, "protocol": st.sampled_from(["TCP", "udp", "SCTP"]), "note": JSON},
)
OBJECTS = st.fixed_dictionaries(
    {"host": HOSTS},
    optional={
        "ips": st.lists(st.ip_addresses().map(str), max_size=4),
        "registry": WORDS,
        "shortname": WORDS,
        "namespace": WORDS,
        "ports": st.lists(PORTS, max_size=3),
        "vip": st.booleans(),
        "ttl": st.integers(0, 2**31 - 1),
        "pods": st.lists(LABELS | HOSTS.filter(lambda host: "*" not in host), max_size=3),
        "another": JSON,
        "größe": JSON,
    },
)
OBJECTS |= st.fixed_dictionaries({"host": HOSTS, "alias": LABELS}, optional={"ttl": st.integers(0, 300), "x": JSON})
TABLES = st.builds(
    lambda objects, zones, ttl: Table.of([table.entry(obj) for obj in objects], zones, ttl),
    st.lists(OBJECTS, max_size=6),
    st.sets(st.sampled_from(["cluster.local", "clusterset.local", "mesh.internal"])),
    st.integers(0, 2**31 - 1),
)


def lines(*parts: str | dict[str, Any]) -> bytes:
    return "\n".join(part if isinstance(part, str) else json.dumps(part) for part in parts).encode()


def dumped(held: Table) -> bytes:
    return "\n".join(table.dump(held)).encode()


def apply(base: Table | None, delta: list[str]) -> Table:
    loader = Loader(base)
    for line in delta:
        loader.feed(line.encode())
    return loader.finish()


def reference(obj: object) -> str:
    """X2's canonical form, by the plainest way there is."""
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class BadCase(SynchronousTestCase):
    def refused(self, data: bytes, line: int, sentence: str) -> None:
        error = self.assertRaises(BadTable, table.read, data)
        self.assertEqual((error.line, error.reason), (line, sentence))

    def refused_entry(self, sentence: str, **fields: object) -> None:
        error = self.assertRaises(BadTable, table.entry, {"host": "a.b", **fields})
        self.assertEqual((error.line, error.reason), (0, sentence))
