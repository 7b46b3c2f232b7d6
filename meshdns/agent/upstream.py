"""Outside: the sockets towards upstream servers, and the one timer of the questions put to them.

An Ask and a callable for its result enter; datagrams and TCP frames go out and come in. What any of them means is decided
in `flights`: this module must never look into a message.
"""

import errno
import resource
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall, ITCPTransport
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from meshdns.agent.attempts import Sole
from meshdns.agent.batch import Batch
from meshdns.agent.flights import Failed, Finished, Flights, Recovered, Result, Send, Steps
from meshdns.agent.servers import STREAM, Options
from meshdns.defaults import (
    UPSTREAM_BATCH,
    UPSTREAM_LEAST_SOCKETS,
    UPSTREAM_SOCKETS,
    UPSTREAM_SPARE_DESCRIPTORS,
    UPSTREAM_STREAM_IDLE,
    UPSTREAM_TLS_IDLE,
)
from meshdns.values import Server
from meshdns.wire import Ask

Done = Callable[[Result], None]


class Secured(Protocol):
    """How a connection comes under TLS, and why a server was not trusted when that was what ended it."""

    def wrap(self, server: Server, factory: ClientFactory, /) -> ClientFactory: ...
    def distrust(self, server: Server, reason: Failure, /) -> str | None: ...


class Socket(Protocol):
    """A connected UDP socket in a slot of a server."""

    server: int
    slot: int
    place: int

    def send(self, message: bytes, /) -> int: ...


class Pool(Protocol):
    """All of them."""

    def start(
        self, arrived: Callable[[Any, bytes, float], None], failed: Callable[[Any, OSError], None], /
    ) -> None: ...
    def open(self, server: Server, index: int, slot: int, /) -> Socket: ...
    def close(self, one: Any, /) -> None: ...
    def stop(self) -> None: ...


_NEVER = float("inf")
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Upstream:
    """Questions to one set of upstream servers.

    The reactor's `seconds` must be a monotonic clock. `sockets` bounds the UDP sockets of all servers together; by default
    it is what RLIMIT_NOFILE leaves. What is asked while `batch` is open is sent at its end.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[Server],
        options: Options | None = None,
        *,
        pool: Pool,
        sockets: int | None = None,
        batch: Batch | None = None,
        secure: Callable[[], Secured] | None = None,
        recovered: Callable[[], object] = lambda: None,
    ) -> None:
        """`secure` gives the way to TLS once a server wants it; `recovered` is called when a server that was dead answers again."""
        self._reactor = reactor
        self._seconds: Callable[[], float] = reactor.seconds
        self._servers = servers
        self._options = options or Options()
        self._limit = sockets
        self._others = 0  # servers of other groups, with whom the sockets are shared
        self._secure = secure
        self._recovered = recovered
        self._distrusted: dict[Server, str] = {}  # what was said about them
        self._flights = Flights(secrets.randbits)
        self._outbox: list[tuple[int, int, bool, bytes]] = []
        self._batch = batch or Batch()
        self._batch.at_end(self._flush)
        self._pool = pool
        self._sockets: dict[int, list[Socket | None]] = {}
        self._streams: dict[int, _Stream] = {}
        self._closing: set[_Stream] = set()
        self._timer: IDelayedCall | None = None
        self._wake = _NEVER
        self._stopped = False
        self._when_closed: Deferred[None] | None = None

    # from the root

    def start(self) -> None:
        """Put a probe to every server: does it live, does it forward to us (rule D19)?"""
        self._pool.start(self._arrived, self._failed)
        self.replace(self._servers, self._options, self._others)

    def replace(self, servers: Sequence[Server], options: Options, others: int = 0) -> None:
        """Other servers or options. Questions under way finish with those they have; servers in both are kept as known.

        `others` is how many servers there are beside, in other groups, with whom the sockets are shared.
        """
        self._servers, self._options, self._others = servers, options, others
        steps = self._flights.replace(servers, options, self._slots(servers), self._seconds())
        for peer in self._flights.servers:
            for slot in self._sockets.setdefault(peer.index, [])[len(peer.left) :]:
                self._close_socket(slot)
            row = self._sockets[peer.index][: len(peer.left)]
            self._sockets[peer.index] = row + [None] * (len(peer.left) - len(row))
        self._run(steps)
        self._release()

    def stop(self) -> Deferred[None]:
        """Fail whoever waits and close everything; fires when the last connection is gone."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._run(self._flights.abandon())
        for index in list(self._sockets):
            self._forget(index)
        self._pool.stop()
        if not self._closing:
            return succeed(None)
        self._when_closed = Deferred()
        return self._when_closed

    def _slots(self, servers: Sequence[Server]) -> int:
        """UDP sockets for each server."""
        limit = self._limit
        if limit is None:
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            limit = 1 << 20 if soft == resource.RLIM_INFINITY else soft - UPSTREAM_SPARE_DESCRIPTORS
        return max(UPSTREAM_LEAST_SOCKETS, min(UPSTREAM_SOCKETS, limit // max(1, len(servers) + self._others)))

    # from the resolver

    def ask(self, ask: Ask, done: Done) -> None:
        """Ask; `done` is called once with the result, at once when there is nobody to ask or nothing free to ask with."""
        if self._stopped:
            done(Failed("stopped", 22, "the agent is stopping"))
            return
        if steps := self._flights.ask(ask, done, self._seconds()):
            self._run(steps)

    def ask_alone(self, sole: Sole, now: float) -> bool:
        """The short way of `ask`: whether the question could be asked so. Its `answered` or its waiter is called once."""
        if self._stopped or (sent := self._flights.ask_alone(sole, now)) is None:
            return False
        self._outbox.append(sent)
        if not self._batch.is_open or len(self._outbox) >= UPSTREAM_BATCH:
            self._flush()
        return True

    def is_own_probe(self, name: bytes) -> bool:
        """Whether a lower-case wire name that a client asks for is a probe of ours, which no client can know."""
        ours, steps = self._flights.own_probe(name, self._seconds())
        self._run(steps)
        return ours

    # from the status page

    @property
    def inflight(self) -> int:
        return self._flights.inflight

    @property
    def joined(self) -> int:
        """Questions that were not asked since the same was under way."""
        return self._flights.joined

    @property
    def shed(self) -> int:
        """Questions failed at once since too many were under way."""
        return self._flights.shed

    @property
    def dropped(self) -> dict[str, int]:
        """Messages that answered no question, by reason."""
        return dict(self._flights.dropped)

    def status(self) -> list[dict[str, Any]]:
        """The servers in their configured order; durations in seconds, `answers` and `seconds` make the mean; `turn` says when
        one would be asked a question of now, 1 first, None not at all."""
        turns = self._flights.turns
        return [{**peer.status(), "turn": turns.get(peer.index)} for peer in self._flights.servers]

    # from the sockets

    def _arrived(self, one: Socket, message: bytes, now: float) -> None:
        answered = self._flights.answered_alone(one.place, message, now)
        if answered is not None:
            sole, body, plain = answered
            try:
                sole.answered(message, body, now, plain)
            except Exception:  # one client's trouble must not cost the others their answer
                self._log.failure("an upstream's answer could not be handed on")
        elif steps := self._flights.received(one.server, one.slot, message, now):
            self._run(steps)

    def _failed(self, one: Socket, error: OSError) -> None:
        self._run(self._flights.failed(one.server, one.slot, _sentence(error), self._seconds()))

    # Carrying out

    def _run(self, steps: Steps) -> None:
        for step in steps:
            if type(step) is Send:
                self._outbox.append(step)
            elif type(step) is Finished:
                self._hand_out(step.waiters, step.result)
            elif type(step) is Recovered:
                self._log.info("upstream {server} answers again", server=step.server)
                self._recovered()
            else:
                self._log.warn("{notice}", notice=step[0])
        if self._outbox and (not self._batch.is_open or len(self._outbox) >= UPSTREAM_BATCH):
            self._flush()

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        sockets = self._sockets
        for server, slot, fresh, message in outbox:
            if self._stopped or server not in sockets:
                continue
            if not fresh and slot != STREAM and (one := sockets[server][slot]) is not None:
                try:
                    one.send(message)
                    continue
                except OSError:  # sent again below, where what to do is known; most errors are of the message before
                    pass
            step = Send(server, slot, fresh, message)
            if steps := self._send_stream(step) if slot == STREAM else self._send(step):
                self._run(steps)
        if self._flights.soonest < self._wake:
            self._arm()

    def _hand_out(self, waiters: Sequence[Any], result: Result) -> None:
        for waiter in waiters:
            try:
                waiter(result)
            except Exception:  # one client's trouble must not cost the others their answer
                self._log.failure("an upstream's answer could not be handed on")

    def _send(self, step: Send) -> Steps:
        row = self._sockets[step.server]
        slot = row[step.slot]
        try:
            if step.fresh:
                slot = self._open(step, slot)
            if slot is None:
                return self._flights.no_socket(step, self._seconds())
            slot.send(step.message)
        except OSError as error:
            return self._flights.failed(
                step.server, step.slot, _sentence(error), self._seconds(), closed=row[step.slot] is None
            )
        return []

    def _open(self, step: Send, old: Socket | None) -> Socket | None:
        """A new socket in a slot, and so another port. Without descriptors the old one goes on, if there is one."""
        server = self._flights.peers[step.server].server
        try:
            new = self._pool.open(server, step.server, step.slot)
        except OSError as error:
            if error.errno in _EXHAUSTED:
                return old
            raise
        self._sockets[step.server][step.slot] = new
        self._close_socket(old)
        return new

    def _close_socket(self, slot: Socket | None) -> None:
        if slot is not None:
            self._pool.close(slot)

    # Connections

    def _send_stream(self, step: Send) -> Steps:
        stream = self._streams.get(step.server)
        if stream is None:
            stream = _Stream(self, step.server, self._flights.peers[step.server].server)
            try:
                stream.connector = self._dial(stream)
            except ValueError as error:
                return self._flights.failed(step.server, STREAM, f"cannot be asked over TLS: {error}", self._seconds())
            self._streams[step.server] = stream
        if stream.is_idle:  # not when it still owes an answer, for which nobody waits any more
            stream.is_idle = False
            stream.expires = self._seconds() + self._options.timeout
        stream.write(step.message)
        return []

    def _dial(self, stream: "_Stream") -> IConnector:
        """Begin to connect, to a numeric address. Connections expire by our own timer."""
        place = stream.place
        factory: ClientFactory = _StreamFactory(stream)
        if place.transport == "tls":
            if self._secure is None:
                raise ValueError("nothing is trusted")
            factory = self._secure().wrap(place, factory)
        return cast(IConnector, self._reactor.connectTCP(place.host, place.port, factory, timeout=None))

    def stream_received(self, stream: "_Stream", message: bytes) -> None:
        self._run(self._flights.received(stream.server, STREAM, message, self._seconds()))
        if stream.place in self._distrusted:
            del self._distrusted[stream.place]
            self._log.info("upstream {server} is trusted again", server=stream.place)
        self._expect(stream)

    def _expect(self, stream: "_Stream") -> None:
        """Something happened on a connection: it has time again for the next thing."""
        peer = self._flights.peers.get(stream.server)
        stream.is_idle = peer is None or not peer.streaming
        kept = UPSTREAM_TLS_IDLE if stream.place.transport == "tls" else UPSTREAM_STREAM_IDLE
        stream.expires = self._seconds() + (kept if stream.is_idle else self._options.timeout)
        self._arm()

    def stream_connected(self, stream: "_Stream") -> None:
        self._expect(stream)

    def stream_lost(self, stream: "_Stream", text: str, cause: Failure) -> None:
        self._closing.discard(stream)
        if self._streams.get(stream.server) is stream:
            del self._streams[stream.server]
            reason = "network"
            secure = self._secure() if self._secure and stream.place.transport == "tls" else None
            if secure and (distrust := secure.distrust(stream.place, cause)):
                reason, text = "untrusted", f"is not trusted: {distrust}"
                self._tell(stream.place, distrust)
            steps = self._flights.failed(
                stream.server, STREAM, text, self._seconds(), reused=stream.served, reason=reason
            )
            self._run(steps)
        if self._when_closed is not None and not self._closing:
            done, self._when_closed = self._when_closed, None
            done.callback(None)

    def _tell(self, place: Server, distrust: str) -> None:
        """Say once that a server is not trusted, however often it is tried."""
        if self._distrusted.get(place) != distrust:
            self._distrusted[place] = distrust
            self._log.warn(
                "upstream {server} is not trusted, so nothing is asked of it: {why}", server=place, why=distrust
            )

    def _hang_up(self, stream: "_Stream") -> None:
        """Close a connection that is idle or stuck; no further question goes there."""
        del self._streams[stream.server]
        self._closing.add(stream)
        stream.hang_up()

    # The one timer

    def _arm(self) -> None:
        wake = self._flights.next_wake()
        for stream in self._streams.values():
            wake = stream.expires if wake is None or stream.expires < wake else wake
        if self._stopped or wake is None or wake >= self._wake:
            return
        delay = max(0.0, wake - self._seconds())
        self._wake = wake
        if self._timer is None:
            self._timer = self._reactor.callLater(delay, self._tick)
        else:
            self._timer.reset(delay)

    def _tick(self) -> None:
        self._timer, self._wake = None, _NEVER
        now = self._seconds()
        self._run(self._flights.tick(now))
        for stream in [stream for stream in self._streams.values() if stream.expires <= now]:
            self._hang_up(stream)
            # What has waited its time is over by the tick; what was asked since is owed a connection that works.
            text = f"gave no answer over {stream.kind} in time"
            self._run(self._flights.failed(stream.server, STREAM, text, now, reused=True))
        self._release()
        self._arm()

    def _release(self) -> None:
        """Close what belongs to replaced servers once no question needs them."""
        if len(self._flights.peers) > len(self._flights.servers):
            for index in self._flights.release():
                self._forget(index)

    def _forget(self, index: int) -> None:
        for slot in self._sockets.pop(index, ()):
            self._close_socket(slot)
        if stream := self._streams.get(index):
            self._hang_up(stream)


class _Stream(Int16StringReceiver):
    """A connection to a server: several questions at once, answered in any order (RFC 7766 section 6.2.1).

    Under TLS what is written waits until the server's certificate has been accepted.
    """

    def __init__(self, upstream: Upstream, server: int, place: Server) -> None:
        self.server = server
        self.place = place
        self.kind = place.transport.upper() if place.transport != "udp" else "TCP"
        self.served = False
        self.is_idle = True
        self.expires = _NEVER
        self.connector: IConnector | None = None
        self._upstream = upstream
        self._waiting: list[bytes] | None = []

    def write(self, message: bytes) -> None:
        if self._waiting is None:
            self.sendString(message)
        else:
            self._waiting.append(message)

    def hang_up(self) -> None:
        if self.connector is not None and self._waiting is not None:
            self.connector.disconnect()
        elif self.transport is not None:
            cast(ITCPTransport, self.transport).abortConnection()

    def connectionMade(self) -> None:
        waiting, self._waiting = self._waiting or (), None
        for message in waiting:
            self.sendString(message)
        self._upstream.stream_connected(self)

    def stringReceived(self, message: bytes) -> None:
        self.served = True
        self._upstream.stream_received(self, message)

    def refused(self, reason: Failure) -> None:
        self._upstream.stream_lost(self, f"cannot be reached over {self.kind}: {reason.getErrorMessage()}", reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._upstream.stream_lost(self, f"closed its {self.kind} connection without an answer", reason)


class _StreamFactory(ClientFactory):
    noisy = False

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def buildProtocol(self, address: IAddress | None) -> _Stream:
        return self._stream

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._stream.refused(reason)


def _sentence(error: OSError) -> str:
    return (
        "refuses the question: nothing listens there"
        if error.errno == errno.ECONNREFUSED
        else f"cannot be reached: {error.strerror}"
    )
