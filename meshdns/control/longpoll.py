"""Outside: the long poll: who asks is let in or not, parked until there is news, and answered (rules X5 to X8, X10).

Requests come in over TLS; tables and deltas of `View`s go out, each packed once for all who wait for it. How many are
parked, how long, and what a slow reader may hold is bounded. It must never know where a view comes from.
"""

import gzip
import json
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate, islice
from typing import Any, Protocol, cast

import attrs
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.web import http, server
from twisted.web.resource import Resource

from meshdns import exchange
from meshdns.control.identity import Identity, Refusal
from meshdns.control.model import Workload
from meshdns.control.views import View
from meshdns.defaults import PACKED_BODIES, PARKED_POLLS, POLL_MOST, POLL_TOLD, POLL_WAKE
from meshdns.exchange import Poll
from meshdns.metrics import Buckets
from meshdns.net.site import Channel, Pieces, Request, Whole
from meshdns.net.tls import uris
from meshdns.splitdict import SplitDict
from meshdns.table import Table, to_istio
from meshdns.web import JSON, LINES, Refused, pieces

_log = Logger()
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds
_LARGE = 1 << 16  # octets of a body that goes out in pieces, as the client takes them


Credentials = tuple[tuple[str, ...] | None, str]  # URI SANs of a verified certificate, and the Authorization header


class Identify(Protocol):
    """Who presents these URI SANs (None: no certificate) and this Authorization header."""

    def __call__(self, uris: tuple[str, ...] | None, authorization: str, /) -> Identity | Refusal: ...


@attrs.define(eq=False)
class Agent:
    """One who polls, as /v1/agents tells of it. `known` is the generation it named last, its acknowledgement (rule X7)."""

    peer: str
    identity: Identity
    workload: Workload
    known: str
    since: float
    parked: bool = False


@attrs.define(eq=False)
class _Parked:
    """A poll that waits for news."""

    request: Request
    poll: Poll
    identity: Identity
    agent: Agent
    credentials: Credentials
    expires: IDelayedCall


class LongPoll(Resource):
    """The resource of /v1/nametable, and of nothing else."""

    isLeaf = True

    def __init__(
        self, identify: Identify, find_view: Callable[[Workload], View | None], networks: Callable[[], Mapping[str, str]],
        clock: Any,
    ) -> None:  # fmt: skip
        """`networks` gives the network of each cluster, by name; `clock` is the reactor."""
        super().__init__()
        self.responses: dict[str, int] = dict.fromkeys(("table", "delta", "nothing", "refused", "unready"), 0)
        self._durations = [0] * (len(_BOUNDS) + 1)
        self._seconds = 0.0
        self._woken = 0.0  # when there was news last
        self.agents: OrderedDict[tuple[str, str], Agent] = OrderedDict()  # by peer and identity
        self._identify = identify
        self._find_view = find_view
        self._networks = networks
        self._clock = clock
        self._parked: dict[Request, _Parked] = {}
        self._waking: list[_Parked] = []
        self._call: IDelayedCall | None = None
        self._bodies: OrderedDict[tuple[str, str, str], Whole] = OrderedDict()
        self._told: dict[tuple[str, str], float] = {}

    # from the root

    def wake(self) -> None:
        """There may be news for those who are parked; they are answered some at a time, so that others have their turn."""
        self._woken = self._clock.seconds()
        self._waking = list(self._parked.values())
        if self._call is None:
            self._call = self._clock.callLater(0, self._wake_some)

    def stop(self) -> None:
        """Answer all who are parked: they ask the next replica."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        for parked in list(self._parked.values()):
            self._unpark(parked)
            self._end(parked.request, 503, "This control plane is about to stop: ask another one, or this one again.")

    # from the status page

    @property
    def parked(self) -> int:
        return len(self._parked)

    @property
    def pushes(self) -> Buckets:
        """How long it took from news to the answers of those who were parked."""
        bounds = zip([*map(str, _BOUNDS), "+Inf"], accumulate(self._durations), strict=True)
        return Buckets(list(bounds), self._seconds)

    # from the requests

    def render(self, request: Request) -> bytes | int:
        try:
            if request.path.decode("latin-1") != exchange.PATH:
                raise Refused(404, f"There is nothing but {exchange.PATH} here.")
            if request.method != b"GET":
                raise Refused(405, "Only GET is understood: there is nothing to change here.")
            poll = _read(request)
            identity = self._who(request)
            return self._answer(request, poll, identity)
        except Refused as refused:
            self.responses["refused"] += 1
            return _refuse(request, refused)

    def _who(self, request: Request) -> Identity:
        found = self._identify(*_credentials(request))
        if isinstance(found, Refusal):
            self._tell(request, found.status, found.cause)
            raise Refused(found.status, found.detail)
        return found

    def _answer(self, request: Request, poll: Poll, identity: Identity) -> int:
        if poll.namespace and poll.namespace != identity.namespace:
            self._tell(request, 403, f"namespace {poll.namespace} claimed by {identity.how}")
            raise Refused(403, f"You are of the namespace {identity.namespace}; leave out the parameter namespace.")
        networks = self._networks()
        if poll.cluster and poll.cluster not in networks:
            raise Refused(400, f"There is no cluster {poll.cluster!r} here; there are {', '.join(networks)}.")
        network = poll.network or networks.get(poll.cluster, "")
        workload = Workload(poll.cluster, network, identity.namespace, identity.service_account)
        view = self._find_view(workload)
        if view is None:
            self.responses["unready"] += 1
            self._end(request, 503, "Not every source has been read once: ask again in a moment.")
            return server.NOT_DONE_YET
        agent = self._note(request, poll, identity, workload)
        if view.generation not in poll.known:
            self._send(request, poll, view)
        elif poll.wait and len(self._parked) < PARKED_POLLS:
            self._park(request, poll, identity, agent)
        elif poll.wait:
            self._end(request, 503, f"{PARKED_POLLS} polls are parked here already: ask another replica.")
        else:
            self._nothing(request, view)
        return server.NOT_DONE_YET

    def _note(self, request: Request, poll: Poll, identity: Identity, workload: Workload) -> Agent:
        """Remember who polls, the last ones longest."""
        address, now = request.getClientAddress(), self._clock.seconds()
        key = f"{address.host} port {address.port}", identity.how
        known = poll.known[0] if poll.known else ""
        agent = self.agents[key] = Agent(key[0], identity, workload, known, now)
        for other, each in list(islice(self.agents.items(), 2)):  # those that have not polled longest
            if not each.parked and now - each.since > POLL_MOST:
                del self.agents[other]
        self.agents.move_to_end(key)
        while len(self.agents) > PARKED_POLLS:
            self.agents.popitem(last=False)
        return agent

    # Parking

    def _park(self, request: Request, poll: Poll, identity: Identity, agent: Agent) -> None:
        expires = self._clock.callLater(poll.wait, self._expire, request)
        parked = _Parked(request, poll, identity, agent, _credentials(request), expires)
        self._parked[request] = parked
        agent.parked = True
        request.keep()
        request.notifyFinish().addErrback(lambda _: self._unpark(parked))

    def _unpark(self, parked: _Parked) -> None:
        if self._parked.pop(parked.request, None) is None:
            return
        parked.agent.parked = False
        if parked.expires.active():
            parked.expires.cancel()

    def _expire(self, request: Request) -> None:
        parked = self._parked[request]
        self._unpark(parked)
        view = self._find_view(parked.agent.workload)
        if view is None or view.generation not in parked.poll.known:
            self._again(parked)
        else:
            self._nothing(request, view)

    def _wake_some(self) -> None:
        self._call = None
        some, self._waking = self._waking[:POLL_WAKE], self._waking[POLL_WAKE:]
        for parked in some:
            if parked.request in self._parked:
                self._look(parked)
        if self._waking:
            self._call = self._clock.callLater(0, self._wake_some)

    def _look(self, parked: _Parked) -> None:
        """Whether a parked poll has news; and whether who parked it may still be here."""
        found = self._identify(*parked.credentials)
        view = self._find_view(parked.agent.workload)
        if isinstance(found, Refusal):
            self._unpark(parked)
            self._tell(parked.request, found.status, found.cause)
            self._end(parked.request, found.status, found.detail)
        elif view is None:
            self._unpark(parked)
            self._again(parked)
        elif view.generation not in parked.poll.known:
            self._unpark(parked)
            self._send(parked.request, parked.poll, view)
            took = self._clock.seconds() - self._woken
            self._durations[bisect_left(_BOUNDS, took)] += 1
            self._seconds += took

    def _again(self, parked: _Parked) -> None:
        try:
            self._answer(parked.request, parked.poll, parked.identity)
        except Refused as refused:
            self._end(parked.request, refused.code, refused.detail)

    # Answers

    def _nothing(self, request: Request, view: View) -> None:
        self.responses["nothing"] += 1
        request.setResponseCode(304)
        request.setHeader(b"ETag", f'"{view.generation}"'.encode())
        request.finish()

    def _send(self, request: Request, poll: Poll, view: View) -> None:
        """The delta from what the agent has, or the whole table."""
        base = next(
            (each for each in poll.known if poll.deltas and not poll.istio and view.delta(each) is not None), ""
        )
        self.responses["delta" if base else "table"] += 1
        body = self._body(poll, view, base)
        if len(body.content) <= _LARGE:
            request.answer(body)
            return
        request.resume()
        request.begin(body)
        Pieces(request, (body.content[start : start + _LARGE] for start in range(0, len(body.content), _LARGE))).start()

    def _body(self, poll: Poll, view: View, base: str) -> Whole:
        """Made once for all who wait for the same; a generation stands for its content."""
        key = base, view.generation, f"{'istio' if poll.istio else 'lines'}{'+gzip' if poll.gzip else ''}"
        body = self._bodies.get(key)
        if body is None:
            body = self._bodies[key] = _packed(poll, view, base)
            while len(self._bodies) > PACKED_BODIES:
                self._bodies.popitem(last=False)
        self._bodies.move_to_end(key)
        return body

    def _end(self, request: Request, status: int, detail: str) -> None:
        request.write(_refuse(request, Refused(status, detail)))
        request.finish()

    def _tell(self, request: Request, status: int, cause: str) -> None:
        """Each refusal by its cause, but an agent that asks again and again is told of once in a while."""
        peer, now = request.getClientAddress().host, self._clock.seconds()
        self._told = {key: at for key, at in self._told.items() if now - at < POLL_TOLD}
        if (peer, cause) not in self._told:
            self._told[peer, cause] = now
            _log.warn("{peer} is refused ({status}): {cause}", peer=peer, status=status, cause=cause)


def _read(request: Request) -> Poll:
    every = request.requestHeaders.getAllRawHeaders()
    headers = {name.decode("latin-1"): [each.decode("latin-1") for each in values] for name, values in every}
    return exchange.read_poll(request.asked().parameters, exchange.joined(headers))


def _credentials(request: Request) -> Credentials:
    channel = cast(Channel, request.channel)
    if channel.peer_uris is None:
        transport: Any = channel.transport
        shown = transport.getPeerCertificate() if hasattr(transport, "getPeerCertificate") else None
        channel.peer_uris = (uris(shown),)
    return channel.peer_uris[0], request.requestHeaders.getRawHeaders("Authorization", [""])[0]


def _packed(poll: Poll, view: View, base: str) -> Whole:
    content = b"".join(_istio(view) if poll.istio else pieces(_lines(view, base)))
    headers = [
        (b"Content-Type", (JSON if poll.istio else LINES).encode()),
        (b"ETag", f'{"W/" if poll.istio else ""}"{view.generation}"'.encode()),
        (b"Vary", b"Accept, Accept-Encoding, A-IM, Authorization"),
    ]
    if base:
        headers.append((b"IM", exchange.DELTA.encode()))
    if poll.gzip:
        content = gzip.compress(content, 6, mtime=0)
        headers.append((b"Content-Encoding", b"gzip"))
    return Whole(226, b"IM Used", headers, content) if base else Whole(200, b"OK", headers, content)


def _lines(view: View, base: str) -> Iterable[str]:
    delta = view.delta(base) if base else None
    return view.lines() if delta is None else delta


def _istio(view: View) -> Iterable[bytes]:
    entries = SplitDict((entry.host, entry) for entry in view.entries())
    yield json.dumps(to_istio(Table(entries, view.zones, 0, view.generation)), ensure_ascii=False).encode() + b"\n"


def _refuse(request: Request, refused: Refused) -> bytes:
    body = request.refuse(refused)
    if refused.code == http.NOT_ALLOWED:
        request.setHeader(b"Allow", b"GET")
    return body
