"""An agent's poller on the real long poll, under real TLS, over connections in memory and with time at will (rules X3, X7 to X10,
C8): what it holds stays right whatever happens between them, and each trouble is one clear word."""

import gzip
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from shutil import copy, rmtree
from tempfile import mkdtemp
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.logger import globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory

from meshdns.agent import arriving
from meshdns.agent.addresses import Addresses
from meshdns.agent.poller import Poller
from meshdns.agent.subscription import Subscription
from meshdns.control.leases import MemoryLeases
from meshdns.defaults import (
    DEBOUNCE_QUIET,
    POLL_BACKOFF_MOST,
    POLL_BODY,
    POLL_IDLE,
    POLL_REFUSAL,
    POLL_SILENCE,
    POLL_WAIT,
)
from meshdns.net.tls import ClientTls, ServerTls
from meshdns.table import Table
from tests.control.double import Double, MemoryCase
from tests.control.world import entry, service
from tests.pki import Authority, Issued

A = "a.ns1.svc.cluster.local"
SPIFFE = "spiffe://cluster.local/ns/ns1/sa/default"


class Follower:
    """An agent as far as tables go."""

    def __init__(self, case: "Case", *ports: int, pins: tuple[str, ...] = (), ca: Path | None = None) -> None:
        urls = tuple(f"https://localhost:{port}" for port in ports)
        self.adopted: list[Table] = []
        self.subscription = Subscription(urls, "east", "")
        self.token = ""
        trust = ClientTls(ca=str(ca) if ca else None, pins=pins, certificate=str(case.vm.pem), key=str(case.vm.key))
        nobody: Any = None
        self.poller = Poller(
            self.subscription, trust, lambda: self.token, Addresses(nobody, case.network), self.adopted.append,
            case.network, lambda: 0.5,
        )  # fmt: skip
        self.poller.start()
        case.network.wait()
        case.addCleanup(self.stop)

    def stop(self) -> None:
        self.poller.stop()

    @property
    def address(self) -> list[str]:
        return self.adopted[-1].entries[A].ips


class Case(MemoryCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(mkdtemp(prefix="meshdns-following-"))
        self.addCleanup(rmtree, self.folder)
        self.root = Authority(self.folder, "root")
        self.other = Authority(self.folder, "other")
        self.served = self.root.issue("server", "localhost")
        self.vm = self.root.issue("vm", SPIFFE)
        self.leases = MemoryLeases()
        self.heard: list[str] = []
        globalLogPublisher.addObserver(self._hear)
        self.addCleanup(globalLogPublisher.removeObserver, self._hear)

    def _hear(self, event: dict[str, Any]) -> None:
        if event.get("log_namespace") == "meshdns.agent.poller":
            self.heard.append(event["log_format"].format(**event))

    def control(self, *objects: dict[str, Any], port: int = 15012, **more: Any) -> Double:
        tls = ServerTls(str(self.served.pem), str(self.served.key), str(self.root.pem))
        return self.replica(*(objects or (service("a"), entry("x", "x.example.com"))), port=port, tls=tls,
                            leases=self.leases, **more)  # fmt: skip

    def troubles(self) -> list[str]:
        """What was logged and is no table."""
        heard, self.heard = self.heard, []
        return [each for each in heard if "from the control plane" not in each]


class BadDayCase(Case):
    def bad_day(
        self, one: Follower, told: str, spoil: Callable[[], None], mend: Callable[[], None], lasts: float = 100.0
    ) -> None:
        before, generation = len(one.adopted), one.adopted[-1].generation
        self.troubles()
        spoil()
        for each in self.network.connections:
            each.serverIO.abortConnection()
        self.network.wait(lasts)
        self.assertEqual(before, len(one.adopted), told)
        (said,) = self.troubles()
        self.assertRegex(said, told)
        self.assertTrue(said.endswith(f"the table of generation {generation} stays in force"), said)
        self.assertIn(said.partition(";")[0], one.poller.trouble)
        mend()
        self.network.wait(2 * POLL_BACKOFF_MOST)
        self.assertEqual("control plane https://localhost:15012 can be used again", self.troubles()[-1])
        self.assertEqual("", one.poller.trouble)


class FollowTests(Case):
    def test_table_then_deltas(self) -> None:
        """X3, X7, X8: the whole table once, then each change as a delta, one debounce later."""
        control = self.control()
        one = Follower(self, 15012, ca=self.root.pem)
        self.assertEqual(["10.4.0.1"], one.address)
        for number in range(2, 6):
            control.east.put(service("a", ip=f"10.4.0.{number}"))
            self.network.wait(DEBOUNCE_QUIET)
            self.assertEqual([f"10.4.0.{number}"], one.address)
        self.assertEqual((1, 4), (one.poller.polls["table"], one.poller.polls["delta"]))
        self.assertEqual([], self.troubles())

    def test_quiet_hour(self) -> None:
        """X5, X7: where nothing changes one connection serves, parked again and again; each 304 confirms what is held."""
        self.control()
        one = Follower(self, 15012, ca=self.root.pem)
        connections = list(self.network.connections)
        self.network.wait(3600)
        self.assertEqual(int(3600 / POLL_WAIT), one.poller.polls["nothing"])
        self.assertEqual((connections, 1), (self.network.connections, len(one.adopted)))
        assert one.poller.confirmed is not None
        self.assertLess(self.network.seconds() - one.poller.confirmed, POLL_WAIT)

    def test_restarted_empty_handed(self) -> None:
        """C5, X2, X8: killed and started anew with nothing but its leases: the same generation, no other VIP, no table sent."""
        control = self.control()
        one = Follower(self, 15012, ca=self.root.pem)
        for _ in range(5):
            control.die()
            self.network.wait(3)
            control = self.control()
            self.network.wait(POLL_BACKOFF_MOST)
        self.assertEqual((1, 0, 1), (len(one.adopted), control.polls.responses["table"], control.polls.parked))
        self.assertEqual(10, len(told := self.troubles()), told)
        for gone, back in zip(told[::2], told[1::2], strict=True):
            self.assertIn("stays in force", gone)
            self.assertIn("can be used again", back)

    def test_restarted_half_read(self) -> None:
        """X6: a control plane that has not read everything yet takes nothing away."""
        control = self.control()
        one = Follower(self, 15012, ca=self.root.pem)
        control.die()
        again = self.control(service("a"), synced=False)
        self.network.wait(POLL_BACKOFF_MOST)
        self.assertEqual(1, len(one.adopted))
        self.assertIn("is not ready: Not every source has been read once", one.poller.trouble)
        again.east.put(entry("x", "x.example.com"), service("b"))
        again.east.sync()
        again.west.sync()
        self.network.wait(POLL_BACKOFF_MOST)
        self.assertEqual({A, "b.ns1.svc.cluster.local", "x.example.com"}, one.adopted[-1].entries.keys())

    def test_killed_at_any_octet(self) -> None:
        """X3, X8: the connection is lost after each so many octets of the answer: never a part of a table, and in the end
        all of the new one."""
        control = self.control()
        one = Follower(self, 15012, ca=self.root.pem)
        tables = {control.mesh.view(each.workload).generation for each in control.polls.agents.values()}  # type: ignore[union-attr]
        for cut in range(0, 900, 45):
            connection = self.network.connections[-1]
            connection.gate = _cut(connection, cut)
            control.change(service("a", ip=f"10.4.1.{cut // 45}"), service(f"b{cut}"))
            view = control.mesh.view(next(iter(control.polls.agents.values())).workload)
            assert view is not None
            tables.add(view.generation)
            self.network.wait(2 * POLL_BACKOFF_MOST)
            self.assertEqual([f"10.4.1.{cut // 45}"], one.address)
        self.assertEqual(set(), {each.generation for each in one.adopted} - tables)

    def test_idle_connection_closed(self) -> None:
        """X8: at once again when a connection that had worked is closed; nobody hears of it."""
        control = self.control()
        one = Follower(self, 15012, ca=self.root.pem)
        for each in self.network.connections:
            each.serverIO.abortConnection()
        self.network.wait(0)
        self.assertEqual((1, [], ""), (control.polls.parked, self.troubles(), one.poller.trouble))

    def test_two_replicas(self) -> None:
        """C8: from one to the other and back, over changes, without a whole table."""
        controls = {port: self.control(port=port) for port in (15012, 15013)}
        one = Follower(self, 15012, 15013, ca=self.root.pem)
        for number in range(2, 8):
            serving = next(port for port, each in controls.items() if each.polls.parked)
            other = 15012 + 15013 - serving
            for each in controls.values():
                each.east.put(service("a", ip=f"10.4.0.{number}"))
            self.network.wait(DEBOUNCE_QUIET)
            self.assertEqual([f"10.4.0.{number}"], one.address)
            controls[serving].die()
            self.network.wait(1)
            self.assertEqual(1, controls[other].polls.parked)
            controls[serving] = self.control(
                service("a", ip=f"10.4.0.{number}"), entry("x", "x.example.com"), port=serving
            )
        self.assertEqual((1, 6), (one.poller.polls["table"], one.poller.polls["delta"]))

    def test_goes_behind_and_ahead(self) -> None:
        """X3: a replica that is behind gives its own whole table, and what it holds later is right again."""
        self.control(service("a", ip="10.4.0.2"), service("b"))
        one = Follower(self, 15012, 15013, ca=self.root.pem)
        behind = self.control(service("a"), port=15013)
        self.network.close(15012)
        self.network.wait(1)
        self.assertEqual(["10.4.0.1"], one.address)
        behind.change(service("a", ip="10.4.0.2"), service("b"))
        self.assertEqual((["10.4.0.2"], one.adopted[0]), (one.address, one.adopted[-1]))


def _cut(connection: Any, left: int) -> Callable[[bytes], bytes]:
    """Lets so many octets of the server through, then the connection is lost."""

    def gate(data: bytes) -> bytes:
        nonlocal left
        some, left = data[:left], max(0, left - len(data))
        if not left:
            connection.serverIO.abortConnection()
        return some

    return gate


class TrustTests(BadDayCase):
    """X9, X10: credentials go bad while an agent holds a good table: one clear word, the table stays; and all is well again when
    they are."""

    def put(self, target: Issued, source: Issued) -> None:
        """Other credentials in the place of those in use."""
        copy(source.pem, target.pem)
        copy(source.key, target.key)

    def kept(self, issued: Issued) -> Issued:
        """A copy, to be put back."""
        same = Issued(self.folder / f"kept-{issued.pem.name}", self.folder / f"kept-{issued.key.name}", issued.pin)
        self.put(same, issued)
        return same

    def test_agent(self) -> None:
        """X10: an agent whose certificate expires, is another authority's, or has another name."""
        self.control()
        one = Follower(self, 15012, ca=self.root.pem)
        good = self.kept(self.vm)
        for bad, told in (
            (self.root.issue("old", SPIFFE, days=(-9, -1)), "ended the handshake of TLS: .*certificate"),
            (self.root.issue("early", SPIFFE, days=(1, 9)), "ended the handshake of TLS: .*certificate"),
            (self.other.issue("fake", SPIFFE), "ended the handshake of TLS: .*(unknown ca|certificate)"),
            (
                self.root.issue("web", "https://www.example.com"),
                r"refuses us \(403\): Your certificate has no SPIFFE name",
            ),
            (
                self.root.issue("far", "spiffe://elsewhere.example/ns/ns1/sa/x"),
                r"refuses us \(403\): Your certificate's name is",
            ),
        ):
            self.bad_day(one, told, lambda bad=bad: self.put(self.vm, bad), lambda: self.put(self.vm, good))  # type: ignore[misc]

    def test_agents_token(self) -> None:
        """X10: a token that is removed, or never was."""
        control = self.control()
        one = Follower(self, 15012, ca=self.root.pem)
        one.token = "secret"
        tokens = control.tokens

        def remove() -> None:
            control.tokens = ()

        def give_back() -> None:
            control.tokens = tokens

        self.bad_day(one, r"refuses us \(401\): This token is not known here", remove, give_back)

    def test_control_plane(self) -> None:
        """X9: a control plane whose certificate expires, is another authority's, or is for another name."""
        self.control()
        one = Follower(self, 15012, ca=self.root.pem)
        good = self.kept(self.served)
        for bad, told in (
            (self.root.issue("late", "localhost", days=(-9, -1)), "is not trusted.* certificate has expired"),
            (self.other.issue("fake", "localhost"), "is not trusted.* its certificate was not accepted"),
            (self.root.issue("away", "www.example.com"), "is not trusted.* its certificate is not for localhost"),
        ):
            self.bad_day(one, told, lambda bad=bad: self.put(self.served, bad), lambda: self.put(self.served, good))  # type: ignore[misc]

    def test_man_in_the_middle(self) -> None:
        """X9: right name, an authority that is trusted for everything, and not our pin: the pin that was seen is told."""
        both = self.folder / "system.pem"
        both.write_bytes(self.root.pem.read_bytes() + self.other.pem.read_bytes())
        for ca, pin in ((both, self.served.pin), (None, self.served.pin), (both, self.root.pin)):
            control = self.control()
            one = Follower(self, 15012, ca=ca, pins=(pin,))
            self.assertEqual(["10.4.0.1"], one.address)
            good, public = self.kept(self.served), self.other.issue("public", "localhost")
            told = f"is not trusted.* none of its pins is ours; its own certificate has {public.pin}"
            self.bad_day(
                one,
                told.replace("+", r"\+"),
                lambda p=public: self.put(self.served, p),
                lambda g=good: self.put(self.served, g),
            )  # type: ignore[misc]
            one.stop()
            control.die()
            self.network.wait(POLL_IDLE)

    def test_pins_change_hands(self) -> None:
        """X9: several pins: a control plane's next key may be pinned before it is used."""
        self.control()
        new = self.root.issue("new", "localhost")
        one = Follower(self, 15012, pins=(self.served.pin, new.pin))
        self.put(self.served, new)
        for each in self.network.connections:
            each.serverIO.abortConnection()
        self.network.wait(POLL_BACKOFF_MOST)
        self.assertEqual((["10.4.0.1"], [], ""), (one.address, self.troubles(), one.poller.trouble))

    def test_flipped_bits(self) -> None:
        """X3, X9: whoever changes what goes over the wire ends the connection, and no more."""
        control = self.control()
        one = Follower(self, 15012, ca=self.root.pem)
        for number in range(6):
            self.network.connections[-1].gate = lambda data: bytes([*data[:-1], data[-1] ^ 1])
            control.change(service("a", ip=f"10.4.1.{number}"))
            self.network.wait(2 * POLL_BACKOFF_MOST)
            self.assertEqual([f"10.4.1.{number}"], one.address)
        self.assertEqual([], self.flushLoggedErrors())


class Liar(Protocol):
    """A server that answers each request with what `says` gives, at the pace that it likes."""

    transport: Any
    factory: Any

    def connectionMade(self) -> None:
        self.data = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if b"\r\n\r\n" in self.data:
            self.data = b""
            self.says = self.factory.says()
            self.go_on()

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True

    def go_on(self) -> None:
        if self.lost:
            return
        for said in self.says:
            if said is None:
                self.transport.abortConnection()
                return
            self.transport.write(said)
            if self.factory.pace:
                self.factory.network.callLater(self.factory.pace, self.go_on)
                return


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/jsonl\r\n"
LONG = HEAD + b"Content-Length: 99999999\r\n\r\n"


class BodyTests(BadDayCase):
    """X3, X8: bodies that are no table, from somebody who is trusted."""

    def lies(
        self, told: str, says: Callable[[], Iterator[bytes | None]], pace: float = 0.0, lasts: float = 100.0
    ) -> None:
        control = self.control()
        one = Follower(self, 15012, ca=self.root.pem)
        liar: Any = Factory.forProtocol(Liar)
        liar.noisy, liar.says, liar.pace, liar.network = False, says, pace, self.network

        def spoil() -> None:
            control.die()
            tls = ServerTls(str(self.served.pem), str(self.served.key), None)
            self.network.listen(15012, TLSMemoryBIOFactory(tls, False, liar, clock=self.network))

        def mend() -> None:
            self.network.close(15012)
            self.control()

        self.bad_day(one, told, spoil, mend, lasts)
        one.stop()
        self.network.close(15012)

    def test_never_ends(self) -> None:
        """X8: an octet now and then is no table, however long it goes on."""
        self.lies(
            "its body does not end", lambda: chain([LONG], repeat(b" ")), pace=POLL_SILENCE / 2, lasts=POLL_BODY + 1
        )

    def test_stops(self) -> None:
        """X8: nothing more comes."""
        self.lies("its body stopped in the middle", lambda: iter([LONG + b'{"nametable":1']))

    def test_lost(self) -> None:
        """X3: the connection is lost in the middle."""
        self.lies(
            "its body was cut off", lambda: iter([LONG + b'{"nametable":1,"zones":[],"ttl":30}\n', None]), pace=0.1
        )

    def test_oversized(self) -> None:
        """X8: more than any mesh has is let go of, packed or not."""
        self.patch(arriving, "TABLE_FILE_BYTES", 1 << 20)
        piece = (b" " * 999 + b"\n") * 60
        self.lies("its body has more than 1 MiB", lambda: chain([LONG], repeat(piece)), pace=0.01)

    def test_corrupted_gzip(self) -> None:
        """X3: octets that are not what was packed."""
        packed = bytearray(gzip.compress(b"x" * 5000 + bytes(range(256))))
        packed[len(packed) // 2] ^= 0xFF
        head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        self.lies("sent a table that cannot be used: .*incorrect data check", lambda: iter([head + bytes(packed)]))

    def test_cut_gzip(self) -> None:
        """X3: a packed body that is whole for HTTP and not for gzip."""
        packed = gzip.compress(bytes(range(256)) * 10)[:-9]
        head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        self.lies("sent a table that cannot be used: ", lambda: iter([head + packed]))

    def test_no_http(self) -> None:
        """X8: something that is no HTTP at all."""
        self.lies(
            "does not speak HTTP: is its port the right one",
            lambda: iter([b"220 mail.example ESMTP\r\n\r\n", None]),
            pace=0.1,
        )

    def test_head_without_end(self) -> None:
        """X8: header after header."""
        self.lies("gave no answer in time", lambda: chain([HEAD], repeat(b"X-More: of the same\r\n")), pace=1.0)

    def test_redirect(self) -> None:
        """X9: nobody is sent elsewhere."""
        said = b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\r\nContent-Length: 0\r\n\r\n"
        self.lies(r"refuses us \(302\): it does not say why", lambda: iter([said]))

    def test_refusal_without_end(self) -> None:
        """X6: of what stands behind a refusal little is read."""
        sent = [0]

        def says() -> Iterator[bytes]:
            yield b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\n\r\n"
            sent[0] = 0
            while True:
                sent[0] += 1
                yield b"no " * 100

        self.lies(r"refuses us \(403\): no no no", says, pace=0.01)
        self.assertLess(300 * sent[0], 2 * POLL_REFUSAL)
