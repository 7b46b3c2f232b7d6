"""The pure parts of `benchmarks`: what is asked, how a client walks, what is made of what dnsperf says; and small runs of the
benchmarks that measure nobody but meshdns."""

import gzip
import json
import resource
import shutil
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs
import dns.message
import dns.rdatatype
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from benchmarks import (
    caching,
    helper,
    loading,
    machine,
    names,
    plane,
    polling,
    push,
    report,
    scale,
    source,
    workers,
    workload,
    world,
)
from benchmarks.__main__ import CASES, WORDS
from benchmarks.client import addresses, candidates, query
from benchmarks.counted import Count, notes, page
from benchmarks.job import Done, Job, Setting
from benchmarks.load import Load, Outcome, parse
from benchmarks.pace import Asked
from benchmarks.processes import CannotMeasure
from benchmarks.rounds import Case, Measured, Run
from benchmarks.servers import Room, Server, dnsmasq, meshdns, unbound
from meshdns import exchange, table
from meshdns.agent import config
from meshdns.exchange import Poll

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
        ours = ("push", "scale", "loading", "workers")
        self.assertEqual(("mesh", "tcp", "relay", "paced", "hits", "misses", "workload", *ours), WORDS)

    def test_one_configuration_for_each_way_to_cache(self) -> None:
        server = Server("meshdns", ("twistd",), 53, Path("/nowhere"), "x\n")
        ways = [(caching.NONE, server), (caching.NONE, attrs.evolve(server)), (caching.USUAL, server)]
        self.assertEqual(2, report.configurations(ways).count("####"))


class PollingTests(SynchronousTestCase):
    """The simulated pollers speak as agents do."""

    def test_request(self) -> None:
        """What a control plane reads of it is the poll (rule X5)."""
        poll = Poll(cluster="east", known=("0" * 32,), wait=55.0, deltas=True, gzip=True)
        first, *lines = polling.request(poll, "mdt_x").decode().removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.assertEqual(f"GET {poll.path} HTTP/1.1", first)
        self.assertEqual("Bearer mdt_x", headers["authorization"])
        self.assertEqual(poll, exchange.read_poll({"cluster": "east"}, headers))

    def test_head(self) -> None:
        head = (
            b'HTTP/1.1 226 IM Used\r\nETag: "'
            + b"1" * 32
            + b'"\r\nContent-Type: application/jsonl\r\nContent-Length: 7'
        )
        answer, length = polling.read_head(head)
        self.assertEqual(("delta", "1" * 32, 7), (answer.kind, answer.generation, length))

    def test_nothing_new_has_no_body(self) -> None:
        answer, length = polling.read_head(b'HTTP/1.1 304 Not Modified\r\nETag: "' + b"1" * 32 + b'"')
        self.assertEqual(("nothing", 0), (answer.kind, length))


class DescriptorTests(SynchronousTestCase):
    """Thousands of pollers need as many file descriptors."""

    def allow(self, soft: int, hard: int, connections: int) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        self.patch(resource, "getrlimit", lambda _: (soft, hard))
        self.patch(resource, "setrlimit", lambda _, limits: found.append(limits))
        helper.allow_descriptors(connections)
        return found

    def test_raised_where_the_host_allows(self) -> None:
        self.assertEqual([(5100, 20_000)], self.allow(1024, 20_000, 5000))
        self.assertEqual([], self.allow(20_000, 20_000, 5000))

    def test_a_sentence_where_not(self) -> None:
        error = self.assertRaises(CannotMeasure, self.allow, 1024, 4096, 5000)
        self.assertIn("5,000 pollers take 5,100 file descriptors, and a process may have 4,096 here", str(error))


class SourceTests(SynchronousTestCase):
    """The tables that the agent is loaded with."""

    def test_tables(self) -> None:
        """The small one's hosts are in the large ones, each with another address, by which it is seen what is in force."""
        found = source.tables(source.SMALL + 10)
        self.assertEqual([source.SMALL, source.SMALL + 10, source.SMALL + 10], [len(t.entries) for t in found.values()])
        for host in found["small"].entries:
            versions = [source.version(each.entries[host].v4[0]) for each in found.values()]
            self.assertEqual([0, 1, 2], versions)

    def test_text(self) -> None:
        found = source.tables(20)["one"]
        self.assertEqual(found, table.read(source.text(found)))

    def test_change_is_a_delta(self) -> None:
        """It leads an agent from what it holds to what is served now (rules X2, X3)."""
        serves = source.Source(20)
        held = source.tables(20)["two"]
        self.assertEqual(held.generation, serves.show("two"))
        for ip in ("10.192.0.1", "10.192.0.2"):
            generation = serves.change(ip)
            body = serves.await_news(Poll(known=(held.generation,), deltas=True))
            assert body is not None
            loader = table.Loader(held)
            for line in gzip.decompress(body.packed).splitlines():
                loader.feed(line)
            held = loader.finish()
            self.assertEqual((generation, [ip]), (held.generation, held.entries[source.host(0)].ips))


class OursTests(SynchronousTestCase):
    """The benchmarks of control plane and agent themselves, small: real processes, and figures that make sense."""

    def setUp(self) -> None:
        if not shutil.which("taskset"):
            raise SkipTest("taskset is missing: apt-get install util-linux")

    def run_job(self, job: Job, **options: object) -> Done:
        with tempfile.TemporaryDirectory(prefix="meshdns-bench-") as directory:
            setting = Setting(Namespace(**options), [], machine.cores(), Path(directory), lambda _: None)
            done = job.run(setting)
        json.dumps(done.data)
        self.assertEqual({len(done.page.rows[0])}, {len(row) for row in done.page.rows})
        return done

    def test_push(self) -> None:
        self.patch(push, "_IDLE", 0.2)
        self.patch(push, "NAMESPACES", 2)
        turns = self.run_job(push, pollers=[1, 12], renames=2).data["turns"]
        self.assertEqual([1, 12], [turn["pollers"] for turn in turns])
        for turn in turns:
            self.assertEqual(2, len(turn["pushes"]))
        for pushed in turns[1]["pushes"]:
            first, half, last = (pushed[f"fleet_p{share}"] for share in (0, 50, 100))
            self.assertTrue(0.1 <= first <= half <= last < 10, pushed)  # not before the debounce is over
            self.assertTrue(0.1 <= pushed["agent"] < 10, pushed)

    def test_refused_pollers(self) -> None:
        """What goes wrong in the process of simulated pollers ends the benchmark with a sentence."""
        core = machine.cores().load
        with tempfile.TemporaryDirectory(prefix="meshdns-bench-") as directory, ExitStack() as stack:
            folder = Path(directory)
            world.write(folder / "manifests", 1, 1)
            control = stack.enter_context(plane.plane(folder / "control", folder / "manifests", core))
            control.first_table(30)[0].close()
            words = [control.port, control.ca, "mdt_wrong", plane.CLUSTER, 2]
            fleet = stack.enter_context(helper.helper("benchmarks.fleet", words, core, folder / "fleet.log"))
            error = self.assertRaises(CannotMeasure, fleet.hear, 30)
        self.assertIn("The simulated pollers gave up. A poller is refused (401)", str(error))

    def test_scale(self) -> None:
        self.patch(scale, "_IDLE", 0.2)
        self.patch(scale, "CHANGES", 2)
        scaled = self.run_job(scale, services=200).data["scaled"]
        self.assertEqual(200, scaled["large"]["services"])
        for change in scaled["changes"]:
            self.assertTrue(0.1 <= change["seconds"] < 10, change)
            self.assertTrue(100 < change["octets"] < change["on_wire"] < 2000, change)

    def test_loading(self) -> None:
        self.patch(loading, "ROUNDS", 1)
        self.patch(loading, "SECONDS", 0.3)
        self.patch(loading, "_BEFORE", 0.05)
        self.patch(loading, "_AFTER", 0.05)
        phases = self.run_job(loading, hosts=2000).data["phases"]
        self.assertEqual(7, len(phases))
        for phase in phases:
            self.assertEqual(0, phase["asked"]["lost"])
            self.assertTrue(all(0 < took < 5 for took in phase["asked"]["took"]), phase["what"])
        self.assertEqual(3, phases[4]["times"])  # ten deltas a second

    def test_workers(self) -> None:
        if not shutil.which("dnsperf"):
            raise SkipTest("dnsperf is missing: apt-get install dnsperf")
        self.patch(workers, "ROUNDS", 1)
        self.patch(workers, "SECONDS", 0.3)
        self.patch(workers, "_ALL_UP", 0.3)
        turns = self.run_job(workers).data["turns"]
        self.assertEqual(4, len(turns))
        for turn in turns:
            self.assertTrue(turn["queries_per_second"] > 100 and 1 < turn["cpu_per_query"] < 1000, turn)


class BarTests(SynchronousTestCase):
    """Whether a bar holds is said, and for what it is meant."""

    def turn(self, pollers: int, agent: float, others: float, memory: float) -> push.Turn:
        return push.Turn(pollers, [push.Pushed(agent, (0.1, others), 0.01)] * 100, memory, 0.0)

    def test_percentile(self) -> None:
        """Nearest rank."""
        values = [float(each) for each in range(100, 0, -1)]
        self.assertEqual([50.0, 99.0, 100.0], [report.percentile(values, share) for share in (0.5, 0.99, 1.0)])
        self.assertEqual(3.0, report.percentile([3.0], 0.5))

    def test_push(self) -> None:
        said = list(push.notes([self.turn(100, 9.0, 9.0, 1.0), self.turn(5000, 0.55, 0.5, 81_000.0)]))
        self.assertEqual(
            [
                "with 5,000 pollers, p99 below 600 ms: holds, 550 ms",
                "with 5,000 pollers, a parked poll below 80 KB: missed, 81.0 KB",
            ],
            said,
        )
        self.assertIn("missed, 700 ms", next(push.notes([self.turn(5000, 0.2, 0.7, 1.0)])))
        self.assertEqual(["the bars are meant for 5,000 pollers"], list(push.notes([self.turn(100, 9.0, 9.0, 1.0)])))

    def test_scale(self) -> None:
        start = scale.Start(50_000, 51_000_000, 20.0, 19.0, 300_000_000, 500_000)
        changes = [scale.Change(0.2, cpu, 0.5, 600, 620) for cpu in (0.01, 0.06, 0.07)]
        scaled = scale.Scaled(attrs.evolve(start, memory=50_000_000), start, 0.01, changes, 0.0)
        self.assertEqual(5000.0, scaled.memory)
        cpu, octets = scale.notes(scaled)
        self.assertIn("missed, 60.0 ms", cpu)
        self.assertIn("holds, 620 at most", octets)

    def test_loading(self) -> None:
        asked = Asked([0.001] * 98 + [0.006, 0.007], 1, 0.05)
        phase = loading.Phase("a table loads", 1, asked, 0.05, 1.0)
        self.assertEqual(
            [
                "a table loads: p99 below 5 ms: missed, 6.00 ms",
                "(!) a table loads: 1 questions were not answered",
                "(!) a table loads: others had the agent's core for 5% of the time",
            ],
            list(loading.notes([phase], 100_000)),
        )

    def test_workers(self) -> None:
        """Each is told as a multiple of one worker; what was lost is told, too."""
        turns = [
            workers.Turn(count, kind, rate * count, 5.0, 1.0, lost)
            for kind, rate in (("packed", 50_000), ("made anew", 10_000))
            for count, lost in ((1, 0.0), (2, 0.02))
        ]
        found = workers.page(turns)
        self.assertEqual(["made anew", "2", "20,000", "2.00", "5.00", "1.00"], found.rows[-1])
        self.assertEqual("2 of 4 runs lost queries, up to 2.0%", found.notes[1])

    def test_world(self) -> None:
        """The next version of a service has another address."""
        self.assertIn(f"clusterIP: {world.address(7, 1)}\n", world.service(7, "ns0", 1))
        self.assertEqual(3, len({world.address(70_000, version) for version in range(3)}))
