"""The agent as a daemon of twistd: signals, privileges, logs, and what it says of broken files (contract section 4)."""

import json
import os
import pwd
import re
import signal
import subprocess
from pathlib import Path

import dns.message
import dns.rcode
import dns.rrset

from meshdns import __version__
from meshdns.defaults import TABLE_FILE_POLL
from tests.e2e.agent import EXAMPLE_TABLE, SERVICE, SERVICE_ADDRESS, Agent, command, replace, settings, table
from tests.e2e.hosts import Host
from tests.e2e.stage import Stage, framed, free_port, read_frame, twistd
from tests.e2e.upstreams import Scripted, Unbound

OTHER_ADDRESS = "10.4.7.7"
OTHER_TABLE = table([{"host": SERVICE, "ips": [OTHER_ADDRESS], "registry": "Kubernetes"}])
OURS = r"\[meshdns\."  # lines of the log that we write; the others are twistd's


def silence(query: dns.message.Message) -> None:
    return None


class HangUpTests(Stage):
    """SIGHUP: the configuration is read again."""

    def setUp(self) -> None:
        super().setUp()
        self.upstream = Scripted(self, self.reply)
        self.agent = Agent.start(self, servers=[self.upstream.address])
        self.servers = [self.upstream.address]

    def reply(self, query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer

    def hang_up(self, **sections: object) -> None:
        """A new configuration, and SIGHUP; returns once the log says that it is in force."""
        before = len(self.agent.lines(OURS))
        self.agent.hang_up(settings(self.agent.port, self.servers, **sections))
        self.agent.await_line(OURS, before + 1)
        self.assertEqual(before + 1, len(self.agent.lines(OURS)), self.agent.log.read_text())

    def test_search(self) -> None:
        """D8: a changed search list."""
        expanded = f"{SERVICE}.corp.example.com"
        self.assertEqual(dns.rcode.NXDOMAIN, self.agent.ask(expanded).rcode())
        self.hang_up(search=["ns1.svc.cluster.local", "corp.example.com"])
        self.assertEqual([SERVICE_ADDRESS], self.agent.addresses(expanded))

    def test_namespace(self) -> None:
        """D6: a changed namespace: short names mean others."""
        self.assertEqual([SERVICE_ADDRESS], self.agent.addresses("productpage"))
        self.hang_up(workload={"namespace": "default"})
        self.assertEqual(["10.4.0.1"], self.agent.addresses("kubernetes"))
        self.assertEqual(dns.rcode.NXDOMAIN, self.agent.ask("productpage").rcode())

    def test_allow(self) -> None:
        """D3: a changed list of who may ask, both ways."""
        self.hang_up(allow=["192.0.2.0/24"])
        for tcp in (False, True):
            self.assertEqual(dns.rcode.REFUSED, self.agent.ask(SERVICE, tcp=tcp).rcode())
        self.hang_up(allow=["loopback"])
        for tcp in (False, True):
            self.assertEqual([SERVICE_ADDRESS], self.agent.addresses(SERVICE, tcp=tcp))

    def test_listen(self) -> None:
        """D1: other addresses: the new one is open, the old one closed, one in both never shut."""
        other = free_port()
        with self.agent.place.make_socket() as kept:
            kept.settimeout(5)
            kept.connect(("127.0.0.1", self.agent.port))
            self.hang_up(listen=[f"127.0.0.1:{self.agent.port}", f"127.0.0.1:{other}"])
            query = dns.message.make_query(SERVICE, "A")
            kept.sendall(framed(query.to_wire()))
            self.assertTrue(query.is_response(dns.message.from_wire(read_frame(kept))))
        old, self.agent.port = self.agent.port, other
        for tcp in (False, True):
            self.assertEqual([SERVICE_ADDRESS], self.agent.addresses(SERVICE, tcp=tcp))
        self.hang_up(listen=[f"127.0.0.1:{other}"])
        self.agent.port = old
        for tcp in (False, True):
            self.agent.await_true("a closed door", lambda tcp=tcp: self.is_refused(tcp))

    def is_refused(self, tcp: bool) -> bool:
        """What comes to a door in the very moment it closes gets no answer at all."""
        try:
            self.agent.ask(SERVICE, tcp=tcp)
        except (TimeoutError, ConnectionRefusedError) as error:
            return isinstance(error, ConnectionRefusedError)
        return False

    def test_upstream(self) -> None:
        """D19: other servers."""
        unbound = Unbound.start(self, "relay.example", "@ SOA ns h 1 3600 600 86400 60\n@ NS ns\nwww A 192.0.2.80\n")
        self.assertEqual(dns.rcode.NXDOMAIN, self.agent.ask("www.relay.example").rcode())
        self.servers = [unbound.address]
        self.hang_up()
        self.assertEqual(["192.0.2.80"], self.agent.addresses("www.relay.example"))

    def test_ttl(self) -> None:
        """D11: another TTL, for answers that were asked before, too."""
        for _ in range(3):
            self.assertEqual(30, self.agent.ask(SERVICE).answer[0].ttl)
        self.hang_up(mesh={"ttl": 7})
        self.assertEqual(7, self.agent.ask(SERVICE).answer[0].ttl)

    def test_table(self) -> None:
        """Another table file: at once in force."""
        (self.folder / "other.jsonl").write_bytes(OTHER_TABLE)
        self.agent.hang_up(settings(self.agent.port, self.servers, table={"file": "other.jsonl"}))
        self.agent.await_line("other.jsonl: 1 hosts")
        self.assertEqual([OTHER_ADDRESS], self.agent.addresses(SERVICE))
        # The old file is not looked at any more.
        replace(self.agent.table, table([]))
        replace(self.folder / "other.jsonl", table([{"host": SERVICE, "ips": ["10.4.7.8"], "registry": "Kubernetes"}]))
        self.agent.await_line("other.jsonl: 1 hosts", 2)
        self.assertEqual(["10.4.7.8"], self.agent.addresses(SERVICE))
        self.assertEqual(1, len(self.agent.lines(r"/table\.jsonl")))

    def test_broken(self) -> None:
        """A configuration that cannot be used is refused with file:line, and all goes on as it was."""
        good = self.agent.config.read_text()
        for broken, reason in {
            good.replace("search", "serch"): r'agent\.yaml:3: unknown key "serch"; did you mean "search"\?',
            good.replace("namespace", "name: space"): r"agent\.yaml:1: ",
            f"{good}udp_max: 12\n": r"agent\.yaml:7: udp_max",
            "": r"agent\.yaml:1: ",
        }.items():
            self.agent.hang_up(broken)
            self.agent.await_line(reason)
            self.assertEqual([SERVICE_ADDRESS], self.agent.addresses(SERVICE))
            self.assertEqual([SERVICE_ADDRESS], self.agent.addresses("productpage.ns1.svc.ns1.svc.cluster.local"))
        self.agent.config.unlink()
        self.agent.hang_up()
        self.agent.await_line(r"agent\.yaml:1: cannot be read")
        self.assertEqual([SERVICE_ADDRESS], self.agent.addresses(SERVICE))
        self.assertEqual([], self.agent.complaints())
        self.hang_up(mesh={"ttl": 7})
        self.assertEqual(7, self.agent.ask(SERVICE).answer[0].ttl)

    def test_port_taken(self) -> None:
        """A port that somebody else has: refused as a whole, and all goes on as it was."""
        with self.agent.place.make_socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.agent.hang_up(settings(port, self.servers, mesh={"ttl": 7}))
            self.agent.await_line(rf"stays as it was.*{port}|{port}.*stays as it was")
        self.assertEqual(30, self.agent.ask(SERVICE).answer[0].ttl)
        self.assertEqual([], self.agent.complaints())

    def test_many(self) -> None:
        """SIGHUP after SIGHUP: nothing is kept, nobody waits."""
        for ttl in range(20):
            self.hang_up(mesh={"ttl": ttl})
            self.assertEqual(ttl, self.agent.ask(SERVICE).answer[0].ttl)
        self.assertEqual([], self.agent.complaints())


class EndTests(Stage):
    """SIGTERM."""

    def test_clean(self) -> None:
        """It ends at once and well when nobody waits; an idle connection keeps nothing up."""
        agent = Agent.start(self)
        with agent.place.make_socket() as idle:
            idle.settimeout(5)
            idle.connect(("127.0.0.1", agent.port))
            idle.sendall(framed(dns.message.make_query(SERVICE, "A").to_wire()))
            read_frame(idle)
            agent.process.terminate()
            self.assertEqual(b"", idle.recv(1))
            self.assertTrue(agent.ended_well())
        self.assertTrue(agent.lines("Server Shut Down"))

    def test_interrupt(self) -> None:
        """Ctrl-C is no accident either."""
        agent = Agent.start(self)
        agent.process.send_signal(signal.SIGINT)
        self.assertTrue(agent.ended_well(signal_sent=signal.SIGINT))
        self.assertTrue(agent.lines("Server Shut Down"))

    def test_pending(self) -> None:
        """ "SIGTERM drains": who waits for an upstream gets the answer that is on its way."""

        def late(query: dns.message.Message) -> dns.message.Message:
            agent.process.terminate()
            agent.await_line("Received SIGTERM")
            answer = dns.message.make_response(query)
            answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "192.0.2.1"))
            return answer

        upstream = Scripted(self, late)
        agent = Agent.start(self, servers=[upstream.address])
        self.assertEqual(["192.0.2.1"], agent.addresses("late.example.org"))
        self.assertTrue(agent.ended_well())

    def test_pending_for_ever(self) -> None:
        """An upstream that says nothing does not hold the agent."""
        upstream = Scripted(self, silence)
        agent = Agent.start(self, upstream={"servers": [upstream.address], "timeout": "20s", "deadline": "60s"})
        with agent.place.make_socket() as client:
            client.connect(("127.0.0.1", agent.port))
            client.sendall(framed(dns.message.make_query("never.example.org", "A").to_wire()))
            agent.await_true("the question upstream", lambda: upstream.asked)
            agent.process.terminate()
            self.assertTrue(agent.ended_well(patience=8))


class PrivilegeTests(Stage):
    def test_dropped(self) -> None:
        """Port 53 is taken as root, and then it is nobody who answers, re-reads its files, and ends."""
        host = Host(self)
        words = ["--uid", "nobody", "--gid", "nogroup"]
        agent = Agent.start(self, port=53, place=host.place, words=words)
        status = Path(f"/proc/{agent.process.pid}/status").read_text()
        nobody = pwd.getpwnam("nobody")
        self.assertEqual([str(nobody.pw_uid)] * 4, re.findall(r"(?m)^Uid:(.*)", status)[0].split())
        self.assertEqual([str(nobody.pw_gid)] * 4, re.findall(r"(?m)^Gid:(.*)", status)[0].split())
        self.assertEqual("0000000000000000", re.findall(r"(?m)^CapEff:\s*(\w+)", status)[0])
        for tcp in (False, True):
            self.assertEqual([SERVICE_ADDRESS], agent.addresses(SERVICE, tcp=tcp))
        replace(agent.table, OTHER_TABLE)
        agent.await_true("the new table", lambda: agent.addresses(SERVICE) == [OTHER_ADDRESS])
        agent.hang_up(settings(53, ["127.0.0.1:9"], mesh={"ttl": 7}))
        agent.await_true("the new TTL", lambda: agent.ask(SERVICE).answer[0].ttl == 7)
        agent.stop()
        self.assertTrue(agent.ended_well())


class StartTests(Stage):
    """What stands in the way of a start is said in a sentence."""

    def refused(self, config: str, status: int = 1) -> subprocess.CompletedProcess[str]:
        file = self.folder / "agent.yaml"
        file.write_text(config)
        done = self.run_to_end(command(file))
        self.assertEqual(status, done.returncode, done.stdout + done.stderr)
        self.assertNotIn("Traceback", done.stdout + done.stderr)
        return done

    def test_broken_configuration(self) -> None:
        """Exit status 78 (EX_CONFIG, which systemd does not try again), and every problem with file:line on standard error."""
        good = settings(free_port(), ["127.0.0.1:9"])
        done = self.refused(good.replace("search", "serch") + "udp_max: 12\n", os.EX_CONFIG)
        self.assertRegex(done.stderr, r'agent\.yaml:3: unknown key "serch"; did you mean "search"\?')
        self.assertRegex(done.stderr, r"agent\.yaml:7: udp_max")

    def test_no_configuration(self) -> None:
        """The same for a file that is not there."""
        done = self.run_to_end(command(self.folder / "none.yaml"))
        self.assertEqual(os.EX_CONFIG, done.returncode)
        self.assertRegex(done.stderr, r"none\.yaml:1: cannot be read: No such file")

    def test_port_taken(self) -> None:
        """A port that another process has."""
        other = Agent.start(self)
        done = self.refused(settings(other.port, ["127.0.0.1:9"]))
        self.assertIn(str(other.port), done.stdout + done.stderr)

    def test_version(self) -> None:
        """`twistd meshdns --version` is ours, not Twisted's."""
        self.assertEqual(f"meshdns {__version__}\n", self.said_by([*twistd(), "meshdns", "--version"]))

    def test_no_table(self) -> None:
        """D17: without a table it starts, says so once, and takes the table when it comes."""
        agent = Agent.start(self, table=b"", autopath="all")
        agent.await_line("table.jsonl")
        self.assertEqual(dns.rcode.SERVFAIL, agent.ask(SERVICE).rcode())
        replace(agent.table, EXAMPLE_TABLE)
        agent.await_true("the table", lambda: not agent.ask(SERVICE).rcode())
        self.assertEqual([SERVICE_ADDRESS], agent.addresses(SERVICE))
        self.assertEqual(2, len(agent.lines(r"table\.jsonl")))


class TableFileTests(Stage):
    """The table file changes under a running agent."""

    def test_changed(self) -> None:
        """D28: a new table is in force, and says so in one line."""
        agent = Agent.start(self)
        self.assertEqual([SERVICE_ADDRESS], agent.addresses(SERVICE))
        replace(agent.table, OTHER_TABLE)
        agent.await_line("1 hosts")
        self.assertEqual([OTHER_ADDRESS], agent.addresses(SERVICE))
        self.assertEqual(2, len(agent.lines(r"table\.jsonl")))

    def test_broken(self) -> None:
        """A broken table leaves the old one in force, with one line that says where it is broken; then it is mended."""
        agent = Agent.start(self)
        lines = EXAMPLE_TABLE.splitlines(keepends=True)
        broken = {
            b"".join([*lines[:3], b'{"host": "a..b", "ips": []}\n', *lines[3:]]): "line 4",
            b"".join(lines[:5]): "17",
            b"\x00\xff" * 100: "line 1: is not UTF-8",
            b"": "the table is empty",
        }
        for number, (content, where) in enumerate(broken.items(), 1):
            replace(agent.table, content)
            line = agent.await_line("#error.*table.jsonl", number)
            self.assertIn(where, line)
            self.assertIn("stays in force", line)
            self.assertEqual([SERVICE_ADDRESS], agent.addresses(SERVICE))
        replace(agent.table, OTHER_TABLE)
        agent.await_line("1 hosts")
        self.assertEqual(len(broken), len(agent.lines("#error")), agent.log.read_text())
        self.assertEqual([OTHER_ADDRESS], agent.addresses(SERVICE))
        self.assertEqual([], agent.complaints())

    def test_vanished(self) -> None:
        """So does one that is gone; it is found again."""
        agent = Agent.start(self)
        agent.table.rename(agent.table.with_suffix(".away"))
        agent.await_line("#error.*table.jsonl")
        self.assertEqual([SERVICE_ADDRESS], agent.addresses(SERVICE))
        # Time for two more looks at what is not there, of which nothing may be said.
        self.assertRaises(subprocess.TimeoutExpired, agent.process.wait, 3 * TABLE_FILE_POLL)
        agent.table.with_suffix(".away").rename(agent.table)
        agent.await_line("good again")
        self.assertEqual(1, len(agent.lines("#error")))


class LogTests(Stage):
    def ask_much(self, agent: Agent) -> None:
        for name in (SERVICE, "productpage", "nosuch.ns1.svc.cluster.local", "www.example.org"):
            for tcp in (False, True):
                agent.ask(name, tcp=tcp)

    def test_lines(self) -> None:
        """One line of ours for the start, one for each table, none for a query; nothing but that."""
        upstream = Scripted(self, lambda query: dns.message.make_response(query))
        agent = Agent.start(self, servers=[upstream.address])
        self.ask_much(agent)
        replace(agent.table, OTHER_TABLE)
        agent.await_line("1 hosts")
        self.ask_much(agent)
        ours = agent.lines(OURS)
        self.assertEqual(3, len(ours), ours)
        self.assertEqual(2, len([line for line in ours if "#info] table file" in line]))
        (start,) = (line for line in ours if "table file" not in line)
        self.assertIn(f"meshdns {__version__} answers on 127.0.0.1:{agent.port}, asks {upstream.address}", start)
        twisteds = len(agent.lines()) - 3
        agent.stop()
        self.assertLessEqual(len(agent.lines(OURS)), 4)
        self.assertLessEqual(twisteds, 4, agent.log.read_text())  # twistd's two, and a socket's one each

    def test_queries(self) -> None:
        """`log.queries: on`: one line for each query, packed answers and TCP included; off again by SIGHUP."""
        upstream = Scripted(self, lambda query: dns.message.make_response(query))
        agent = Agent.start(self, servers=[upstream.address], log={"queries": True})
        before = len(agent.lines("productpage.ns1.svc.cluster.local"))
        for number in range(5):
            agent.ask(SERVICE, tcp=number == 4)
        agent.await_line("productpage.ns1.svc.cluster.local", before + 5)
        agent.ask("www.example.org", "TXT")
        self.assertIn("TXT", agent.await_line("www.example.org"))
        self.assertEqual(before + 5, len(agent.lines("productpage.ns1.svc.cluster.local")))
        agent.hang_up(settings(agent.port, [upstream.address], log={"queries": False}))
        agent.await_line("has read")
        count = len(agent.lines())
        self.ask_much(agent)
        self.assertEqual(count, len(agent.lines()))

    def test_json_lines(self) -> None:
        """`--logger=meshdns.agent.logs.json_lines`: every line is a JSON object, from the first to the last."""
        agent = Agent.start(self, words=["--logger=meshdns.agent.logs.json_lines"], log={"queries": True})
        self.ask_much(agent)
        agent.hang_up("nonsense: [1, 2]\n")  # its message has several lines
        agent.await_line("nonsense")
        replace(agent.table, b"")
        agent.await_line("stays in force")
        agent.stop()
        self.assertTrue(agent.ended_well())
        said = [json.loads(line) for line in agent.lines()]
        for each in said:
            self.assertEqual({"time", "level", "source", "message"}, each.keys())
            self.assertRegex(each["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$")
        self.assertEqual({"info", "error"}, {each["level"] for each in said})
        self.assertIn(f"meshdns {__version__} answers on", " ".join(each["message"] for each in said))

    def test_log_file(self) -> None:
        """twistd's own `--logfile`: the same lines, in a file."""
        file = self.folder / "twistd.log"
        agent = Agent.start(self, words=[f"--logfile={file}"])
        agent.addresses(SERVICE)
        agent.stop()
        self.assertTrue(agent.ended_well())
        self.assertIn(f"meshdns {__version__} answers on", file.read_text())
        self.assertEqual("", agent.log.read_text())
