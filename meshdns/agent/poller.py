"""Outside: one parked request to a control plane after the other (rules X5, X8, X9).

A `Subscription` says what to ask and what an answer means; this module asks it over TLS, reads bodies as they stream without
keeping packets waiting, and gives every wait its end. Tables leave through `adopt`. It must never know whom a table is for.
"""

import json
import zlib
from collections.abc import Callable, Coroutine, Mapping
from io import BytesIO
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import Protocol as Receiver
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web._newclient import ParseError
from twisted.web.client import URI, Agent, FileBodyProducer, HTTPConnectionPool, ResponseDone, _HTTP11ClientFactory
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from meshdns import exchange
from meshdns.agent.arriving import Arriving
from meshdns.agent.subscription import Next, Subscription
from meshdns.agent.uncollected import uncollected
from meshdns.defaults import (
    POLL_BODY,
    POLL_CONNECT,
    POLL_LIMIT_TOLD,
    POLL_REFUSAL,
    POLL_SILENCE,
    POLL_SLACK,
    RENEWAL_BODY,
)
from meshdns.exchange import Answer
from meshdns.net.tls import ClientTls
from meshdns.table import BadTable, Table

_log = Logger()


class Addresses(Protocol):
    """Where a name is found, as addresses.py has it."""

    async def find(self, name: str) -> list[str]: ...
    def served(self, name: str, address: str) -> None: ...


class Beside(Protocol):
    """What keeps our own certificate, over our connections, as renewal.py has it."""

    def start(self, post: Callable[[bytes], Coroutine[Any, Any, tuple[int, str, bytes]]], /) -> None: ...
    def stop(self) -> None: ...


class Poller:
    """The table source for `table.control_plane`."""

    def __init__(
        self, subscription: Subscription, tls: ClientTls, token: Callable[[], str], addresses: Addresses,
        adopt: Callable[[Table], None], reactor: Any, chance: Callable[[], float], first: Table | None = None,
        name: str | None = None, renewal: Beside | None = None,
    ) -> None:  # fmt: skip
        """`token` gives the bearer token as it is now, "" for none; `first` is the table of a snapshot, adopted already;
        `name` is in the certificates of the control planes, if the hosts of their URLs are not; `renewal` keeps our own."""
        self.updates = 0
        self.failures = 0
        self.last_change: float | None = None
        self.confirmed: float | None = None
        self.subscription = subscription
        self._tls = tls
        self._name = name
        self._renewal = renewal
        self._token = token
        self._addresses = addresses
        self._adopt = adopt
        self._reactor = reactor
        self._chance = chance
        self._held = first
        if first is not None:
            subscription.held = first.generation
            self.last_change = reactor.seconds()
        self._address = ""  # where the last connection went
        self._pool = _Pool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = 1
        self._pool.cachedConnectionTimeout = 30
        self._pool.retryAutomatically = False
        self._agent = Agent.usingEndpointFactory(reactor, _Endpoints(self._endpoint), self._pool)
        self._life: Deferred[None] | None = None
        self._stopping = False

    # from the root

    def start(self) -> None:
        self._life = Deferred.fromCoroutine(self._live())
        self._life.addErrback(self._died)
        if self._renewal is not None:
            self._renewal.start(self.post_request)

    def stop(self) -> None:
        """Asks no more; the table in force is not touched."""
        self._stopping = True
        if self._life is not None:
            self._life.cancel()
        if self._renewal is not None:
            self._renewal.stop()
        self._pool.closeCachedConnections()

    @property
    def polls(self) -> Mapping[str, int]:
        """Polls by outcome."""
        return self.subscription.polls

    @property
    def trouble(self) -> str:
        return self.subscription.trouble or self._tls.problem

    def _died(self, failure: Failure) -> None:
        if not self._stopping:
            _log.failure("please report this bug: no control plane is asked any more", failure)

    # from the renewal

    async def post_request(self, request: bytes) -> tuple[int, str, bytes]:
        """Ask the control plane that is polled for a certificate: status, a refusal's sentence, body."""
        url, headers = self.subscription.url, Headers({"Content-Type": [exchange.REQUEST]})
        body = FileBodyProducer(BytesIO(request))
        asked = self._agent.request(b"POST", f"{url}{exchange.IDENTITY_PATH}".encode(), headers, body)
        asked.addTimeout(POLL_SLACK + POLL_CONNECT, self._reactor)
        response = await asked
        said = await _drain(response, self._reactor, RENEWAL_BODY)
        return response.code, _detail(said), said

    # The life of polls

    async def _live(self) -> None:
        now = self.subscription.first()
        while not self._stopping:
            if now.notice:
                level = _log.warn if self.subscription.trouble else _log.info
                level("{notice}", notice=now.notice)
            await deferLater(self._reactor, now.delay)  # or a breath in which packets go out
            now = await self._poll(now)

    async def _poll(self, now: Next) -> Next:
        """One poll, to its end."""
        subscription = self.subscription
        if self._tls.renewed:
            await self._pool.closeCachedConnections()
        worked = bool(self._pool._connections)
        headers = Headers({name: [value] for name, value in now.poll.headers.items()})
        try:
            if token := self._token():
                headers.addRawHeader("Authorization", f"Bearer {token}")
        except OSError as error:
            self.failures += 1
            return subscription.unreachable(
                f"is not asked: {error.filename} cannot be read: {error.strerror}", self._chance()
            )
        try:
            asked = self._agent.request(b"GET", f"{now.url}{now.poll.path}".encode(), headers)
            asked.addTimeout(now.poll.wait + POLL_SLACK + POLL_CONNECT, self._reactor)
            response = await asked
            host = urlsplit(now.url).hostname or ""
            self._addresses.served(host, self._address)
            return await self._answered(now, response)
        except CancelledError:
            raise
        except (BadTable, ValueError) as bad:
            self.failures += 1
            return subscription.misfit(str(bad), self._chance())
        except Exception as error:
            self.failures += 1
            return self._lost(error, worked)

    async def _answered(self, now: Next, response: Any) -> Next:
        every = response.headers.getAllRawHeaders()
        headers = {name.decode("latin-1"): [each.decode("latin-1") for each in values] for name, values in every}
        answer = exchange.read_answer(response.code, exchange.joined(headers))
        if answer.kind == "nothing":
            await _drain(response, self._reactor)
            if answer.generation != self.subscription.held or not now.poll.known:
                raise ValueError("it says that there is nothing new since a generation that we do not hold")
            self.confirmed = self._reactor.seconds()
            return self.subscription.confirmed()
        if answer.kind == "refused":
            self.failures += 1
            return self.subscription.refused(answer, _detail(await _drain(response, self._reactor)), self._chance())
        if answer.kind == "delta" and not now.poll.deltas:
            raise ValueError("it sends a delta although none was asked for")
        body = _Body(Arriving(answer, self._held if answer.kind == "delta" else None), self._reactor)
        with uncollected():
            response.deliverBody(body)
            table = await body.done
            self._take(answer, table)
        return self.subscription.adopted(answer, table.generation)

    def _take(self, answer: Answer, table: Table) -> None:
        now = self._reactor.seconds()
        self.confirmed = now
        if self._held is None or table.generation != self._held.generation:
            self.updates += 1
            self.last_change = now
            self._adopt(table)
            _log.info(
                "{kind} from the control plane: {hosts} hosts, generation {generation}",
                kind="a delta" if answer.kind == "delta" else "a table",
                hosts=len(table.entries),
                generation=table.generation,
            )
        self._held = table

    def _lost(self, error: Exception, worked: bool) -> Next:
        """Why there was no answer, as a clause."""
        reasons = [each.value for each in getattr(error, "reasons", ())] or [error]
        if any(isinstance(each, SSL.Error) for each in reasons) and self._tls.refused:
            return self.subscription.unreachable(self._tls.refused, self._chance(), untrusted=True)
        first = reasons[0]
        if isinstance(first, SSL.Error):
            told = f"ended the handshake of TLS: {_openssl(first)}"
        elif isinstance(first, ConnectionDone | ConnectionLost):  # perhaps only since it had been idle
            told = "closed the connection without an answer"
            return self.subscription.unreachable(told, self._chance(), worked=worked)
        elif isinstance(first, TimeoutError | CancelledError) or "Timeout" in type(first).__name__:
            told = "gave no answer in time"
        elif isinstance(first, ParseError):
            told = "does not speak HTTP: is its port the right one?"
        else:
            told = f"cannot be reached: {str(first).splitlines()[0] if str(first) else type(first).__name__}"
        return self.subscription.unreachable(told, self._chance())

    # Connections

    def _endpoint(self, uri: URI) -> IStreamClientEndpoint:
        return cast(IStreamClientEndpoint, _Endpoint(self, uri.host.decode().strip("[]"), uri.port))

    async def connect(self, host: str, port: int, factory: Any) -> Any:
        """Connect to the first address of a host that lets us, under TLS."""
        found = await self._addresses.find(host)
        if not found:
            raise OSError(f"nobody knows an address of {host}")
        for number, address in enumerate(found, 1):
            kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
            under_tls = wrapClientTLS(
                self._tls.creator(self._name or host), kind(self._reactor, address, port, timeout=POLL_CONNECT)
            )
            self._address = address
            try:
                return await under_tls.connect(factory)
            except CancelledError:
                raise
            except Exception:
                if number == len(found):
                    raise
        return None


class _Quiet(_HTTP11ClientFactory):
    """One line in the log for each connection is too many."""

    noisy = False


class _Pool(HTTPConnectionPool):
    _factory = _Quiet


@implementer(IAgentEndpointFactory)
class _Endpoints:
    def __init__(self, endpoint: Callable[[URI], IStreamClientEndpoint]) -> None:
        self.endpointForURI = endpoint


@implementer(IStreamClientEndpoint)
class _Endpoint:
    def __init__(self, poller: Poller, host: str, port: int) -> None:
        self._poller, self._host, self._port = poller, host, port

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._poller.connect(self._host, self._port, protocolFactory))


# Bodies


class _Body(Receiver):
    """A table as it streams in: loaded in turns between which packets are answered, while the connection waits."""

    transport: Any

    def __init__(self, arriving: Arriving, reactor: Any) -> None:
        self.done: Deferred[Table] = Deferred(lambda _: self._end())
        self._arriving = arriving
        self._reactor = reactor
        self._over = False  # the body has ended, as it should
        self._work: IDelayedCall | None = None
        self._silence = reactor.callLater(POLL_SILENCE, self._fail, "its body stopped in the middle")
        self._deadline = reactor.callLater(POLL_BODY, self._fail, "its body does not end")

    # from the connection

    def dataReceived(self, data: bytes) -> None:
        self._silence.reset(POLL_SILENCE)
        self._arriving.add(data)
        self._turn_soon()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone):
            self._over = True
            self._turn_soon()
        else:
            self._fail("its body was cut off")

    # Turns of work

    def _turn_soon(self) -> None:
        if self._work is None and not self.done.called:
            if not self._over:
                self.transport.pauseProducing()
            self._work = self._reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        self._work = None
        table = None
        try:
            if self._arriving.busy:
                self._arriving.step()
            elif self._over:
                table = self._arriving.finish()
        except (BadTable, ValueError, zlib.error) as bad:
            self._fail(str(bad))
            return
        if table is not None:
            self._end()
            self.done.callback(table)
        elif self._arriving.busy or self._over:
            self._turn_soon()
        else:
            self.transport.resumeProducing()

    def _fail(self, why: str) -> None:
        if self.done.called:
            return
        self._end()
        if not self._over and hasattr(self.transport, "abortConnection"):
            self.transport.abortConnection()
        elif not self._over:
            self.transport.loseConnection()
        self.done.errback(ValueError(why))

    def _end(self) -> None:
        for call in (self._silence, self._deadline, self._work):
            if call is not None and call.active():
                call.cancel()


class _Refusal(Receiver):
    """What little there is behind a refusal."""

    transport: Any

    def __init__(self, most: int) -> None:
        self.done: Deferred[bytes] = Deferred()
        self._data = b""
        self._most = most

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > self._most and not self.done.called:
            self.done.callback(self._data[: self._most])
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.done.called:
            self.done.callback(self._data)


async def _drain(response: Any, reactor: Any, most: int = POLL_REFUSAL) -> bytes:
    refusal = _Refusal(most)
    response.deliverBody(refusal)
    late = reactor.callLater(POLL_SILENCE, lambda: refusal.transport.loseConnection())
    try:
        return await refusal.done
    finally:
        if late.active():
            late.cancel()


def _detail(body: bytes) -> str:
    """The sentence of a problem (RFC 9457), or what else was said."""
    try:
        said = str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        said = body.decode("utf-8", "replace")
    return " ".join(said.split())[:POLL_LIMIT_TOLD] or "it does not say why"


def _openssl(error: SSL.Error) -> str:
    """OpenSSL's own words, the last of them."""
    try:
        return str(error.args[0][-1][2]) or "no reason given"
    except (IndexError, TypeError):
        return "no reason given"
