"""resolv.conf as glibc reads it, and which of several such files names the real upstreams (rule D19)."""

from io import StringIO
from pathlib import Path

import dns.resolver
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns import defaults, names
from meshdns.host import resolvconf
from meshdns.host.resolvconf import Choice, ResolvConf, choose, parse, read
from meshdns.settings import Endpoint

MAIN, SYSTEMD, KEPT = "/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/var/lib/meshdns/resolv.conf"
NS1, SVC, LOCAL = (names.parse(text) for text in ("ns1.svc.cluster.local", "svc.cluster.local", "cluster.local"))
POD = "search ns1.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
STUB = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch cluster.local\n"


class ParseTests(SynchronousTestCase):
    def test_pod(self) -> None:
        self.assertEqual(ResolvConf(nameservers=("10.96.0.10",), search=(NS1, SVC, LOCAL), ndots=5), parse(POD))

    def test_empty(self) -> None:
        for text in ("", "\n\n", "# nameserver 1.1.1.1\n", ";nameserver 1.1.1.1"):
            self.assertEqual(ResolvConf(), parse(text))

    def test_nameservers(self) -> None:
        """In order, each once, in the usual form, scopes kept, what stands behind the address not looked at."""
        text = (
            "nameserver 10.0.0.1 # the first\r\nnameserver\t2001:DB8::0:1  \nnameserver fe80::1%eth0\n"
            "nameserver 10.0.0.1\nnameserver fe80::1%2\nnameserver 0.0.0.0\nnameserver ::\n"
        )
        expected = ("10.0.0.1", "2001:db8::1", "fe80::1%eth0", "fe80::1%2", "127.0.0.1", "::1")
        self.assertEqual(ResolvConf(nameservers=expected), parse(text))

    def test_more_than_three(self) -> None:
        """glibc asks three servers, we take eight; the ninth is named."""
        text = "".join(f"nameserver 10.0.0.{number}\n" for number in range(1, 11))
        found = parse(text)
        self.assertEqual(tuple(f"10.0.0.{number}" for number in range(1, 9)), found.nameservers)
        self.assertEqual(
            ("line 9: nameserver 10.0.0.9 comes after 8 others", "line 10: nameserver 10.0.0.10 comes after 8 others"),
            found.ignored,
        )

    def test_no_addresses(self) -> None:
        for word in (
            "10.0.0.300",
            "dns.example",
            "10.0.0.1:53",
            "[::1]",
            "127.1",
            "10.0.0.1#x",
            "ff02::fb",
            "::1%",
            "1.1.1.1%lo",
        ):
            found = parse(f"nameserver 10.0.0.2\nnameserver {word}\n")
            self.assertEqual(("10.0.0.2",), found.nameservers, word)
            self.assertEqual((f'line 2: "{word}" is not the IP address of a nameserver',), found.ignored)

    def test_not_at_the_start(self) -> None:
        """A keyword must begin its line and stand alone, as resolv.conf(5) says; else glibc does not see it."""
        for line in (
            " nameserver 1.1.1.1",
            "\tsearch a",
            "nameservers 1.1.1.1",
            "NAMESERVER 1.1.1.1",
            "nameserver",
            "options",
            "rubbish",
        ):
            self.assertEqual(ResolvConf(), parse(f"{line}\n"), line)

    def test_search_last_wins(self) -> None:
        self.assertEqual((SVC,), parse("search ns1.svc.cluster.local\nsearch svc.cluster.local\n").search)
        self.assertEqual((LOCAL,), parse("search ns1.svc.cluster.local\ndomain cluster.local\n").search)
        self.assertEqual(
            (NS1, SVC), parse("domain cluster.local\nsearch ns1.svc.cluster.local svc.cluster.local\n").search
        )
        self.assertEqual((LOCAL,), parse("domain cluster.local ns1.svc.cluster.local\n").search)

    def test_empty_search(self) -> None:
        """A search line without domains changes nothing, as in glibc; the root, which systemd writes, means none."""
        self.assertEqual((LOCAL,), parse("search cluster.local\nsearch\n").search)
        self.assertEqual((), parse("search .\n").search)
        self.assertEqual((), parse("search cluster.local\nsearch .\n").search)
        self.assertEqual((), parse("search .\n").ignored)

    def test_search_words(self) -> None:
        """Case and final dots make no difference, each domain counts once, odd words are named and left out."""
        found = parse("search Cluster.Local. cluster.local # mine a..b\n")
        self.assertEqual((LOCAL, names.parse("mine")), found.search)
        self.assertEqual(
            ('line 1: "#" is not a domain; letters, digits, "-" and "_" between dots are possible',
             'line 1: "a..b" has an empty label'),
            found.ignored,
        )  # fmt: skip

    def test_many_domains(self) -> None:
        found = parse("search " + " ".join(f"d{number}.example" for number in range(34)))
        self.assertEqual(defaults.RESOLV_SEARCH, len(found.search))
        self.assertEqual('line 1: "d32.example" comes after 32 other search domains', found.ignored[0])

    def test_options(self) -> None:
        text = (
            "options ndots:3 timeout:7 attempts:4 rotate edns0\noptions use-vc trust-ad no-aaaa\n"
            "options single-request single-request-reopen inet6 no-reload debug ndots:2\n"
        )
        expected = ResolvConf(
            ndots=2, timeout=7, attempts=4, rotate=True, edns0=True, use_vc=True, trust_ad=True, no_aaaa=True,
            single_request=True, single_request_reopen=True,
        )  # fmt: skip
        self.assertEqual(expected, parse(text))

    def test_option_caps(self) -> None:
        """glibc's: ndots 15, timeout 30, attempts 5; and never less than what works."""
        for text, expected in (
            ("timeout:31", ResolvConf(timeout=30)),
            ("timeout:0", ResolvConf(timeout=1)),
            ("attempts:6", ResolvConf(attempts=5)),
            ("attempts:0", ResolvConf(attempts=1)),
            ("ndots:16", ResolvConf(ndots=15)),
            ("ndots:0", ResolvConf(ndots=0)),
            (f"timeout:{'9' * 5000}", ResolvConf(timeout=30)),
        ):
            self.assertEqual(expected, parse(f"options {text}\n"))

    def test_odd_options(self) -> None:
        for word in (
            "timeout:",
            "timeout:x",
            "timeout:-1",
            "timeout",
            "timeout:٣",
            "rotate:1",
            "Rotate",
            "timeout:1.5",
            ":",
            "rotate,edns0",
        ):
            self.assertEqual(ResolvConf(), parse(f"options {word}\n"), word)

    def test_same_as_dnspython(self) -> None:
        """A second opinion on what people have."""
        for text in (POD, STUB, "nameserver ::1\nnameserver 1.1.1.1\nsearch a.b c\noptions rotate timeout:3 ndots:2\n"):
            other = dns.resolver.Resolver(StringIO(text))  # type: ignore[arg-type]
            found = parse(text)
            self.assertEqual(other.nameservers, list(found.nameservers))
            self.assertEqual(
                [str(each).rstrip(".") for each in other.search], [names.text(each) for each in found.search]
            )
            self.assertEqual(other.rotate, found.rotate)
            if found.ndots is not None:
                self.assertEqual(other.ndots, found.ndots)

    @given(st.text(max_size=200) | st.lists(st.sampled_from(["nameserver", "search", "options", "domain", " ", "\t", "\r\n", "\n",
                   "1.1.1.1", "::1", "%", "a.b", ".", "ndots:", "9", "#", "\x00", "\x0b"]), max_size=60).map("".join))  # fmt: skip
    def test_anything(self, text: str) -> None:
        """Whatever the file: no exception, and everything within its bounds."""
        found = parse(text)
        self.assertLessEqual(len(found.nameservers), defaults.RESOLV_NAMESERVERS)
        self.assertLessEqual(len(found.search), defaults.RESOLV_SEARCH)
        self.assertTrue(all(sentence.isprintable() for sentence in found.ignored))
        self.assertNotIn(names.ROOT, found.search)


def pick(main: str | None, systemd: str | None = None, kept: str | None = None, own: str = "") -> Choice:
    host, _, port = own.rpartition(":")
    listen = [Endpoint(host, int(port))] if own else []
    return choose([(MAIN, main), (SYSTEMD, systemd), (KEPT, kept)], listen)


class ChooseTests(SynchronousTestCase):
    """D19: the agent's own addresses are never an upstream, and systemd-resolved's stub hides the real ones."""

    def test_ordinary(self) -> None:
        self.assertEqual(Choice(parse(POD), MAIN), pick(POD, "nameserver 9.9.9.9\n", "nameserver 8.8.8.8\n"))

    def test_stub(self) -> None:
        """The servers and options behind the stub, with the search list of the clients."""
        behind = "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch dhcp.example\noptions timeout:3\n"
        expected = Choice(
            ResolvConf(nameservers=("192.0.2.1", "192.0.2.2"), search=(LOCAL,), timeout=3),
            SYSTEMD,
            (f"{MAIN} names only systemd-resolved's stub, 127.0.0.53",),
        )
        self.assertEqual(expected, pick(STUB, behind, "nameserver 8.8.8.8\n"))

    def test_ndots_of_the_clients(self) -> None:
        found = pick(STUB + "options ndots:5\n", "nameserver 192.0.2.1\noptions ndots:2\n")
        self.assertEqual(5, found.conf.ndots)

    def test_second_stub(self) -> None:
        self.assertEqual(
            SYSTEMD, pick("nameserver 127.0.0.54\nnameserver 127.0.0.53\n", "nameserver 192.0.2.1\n").source
        )

    def test_stub_beside_another(self) -> None:
        """A stub beside a real server is meant: both are asked."""
        found = pick("nameserver 127.0.0.53\nnameserver 1.1.1.1\n", "nameserver 192.0.2.1\n")
        self.assertEqual((("127.0.0.53", "1.1.1.1"), MAIN, ()), (found.conf.nameservers, found.source, found.notes))

    def test_only_stubs(self) -> None:
        """Where no file knows better, the stub is a server like any other."""
        for systemd in (None, "", "# empty\n", STUB):
            found = pick(STUB, systemd)
            self.assertEqual((("127.0.0.53",), MAIN), (found.conf.nameservers, found.source))
            self.assertEqual(f"no file names another server, so the stub of {MAIN} is asked", found.notes[-1])

    def test_own_address(self) -> None:
        """`meshdns intercept` has pointed resolv.conf at the agent: the copy it kept has the servers."""
        main = "nameserver 127.0.0.1\nsearch cluster.local\n"
        found = pick(main, None, "nameserver 10.0.0.53\nsearch old.example\noptions attempts:3\n", own="127.0.0.1:53")
        expected = Choice(
            ResolvConf(nameservers=("10.0.0.53",), search=(LOCAL,), attempts=3),
            KEPT,
            (f"{MAIN}: 127.0.0.1 is this agent itself",),
        )
        self.assertEqual(expected, found)

    def test_own_address_beside_another(self) -> None:
        """It alone is left out."""
        found = pick("nameserver 127.0.0.1\nnameserver 1.1.1.1\n", "nameserver 9.9.9.9\n", own="127.0.0.1:53")
        self.assertEqual((("1.1.1.1",), MAIN), (found.conf.nameservers, found.source))
        self.assertEqual((f"{MAIN}: 127.0.0.1 is this agent itself",), found.notes)

    def test_own_address_everywhere(self) -> None:
        """Own addresses in the other files are no upstream either, nor is a stub address that the agent took."""
        found = pick(
            "nameserver 127.0.0.53\n", "nameserver 127.0.0.53\n", "nameserver 127.0.0.53\n", own="127.0.0.53:53"
        )
        self.assertEqual(((), MAIN), (found.conf.nameservers, found.source))
        self.assertEqual("no nameserver was found; say one in upstream.servers", found.notes[-1])
        self.assertEqual(4, len(found.notes))

    def test_own_port(self) -> None:
        """The agent on 15053 is not the server on 53 of the same address."""
        self.assertEqual(("127.0.0.1",), pick("nameserver 127.0.0.1\n", own="127.0.0.1:15053").conf.nameservers)

    def test_own_wildcard(self) -> None:
        """Listening on 0.0.0.0:53, the agent is all of 127.0.0.0/8."""
        self.assertEqual(SYSTEMD, pick("nameserver 127.0.0.1\n", "nameserver 192.0.2.1\n", own="0.0.0.0:53").source)

    def test_missing(self) -> None:
        """A machine without /etc/resolv.conf: a note, and what the other files say."""
        note = f"{MAIN} does not exist or cannot be read"
        behind = "nameserver 192.0.2.1\nsearch dhcp.example\n"
        self.assertEqual(Choice(parse(behind), SYSTEMD, (note,)), pick(None, behind))
        self.assertEqual(
            Choice(ResolvConf(), MAIN, (note, "no nameserver was found; say one in upstream.servers")), pick(None)
        )

    def test_no_nameservers(self) -> None:
        """Its search list and options stay, and the other files are looked at."""
        self.assertEqual((LOCAL,), pick("search cluster.local\n").conf.search)
        found = pick("search cluster.local\n", None, "nameserver 10.0.0.53\n")
        self.assertEqual((("10.0.0.53",), (LOCAL,), KEPT), (found.conf.nameservers, found.conf.search, found.source))

    def test_notes_of_lines(self) -> None:
        self.assertEqual(
            (f'{MAIN}, line 1: "x" is not the IP address of a nameserver',),
            pick("nameserver x\nnameserver 1.1.1.1").notes,
        )

    def test_nothing_at_all(self) -> None:
        self.assertEqual((), choose([]).conf.nameservers)


class ReadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)

    def _file(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)

    def test_read(self) -> None:
        main, other = self._file("main", STUB.encode()), self._file("other", b"nameserver 192.0.2.1\n")
        found = read(main, fallbacks=[str(self.folder / "no"), other])
        self.assertEqual((("192.0.2.1",), (LOCAL,), other), (found.conf.nameservers, found.conf.search, found.source))
        self.assertEqual(("192.0.2.1",), read(other).conf.nameservers)

    def test_missing(self) -> None:
        path = str(self.folder / "no")
        for each in (path, str(self.folder)):  # a directory is no file either
            found = read(each, fallbacks=[])
            self.assertEqual((ResolvConf(), each), (found.conf, found.source))
            self.assertEqual(f"{each} does not exist or cannot be read", found.notes[0])

    def test_not_text(self) -> None:
        """Bytes that are no UTF-8, in a comment mostly, cost nothing."""
        path = self._file("main", b"# caf\xe9\nnameserver 1.1.1.1\n\xff\xfe\x00\n")
        self.assertEqual(ResolvConf(nameservers=("1.1.1.1",)), read(path, fallbacks=[]).conf)

    def test_endless(self) -> None:
        """Read up to a limit."""
        self.assertEqual((), read("/dev/zero", fallbacks=[]).conf.nameservers)

    def test_doubtful(self) -> None:
        """D19: no server left, or another file's, may be a file half written; other servers are none."""
        held = Choice(ResolvConf(nameservers=("192.0.2.1",)), MAIN)
        none, other = Choice(ResolvConf(), MAIN), Choice(ResolvConf(nameservers=("192.0.2.2",)), MAIN)
        fallback = Choice(ResolvConf(nameservers=("192.0.2.2",)), SYSTEMD)
        doubts = [resolvconf.is_doubtful(held, found) for found in (none, fallback, other)]
        self.assertEqual([True, True, False], doubts)
        self.assertFalse(resolvconf.is_doubtful(none, fallback), "there is nothing to lose")

    def test_defaults(self) -> None:
        """D19 names the two files, in this order."""
        self.assertEqual((SYSTEMD, KEPT), defaults.RESOLV_FALLBACKS)
        self.assertEqual((defaults.RESOLV_CONF, (), defaults.RESOLV_FALLBACKS), resolvconf.read.__defaults__)
