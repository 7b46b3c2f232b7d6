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

import benchmarks.envoy
from benchmarks import (
    bars,
    caching,
    deltas,
    footprint,
    frames,
    helper,
    loading,
    machine,
    names,
    peers,
    perf,
    plane,
    polling,
    profiling,
    push,
    report,
    scale,
    source,
    workers,
    workload,
    world,
)
from benchmarks.__main__ import WORDS
from benchmarks.bind import named
from benchmarks.cases import CASES
from benchmarks.client import addresses, candidates, query
from benchmarks.counted import Count, notes, page
from benchmarks.envoy import envoy
from benchmarks.job import Done, Job, Setting
from benchmarks.load import Latency, Load, Outcome, parse
from benchmarks.pace import Asked
from benchmarks.processes import CannotMeasure
from benchmarks.report import Page
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
        assert outcome.latency is not None
        self.assertEqual((0.0002, 0.0003), (outcome.latency.p50, outcome.latency.most))

    def test_latencies(self) -> None:
        """Of 10,000 answers ten took longer than p99.9."""
        found = Latency.of([each / 1e6 for each in range(1, 10_001)])
        self.assertEqual([5.0, 9.9, 9.99, 10.0], [round(each * 1e3, 2) for each in attrs.astuple(found)])

    def test_no_latencies_without_verbosity(self) -> None:
        outcome = parse("\n".join(line for line in SAID.splitlines() if not line.startswith(">")))
        self.assertIsNone(outcome.latency)

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

    def test_few_latencies(self) -> None:
        """Of a thousand answers p99.9 is the second longest, and the reader is told so."""
        found = measured({"meshdns": [0.2]}, {})
        runs = [
            attrs.evolve(run, outcome=attrs.evolve(run.outcome, latency=Latency(1.0, 2.0, 3.0, 4.0)))
            for run in found.runs
        ]
        few = attrs.evolve(found, runs=runs)
        self.assertEqual(["p99.9 us", "3000000"], [row[-1] for row in report.table(few)])
        self.assertIn("p99.9 is of 1,000 answers a round, which are few", next(report.notes(few)))
        self.assertEqual([], list(report.notes(found)))

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
        self.assertIn("max-cache-ttl 0;\n", named(room).configuration)

    def test_cache(self) -> None:
        """`hits` and `misses`: the agent by its defaults, the others with caches of theirs."""
        for case in (case for case in CASES if case.word in ("hits", "misses")):
            room = self.room(case.caching)
            self.assertEqual(config.Cache(), config.parse(meshdns(room).configuration.encode(), "agent.yaml").cache)
            self.assertNotIn("no-cache", unbound(room).configuration)
            self.assertNotIn("cache-size=0\n", dnsmasq(room).configuration)
            self.assertNotIn("max-cache-ttl", named(room).configuration)

    def test_envoy(self) -> None:
        """It has the hosts of the mesh, and takes part where neither a cache nor TCP is asked for."""
        room = self.room(caching.NONE)
        self.patch(benchmarks.envoy, "program", lambda name: f"/bin/{name}")
        server = envoy(room)
        self.assertIn("external_dns_table: {filename: table.json}", server.configuration)
        table = json.loads((server.directory / "table.json").read_text())
        found = {each["name"]: each["endpoint"]["address_list"]["address"] for each in table["virtual_domains"]}
        self.assertEqual({host: [ip] for host, ip in names.mesh_hosts().items()}, found)
        self.assertEqual({"mesh", "relay", "paced"}, {case.word for case in CASES if envoy in case.servers})

    def test_who_is_missing(self) -> None:
        """Whoever cannot be started is left out, and it is said how to get it; meshdns and unbound must be there."""
        self.patch(peers, "find", lambda program: None)
        self.assertEqual([meshdns, unbound], [build for build in peers.ALL if peers.is_there(build)])
        said = list(peers.left_out(peers.ALL))
        self.assertEqual(["dnsmasq", "named", "envoy", "echo"], [sentence.split()[0] for sentence in said])
        self.assertIn("named is not installed. Get it by: sudo apt-get install bind9", said[1])

    def test_hits_and_misses(self) -> None:
        """Only hits may never reach the upstream; the bars are on the loads as fast as can be."""
        self.assertEqual({"hits"}, {case.word for case in CASES if case.cached})
        bars = {case.word: dict(case.bars) for case in CASES if case.bars}
        self.assertEqual({"unbound": 1.1}, bars["hits"])
        self.assertEqual({"unbound": 1.0, "dnsmasq": 0.8}, bars["misses"])

    def test_words(self) -> None:
        ours = ("push", "scale", "loading", "deltas", "footprint", "workers", "profile")
        self.assertEqual(("mesh", "tcp", "relay", "paced", "hits", "misses", "workload", *ours), WORDS)

    def test_one_configuration_for_each_way_to_cache(self) -> None:
        """Shown once where only the ports differ."""
        server = Server("meshdns", ("twistd",), 53, Path("/nowhere"), "listen 127.0.0.1:4000\ncache-size 10000\n")
        moved = attrs.evolve(server, configuration=server.configuration.replace("4000", "5000"))
        other = attrs.evolve(server, configuration=server.configuration.replace("10000", "150"))
        ways = [(caching.NONE, server), (caching.NONE, moved), (caching.USUAL, moved), (caching.AMPLE, other)]
        said = report.configurations(ways)
        titles = [line for line in said.splitlines() if line.startswith("####")]
        self.assertEqual(["#### meshdns: no cache, cache", "#### meshdns: room for all"], titles)
        self.assertIn("127.0.0.1:4000", said)


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

    def test_footprint(self) -> None:
        self.patch(footprint, "STARTS", 1)
        self.patch(footprint, "SETTLE", 0.2)
        self.patch(footprint, "HOSTS", 100)
        found = self.run_job(footprint, snapshot_hosts=200).data["found"]
        self.assertEqual([100, 100, 200], [each["hosts"] for each in found])
        for each in found:
            (start,) = each["starts"]
            self.assertTrue(0.05 < start["seconds"] < 20, each)
            self.assertTrue(20e6 < each["bare"] < start["memory"] < 100e6, each)
        self.assertLess(found[0]["bare"] + 5e6, found[1]["bare"])  # TLS

    def test_deltas(self) -> None:
        if not shutil.which("dnsperf"):
            raise SkipTest("dnsperf is missing: apt-get install dnsperf")
        turns = self.run_job(deltas, hosts=2000, rounds=1, seconds=0.5).data["turns"]
        self.assertEqual([deltas.STILL, deltas.CHANGING], [turn["meanwhile"] for turn in turns])
        self.assertEqual(0, turns[0]["deltas"])
        self.assertTrue(
            1 <= turns[1]["deltas"] <= 6, turns[1]["deltas"]
        )  # ten a second, of which the first comes after its pause
        for turn in turns:
            self.assertEqual({"NOERROR"}, set(turn["outcome"]["rcodes"]))


STACKS = """\
twistd\x20
\tffffffff82203249 _raw_spin_unlock_irqrestore ([kernel.kallsyms])
\tffffffff81e3513e sock_def_readable ([kernel.kallsyms])
\tffffffff81e2ed0f __sys_sendmsg ([kernel.kallsyms])
\tffffffff81e32014 __sys_sendmmsg ([kernel.kallsyms])
\tffffffff81e3215d __x64_sys_sendmmsg ([kernel.kallsyms])
\t          10b0c3 __sendmmsg (/usr/lib/x86_64-linux-gnu/libc.so.6)

dnsmasq\x20
\tffffffff81e2fd56 udp_sendmsg ([kernel.kallsyms])
\tffffffff81e32903 __sys_sendmsg ([kernel.kallsyms])

twistd\x20
\tffffffff81000130 asm_sysvec_apic_timer_interrupt ([kernel.kallsyms])

twistd\x20
\t          2c7a5a _PyEval_EvalFrameDefault (/usr/bin/python3.11)

"""
COUNTS = """\
# started on Sat Nov 28 09:33:10 2026

10000,,syscalls:sys_enter_sendmmsg,2945683,100.00,,
0,,syscalls:sys_enter_close,2945683,100.00,,
<not counted>,,syscalls:sys_enter_poll,0,100.00,,
"""
PYTHON = """\
run (twisted/scripts/twistd.py:35);UdpPort.read (meshdns/agent/hotpath.py:158);Batched._push (meshdns/agent/datagrams.py:172) 3
run (twisted/scripts/twistd.py:35);UdpPort.read (meshdns/agent/hotpath.py:158);0x4ff165 (?) 2
run (twisted/scripts/twistd.py:35);Linger.read (meshdns/agent/linger.py:42);epoll_wait (libc.so.6) 900
"""


class ProfileTests(SynchronousTestCase):
    """What is made of what perf and py-spy say."""

    def test_samples(self) -> None:
        """By the system call that the program made, or by the library."""
        found = perf.read_samples(STACKS)
        calls = ["sendmmsg", "sendmsg", None]
        self.assertEqual([perf.Sample(perf.KERNEL, call) for call in calls], list(found)[:3])
        self.assertEqual(perf.Sample("python3.11"), list(found)[3])

    def test_counts(self) -> None:
        path = Path(self.mktemp())
        path.write_text(COUNTS)
        self.assertEqual({"sendmmsg": 10_000}, perf.counts(path))

    def test_functions(self) -> None:
        """The innermost Python function has the C below it; who waits for the kernel does nothing."""
        wanted = {"meshdns.agent.datagrams.Batched._push": 3, "meshdns.agent.hotpath.UdpPort.read": 2}
        self.assertEqual(wanted, frames.functions(PYTHON))

    def profile(self, load: str) -> profiling.Profile:
        samples = Counter(
            {perf.Sample("kernel", "sendmmsg"): 50, perf.Sample("kernel"): 10, perf.Sample("libc.so.6"): 40}
        )
        return profiling.Profile(
            "meshdns", load, 30.0, samples, {"sendmmsg": 1.0, "close": 0.001}, frames.functions(PYTHON)
        )

    def test_shares(self) -> None:
        """Of the CPU that a query costs when nobody looks."""
        found = self.profile("full load")
        self.assertEqual(
            {"sendmmsg": 15.0, "other": 3.0}, {what: round(spent, 6) for what, spent in found.kernel.items()}
        )
        self.assertEqual(12.0, round(sum(found.python.values()), 6))

    def test_pages(self) -> None:
        paced, full, libraries, functions = profiling.pages([self.profile(load) for load in profiling.LOADS])
        for each in (paced, full):
            shown = ["meshdns", "30.00", "12.00", "18.00", "sendmmsg 15.00, other 3.00", "sendmmsg 1.00"]
            self.assertEqual(shown, list(each.rows[1]))
        self.assertEqual(["libc.so.6", "12.00", "12.00"], libraries.rows[1])
        self.assertEqual(["meshdns.agent.datagrams.Batched._push", "7.20", "7.20"], functions.rows[1])


class CompleteRunTests(SynchronousTestCase):
    """Whether bars hold in each of several runs."""

    def page(self, *notes: str) -> Page:
        return Page("Mesh", "mesh", [["server"]], notes)

    def test_each(self) -> None:
        runs = [
            [self.page("A at most 1.00 times B: holds, 0.92 (0.84–1.07)", "the bars are meant for 10 hosts")],
            [
                self.page(
                    "A at most 1.00 times B: missed, 1.01", "(!) A, round 1: others had the core, and it missed, 3%"
                )
            ],
        ]
        found = bars.summary(runs)
        assert found is not None
        self.assertEqual(
            [
                ["benchmark", "bar", "run 1", "run 2", "held"],
                ["Mesh", "A at most 1.00 times B", "0.92 (0.84–1.07)", "1.01 (missed)", "1 of 2"],
            ],
            found.rows,
        )
        self.assertEqual(["0 of 1 hold in each of 2 complete runs"], found.notes)

    def test_one_run(self) -> None:
        found = bars.summary([[self.page("p99 below 5 ms: holds, 3 ms")]])
        assert found is not None
        self.assertEqual(["Mesh", "p99 below 5 ms", "3 ms", "1 of 1"], found.rows[1])

    def test_no_bars(self) -> None:
        self.assertIsNone(bars.summary([[self.page("p99.9 is of few")]]))


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

    def test_footprint(self) -> None:
        starts = [footprint.Start(seconds, 0.4, 41_000_000, 0.0) for seconds in (0.5, 0.7, 0.55)]
        found = footprint.Found(footprint.FILE, 1000, starts, 34_000_000)
        self.assertEqual(
            [
                "a table file: below 42 MB: holds, 41.0 MB",
                "a table file: at most 6 MB above its imports: missed, 7.0 MB",
                "a table file: first right answer below 0.6 s: holds, 0.55 s",
            ],
            list(footprint.notes([found])),
        )
        few = attrs.evolve(found, kind=footprint.SNAPSHOT, starts=[attrs.evolve(starts[0], waited=0.5)])
        self.assertEqual(
            [
                "a snapshot, no control plane there: first right answer below 1.5 s: holds, 0.50 s",
                "a snapshot, no control plane there: the bars are meant for 100,000 hosts",
                "(!) a snapshot, no control plane there: others had the agent's core for 50% of the time",
            ],
            list(footprint.notes([few])),
        )

    def test_deltas(self) -> None:
        """p99.9 of each round, and the longest of all."""

        def turn(meanwhile: str, p999: float, most: float) -> deltas.Turn:
            return deltas.Turn(
                meanwhile, 1, 10, Outcome(9, 9, 0, {}, 1.0, Latency(0.0001, 0.0002, p999, most)), 0.1, 0.0
            )

        turns = [turn(deltas.STILL, 0.001, 0.002), turn(deltas.CHANGING, 0.004, 0.006)]
        self.assertEqual(
            [
                "10 deltas a second: p99.9 of each round below 5 ms: holds, 4.00 ms",
                "10 deltas a second: no answer takes 5 ms: missed, 6.00 ms, and 2.00 when nothing changes",
            ],
            list(deltas.notes(turns, 100_000)),
        )

    def test_world(self) -> None:
        """The next version of a service has another address."""
        self.assertIn(f"clusterIP: {world.address(7, 1)}\n", world.service(7, "ns0", 1))
        self.assertEqual(3, len({world.address(70_000, version) for version in range(3)}))
