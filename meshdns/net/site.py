"""Outside: a bounded HTTP site: what slow, silent and hoarding clients may hold has a limit, and a refusal says what to do.

A function that finds pages enters; requests come in, and what it finds goes out. Both sides have their status page of it, and
the control plane its long poll. It must never know what a page says.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.resource import Resource

from meshdns import __version__
from meshdns.defaults import STATUS_CONNECTIONS, STATUS_HEADERS, STATUS_IDLE, STATUS_LINE, STATUS_REQUEST
from meshdns.web import METHODS, Asked, Page, Refused

Before = Callable[[Asked], Deferred[None] | None]
PROBLEM = "application/problem+json"
_SERVER = b"meshdns/" + __version__.encode()
_ALWAYS = ((b"Cache-Control", b"no-cache"), (b"X-Content-Type-Options", b"nosniff"))


@attrs.define(eq=False)
class Whole:
    """An answer that several get: its status, what stands behind the status, its own headers and its content."""

    status: int
    phrase: bytes
    headers: Sequence[tuple[bytes, bytes]]
    content: bytes
    _rest: bytes = b""  # all behind the date, once somebody needed it

    def packed(self) -> bytes:
        """As it goes out now to who keeps the connection open."""
        if not self._rest:
            headers = (*_ALWAYS, *self.headers, (b"Content-Length", b"%d" % len(self.content)))
            lines = [b"%s: %s" % header for header in headers]
            self._rest = b"\r\n".join([*lines, b"", self.content])
        head = b"HTTP/1.1 %d %s\r\nServer: %s\r\n" % (self.status, self.phrase, _SERVER)
        return b"%sDate: %s\r\n%s" % (head, http.datetimeToString(), self._rest)


class Pages(Resource):
    """Every path: a page, or a refusal as problem JSON (RFC 9457)."""

    isLeaf = True

    def __init__(self, find_page: Callable[[Asked], Page], before: Before = lambda asked: None) -> None:
        """`before` says what a page must wait for, if anything."""
        super().__init__()
        self._find = find_page
        self._before = before

    def render(self, request: "Request") -> bytes | int:
        asked = request.asked()
        waiting = self._before(asked)
        if waiting is None:
            return self._show(request, asked)
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        waiting.addCallback(lambda _: None if gone else self._show_late(request, asked))
        waiting.addErrback(request.fail)
        return server.NOT_DONE_YET

    def _show_late(self, request: "Request", asked: Asked) -> None:
        shown = self._show(request, asked)
        if isinstance(shown, bytes):
            request.write(shown)
            request.finish()

    def _show(self, request: "Request", asked: Asked) -> bytes | int:
        try:
            page = self._find(asked)
        except Refused as refused:
            return request.refuse(refused)
        request.setHeader(b"Content-Type", page.type.encode())
        if page.etag:
            request.setHeader(b"Vary", b"Accept")
            if request.setETag(page.etag.encode()) is http.CACHED:
                return b""
        if isinstance(page.content, bytes):
            return request.whole(page.content)
        if request.method == b"HEAD":
            return b""
        Pieces(request, page.content).start()
        return server.NOT_DONE_YET


class Request(server.Request):
    """A request, answered in time or not at all. Of a body no more is kept than its site wants, and one octet."""

    body = b""
    _deadline: IDelayedCall | None = None
    _kept = False

    def asked(self) -> Asked:
        """The request as a value; of a parameter given twice the last one counts."""
        own = self.getHost()
        parameters = {_text(name): _text(values[-1]) for name, values in (self.args or {}).items()}
        hosts, accept = (self.requestHeaders.getRawHeaders(name) or [] for name in (b"Host", b"Accept"))
        address = f"[{own.host}]:{own.port}" if ":" in own.host else f"{own.host}:{own.port}"
        path = self.path.decode("latin-1")
        return Asked(_text(self.method), path, parameters, [*map(_text, hosts)], _text(b",".join(accept)), address)

    def whole(self, content: bytes) -> bytes:
        """A body, or only its length where the method is HEAD."""
        self.setHeader(b"Content-Length", b"%d" % len(content))
        return b"" if self.method == b"HEAD" else content

    def refuse(self, refused: Refused) -> bytes:
        """The body of a refusal."""
        self.setResponseCode(refused.code)
        self.setHeader(b"Content-Type", PROBLEM.encode())
        if refused.code == http.NOT_ALLOWED:
            self.setHeader(b"Allow", ", ".join(METHODS).encode())
        if refused.code == http.UNAUTHORIZED:
            self.setHeader(b"WWW-Authenticate", b"Bearer")
        if refused.code == http.SERVICE_UNAVAILABLE:
            self.setHeader(b"Retry-After", b"1")
        title = http.RESPONSES[refused.code].decode()
        problem = {"type": "about:blank", "title": title, "status": refused.code, "detail": refused.detail}
        return self.whole(json.dumps(problem, ensure_ascii=False).encode() + b"\n")

    def answer(self, whole: Whole) -> None:
        """All of an answer, its head packed once for all who get it: that is most of the work where thousands do."""
        channel = cast(Channel, self.channel)
        if self.startedWriting or not channel.persistent or self.method != b"GET":
            self.begin(whole)
            self.write(whole.content)
        else:
            self.startedWriting = 1
            channel.write(whole.packed())
        self.finish()

    def begin(self, whole: Whole) -> None:
        """All of its head but what the connection adds."""
        self.setResponseCode(whole.status, whole.phrase)
        for name, value in whole.headers:
            self.setHeader(name, value)
        self.setHeader(b"Content-Length", b"%d" % len(whole.content))

    def keep(self) -> None:
        """It is parked, and whoever parked it sees to its end."""
        self._kept = True

    def resume(self) -> None:
        """It is answered now, and has its time again to be taken."""
        channel = cast(Channel, self.channel)
        self._deadline = channel.callLater(STATUS_REQUEST, channel.abort)
        self.notifyFinish().addBoth(self._finished)

    # from the channel

    def handleContentChunk(self, data: bytes) -> None:
        most = cast(Channel, self.channel).site.body
        self.body += data[: most + 1 - len(self.body)] if most else b""

    def process(self) -> None:
        for name, value in _ALWAYS:
            self.setHeader(name, value)
        super().process()
        if not self.finished and not self._kept and self._deadline is None:
            self.resume()

    def setHeader(self, name: bytes, value: bytes) -> None:
        super().setHeader(name, _SERVER if name == b"Server" else value)

    def _finished(self, _: object) -> None:
        if self._deadline and self._deadline.active():
            self._deadline.cancel()

    def processingFailed(self, reason: Failure) -> Failure:
        self.fail(reason)
        return reason

    def fail(self, reason: Failure) -> None:
        """A bug of ours."""
        self._log.failure("please report this bug: {path}", reason, path=self.path)
        self.write(self.refuse(Refused(http.INTERNAL_SERVER_ERROR, "A bug of meshdns; its log says more.")))
        self.finish()


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


class Pieces:
    """Sends pieces as the client takes them, one in each turn of the reactor: packets come first."""

    def __init__(self, request: Request, pieces: Iterator[bytes]) -> None:
        self._request = request
        self._pieces = pieces
        self._call: IDelayedCall | None = None
        self._paused = False
        request.notifyFinish().addErrback(lambda _: self.pauseProducing())

    def start(self) -> None:
        self._request.registerProducer(self, True)
        self.resumeProducing()

    def _turn(self) -> None:
        self._call = None
        piece = next(self._pieces, None)
        if piece is None:
            self._request.unregisterProducer()
            self._request.finish()
            return
        self._request.write(piece)
        if not self._paused:
            self.resumeProducing()

    # from the transport

    def resumeProducing(self) -> None:
        self._paused = False
        if self._call is None:
            self._call = self._request.channel.callLater(0, self._turn)

    def pauseProducing(self) -> None:
        self._paused = True
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def stopProducing(self) -> None:
        self.pauseProducing()


class Channel(http.HTTPChannel):
    """One connection. What a slow or silent client may hold is bounded."""

    MAX_LENGTH = STATUS_LINE
    totalHeadersSize = STATUS_HEADERS
    site: "Site"
    peer_uris: tuple[tuple[str, ...] | None] | None = None  # what its certificate says, once somebody has looked

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.opened(self)

    def allContentReceived(self) -> None:
        self.site.active(self)
        super().allContentReceived()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.site.closed(self)

    def timeoutConnection(self) -> None:
        """A connection is idle, of which the log need not hear."""
        self.abort()

    def lineLengthExceeded(self, line: bytes) -> None:
        self._respondToBadRequestAndDisconnect()

    def abort(self) -> None:
        cast(ITCPTransport, self.transport).abortConnection()


class Site(server.Site):
    """All connections: at most so many, the one idle longest makes room. There is no access log."""

    protocol = cast(Any, Channel)  # the stock one may turn into HTTP/2, which needs TLS
    requestFactory = Request
    noisy = False

    def __init__(
        self, root: Resource, reactor: Any, *, connections: int | None = None, idle: float = STATUS_IDLE, body: int = 0
    ) -> None:
        """`connections` open at once, by default those of a status page; `idle` seconds without a request;
        `body` octets of a request's body are kept."""
        super().__init__(root, timeout=idle, reactor=reactor, parsePOSTFormSubmission=False)
        self._most = connections
        self.body = body
        self._open: dict[Channel, None] = {}  # the one idle longest first
        self._when_closed: Deferred[None] | None = None

    def startFactory(self) -> None:
        """The stock one opens a log, and wakes up each second to know the time for it."""

    def stopFactory(self) -> None:
        pass

    def log(self, request: object) -> None:
        pass

    async def abort(self) -> None:
        """End every connection."""
        if self._open:
            self._when_closed = Deferred()
            for channel in list(self._open):
                channel.abort()
            await self._when_closed

    # from the channels

    def opened(self, channel: Channel) -> None:
        self._open[channel] = None
        if len(self._open) > (STATUS_CONNECTIONS if self._most is None else self._most):
            oldest = next(iter(self._open))
            # Its end is told later only, and in a burst of connections each must put out another one.
            del self._open[oldest]
            oldest.abort()

    def active(self, channel: Channel) -> None:
        self._open[channel] = self._open.pop(channel, None)

    def closed(self, channel: Channel) -> None:
        self._open.pop(channel, None)
        if self._when_closed and not self._open:
            done, self._when_closed = self._when_closed, None
            done.callback(None)
