"""A server on its good and bad days, and what is looked for in the agent before it."""

import re
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from itertools import count
from time import monotonic
from typing import Any

import attrs
import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset

from tests.e2e.agent import SERVICE, SERVICE_ADDRESS, Agent
from tests.e2e.stage import HERE, PATIENCE, WAIT, Place, Stage, framed, free_port

DEADLINE = 5.0  # seconds: upstream.deadline, by default
RECOVERY = 2.0  # from the server's return to the first answer
SLACK = 1.0  # seconds that a busy machine takes for a Python test on top
ADDRESS = "192.0.2.1"  # the truth

Datagram = Callable[[bytes], list[bytes]]
Stream = Callable[[bytes], bytes]


def true_answer(packet: bytes) -> dns.message.Message:
    """NOERROR with the one true address, or NXDOMAIN for the agent's own probes."""
    query = dns.message.from_wire(packet)
    answer = dns.message.make_response(query)
    name = query.question[0].name
    if name.is_subdomain(dns.name.from_text("loop.meshdns.example")):
        answer.set_rcode(dns.rcode.NXDOMAIN)
    else:
        answer.answer.append(dns.rrset.from_text(name, 60, "IN", "A", ADDRESS))
    return answer


def with_ttl(packet: bytes, ttl: int) -> bytes:
    answer = true_answer(packet)
    for rrset in answer.answer:
        rrset.ttl = ttl
    return answer.to_wire()


def truncated(packet: bytes) -> list[bytes]:
    """Over UDP nothing but the order to come back over TCP."""
    answer = dns.message.make_response(dns.message.from_wire(packet))
    answer.flags |= dns.flags.TC
    return [answer.to_wire()]


def refusing(rcode: dns.rcode.Rcode) -> Datagram:
    def refuse(packet: bytes) -> list[bytes]:
        answer = dns.message.make_response(dns.message.from_wire(packet))
        answer.set_rcode(rcode)
        return [answer.to_wire()]

    return refuse


@attrs.frozen
class Day:
    """How a server is today: the datagrams it sends for one, and the octets for a query over TCP, after which it holds the
    connection open or closes it."""

    datagrams: Datagram = lambda packet: [true_answer(packet).to_wire()]
    octets: Stream = lambda packet: framed(true_answer(packet).to_wire())
    closes: bool = False


def _half(packet: bytes) -> bytes:
    whole = framed(true_answer(packet).to_wire())
    return whole[: len(whole) // 2]


GOOD = Day()
SILENT = Day(lambda packet: [], lambda packet: b"")
BAD = {
    "blackholed": SILENT,
    "garbage": Day(lambda packet: [b"\xff" * 40, packet[:2] + b"\xff" * 30, packet[:7]], lambda packet: b"\0\5hello"),
    "half over TCP": Day(truncated, _half),
    "closed mid-answer": Day(truncated, _half, closes=True),
    "closed at once": Day(truncated, lambda packet: b"", closes=True),
    "SERVFAIL": Day(refusing(dns.rcode.SERVFAIL)),
}


class Server:
    """A server on one port of 127.0.0.1, UDP and TCP, whose days a test changes."""

    def __init__(self, stage: Stage, day: Day = GOOD) -> None:
        self.day = day
        self.asked = 0
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._tcp = socket.create_server(("127.0.0.1", self.port))
        self._stop, self._stopped = socket.socketpair()
        self._connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._run, name="server on a bad day")
        self._thread.start()
        stage.addCleanup(self.end)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for each in (self._udp, self._tcp, self._stopped):
                selector.register(each, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._stopped:
                        return
                    self._serve(selector, key.fileobj)

    def _serve(self, selector: selectors.BaseSelector, ready: socket.socket) -> None:
        if ready is self._udp:
            packet, client = ready.recvfrom(65535)
            self.asked += 1
            for datagram in self.day.datagrams(packet):
                ready.sendto(datagram, client)
        elif ready is self._tcp:
            connection = ready.accept()[0]
            self._connections.add(connection)
            selector.register(connection, selectors.EVENT_READ)
        elif not self._answer(ready):
            selector.unregister(ready)
            self._connections.remove(ready)
            ready.close()

    def _answer(self, connection: socket.socket) -> bool:
        """Whether the connection stays. Queries come whole: they are short, and the agent writes each at once."""
        try:
            data = connection.recv(65535)
            while data:
                size = 2 + int.from_bytes(data[:2])
                if octets := self.day.octets(data[2:size]):
                    connection.sendall(octets)
                if self.day.closes:
                    return False
                data = data[size:]
                if not data:
                    return True
        except OSError:
            return False
        return False

    def end(self) -> None:
        self._stop.close()
        self._thread.join(PATIENCE)
        for each in (self._udp, self._tcp, self._stopped, *self._connections):
            each.close()


class BadDay(Stage):
    def setUp(self) -> None:
        super().setUp()
        self.page = free_port()
        self.unasked = (f"n{number}.elsewhere.example" for number in count())

    def start_agent(self, *servers: str, place: Place = HERE, **more: Any) -> Agent:
        return Agent.start(self, servers=servers, place=place, status=f"127.0.0.1:{self.page}", **more)

    def dropped(self) -> dict[str, int]:
        """What the metrics say of packets from upstreams that were dropped."""
        page = HTTPConnection("127.0.0.1", self.page, timeout=WAIT)
        try:
            page.request("GET", "/metrics")
            text = page.getresponse().read().decode()
        finally:
            page.close()
        found = re.findall(r'^meshdns_dropped_total\{reason="upstream-([\w-]+)"\} (\d+)', text, re.MULTILINE)
        return {reason: int(number) for reason, number in found}

    def fails(self, agent: Agent, within: float = DEADLINE) -> None:
        """With OPT SERVFAIL and why (RFC 8914), without it no word more; within the time. The mesh is answered meanwhile."""
        names = [next(self.unasked), next(self.unasked)]
        began = monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect(("127.0.0.1", agent.port))
            asking.settimeout(within + SLACK)
            queries = [
                dns.message.make_query(name, "A", use_edns=edns) for name, edns in zip(names, (0, -1), strict=True)
            ]
            for query in queries:
                asking.send(query.to_wire())
            self.assertEqual([SERVICE_ADDRESS], agent.addresses(SERVICE, wait=SLACK))
            answers = {answer.id: answer for answer in (dns.message.from_wire(asking.recv(4096)) for _ in queries)}
        self.assertLess(monotonic() - began, within + SLACK)
        with_opt, without = (answers[query.id] for query in queries)
        self.assertEqual([dns.rcode.SERVFAIL] * 2, [with_opt.rcode(), without.rcode()])
        self.assertEqual([dns.edns.OptionType.EDE], [option.otype for option in with_opt.options])
        self.assertIn(with_opt.options[0].code, (22, 23))
        self.assertIsNone(without.opt)

    def recovers(self, agent: Agent, names: Iterator[str]) -> None:
        """The first answer within two seconds, and from then on every one."""
        began = monotonic()
        agent.await_true("an answer", lambda: self.knows(agent, next(names)), patience=RECOVERY + SLACK)
        self.assertLess(monotonic() - began, RECOVERY + SLACK)
        self.assertTrue(all(self.knows(agent, next(self.unasked)) for _ in range(20)))
        self.assertEqual([], agent.complaints())

    def knows(self, agent: Agent, name: str) -> bool:
        answer = agent.ask(name, wait=DEADLINE + SLACK)
        return not answer.rcode() and [str(record) for record in answer.answer[0]] == [ADDRESS]
