"""What an agent makes of the bodies that a control plane sends, over real TLS (rules X3, X8, X9)."""

import gc
import gzip
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, cast

from twisted.internet import reactor as twisted_reactor
from twisted.internet import tcp
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase

from meshdns import table
from meshdns.agent import arriving
from meshdns.agent import poller as polling
from meshdns.agent.addresses import Addresses
from meshdns.agent.poller import Poller
from meshdns.agent.subscription import Subscription
from meshdns.exchange import Poll
from meshdns.net.tls import ClientTls, ServerTls
from meshdns.table import Table
from tests.pki import Authority

reactor: Any = twisted_reactor
ONE = Table.of(
    [table.entry({"host": f"h{number}.example.com", "ips": ["192.0.2.1"]}) for number in range(900)], ["a.local"], 30
)
TWO = Table.of(
    [*list(ONE.entries.values())[1:], table.entry({"host": "new.example.com", "ips": ["192.0.2.2"]})], ["a.local"], 30
)


def body(lines: Any) -> bytes:
    return b"".join(f"{line}\n".encode() for line in lines)


def answer(status: str, content: bytes, generation: str = "", length: int | None = None, **headers: str) -> bytes:
    rows = [f"HTTP/1.1 {status}", f"Content-Length: {len(content) if length is None else length}"]
    rows += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    rows += [f'ETag: "{generation}"'] if generation else []
    return "\r\n".join([*rows, "", ""]).encode() + content


def whole(of: Table, **more: Any) -> bytes:
    return answer("200 OK", body(table.dump(of)), of.generation, Content_Type="application/jsonl", **more)


class Scripted(Protocol):
    """Gives each request the next answer of the script; None: nothing, for ever."""

    factory: Any

    def connectionMade(self) -> None:
        self.data = b""
        self.factory.open.append(self.transport)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.open.remove(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        while b"\r\n\r\n" in self.data:
            request, _, self.data = self.data.partition(b"\r\n\r\n")
            self.factory.asked.append(request.decode())
            said = self.factory.script.pop(0) if self.factory.script else None
            if said == b"close":
                cast(Any, self.transport).abortConnection()
            elif said is not None:
                cast(Any, self.transport).write(said)


class Case(TestCase):
    def setUp(self) -> None:
        self.folder = Path(mkdtemp(prefix="meshdns-poller-"))
        self.addCleanup(rmtree, self.folder)
        root = Authority(self.folder, "root")
        served = root.issue("server", "localhost")
        self.factory: Any = Factory.forProtocol(Scripted)
        self.factory.asked, self.factory.script, self.factory.open = [], [], []
        tls = ServerTls(str(served.pem), str(served.key), None)
        port = tcp.Port(
            0, cast(Any, TLSMemoryBIOFactory(tls, False, self.factory)), interface="127.0.0.1", reactor=reactor
        )
        port.startListening()
        self.addCleanup(port.stopListening)
        self.adopted: list[Table] = []
        self.collecting = False
        trust = ClientTls(ca=str(root.pem), pins=(), certificate=None, key=None)
        subscription = Subscription((f"https://localhost:{port.getHost().port}",), "east", "")
        nobody: Any = None
        self.poller = Poller(
            subscription, trust, lambda: "secret", Addresses(nobody, reactor), self.adopt, reactor, lambda: 0.0
        )
        self.patch(polling, "POLL_SLACK", 0.2)
        self.patch(polling, "POLL_CONNECT", 1.0)
        self.patch(polling, "POLL_SILENCE", 0.3)
        self.addCleanup(self._end)

    async def _end(self) -> None:
        self.poller.stop()
        for transport in list(self.factory.open):
            transport.abortConnection()
        await deferLater(reactor, 0.05)
        self.assertTrue(gc.isenabled())

    def adopt(self, held: Table) -> None:
        self.adopted.append(held)
        self.collecting |= gc.isenabled()

    async def run_script(self, *script: bytes | None, polls: int) -> None:
        """Until so many polls have been asked."""
        self.factory.script = list(script)
        self.poller.start()
        for _ in range(1500):
            if len(self.factory.asked) >= polls:
                break
            await deferLater(reactor, 0.01)
        self.assertGreaterEqual(len(self.factory.asked), polls, self.poller.trouble)


class GoodTests(Case):
    async def test_table_then_delta(self) -> None:
        """X3, X7: a table, then a delta on it; each poll names what is held, and brings the token."""
        delta = answer("226 IM Used", body(table.diff(ONE, TWO)), TWO.generation, Content_Type="application/jsonl")
        await self.run_script(whole(ONE), delta, None, polls=3)
        self.assertEqual([ONE, TWO], self.adopted)
        self.assertFalse(
            self.collecting, "all that came is searched for garbage before anybody has said that it is none"
        )
        self.assertTrue(gc.isenabled())
        self.assertNotIn("If-None-Match", self.factory.asked[0])
        self.assertIn(f'"{ONE.generation}"', self.factory.asked[1])
        self.assertIn(f'"{TWO.generation}"', self.factory.asked[2])
        self.assertTrue(all("Bearer secret" in request for request in self.factory.asked))
        self.assertEqual((1, 1), (self.poller.polls["table"], self.poller.polls["delta"]))

    async def test_gzip(self) -> None:
        packed = gzip.compress(body(table.dump(ONE)))
        said = answer("200 OK", packed, ONE.generation, Content_Type="application/jsonl", Content_Encoding="gzip")
        await self.run_script(said, None, polls=2)
        self.assertEqual([ONE], self.adopted)

    async def test_confirmed(self) -> None:
        """A 304 says that what is held is right, and nothing is adopted anew."""
        await self.run_script(whole(ONE), answer("304 Not Modified", b"", ONE.generation), None, polls=3)
        self.assertEqual(([ONE], 1), (self.adopted, self.poller.polls["nothing"]))
        self.assertGreater(cast(float, self.poller.confirmed), cast(float, self.poller.last_change) - 1)

    async def test_closed_when_idle(self) -> None:
        """X8: at once again when a connection that had worked is closed."""
        await self.run_script(whole(ONE), b"close", whole(TWO), None, polls=4)
        self.assertEqual([ONE, TWO], self.adopted)


class BadTests(Case):
    """X3, X8: whatever comes, the last good table stays, the whole one is asked for, and there is one clear word."""

    async def bad(self, said: bytes | None, told: str, *, silent: bool = False) -> None:
        await self.run_script(whole(ONE), said, whole(TWO), None, polls=4)
        self.assertEqual([ONE, TWO], self.adopted)
        self.assertIn(told, self.heard)
        if not silent:
            self.assertNotIn("If-None-Match", self.factory.asked[2])

    def setUp(self) -> None:
        super().setUp()
        self.heard = ""
        failed = Subscription._failed

        def hear(itself: Subscription, why: str, chance: float, at_least: float = 0.0) -> Any:
            self.heard += why
            return failed(itself, why, 0.0)

        self.patch(Subscription, "_failed", hear)

    async def test_truncated(self) -> None:
        data = body(table.dump(TWO))
        await self.bad(
            answer("200 OK", data[: data.rindex(b"{")], TWO.generation, Content_Type="application/jsonl"), "cut off"
        )

    async def test_connection_lost_within(self) -> None:
        data = body(table.dump(TWO))[:-40]
        said = answer("200 OK", data, TWO.generation, length=len(data) + 40, Content_Type="application/jsonl")
        await self.bad(said, "its body stopped in the middle")

    async def test_corrupted(self) -> None:
        data = body(table.dump(TWO)).replace(b"192.0.2.2", b"192.0.2.9")
        await self.bad(
            answer("200 OK", data, TWO.generation, Content_Type="application/jsonl"), "the entries add up to generation"
        )

    async def test_no_json(self) -> None:
        await self.bad(answer("200 OK", b"<html>\n", Content_Type="application/jsonl"), "is not JSON")

    async def test_something_else(self) -> None:
        await self.bad(answer("200 OK", b"<html>\n", Content_Type="text/html"), "instead of a table")

    async def test_delta_from_elsewhere(self) -> None:
        """X3: a delta from a base that we do not have."""
        said = answer("226 IM Used", body(table.diff(TWO, ONE)), ONE.generation, Content_Type="application/jsonl")
        await self.bad(said, "is a delta from generation")

    async def test_wrong_tag(self) -> None:
        await self.bad(
            answer("200 OK", body(table.dump(TWO)), "0" * 32, Content_Type="application/jsonl"), "but its ETag says"
        )

    async def test_nothing_new_since_what(self) -> None:
        await self.bad(answer("304 Not Modified", b"", "0" * 32), "a generation that we do not hold")

    async def test_bomb(self) -> None:
        """A body that unfolds without end is let go of."""
        self.patch(arriving, "TABLE_FILE_BYTES", 1 << 20)
        packed = gzip.compress(b" " * (8 << 20) + b"\n")
        said = answer("200 OK", packed, TWO.generation, Content_Type="application/jsonl", Content_Encoding="gzip")
        await self.bad(said, "has more than")

    async def test_line_without_end(self) -> None:
        await self.bad(
            answer("200 OK", b"x" * (2 << 20), Content_Type="application/jsonl"), "a line of it has more than"
        )

    async def test_silence(self) -> None:
        """A server that takes a question and never answers."""
        self.patch(polling, "POLL_CONNECT", 0.3)
        self.patch(cast(Any, Subscription), "_poll", lambda itself: _unparked(itself))
        await self.bad(None, "gave no answer in time", silent=True)

    async def test_refused(self) -> None:
        """X6: the sentence of the problem is what the log says."""
        problem = b'{"detail": "You are\\nof another   namespace."}'
        said = answer("403 Forbidden", problem, Content_Type="application/problem+json")
        await self.bad(said, "refuses us (403): You are of another namespace.", silent=True)

    async def test_no_token(self) -> None:
        def gone() -> str:
            raise FileNotFoundError(2, "No such file or directory", "token")

        self.poller._token = gone
        self.poller.start()
        await deferLater(reactor, 0.1)
        self.assertEqual([], self.factory.asked)
        self.assertIn("token cannot be read: No such file or directory", self.heard)


def _unparked(itself: Subscription) -> Any:
    known = (itself.held,) if itself.held and not itself._wants_whole else ()
    return Poll(known=known, deltas=bool(known))
