"""A gate in front of an agent: every datagram passes it, is noted, and comes back the same way.

It counts on the socket, with nothing of the agent's, so the agent's own figures can be wrong and the count is not.
There is no gate for TCP: a client that turns to it is refused, and its test fails.
"""

import selectors
import socket
import threading

import dns.message
import dns.rdatatype

from tests.e2e.stage import PATIENCE, Place, Stage

Question = tuple[str, str]


class Gate:
    """Listens on a port of 127.0.0.1 and hands everything on to another."""

    def __init__(self, stage: Stage, port: int, behind: int, place: Place) -> None:
        self._packets: list[bytes] = []
        self._place = place
        self._behind = ("127.0.0.1", behind)
        self._door = self._datagrams()
        self._door.bind(("127.0.0.1", port))
        self._port = port
        self._stop, self._stopped = socket.socketpair()
        self._passages: dict[tuple[str, int], socket.socket] = {}
        self._thread = threading.Thread(target=self._run, name="gate")
        self._thread.start()
        stage.addCleanup(self._end)

    def passed(self) -> list[Question]:
        """What has passed since the last call, as (name, type), in order."""
        # What was sent before this call was queued before this packet of ours.
        with self._datagrams() as marker:
            marker.settimeout(PATIENCE)
            marker.sendto(dns.message.make_query("version.bind", "TXT", "CH").to_wire(), ("127.0.0.1", self._port))
            marker.recv(4096)
        packets, self._packets = self._packets[:-1], []
        return [_question(packet) for packet in packets]

    def _datagrams(self) -> socket.socket:
        return self._place.make_socket(socket.AF_INET, socket.SOCK_DGRAM)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._door, selectors.EVENT_READ, None)
            selector.register(self._stopped, selectors.EVENT_READ, None)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._stopped:
                        return
                    if key.fileobj is self._door:
                        self._inward(selector)
                    else:
                        self._outward(*key.data)

    def _inward(self, selector: selectors.BaseSelector) -> None:
        packet, client = self._door.recvfrom(65535)
        self._packets.append(packet)
        if client not in self._passages:
            self._passages[client] = self._datagrams()
            self._passages[client].connect(self._behind)
            selector.register(self._passages[client], selectors.EVENT_READ, (self._passages[client], client))
        self._passages[client].send(packet)

    def _outward(self, passage: socket.socket, client: tuple[str, int]) -> None:
        try:
            self._door.sendto(passage.recv(65535), client)
        except OSError:  # the client has closed its port, or the agent its own
            return

    def _end(self) -> None:
        self._stop.close()
        self._thread.join(PATIENCE)
        for each in (self._door, self._stopped, *self._passages.values()):
            each.close()


def _question(packet: bytes) -> Question:
    (question,) = dns.message.from_wire(packet).question
    return question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
