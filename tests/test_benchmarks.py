"""The pure parts of `benchmarks`: what is asked, how a client walks, and what is made of what dnsperf says."""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import dns.message
import dns.rdatatype
from twisted.trial.unittest import SynchronousTestCase

from benchmarks import caching, names, report, workload
from benchmarks.__main__ import CASES, WORDS
from benchmarks.client import addresses, candidates, query
from benchmarks.counted import Count, notes, page
from benchmarks.load import Load, Outcome, parse
from benchmarks.processes import CannotMeasure
from benchmarks.rounds import Case, Measured, Run
from benchmarks.servers import Room, Server, dnsmasq, meshdns, unbound
from meshdns.agent import config

SAID = """\
DNS Performance Testing Tool
[Status] Sending queries (to 127.0.0.1:5300)
> NOERROR host-1.outside.example A 0.000100
> NOERROR host-2.outside.example A 0.000300
> NOERROR host-3.outside.example A 0.000200
Statistics:

  Queries sent:         2004
  Queries completed:    2003 (99.95%)
  Queries lost:         1 (0.05%)

  Response codes:       NOERROR 2000 (99.85%), SERVFAIL 3 (0.15%)
  Average packet size:  request 38, response 54
  Run time (s):         1.001000
  Queries per second:   2000.999001
"""


class DnsperfTests(SynchronousTestCase):
    def test_report(self) -> None:
        outcome = parse(SAID)
        self.assertEqual((2004, 2003, 1), (outcome.sent, outcome.answered, outcome.lost))
        self.assertEqual({"NOERROR": 2000, "SERVFAIL": 3}, outcome.rcodes)
        self.assertEqual(1.001, outcome.seconds)
        self.assertEqual(0.0002, outcome.p50)

    def test_no_latencies_without_verbosity(self) -> None:
        outcome = parse("\n".join(line for line in SAID.splitlines() if not line.startswith(">")))
        self.assertEqual((None, None), (outcome.p50, outcome.p99))

    def test_other_version(self) -> None:
        """A report that cannot be read is no figure."""
        self.assertRaises(CannotMeasure, parse, SAID.replace("Queries lost", "Losses"))

    def test_fresh_names_are_asked_once(self) -> None:
        self.assertIn("-n 1", " ".join(Load(Path("q"), once=True).command(53, 1.0)))
        self.assertNotIn("-n", Load(Path("q"), rate=2000).command(53, 1.0))


class FreshNameTests(SynchronousTestCase):
    def test_no_name_twice(self) -> None:
        """Neither within a file, nor in the next round's, nor in what was asked to check the answers."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "queries"
            asked = [*names.outside_hosts()]
            for label in ("early-1", "fresh-1", "early-2", "fresh-2", "fresh-11"):
                asked += [
                    line.split()[0] for line in names.write_fresh_queries(path, label, 300).read_text().splitlines()
                ]
        self.assertEqual(5 * 300 + names.OUTSIDE_NAMES, len(set(asked)))


class WalkTests(SynchronousTestCase):
    """resolv.conf(5), as glibc reads it."""

    def test_few_dots(self) -> None:
        self.assertEqual(["a.b.x", "a.b.y", "a.b"], candidates("a.b", ["x", "y"], 5))

    def test_enough_dots(self) -> None:
        self.assertEqual(["a.b", "a.b.x", "a.b.y"], candidates("a.b", ["x", "y"], 1))

    def test_final_dot(self) -> None:
        self.assertEqual(["a"], candidates("a.", ["x", "y"], 5))

    def test_question(self) -> None:
        """RD, one question, nothing else."""
        read = dns.message.from_wire(query(7, "www.example", dns.rdatatype.AAAA))
        wanted = dns.message.make_query("www.example", "AAAA", id=7)
        self.assertEqual(wanted.to_wire(), read.to_wire())

    def test_addresses_behind_an_alias(self) -> None:
        """The search walked by the server: an alias to the bare name, and its addresses."""
        reply = dns.message.from_text(
            "id 7\nopcode QUERY\nrcode NOERROR\nflags QR RD RA\n;QUESTION\nwww.x. IN A\n;ANSWER\n"
            "www.x. 30 IN CNAME www.\nwww. 30 IN A 192.0.2.1\n"
        ).to_wire()
        self.assertEqual({"192.0.2.1"}, addresses(reply, dns.rdatatype.A))
        self.assertEqual(set(), addresses(reply, dns.rdatatype.AAAA))


class WorkloadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.names = workload.all_names()

    def test_names(self) -> None:
        """2,000, none written in two ways, and six search domains."""
        self.assertEqual(2000, len({one.written for one in self.names}))
        self.assertEqual(2000, len({one.meant for one in self.names}))
        self.assertEqual(6, len(set(workload.SEARCH)))

    def test_every_name_is_found_by_walking(self) -> None:
        """The first candidate that exists is the one that is meant: no name stands in front of another."""
        there = {one.meant for one in self.names} | names.mesh_hosts().keys()
        for one in self.names:
            tried = candidates(one.written, workload.SEARCH, workload.NDOTS)
            self.assertEqual(one.meant, next(each for each in tried if each in there))

    def test_the_same_each_time(self) -> None:
        self.assertEqual(workload.zipf(self.names, 500), workload.zipf(workload.all_names(), 500))

    def test_zipf(self) -> None:
        """The n-th name comes up 1/n times as often as the first."""
        times = Counter(one.written for one in workload.zipf(self.names, 100_000))
        first = times[self.names[0].written]
        self.assertLess(abs(100_000 / 8.178 - first), 400)
        for rank in (2, 5, 10, 50):
            self.assertLess(abs(1.0 - times[self.names[rank - 1].written] * rank / first), 0.2)

    def test_records(self) -> None:
        one = workload.Wanted("a", "a.example", frozenset(["192.0.2.1", "2001:db8::1"]))
        self.assertEqual(["a.example A 192.0.2.1", "a.example AAAA 2001:db8::1"], workload.records([one]))


def counts(ours: int) -> list[Count]:
    return [Count("no proxy", 20_000, 240_000, 240_000), Count("meshdns", 20_000, 40_000, ours)]


class CountTests(SynchronousTestCase):
    def test_rows(self) -> None:
        rows = page([*counts(6000), Count("unbound", 20_000, 240_000, 10_000)]).rows
        self.assertEqual(["no proxy", "240,000", "12.00", "240,000", "1/1.0", "0.03"], rows[1])
        self.assertEqual(["meshdns", "40,000", "2.00", "6,000", "1/40.0", ""], rows[2])
        self.assertEqual("0.60", rows[3][-1])

    def test_bars(self) -> None:
        """Below 1/20 of no proxy, and below all others."""
        self.assertIn("holds", next(notes(counts(11_999))))
        self.assertIn("missed", next(notes(counts(12_000))))
        better = [*counts(6000), Count("unbound", 20_000, 240_000, 6000)]
        self.assertIn("the lowest: missed, 6,000 against 6,000 of unbound", list(notes(better))[1])

    def test_without_us(self) -> None:
        self.assertEqual([], list(notes(counts(1)[:1])))


def measured(cpu: Mapping[str, Sequence[float]], bars: Mapping[str, float]) -> Measured:
    """Rounds of 1,000 answers each, with so many seconds of CPU."""
    servers = [Server(name, (), 53, Path(), "") for name in cpu]
    runs = [
        Run(name, number, Outcome(1000, 1000, 0, {}, 1.0), seconds, 0.0, 0, [])
        for name, spent in cpu.items()
        for number, seconds in enumerate(spent, 1)
    ]
    return Measured(Case("hits", "Hits", (), dict, bars=bars), runs, servers)


class RatioTests(SynchronousTestCase):
    def test_round_by_round(self) -> None:
        """What disturbed both in one round cancels out."""
        found = report.ratio(measured({"meshdns": [0.1, 0.4, 0.2], "unbound": [0.1, 0.2, 0.1]}, {}), "unbound")
        self.assertEqual(report.Spread(2.0, 1.0, 2.0), found)

    def test_bar(self) -> None:
        said = list(report.notes(measured({"meshdns": [0.2], "unbound": [0.1]}, {"unbound": 1.5})))
        self.assertEqual(["meshdns at most 1.50 times unbound: missed, 2.00"], said)

    def test_none_without_us(self) -> None:
        self.assertIsNone(report.ratio(measured({"unbound": [0.1]}, {}), "unbound"))


class ConfigurationTests(SynchronousTestCase):
    """What the servers are told, without starting them."""

    def room(self, how: caching.Caching) -> Room:
        directory = Path(self.mktemp())
        directory.mkdir()
        return Room(directory, 5300, how)

    def test_no_cache(self) -> None:
        """`relay` measures without any cache, which the agent is told, too."""
        relay = next(case for case in CASES if case.word == "relay")
        room = self.room(relay.caching)
        read = config.parse(meshdns(room).configuration.encode(), "agent.yaml")
        self.assertEqual(0, read.cache.max_bytes)
        self.assertIn("forward-no-cache: yes", unbound(room).configuration)
        self.assertIn("cache-size=0\n", dnsmasq(room).configuration)

    def test_cache(self) -> None:
        """`hits` and `misses`: the agent by its defaults, the others with caches of theirs."""
        for case in (case for case in CASES if case.word in ("hits", "misses")):
            room = self.room(case.caching)
            self.assertEqual(config.Cache(), config.parse(meshdns(room).configuration.encode(), "agent.yaml").cache)
            self.assertNotIn("no-cache", unbound(room).configuration)
            self.assertNotIn("cache-size=0\n", dnsmasq(room).configuration)

    def test_hits_and_misses(self) -> None:
        """Only hits may never reach the upstream; the bars are on the loads as fast as can be."""
        self.assertEqual({"hits"}, {case.word for case in CASES if case.cached})
        bars = {case.word: dict(case.bars) for case in CASES if case.bars}
        self.assertEqual({"unbound": 1.1}, bars["hits"])
        self.assertEqual({"unbound": 1.0, "dnsmasq": 0.8}, bars["misses"])

    def test_words(self) -> None:
        self.assertEqual(("mesh", "tcp", "relay", "paced", "hits", "misses", "workload"), WORDS)

    def test_one_configuration_for_each_way_to_cache(self) -> None:
        server = Server("meshdns", ("twistd",), 53, Path("/nowhere"), "x\n")
        ways = [(caching.NONE, server), (caching.NONE, attrs.evolve(server)), (caching.USUAL, server)]
        self.assertEqual(2, report.configurations(ways).count("####"))
