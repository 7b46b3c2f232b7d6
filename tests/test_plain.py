"""The short way for plain lines of a table comes to what the ordinary way comes to, or to nothing (rules X1, X2)."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from meshdns.entries import BadTable, Entry, canonical, parse_loosely, weighed
from meshdns.plain import plain_entry

PORTS = [{"name": "http", "number": 80, "protocol": "TCP"}]
PLAIN = {
    "host": "reviews.ns1.svc.cluster.local",
    "ips": ["10.4.0.5"],
    "namespace": "ns1",
    "ports": PORTS,
    "registry": "Kubernetes",
    "shortname": "reviews",
}


def ordinary(text: str) -> tuple[Entry, int] | None:
    """What `entries` makes of a line; None when nothing."""
    try:
        return weighed(parse_loosely(text), text)
    except BadTable:
        return None


def one_of(*values: Any) -> Any:
    return some.sampled_from(values)


_LABELS = one_of("a", "x-1", "_x", "A", "", "a" * 63, "a" * 64, "*", "é", "a b")
_HOSTS = some.builds(".".join, some.lists(_LABELS, min_size=1, max_size=6)) | one_of(
    PLAIN["host"], "*.ns1.svc.cluster.local", "x", ".".join(["a" * 61] * 4), ".".join(["a" * 62] * 4)
)
_IPS = some.lists(
    one_of("10.4.0.5", "10.4.0.6", "10.4.0.256", "010.4.0.5", "1.2.3", "fd00::1", "::1.2.3.4", "", '"', ",")
)
_WORDS = one_of("", "ns1", "reviews", "a.b", 'a"b', "a\\b", "\u0131", "a]b", "\x7f", 7)
_NUMBERS = one_of(80, 0, 65536, "80", 80.0)
_PORT_LISTS = some.lists(
    some.fixed_dictionaries(
        {"name": one_of("http", "HTTP", "]", ""), "number": _NUMBERS, "protocol": one_of("TCP", "tcp", "X")}
    ),
    max_size=2,
)
_OBJECTS = some.fixed_dictionaries(
    {"host": _HOSTS},
    optional={
        "ips": _IPS,
        "namespace": _WORDS,
        "ports": _PORT_LISTS,
        "registry": _WORDS,
        "shortname": _WORDS,
        "vip": one_of(True, False),
        "ttl": one_of(30, -1),
        "alias": one_of("other.example"),
        "more": one_of(1),
    },
)


class PlainTests(SynchronousTestCase):
    def test_is_taken(self) -> None:
        """The lines of most hosts go this way, and come to the same."""
        less = [{key: value for key, value in PLAIN.items() if key in ("host", kept)} for kept in PLAIN]
        several = {"ips": ["10.4.0.5", "10.4.0.6"], "ports": [*PORTS, {**PORTS[0], "number": 81}], "vip": True}
        wild = {"host": "*.ns1.svc.cluster.local", "shortname": "*"}
        of_a_label = {**wild, "shortname": "ns1"}
        for obj in (
            PLAIN,
            *less,
            {**PLAIN, **several},
            {**PLAIN, "shortname": "other"},
            {"host": wild["host"]},
            of_a_label,
        ):
            text = canonical(obj)
            found = plain_entry(text)
            self.assertIsNotNone(found, text)
            self.assertEqual(ordinary(text), found)
        self.assertIsNone(plain_entry(canonical(wild)))

    def test_is_left(self) -> None:
        """What says more, or is written otherwise, is none of its business."""
        for more in ({"ttl": 5}, {"ips": ["fd00::1"]}, {"zzz": 1}, {"ips": ["10.4.0.5"] * 2}, {"ports": []}):
            self.assertIsNone(plain_entry(canonical({**PLAIN, **more})), more)
        self.assertIsNone(plain_entry(json.dumps(PLAIN)))
        self.assertIsNone(plain_entry(canonical(PLAIN) + " "))

    @given(_OBJECTS)
    @example(PLAIN)
    @example({**PLAIN, "ports": [{**PORTS[0], "name": "HTTP"}]})
    @example({**PLAIN, "ports": [{**PORTS[0], "app": "x"}]})
    def test_same_as_ordinary(self, obj: dict[str, Any]) -> None:
        text = json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if (found := plain_entry(text)) is not None:
            self.assertEqual(ordinary(text), found)
            self.assertEqual(text, found[0].line)

    @given(
        some.integers(0, len(canonical(PLAIN))),
        some.text('{}[]",:.0159abtruenl\\ \t*_-', max_size=3),
        some.integers(0, 3),
    )
    def test_damaged(self, at: int, instead: str, gone: int) -> None:
        """A line with something else in the midst is read as the ordinary way reads it, or not at all."""
        whole = canonical(PLAIN)
        text = whole[:at] + instead + whole[at + gone :]
        if (found := plain_entry(text)) is not None:
            self.assertEqual(ordinary(text), found)
