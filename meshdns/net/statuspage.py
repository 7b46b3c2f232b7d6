"""Outside: a status page over plain HTTP on loopback: open at once, and loaded when somebody comes for the first time.

A function that loads a site enters; connections go to it. It must never know what a page says.

Most agents beside an application are never asked. What speaks HTTP and what writes metrics is imported in another thread, since
it takes a tenth of a second, and packets must not wait for that: they share the interpreter with it. Whoever comes first
waits in the kernel's queue meanwhile.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import tcp
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from meshdns.defaults import TCP_BACKLOG

if TYPE_CHECKING:
    from meshdns.net.site import Site

_log = Logger()


class StatusPage:
    """A page of its own address."""

    def __init__(self, load: "Callable[[], Site]", reactor: Any) -> None:
        """`load` imports what a site needs and makes one; it is called in another thread."""
        self._reactor = reactor
        self._site = StatusSite(load, reactor)
        self._address: tuple[str, int] | None = None
        self._port: tcp.Port | None = None

    # from the root

    def listen(self, address: tuple[str, int] | None) -> None:
        """Be at exactly this (host, port), or nowhere. Raises twisted's CannotListenError with all as it was."""
        if address == self._address:
            return
        opened = None
        if address:
            opened = _Port(address[1], self._site, TCP_BACKLOG, address[0], self._reactor)
            opened.startListening()
        if self._port:
            self._port.stopListening()
        self._address, self._port = address, opened

    @property
    def port(self) -> int:
        """The port in use, 0 for none."""
        return cast(int, self._port.getHost().port) if self._port else 0

    async def close(self) -> None:
        """Be nowhere, and end every connection."""
        port, self._address, self._port = self._port, None, None
        if port:
            await cast("Deferred[None]", maybeDeferred(port.stopListening))
        if self._site.site is not None:
            await self._site.site.abort()


class StatusSite(ServerFactory):
    """A site that is loaded when it is needed."""

    noisy = False

    def __init__(self, load: "Callable[[], Site]", reactor: Any) -> None:
        self.site: Site | None = None
        self._load = load
        self._reactor = reactor
        self._loading: Deferred[None] | None = None

    def loaded(self, then: Callable[[], None]) -> None:
        """Call when there is a site, or when it is clear that there will be none."""
        if self._loading is None:
            loading = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._load)
            self._loading = loading.addCallbacks(self._is_there, self._is_missing)
        self._loading.addCallback(lambda _: then())

    def _is_there(self, site: "Site") -> None:
        self.site = site

    def _is_missing(self, failure: Failure) -> None:
        self._loading = None  # the next one may have more luck
        _log.failure("please report this bug: the status page cannot be loaded", failure)

    # from the port

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self.site.buildProtocol(addr) if self.site is not None else None


class _Port(tcp.Port):
    """Takes nobody in before there is a site."""

    factory: StatusSite

    def doRead(self) -> None:
        if self.factory.site is not None:
            super().doRead()
            return
        self.stopReading()
        self.factory.loaded(self._go_on)

    def _go_on(self) -> None:
        if self.connected:
            super().doRead()  # without a site, to turn whoever waits away
            self.startReading()
