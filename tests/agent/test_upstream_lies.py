"""What lying upstream servers and forgers send, over real loopback sockets."""

import socket
from typing import Any

from twisted.internet.defer import gatherResults

from meshdns import names
from meshdns.agent.flights import Reply
from tests.agent.liars import Answer, Case, honest
from tests.agent.scene import ADDRESS, name, question, reply


class LiarTests(Case):
    """D24: one bad datagram before the good one, on every attempt: the answer is the good one."""

    async def lied_to(self, lie: Any, reason: str) -> None:
        def script(query: bytes) -> list[Answer]:
            return [(0.0, lie(query)), (0.05, reply(query))]

        server, place = self.udp(script)
        upstream = self.start(place)
        result = await self.ask()
        assert isinstance(result, Reply)
        self.assertEqual(reply(server.queries[0]), result.message)
        self.assertEqual({reason: 1}, upstream.dropped)
        self.assertEqual(1, len(server.queries))

    async def test_one_byte_of_header(self) -> None:
        await self.lied_to(lambda query: query[:2] + b"\x81", "short")

    async def test_garbage_header(self) -> None:
        await self.lied_to(lambda query: query[:2] + b"\xff" * 7, "short")

    async def test_empty(self) -> None:
        await self.lied_to(lambda query: b"", "short")

    async def test_other_question(self) -> None:
        evil = names.parse("evil.example") + b"\x00\x01\x00\x01"
        await self.lied_to(lambda query: reply(query, asked=evil), "question")

    async def test_wrong_id(self) -> None:
        await self.lied_to(lambda query: bytes([query[0] ^ 0xFF]) + reply(query)[1:], "unexpected")

    async def test_compression_loop(self) -> None:
        def loop(query: bytes) -> bytes:
            return reply(query, records=b"\xc0" + bytes([len(reply(query)) - len(ADDRESS)]) + ADDRESS[2:])

        await self.lied_to(loop, "malformed")

    async def test_a_query(self) -> None:
        await self.lied_to(lambda query: query, "not-a-reply")

    async def test_record_cut_short(self) -> None:
        await self.lied_to(lambda query: reply(query)[:-2], "malformed")

    async def test_no_question(self) -> None:
        def without(query: bytes) -> bytes:
            good = reply(query)
            return good[:4] + bytes(2) + good[6:12] + ADDRESS

        await self.lied_to(without, "question")

    async def test_other_case(self) -> None:
        await self.lied_to(lambda query: reply(query, asked=_swapped(question(query))), "case")

    async def test_other_port(self) -> None:
        """D20: a perfect forgery from the server's address, but another port, does not even reach us."""
        forger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(forger.close)
        self.before += 1

        def script(query: bytes) -> list[Answer]:
            forger.sendto(reply(query, records=ADDRESS[:-4] + b"\x06\x06\x06\x06"), server.sources[-1])
            return [(0.05, reply(query))]

        server, place = self.udp(script)
        upstream = self.start(place)
        result = await self.ask()
        assert isinstance(result, Reply)
        self.assertEqual((reply(server.queries[0]), {}), (result.message, upstream.dropped))
        forger.close()
        self.before -= 1

    async def test_flood(self) -> None:
        """Hundreds of lies, then the truth, while others are answered."""

        def script(query: bytes) -> list[Answer]:
            if name(query) != "www.example.com":
                return honest(query)
            return [(0.0, query)] * 200 + [(0.1, reply(query))]

        self.start(self.udp(script)[1])
        results = await gatherResults([self.ask(), self.ask("other.example.com")])
        self.assertEqual([Reply, Reply], [type(result) for result in results])


def _swapped(asked: bytes) -> bytes:
    """The question with the case of one letter changed."""
    return asked[:1] + asked[1:2].swapcase() + asked[2:]
