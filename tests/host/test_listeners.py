"""Who answers on this machine's addresses: real sockets, and /proc as it stands."""

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from meshdns.host.listeners import is_own, users_behind
from meshdns.values import Endpoint


class ListenerTests(SynchronousTestCase):
    def bound(self, family: int, kind: int, host: str) -> Endpoint:
        opened = socket.socket(family, kind)
        self.addCleanup(opened.close)
        opened.bind((host, 0))
        if kind == socket.SOCK_STREAM:
            opened.listen()
        return Endpoint(host, opened.getsockname()[1])

    def test_found(self) -> None:
        """Over UDP and TCP, of both families, and behind a wildcard."""
        for family, host, near in (
            (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
            (socket.AF_INET, "0.0.0.0", "127.0.0.9"),
            (socket.AF_INET6, "::1", "::1"),
            (socket.AF_INET6, "::", "::1"),
            (socket.AF_INET6, "::", "127.0.0.1"),
        ):
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                where = self.bound(family, kind, host)
                self.assertEqual({os.geteuid()}, users_behind(Endpoint(near, where.port)), (host, kind))

    def test_nobody(self) -> None:
        where = self.bound(socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1")
        self.assertEqual(frozenset(), users_behind(Endpoint("127.0.0.2", where.port)))
        self.assertEqual(frozenset(), users_behind(where, "/nonexistent"))

    def test_client_is_no_listener(self) -> None:
        """A socket that is connected somewhere takes nothing from others."""
        where = self.bound(socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1")
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(client.close)
        client.connect((where.host, where.port))
        self.assertEqual(frozenset(), users_behind(Endpoint("127.0.0.1", client.getsockname()[1])))

    def test_own(self) -> None:
        for address, own in (("127.0.0.53", True), ("::1", True), ("192.0.2.1", False), ("2001:db8::1", False)):
            self.assertEqual(own, is_own(address), address)
