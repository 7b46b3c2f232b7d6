"""Strict settings (contract section 4): every problem at once, each with its line, and no value ever guessed at."""
# ruff: noqa: RUF009 -- `setting` makes an attrs field

import time
from collections.abc import Callable
from typing import Any

import attrs
import yaml
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns import defaults, names, settings, values, yamltext
from meshdns.settings import Endpoint, Invalid, Problem, Server, section, setting


@attrs.frozen(kw_only=True)
class Inner:
    wait: float = setting(settings.duration(0.01, 60), 2.0)
    room: int = setting(settings.size(0, 1 << 30), 1 << 20)


@attrs.frozen(kw_only=True)
class Outer:
    name: str = setting(settings.label)
    count: int = setting(settings.whole(1, 10), 3)
    keep: bool = setting(settings.boolean, True)
    mode: str = setting(settings.choice("fast", "safe", "off"), "fast")
    free: str = setting(settings.word, "")
    listen: tuple[Endpoint, ...] = setting(settings.listed(settings.endpoint, 1), ())
    zones: tuple[bytes, ...] | None = setting(settings.unless("auto", None, settings.listed(settings.domain)), None)
    place: str | None = setting(settings.path, None)
    by_name: Any = setting(settings.keyed(values.parse_domain, settings.word), None)
    inner: Inner = setting(section(Inner), Inner())


def read(text: str | bytes, file: str = "x.yaml") -> Outer:
    data = text.encode() if isinstance(text, str) else text
    return settings.read(data, file, section(Outer))


def problems(text: str | bytes) -> list[str]:
    """The problems as `line: reason`, without the file."""
    try:
        read(text)
    except Invalid as error:
        return [f"{problem.line}: {problem.reason}" for problem in error.problems]
    return []


class ReadingTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        """Only what is required must stand in the file."""
        self.assertEqual(Outer(name="a"), read("name: a"))

    def test_values(self) -> None:
        """Each kind of value arrives converted, paths relative to the file's directory."""
        text = (
            "name: a\ncount: 7\nkeep: no\nmode: safe\nfree: X-1\nlisten:\n- 127.0.0.1:53\n- '[::1]:53'\nzones: [A.b.]\n"
            "place: sub/f\nby_name: {x.y: one}\ninner: {wait: 500ms, room: 64KiB}\n"
        )
        expected = Outer(
            name="a",
            count=7,
            keep=False,
            mode="safe",
            free="X-1",
            listen=(Endpoint("127.0.0.1", 53), Endpoint("::1", 53)),
            zones=(names.parse("a.b"),),
            place="/etc/m/sub/f",
            by_name={names.parse("x.y"): "one"},
            inner=Inner(wait=0.5, room=65536),
        )
        self.assertEqual(expected, read(text, "/etc/m/x.yaml"))

    def test_paths(self) -> None:
        """Relative paths start at the file's directory or the base that is given; absolute ones stay."""
        reader = section(Outer)
        for file, base, place, expected in (
            ("x.yaml", None, "f", "f"),
            ("d/x.yaml", None, "f", "d/f"),
            ("d/x.yaml", "/abs/d", "f", "/abs/d/f"),
            ("d/x.yaml", "/abs/d", "../f", "/abs/d/../f"),
            ("d/x.yaml", "/abs/d", "/etc/f", "/etc/f"),
        ):
            read = settings.read(f"name: a\nplace: {place}".encode(), file, reader, base)
            self.assertEqual(expected, read.place)

    def test_empty_section(self) -> None:
        """A section with all its keys commented out has every default."""
        self.assertEqual(Outer(name="a"), read("name: a\ninner:\n  # wait: 2s\n"))

    def test_byte_order_mark(self) -> None:
        self.assertEqual(Outer(name="a"), read(b"\xef\xbb\xbfname: a\r\n"))

    def test_all_problems_at_once(self) -> None:
        """One bad file, many problems: all are told, by line, as `file:line: reason`."""
        text = "nmae: a\ncount: many\ninner:\n  wait: 5\n  room: 1MB\nlisten: [x]\nmode: slow\ncount: 2\n"
        with self.assertRaises(Invalid) as caught:
            read(text, "etc/x.yaml")
        expected = (
            "etc/x.yaml:1: name is required\n"
            'etc/x.yaml:1: unknown key "nmae"; did you mean "name"?\n'
            'etc/x.yaml:2: count: "many" is not a whole number\n'
            'etc/x.yaml:4: inner.wait: "5" has no unit; write 5s or 5ms\n'
            'etc/x.yaml:5: inner.room: "1MB" is not a size; write 1MiB\n'
            'etc/x.yaml:6: listen[0]: "x" is a name; an IP address is wanted, like 127.0.0.1:15053\n'
            'etc/x.yaml:7: mode: "slow" is not one of fast, safe, off\n'
            "etc/x.yaml:8: count is there twice, first in line 2; keep one"
        )
        self.assertEqual(expected, str(caught.exception))

    def test_lines(self) -> None:
        """Where each key stands, for problems found later."""
        found = settings.lines(b"name: a\n\ninner:\n  wait:\n    2s\nlisten:\n- 127.0.0.1:53\n")
        self.assertEqual({"": 1, "name": 1, "inner": 3, "inner.wait": 5, "listen": 6}, found)


NOT_DOMAIN = 'is not a domain; letters, digits, "-" and "_" between dots are possible'
NOT_LABEL = 'is not a DNS label; lower-case letters, digits and inner "-" are possible, at most 63'
NOT_WORD = "is not one word; at most 253 characters without spaces are possible"
NO_VALUE = "has no value; write one, or take the line out for the default"
NO_ALIAS = "is not allowed; write the value itself"
OUT = "is not allowed; take it out"
SECOND = 'a second document begins here; one file holds one configuration, so take the "---" out'
IPV6 = 'this is not YAML: an IPv6 address needs quotes round it, like "[::1]:53"'

# Each: a file, and the problems it has.
BAD = [
    # keys
    ("name: a\nlisen: []\n", ['2: unknown key "lisen"; did you mean "listen"?']),
    ("name: a\nby-name: {}\n", ['2: unknown key "by-name"; did you mean "by_name"?']),
    ("name: a\nNAME: b\n", ['2: unknown key "NAME"; did you mean "name"?']),
    ("name: a\ninner: {wiat: 2s}\n", ['2: inner: unknown key "wiat"; did you mean "wait"?']),
    ("name: a\ninner: {zzz: 2s}\n", ['2: inner: unknown key "zzz"; the keys here are wait, room']),
    ("name: a\n<<: {count: 3}\n", ["2: unknown key \"<<\"; the keys here are " + ", ".join(attrs.fields_dict(Outer))]),
    ("name: a\nname: b\n", ["2: name is there twice, first in line 1; keep one"]),
    ('name: a\n"name": b\n', ["2: name is there twice, first in line 1; keep one"]),
    ("name: a\ninner: {wait: 1s, wait: 1s}\n", ["2: inner.wait is there twice, first in line 2; keep one"]),
    ("name: a\nby_name: {x: a, x: b}\n", ["2: by_name.x is there twice, first in line 2; keep one"]),
    ("name: a\nby_name: {x: a, X.: b}\n", ["2: by_name.X.: another key means the same; keep one"]),
    ("name: a\nby_name:\n  x y: a\n", [f'3: by_name: "x y" {NOT_DOMAIN}']),
    ("name: a\nby_name:\n  x: [a]\n", ["3: by_name.x: one value is wanted here, not a list"]),
    ("name: a\n? [x, y]\n: b\n", ["2: a key must be a word"]),
    ("name: a\n? {x: y}\n: b\n", ["2: a key must be a word"]),
    ("name: a\n~: b\n", ["2: a key must be a word"]),
    ("name: a\ninner:\n  null: b\n", ["3: inner: a key must be a word"]),
    ("count: 3\n", ["1: name is required"]),
    ("\n\n# hm\ncount: 3\n", ["4: name is required"]),
    # YAML 1.1 traps: what others read as False, 750 and 685230 stays text
    ("name: a\nno: b\n", ["2: unknown key \"no\"; the keys here are " + ", ".join(attrs.fields_dict(Outer))]),
    ("name: a\ncount: 12:30\n", ['2: count: "12:30" is not a whole number']),
    ("name: a\ncount: 0x3\n", ['2: count: "0x3" is not a whole number']),
    ("name: a\ncount: 0o3\n", ['2: count: "0o3" is not a whole number']),
    ("name: a\ncount: 03\n", ['2: count: "03" is not a whole number']),
    ("name: a\ncount: 1_0\n", ['2: count: "1_0" is not a whole number']),
    ("name: a\ncount: 3.0\n", ['2: count: "3.0" is not a whole number']),
    ("name: a\ncount: 1e1\n", ['2: count: "1e1" is not a whole number']),
    ("name: a\ncount: .inf\n", ['2: count: ".inf" is not a whole number']),
    ("name: a\ncount: true\n", ['2: count: "true" is not a whole number']),
    ("name: a\ncount: ٣\n", ['2: count: "٣" is not a whole number']),
    # types
    ('name: a\ncount: "3"\n', ['2: count: "3" is quoted text; leave the quotes out']),
    ("name: a\ncount: -1\n", ['2: count: "-1" is out of range; 1 to 10 is possible']),
    ("name: a\ncount: 11\n", ['2: count: "11" is out of range; 1 to 10 is possible']),
    ("name: a\ncount: [3]\n", ["2: count: one value is wanted here, not a list"]),
    ("name: a\ncount: {a: b}\n", ["2: count: one value is wanted here, not keys with values"]),
    ("name: a\ncount:\n", [f"2: count: {NO_VALUE}"]),
    ("name: a\ncount: null\n", [f"2: count: {NO_VALUE}"]),
    ("name: a\ncount: ~\n", [f"2: count: {NO_VALUE}"]),
    ("name: a\nkeep: maybe\n", ['2: keep: "maybe" is neither true nor false']),
    ("name: a\nkeep: 1\n", ['2: keep: "1" is neither true nor false']),
    ("name: a\nkeep: 'true'\n", ['2: keep: "true" is quoted text; leave the quotes out']),
    ("name: a\nmode: FAST\n", ['2: mode: "FAST" is not one of fast, safe, off']),
    ("name: a\nmode: no\n", ['2: mode: "no" is not one of fast, safe, off']),
    ("name: a\nfree: a b\n", [f'2: free: "a b" {NOT_WORD}']),
    ('name: a\nfree: "a\\e[31m"\n', [f'2: free: "a\\x1b[31m" {NOT_WORD}']),
    (f"name: a\nfree: {'x' * 254}\n", [f'2: free: "{"x" * 57}..." {NOT_WORD}']),
    ("name: A\n", [f'1: name: "A" {NOT_LABEL}']),
    ("name: ''\n", [f'1: name: "" {NOT_LABEL}']),
    ("name: a\nplace: ''\n", ["2: place: the path is empty"]),
    ("name: a\nplace: [f]\n", ["2: place: one value is wanted here, not a list"]),
    ("name: a\nlisten: 127.0.0.1:53\n", ['2: listen: a list is wanted here; write ["127.0.0.1:53"]']),
    ("name: a\nlisten: {a: b}\n", ['2: listen: a list is wanted here; write ["..."]']),
    ("name: a\nlisten:\n", ['2: listen: a list is wanted here; write ["..."]']),
    ("name: a\nlisten: []\n", ["2: listen: the list is empty; put a value in, or take the line out for the default"]),
    ("name: a\nlisten:\n- 127.0.0.1:53\n-\n", [f"4: listen[1]: {NO_VALUE}"]),
    ("name: a\nlisten:\n- [127.0.0.1:53]\n", ["3: listen[0]: one value is wanted here, not a list"]),
    ("name: a\nlisten:\n- 127.0.0.1:53\n- 127.0.0.1:53\n", ["4: listen[1]: the same as listen[0]; keep one"]),
    ("name: a\nlisten:\n- '[::1]:53'\n- '[0::1]:53'\n", ["4: listen[1]: the same as listen[0]; keep one"]),
    ("name: a\nzones: outo\n", ['2: zones: a list is wanted here; write ["outo"]']),
    ("name: a\ninner: 3\n", ['2: inner: keys with values are wanted here, like "key: value"']),
    ("name: a\ninner: [wait]\n", ['2: inner: keys with values are wanted here, like "key: value"']),
    ("- name: a\n", ['1: keys with values are wanted here, like "key: value"']),
    ("hello\n", ['1: keys with values are wanted here, like "key: value"']),
    # structure
    ("", ["1: the file is empty"]),
    ("# nothing\n", ["1: the file is empty"]),
    ("---\n", ["1: the file is empty"]),
    ("null\n", ["1: the file is empty"]),
    ("name: a\n---\nname: b\n", [f'2: {SECOND}']),
    ("name: a\n...\n---\n", [f'3: {SECOND}']),
    ("name: &x a\n", [f'1: the anchor "&x" {OUT}']),
    ("name: &x a\nfree: *x\n", [f'1: the anchor "&x" {OUT}', f'2: the alias "*x" {NO_ALIAS}']),
    ("name: a\ninner: *x\nlisten: *y\n", [f'2: the alias "*x" {NO_ALIAS}', f'3: the alias "*y" {NO_ALIAS}']),
    ("name: a\nlisten: [*x]\n", [f'2: the alias "*x" {NO_ALIAS}']),
    ("name: a\n*x : b\n", [f'2: the alias "*x" {NO_ALIAS}']),
    ("name: a\nby_name: {k: *x}\n", [f'2: the alias "*x" {NO_ALIAS}']),
    ("name: a\nplace: *x\n", [f'2: the alias "*x" {NO_ALIAS}']),
    ("*x\n", [f'1: the alias "*x" {NO_ALIAS}']),
    ("name: !!str a\ncount: x\n", [f'1: the tag "tag:yaml.org,2002:str" {OUT}', '2: count: "x" is not a whole number']),
    ("name: !!python/name:os.system ''\n", [
        f'1: name: "" {NOT_LABEL}', f'1: the tag "tag:yaml.org,2002:python/name:os.system" {OUT}',
    ]),
    ("name: a\ninner: !x {}\n", [f'2: the tag "!x" {OUT}']),
    ("name: a\ninner:\n\twait: 2s\n", ["3: this is not YAML: a tab cannot indent; use spaces"]),
    ("name: a\nlisten:\n  - [::1]:53\n", [f'3: {IPV6}']),
    ("name: a\nlisten: [::1:53]\n", [f'2: {IPV6}']),
    ("name: a\nlisten: [1.1.1.1:53, ::1]\n", [f'2: {IPV6}']),
    ("name: a\nfree: \x07\n", ["2: the control character U+0007 may not stand in the file; take it out"]),
    ("name: a\nfree: x\u2028count: 99\n", ["2: the control character U+2028 may not stand in the file; take it out"]),
    ("name: a\nfree: x\x85\n", ["2: the control character U+0085 may not stand in the file; take it out"]),
    (b"name: a\nfree: \xff\n", ["2: the file is not UTF-8 text; save it as UTF-8"]),
    ("name: a\n".encode("utf-16"), ["1: the file is not UTF-8 text; save it as UTF-8"]),
    (b"name: a\x00\n", ["1: the control character U+0000 may not stand in the file; take it out"]),
    (b"x" * (defaults.SETTINGS_MAX_BYTES + 1), ["1: the file is larger than 256KiB; is it the right one?"]),
]  # fmt: skip


class BadFileTests(SynchronousTestCase):
    """Each kind of wrong file, and exactly what is said about it (contract section 4: strict)."""

    def test_bad(self) -> None:
        for text, expected in BAD:
            self.assertEqual(expected, problems(text), f"of {text[:80]!r}")

    def test_both_parsers(self) -> None:
        """Where PyYAML came without libyaml the same is said."""
        self.patch(yamltext, "_LOADER", yaml.BaseLoader)
        self.test_bad()

    def test_syntax(self) -> None:
        """What the parser says of a file that is no YAML comes with the line where it noticed."""
        for text, line in (("name: a\nx: y: z\n", 2), ("name: [a\nb: c\n", 2), ("name: 'a\nb: c\n", 1), ("a: @b\n", 1)):
            (problem,) = problems(text)
            self.assertTrue(problem.startswith(f"{line}: this is not YAML: "), problem)
        self.assertEqual(
            ["1: this is not YAML: the quote that opens in this line is never closed"], problems('a: "b\nc: d\n')
        )
        self.assertIn("of line 1", problems("name: [a\nb: c\n")[0])

    def test_many_problems(self) -> None:
        """A file full of nonsense gets a hundred sentences and a count, not ten thousand."""
        found = problems("name: a\n" + "".join(f"k{index}: 1\n" for index in range(1000)))
        self.assertEqual(defaults.SETTINGS_MAX_PROBLEMS + 1, len(found))
        self.assertEqual(["101: ... and 900 more problems"], [each for each in found if "more problems" in each])

    def _bounded(self, text: str) -> None:
        for loader in (getattr(yaml, "CBaseLoader", yaml.BaseLoader), yaml.BaseLoader):
            self.patch(yamltext, "_LOADER", loader)
            before = time.process_time()
            found = problems(text)
            self.assertLess(time.process_time() - before, 2.0)
            self.assertEqual(1, len(found), found)
            self.assertIn("too many values or levels", found[0])

    def test_deep_nesting(self) -> None:
        """A few kilobytes of brackets, which cost PyYAML a minute, are given up at the 17th level."""
        for bracket in ("[", "{", "- ", "? "):
            self._bounded(bracket * 100_000)

    def test_many_values(self) -> None:
        self._bounded("listen:\n" + "- a\n" * 50_000)

    def test_alias_bomb(self) -> None:
        """Nine levels of aliases never unfold."""
        rows = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
        before = time.process_time()
        self.assertIn('2: the alias "*a0" is not allowed; write the value itself', problems("\n".join(rows)))
        self.assertLess(time.process_time() - before, 2.0)

    @given(st.binary(max_size=200) | st.text(alphabet="aname:[]{}&*!-? \n\t'\"#|>%@,~", max_size=80).map(str.encode))
    def test_anything(self, data: bytes) -> None:
        """Whatever the bytes: a value or Invalid with sentences, and never another exception."""
        try:
            settings.read(data, "f", section(Outer))
        except Invalid as error:
            self.assertTrue(error.problems)
            last = data.count(b"\n") + data.count(b"\r") + 1
            self.assertTrue(all(0 < problem.line <= last for problem in error.problems), f"of {data!r}: {error}")


class RuleTests(SynchronousTestCase):
    """Rules look at several keys of one section together."""

    def _read(self, text: str) -> list[str]:
        @attrs.frozen(kw_only=True)
        class Pair:
            a: str | None = setting(settings.word, None)
            b: str | None = setting(settings.word, None)

        try:
            settings.read(text.encode(), "f", section(Pair, settings.exactly_one("a", "b")))
        except Invalid as error:
            return list(map(str, error.problems))
        return []

    def test_exactly_one(self) -> None:
        self.assertEqual([], self._read("a: x"))
        self.assertEqual([], self._read("b: x"))
        self.assertEqual(["f:1: one of a, b is required"], self._read("{}"))
        self.assertEqual(["f:2: a: b is there too; keep one of a, b"], self._read("b: x\na: y"))

    def test_wrong_values_are_left_out(self) -> None:
        """A rule never sees a value that could not be read."""
        seen = []

        def rule(stated: settings.Stated) -> Any:
            seen.append((dict(stated.values), stated.has("wait"), stated.has("wait", "room")))
            yield "room", "hm"

        with self.assertRaises(Invalid) as caught:
            settings.read(b"wait: x\nroom: 1KiB\n", "f", section(Inner, rule))
        self.assertEqual([({"room": 1024}, False, False)], seen)
        self.assertEqual(["hm"], [problem.reason[6:] for problem in caught.exception.problems if problem.line == 2])


def _is_a_host(ip: Any) -> bool:
    return not (ip.is_multicast or ip.is_unspecified or (ip.version == 6 and ip.is_link_local))


class ValueTests(SynchronousTestCase):
    """The texts of single values: what is understood, and what is said of the rest."""

    def _refused(self, convert: Callable[[str], object], text: str, sentence: str) -> None:
        error = self.assertRaises(ValueError, convert, text)
        self.assertEqual(sentence, str(error))

    def test_durations(self) -> None:
        good = {
            "0": 0,
            "0s": 0,
            "500ms": 0.5,
            "2s": 2,
            "1.5s": 1.5,
            "5m": 300,
            "1h": 3600,
            "1d": 86400,
            "999999999d": 86399999913600,
        }
        for text, seconds in good.items():
            self.assertEqual(seconds, values.parse_duration(text), text)
        self._refused(values.parse_duration, "5", '"5" has no unit; write 5s or 5ms')
        for text in ("", "s", "-1s", "1 s", "1S", "1h30m", "1us", "1.s", "٣s", "1s\n", "inf", "1e3s", "12345678901s"):
            self._refused(
                values.parse_duration,
                text,
                f"{values.quote(text)} is not a duration; write it like 500ms, 2s, 5m or 1h",
            )

    def test_sizes(self) -> None:
        good = {"0": 0, "100": 100, "64KiB": 65536, "16MiB": 16 << 20, "1GiB": 1 << 30}
        for text, octets in good.items():
            self.assertEqual(octets, values.parse_size(text), text)
        for text, meant in (
            ("16MB", "16MiB"),
            ("16M", "16MiB"),
            ("16mib", "16MiB"),
            ("64 KiB", "64KiB"),
            ("1g", "1GiB"),
        ):
            self._refused(values.parse_size, text, f'"{text}" is not a size; write {meant}')
        for text in ("", "-1", "KiB", "1.5MiB", "0x10", "016", "1TiB", "٣", "9" * 30 + "MB"):
            self._refused(values.parse_size, text, f'"{text}" is not a size; write it like 64KiB, 16MiB or 1GiB')

    def test_endpoints(self) -> None:
        good = {
            "127.0.0.1:15053": ("127.0.0.1", 15053),
            "0.0.0.0:53": ("0.0.0.0", 53),
            "[::1]:53": ("::1", 53),
            "[::]:65535": ("::", 65535),
            "[2001:DB8::0:1]:1": ("2001:db8::1", 1),
            "[fe80::1%eth0]:53": ("fe80::1%eth0", 53),
        }
        for text, (host, port) in good.items():
            self.assertEqual(Endpoint(host, port), values.parse_endpoint(text), text)
        bad = {
            "127.0.0.1": '"127.0.0.1" has no port; write 127.0.0.1:15053',
            "::1": '"::1" has no port; write [::1]:15053',
            "[::1]": '"[::1]" has no port; write [::1]:15053',
            "::1:53": '"::1:53" has no port; write [::1]:53',
            "53": '"53" is not an IP address',
            ":53": '"" is not an IP address',
            "localhost": '"localhost" is a name; an IP address is wanted, like 127.0.0.1:15053',
            "localhost:53": '"localhost" is a name; an IP address is wanted, like 127.0.0.1:15053',
            "127.1:53": '"127.1" is not an IP address',
            "0127.0.0.1:53": '"0127.0.0.1" is not an IP address',
            "127.0.0.1:": '"127.0.0.1:" has a wrong port; it must be a number from 1 to 65535',
            "127.0.0.1:0": '"127.0.0.1:0" has a wrong port; it must be a number from 1 to 65535',
            "127.0.0.1:053": '"127.0.0.1:053" has a wrong port; it must be a number from 1 to 65535',
            "127.0.0.1:65536": '"127.0.0.1:65536" has a wrong port; it must be a number from 1 to 65535',
            "127.0.0.1:dns": '"127.0.0.1:dns" has a wrong port; it must be a number from 1 to 65535',
            "[::1:53": '"[::1:53" is not an address and port; write it like [::1]:53',
            "[::1]53": '"[::1]53" is not an address and port; write it like [::1]:53',
            "[fe80::1]:53": '"fe80::1" is link-local and needs its interface; write fe80::1%eth0',
            "[fe80::1%]:53": '"fe80::1%" is not an IP address',
            "127.0.0.1%lo:53": '"127.0.0.1%lo" is not an IP address',
        }
        for text, sentence in bad.items():
            self._refused(values.parse_endpoint, text, sentence)

    def test_servers(self) -> None:
        """D23: every form of a server."""
        good = {
            "1.2.3.4": Server("1.2.3.4", 53, "udp", None),
            "1.2.3.4:5353": Server("1.2.3.4", 5353, "udp", None),
            "::1": Server("::1", 53, "udp", None),
            "[::1]": Server("::1", 53, "udp", None),
            "[::1]:54": Server("::1", 54, "udp", None),
            "udp://1.2.3.4": Server("1.2.3.4", 53, "udp", None),
            "tcp://1.2.3.4": Server("1.2.3.4", 53, "tcp", None),
            "TCP://[::1]:54": Server("::1", 54, "tcp", None),
            "tls://1.1.1.1": Server("1.1.1.1", 853, "tls", None),
            "tls://1.1.1.1?name=Cloudflare-DNS.com.": Server("1.1.1.1", 853, "tls", "cloudflare-dns.com"),
            "tls://[2606:4700::1111]:8853?name=one.one": Server("2606:4700::1111", 8853, "tls", "one.one"),
            "fe80::1%eth0": Server("fe80::1%eth0", 53, "udp", None),
        }
        for text, server in good.items():
            self.assertEqual(server, values.parse_server(text), text)
            self.assertEqual(server, values.parse_server(str(server)), text)
        self.assertEqual(Server("1.2.3.4", 5300), values.parse_server("1.2.3.4", 5300))
        bad = {
            "": '"" is not an IP address',
            "dns.google": '"dns.google" is a name; an IP address is wanted, like 10.0.0.53',
            "tls://dns.google": '"dns.google" is a name; an IP address is wanted, like tls://1.1.1.1?name=cloudflare-dns.com',
            "https://1.1.1.1": '"https://1.1.1.1": https:// is unknown; write an address, tcp://ADDRESS or tls://ADDRESS?name=NAME',
            "1.1.1.1?name=x": '"1.1.1.1?name=x": only tls:// takes ?name=NAME; take it out',
            "tcp://1.1.1.1?name=x": '"tcp://1.1.1.1?name=x": only tls:// takes ?name=NAME; take it out',
            "tls://1.1.1.1?nam=x": '"tls://1.1.1.1?nam=x": after the ? only name=NAME is known, '
            "the name in the server's certificate",
            "tls://1.1.1.1?name=": f'"" {NOT_DOMAIN}',
            "tls://1.1.1.1?name=a&b=c": f'"a&b=c" {NOT_DOMAIN}',
            "0.0.0.0": '"0.0.0.0" is not the address of one server',
            "::": '"::" is not the address of one server',
            "224.0.0.251": '"224.0.0.251" is not the address of one server',
            "ff02::fb%eth0": '"ff02::fb%eth0" is not the address of one server',
            "1.2.3.4:0": '"1.2.3.4:0" has a wrong port; it must be a number from 1 to 65535',
            "1.2.3.4/24": '"1.2.3.4/24" is not an IP address',
            "fe80::1": '"fe80::1" is link-local and needs its interface; write fe80::1%eth0',
        }
        for text, sentence in bad.items():
            self._refused(values.parse_server, text, sentence)

    def test_networks(self) -> None:
        for text in ("10.0.0.0/8", "10.0.0.1", "fd00::/8", "::1", "0.0.0.0/0"):
            self.assertEqual(
                text if "/" in text else f"{text}/{128 if ':' in text else 32}", str(values.parse_network(text))
            )
        self._refused(
            values.parse_network, "10.0.0.1/8", '"10.0.0.1/8" has bits set behind its prefix; write 10.0.0.0/8'
        )
        for text in ("10.0.0.0/33", "10.0.0", "x", ""):
            self._refused(values.parse_network, text, f'"{text}" is not an address or a network like 10.0.0.0/8')

    def test_domains(self) -> None:
        self.assertEqual(names.parse("a-b._tcp.example"), values.parse_domain("A-b._tcp.Example."))
        for text in ("a b", "*.a", "a\\.b", "é", "#", "", "a/b", "a\n"):
            self._refused(
                values.parse_domain,
                text,
                f"{values.quote(text)} {NOT_DOMAIN}",
            )
        self._refused(values.parse_domain, ".", '"." is the root of all names, which is no domain to write here')
        for text in ("a..b", "..", "a" * 64, ".".join(["a" * 60] * 5)):
            self.assertRaises(ValueError, values.parse_domain, text)

    def test_takes(self) -> None:
        """D19: which addresses are the agent itself."""
        for own, host, port, expected in (
            ("127.0.0.1:53", "127.0.0.1", 53, True),
            ("127.0.0.1:53", "127.0.0.1", 54, False),
            ("127.0.0.1:53", "127.0.0.2", 53, False),
            ("0.0.0.0:53", "127.0.0.53", 53, True),
            ("0.0.0.0:53", "::1", 53, False),
            ("0.0.0.0:53", "10.0.0.53", 53, False),
            ("[::]:53", "127.0.0.1", 53, True),
            ("[::]:53", "::1", 53, True),
            ("[::]:53", "::1", 54, False),
            ("[::1]:53", "fe80::1%eth0", 53, False),
            ("[fe80::1%eth0]:53", "fe80::1%eth0", 53, True),
        ):
            self.assertEqual(expected, values.parse_endpoint(own).takes(host, port), (own, host, port))

    def test_quote(self) -> None:
        """Nothing from a file can move the terminal that shows it."""
        self.assertEqual('"a\\x1b[2J\\n\\u202e"', values.quote("a\x1b[2J\n\u202e"))
        self.assertEqual(62, len(values.quote("x" * 1000)))

    @given(st.integers(1, 10**9))
    def test_duration_text(self, milliseconds: int) -> None:
        seconds = milliseconds / 1000
        self.assertAlmostEqual(seconds, values.parse_duration(values.duration_text(seconds)), 6)

    @given(st.integers(0, 10**14))
    def test_size_text(self, octets: int) -> None:
        self.assertEqual(octets, values.parse_size(values.size_text(octets)))

    @given(st.ip_addresses().filter(_is_a_host),
           st.integers(1, 65535), st.sampled_from(["udp", "tcp", "tls"]))  # fmt: skip
    def test_server_text(self, address: Any, port: int, transport: str) -> None:
        server = Server(str(address), port, transport, "a.b" if transport == "tls" and port % 2 else None)
        self.assertEqual(server, values.parse_server(str(server)))

    @given(st.text(max_size=40))
    def test_any_text(self, text: str) -> None:
        """Whatever the text: a value or ValueError, of which the sentence holds no control character."""
        for convert in (values.parse_duration, values.parse_size, values.parse_endpoint, values.parse_server,
                        values.parse_network, values.parse_domain, values.parse_label):  # fmt: skip
            try:
                convert(text)
            except ValueError as error:
                self.assertTrue(str(error).isprintable(), str(error))


class ProblemTests(SynchronousTestCase):
    def test_text(self) -> None:
        self.assertEqual("a.yaml:3: hm", str(Problem("a.yaml", 3, "hm")))

    def test_sorted(self) -> None:
        """By line as numbers, and each once."""
        wrong = [Problem("a", 10, "x"), Problem("a", 9, "y"), Problem("a", 10, "x"), Problem("a", 9, "b")]
        self.assertEqual("a:9: b\na:9: y\na:10: x", str(Invalid(wrong)))
