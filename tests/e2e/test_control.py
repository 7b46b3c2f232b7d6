"""The whole product between real processes: control planes, agents, curl (rules X5 to X11, C5, C7, C8)."""

import gzip
import json
import shutil
import subprocess
from pathlib import Path
from unittest import SkipTest

import dns.rcode

from meshdns import table
from tests.e2e.control import Control, Grounds, agent, run_agent, spiffe
from tests.e2e.stage import WAIT, Stage, until
from tests.pki import Authority

SERVICE = "productpage.ns1.svc.cluster.local"
PAYROLL = "payroll.example.com"


class Case(Stage):
    def setUp(self) -> None:
        super().setUp()
        self.grounds = Grounds.lay(self)


class ByHandTests(Case):
    """X5, X6: curl alone can use and debug the long poll."""

    def setUp(self) -> None:
        super().setUp()
        if shutil.which("curl") is None:
            raise SkipTest("not installed: curl")
        self.control = Control.start(self.grounds)
        self.vm = self.grounds.vm("ns1")
        self.url = f"{self.control.url}/v1/nametable"

    def words(self, *words: str, url: str = "", identity: bool = True) -> list[str]:
        own = ["--cert", str(self.vm.pem), "--key", str(self.vm.key)] if identity else []
        trust = ["--cacert", str(self.grounds.root.pem)]
        return ["curl", "-sS", "--max-time", "20", *trust, *own, "-D", "-", *words, url or self.url + "?cluster=east"]

    def curl(self, *words: str, url: str = "", identity: bool = True) -> tuple[int, dict[str, str], bytes]:
        """Status, headers with their names in lower case, body."""
        done = subprocess.run(self.words(*words, url=url, identity=identity), capture_output=True, timeout=30)
        return self.read(done.stdout)

    def read(self, said: bytes) -> tuple[int, dict[str, str], bytes]:
        head, _, body = said.partition(b"\r\n\r\n")
        first, *rows = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (row.partition(": ") for row in rows)}
        return int(first.split()[1]), headers, body

    def test_whole_table(self) -> None:
        """X5, X2: 200 with the table, its generation as ETag; gzip when asked for; X4: Istio's form."""
        status, headers, body = self.curl()
        found = table.read(body)
        self.assertEqual(
            (200, f'"{found.generation}"', "application/jsonl"), (status, headers["etag"], headers["content-type"])
        )
        _, headers, packed = self.curl("-H", "Accept-Encoding: gzip")
        self.assertEqual(("gzip", body), (headers["content-encoding"], gzip.decompress(packed)))
        _, headers, istio = self.curl("-H", "Accept: application/json")
        self.assertEqual(["10.4.0.5"], json.loads(istio)["table"][SERVICE]["ips"])
        self.assertTrue(headers["etag"].startswith("W/"))

    def test_nothing_new(self) -> None:
        """X5: 304 in time, at once where nobody waits."""
        etag = self.curl()[1]["etag"]
        for words in ((), ("-H", "Prefer: wait=1")):
            status, headers, body = self.curl("-H", f"If-None-Match: {etag}", *words)
            self.assertEqual((304, etag, b""), (status, headers["etag"], body))

    def test_parked(self) -> None:
        """X5, X3, X8: parked until there is news; then the delta from just the generation named."""
        _, headers, body = self.curl()
        words = ["-H", f"If-None-Match: {headers['etag']}", "-H", "Prefer: wait=15", "-H", "A-IM: meshdns-delta"]
        waiting = subprocess.Popen(self.words(*words), stdout=subprocess.PIPE)
        self.addCleanup(waiting.stdout.close)  # type: ignore[union-attr]
        self.addCleanup(waiting.wait)
        self.control_waits()
        self.grounds.edit("10.4.0.5", "10.4.0.99")
        said, _ = waiting.communicate(timeout=WAIT)
        status, headers, delta = self.read(said)
        self.assertEqual((226, "meshdns-delta"), (status, headers["im"]))
        loader = table.Loader(table.read(body))
        for line in delta.splitlines():
            loader.feed(line)
        self.assertEqual(["10.4.0.99"], loader.finish().entries[SERVICE].ips)
        self.assertLess(len(delta), 1024)

    def control_waits(self) -> None:
        until(
            "a parked poll",
            lambda: "meshdns_parked_polls 1.0" in self.control.page("/metrics"),
            self.control.process,
            self.control.log,
        )

    def test_refusals(self) -> None:
        """X6: a status and a sentence that says what to do, as problem JSON."""
        base = self.control.url
        for words, url, identity, status, told in (
            ((), "", False, 401, "client certificate with a SPIFFE name"),
            (("-H", "Authorization: Bearer x"), "", False, 401, "not known here"),
            ((), self.url + "?namespace=hr", True, 403, "You are of the namespace ns1"),
            ((), self.url + "?cluster=north", True, 400, "there are east, west"),
            ((), self.url + "?x=y", True, 400, "is no parameter"),
            ((), base + "/v1/other", True, 404, "nothing but /v1/nametable"),
            (("-X", "POST"), "", True, 405, "Only GET"),
            (("-H", "Accept: text/html"), "", True, 406, "application/jsonl"),
        ):
            found, headers, body = self.curl(*words, url=url, identity=identity)
            self.assertEqual((status, "application/problem+json"), (found, headers["content-type"]), told)
            self.assertIn(told, json.loads(body)["detail"])

    def test_other_certificates(self) -> None:
        """X10: expired, of another authority, with another name: no table, and the cause in the log."""
        other = Authority(self.grounds.folder, "other")
        root = self.grounds.root
        for vm, status in (
            (root.issue("old", spiffe("ns1"), days=(-9, -1)), 0),
            (other.issue("fake", spiffe("ns1")), 0),
            (root.issue("web", "https://example.com"), 403),
            (root.issue("far", "spiffe://elsewhere.example/ns/ns1/sa/x"), 403),
        ):
            self.vm = vm
            done = subprocess.run(self.words(), capture_output=True, timeout=30)
            self.assertEqual(status, self.read(done.stdout)[0] if done.stdout else 0)
        self.assertIn("is refused (403): the name spiffe://elsewhere.example", self.control.log.read_text())

    def test_token(self) -> None:
        """X10: a token made by `meshdns token`; when it is removed a parked poll ends, too."""
        file = str(self.grounds.folder / "tokens.yaml")
        meshdns = [Path(shutil.which("meshdns") or "meshdns")]
        token = self.said_by([*meshdns, "token", "add", "--namespace", "hr", "--file", file]).strip()
        status, headers, body = self.curl("-H", f"Authorization: Bearer {token}", identity=False)
        self.assertEqual(200, status)
        self.assertIn(PAYROLL, table.read(body).entries)
        words = [
            "-H",
            f"Authorization: Bearer {token}",
            "-H",
            f"If-None-Match: {headers['etag']}",
            "-H",
            "Prefer: wait=15",
        ]
        waiting = subprocess.Popen(self.words(*words, identity=False), stdout=subprocess.PIPE)
        self.addCleanup(waiting.stdout.close)  # type: ignore[union-attr]
        self.addCleanup(waiting.wait)
        self.control_waits()
        listed = self.said_by([*meshdns, "token", "list", "--file", file])
        self.assertNotIn(token, listed + Path(file).read_text())
        self.said_by([*meshdns, "token", "remove", listed.split()[0], "--file", file])
        self.grounds.edit("10.4.0.5", "10.4.0.99")
        said, _ = waiting.communicate(timeout=WAIT)
        self.assertEqual(401, self.read(said)[0])

    def test_explained(self) -> None:
        """C7: why is this host not in this workload's table."""
        told = self.control.json(f"/v1/explain?host={PAYROLL}&namespace=ns1&cluster=east")
        self.assertIsNone(told["entry"])
        self.assertIn("exportTo shows it to hr only", " ".join(told["because"]))
        (self.grounds.folder / "east" / "bad.yaml").write_text("kind: Service\napiVersion: v1\nmetadata: {name: X}\n")
        until(
            "the problem", lambda: self.control.json("/v1/problems")["problems"], self.control.process, self.control.log
        )


class FollowTests(Case):
    """X8, X9, X11, C8: agents that follow."""

    def addresses(self, one: object, name: str = SERVICE) -> list[str]:
        answer = one.ask(name)  # type: ignore[attr-defined]
        return (
            []
            if answer.rcode()
            else sorted(each.address for rrset in answer.answer for each in rrset if hasattr(each, "address"))
        )

    def await_address(self, one: object, address: str, name: str = SERVICE) -> None:
        one.await_true(f"{name} at {address}", lambda: self.addresses(one, name) == [address])  # type: ignore[attr-defined]

    def test_changes_arrive(self) -> None:
        """X3, X8: a changed manifest is a changed answer, and comes as a delta."""
        control = Control.start(self.grounds)
        one = agent(self.grounds, control)
        self.await_address(one, "10.4.0.5")
        self.grounds.edit("10.4.0.5", "10.4.0.99")
        self.await_address(one, "10.4.0.99")
        one.await_line("a delta from the control plane")
        self.assertEqual([], one.complaints() + control.complaints())

    def test_killed_at_any_moment(self) -> None:
        """X8, X11, C5: killed while updates flow, and back: no wrong answer, no other VIP, the last table meanwhile; and an agent
        that starts meanwhile has its snapshot."""
        control = Control.start(self.grounds)
        one = agent(self.grounds, control)
        self.await_address(one, "10.4.0.5")
        vip = self.addresses(one, "db1.example.com")
        self.assertEqual(1, len(vip))
        for number in range(3):
            self.grounds.edit(f"10.4.0.{5 + number}\n", f"10.4.0.{6 + number}\n")
            control.kill()
            self.assertEqual(vip, self.addresses(one, "db1.example.com"))
            control = control.again()
            self.await_address(one, f"10.4.0.{6 + number}")
            self.assertEqual(vip, self.addresses(one, "db1.example.com"))
        control.kill()
        one.stop()
        again = run_agent(self, one.port, one.config, one.log)
        self.assertEqual((["10.4.0.8"], vip), (self.addresses(again), self.addresses(again, "db1.example.com")))
        self.assertEqual(0o600, one.table.stat().st_mode & 0o777)

    def test_two_and_two(self) -> None:
        """C8: two control planes with one store and two agents of different namespaces live through the death of each in turn."""
        controls = [Control.start(self.grounds, name) for name in ("one", "two")]
        agents = [agent(self.grounds, *controls, namespace="ns1"), agent(self.grounds, *controls, namespace="hr")]
        for one in agents:
            self.await_address(one, "10.4.0.5")
        (vip,) = self.addresses(agents[0], "db1.example.com")
        self.assertEqual([vip], self.addresses(agents[1], "db1.example.com"))
        self.assertEqual(([], 1), (self.addresses(agents[0], PAYROLL), len(self.addresses(agents[1], PAYROLL))))
        last = 5
        for number, name in enumerate(("one", "two", "one")):
            controls[number % 2].kill()
            self.grounds.edit(f"10.4.0.{last}\n", f"10.4.0.{last + 1}\n")
            last += 1
            for one in agents:
                self.await_address(one, f"10.4.0.{last}")
                self.assertEqual([vip], self.addresses(one, "db1.example.com"))
            controls[number % 2] = controls[number % 2].again(name)
        for number, one in enumerate(agents):
            one.stop()
            agents[number] = run_agent(self, one.port, one.config, one.log)
            self.await_address(agents[number], f"10.4.0.{last}")

    def test_moves_without_a_whole_table(self) -> None:
        """C8, X2: the other replica knows the generation by its content."""
        controls = [Control.start(self.grounds, name) for name in ("one", "two")]
        one = agent(self.grounds, *controls)
        self.await_address(one, "10.4.0.5")
        controls[0].kill()
        one.await_true("a poll at the other", lambda: "meshdns_parked_polls 1.0" in controls[1].page("/metrics"))
        self.assertIn('meshdns_table_responses_total{kind="table"} 0.0', controls[1].page("/metrics"))

    def test_not_trusted(self) -> None:
        """X9: wrong authority, wrong pin: refused, said once with the pin seen, and nothing is taken."""
        control = Control.start(self.grounds)
        other = Authority(self.grounds.folder, "other")
        for trust, told in (
            ({"ca": str(other.pem)}, "was not accepted"),
            ({"pins": [other.pin]}, "none of its pins is ours"),
        ):
            one = agent(self.grounds, control, **trust)  # type: ignore[arg-type]
            one.await_line(f"is not trusted, so nothing is taken from it: .*{told}")
            self.assertEqual(dns.rcode.SERVFAIL, one.ask(SERVICE).rcode())
            self.assertEqual(1, len(one.lines("is not trusted")))
            self.assertEqual([], one.complaints())

    def test_pins_alone(self) -> None:
        """X9: the pin that `meshdns pin` prints is enough to know a control plane by."""
        control = Control.start(self.grounds)
        printed = self.said_by(
            [shutil.which("meshdns") or "meshdns", "pin", str(self.grounds.folder / "server-one.pem")]
        )
        one = agent(self.grounds, control, pins=[printed.split()[0]])
        self.await_address(one, "10.4.0.5")

    def test_half_read_mesh(self) -> None:
        """X6, C1: a source that is not there yet gives nobody a half-read mesh; and broken manifests block nobody."""
        (self.grounds.folder / "east" / "bad.yaml").write_text("{")
        control = Control.start(self.grounds)
        shutil.move(self.grounds.folder / "west", self.grounds.folder / "away")
        one = agent(self.grounds, control)
        self.await_address(
            one, "10.8.0.7", "loyalty.ns2.svc.cluster.local"
        )  # what a directory gave stays when it vanishes
        control.kill()
        words = [*control.process.args]  # type: ignore[misc]
        process = self.start(words, control.log)
        shutil.move(self.grounds.folder / "away", self.grounds.folder / "west")
        until("readiness", control.is_ready, process, control.log)
        self.await_address(one, "10.8.0.7", "loyalty.ns2.svc.cluster.local")

    def test_hang_up(self) -> None:
        """SIGHUP takes on another configuration, and refuses a broken one."""
        control = Control.start(self.grounds)
        one = agent(self.grounds, control)
        self.await_address(one, "10.4.0.5")
        good = control.config.read_text()
        control.config.write_text(good + "nonsense: 1\n")
        control.process.send_signal(1)
        one.await_true("a refusal", lambda: "stays as it was" in control.log.read_text())
        control.config.write_text(good.replace('"west"', '"south"'))
        control.process.send_signal(1)
        one.await_true("another World", lambda: 'source_synced{cluster="south"} 1.0' in control.page("/metrics"))
        self.grounds.edit("10.4.0.5", "10.4.0.99")
        self.await_address(one, "10.4.0.99")
        self.assertEqual([], one.complaints() + control.complaints())
