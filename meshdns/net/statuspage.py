"""Outside: a status page over plain HTTP on loopback, with metrics for Prometheus.

A function that finds pages, and one that measures, enter; requests come in, pages go out. It must never know what is told.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from twisted.internet import tcp
from twisted.internet.defer import Deferred, maybeDeferred

from meshdns.defaults import TCP_BACKLOG
from meshdns.metrics import Buckets, Mean, Measure, Value
from meshdns.net.site import Before, Pages, Site
from meshdns.web import Asked, Page

Measures = Callable[[], Iterable[Measure]]


class StatusPage:
    """A page of its own address."""

    def __init__(
        self, find: Callable[[Asked], Page], measures: Measures, reactor: Any, before: Before = lambda asked: None
    ) -> None:
        """`before` says what a page must wait for, if anything."""
        self._reactor = reactor
        self._site = Site(Pages(find, before), reactor)
        self._address: tuple[str, int] | None = None
        self._port: tcp.Port | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Measures(measures))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    # from the root

    def listen(self, address: tuple[str, int] | None) -> None:
        """Be at exactly this (host, port), or nowhere. Raises twisted's CannotListenError with all as it was."""
        if address == self._address:
            return
        opened = None
        if address:
            opened = tcp.Port(address[1], self._site, TCP_BACKLOG, address[0], self._reactor)
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
        await self._site.abort()

    # from who finds pages

    def metrics(self) -> Page:
        return Page(CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self._registry))


# Metrics


class _Measures(Collector):
    """Measures as prometheus_client wants them, made anew from plain numbers for each scrape."""

    def __init__(self, measures: Measures) -> None:
        self._measures = measures

    def collect(self) -> Iterator[Metric]:
        for measure in self._measures():
            yield _family(measure)


_FAMILIES: Mapping[str, Callable[..., Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
    "summary": SummaryMetricFamily,
}


def _family(measure: Measure) -> Metric:
    family = _FAMILIES[measure.kind](f"meshdns_{measure.name}", measure.about, labels=measure.labels)
    for labels, value in measure.samples:
        family.add_metric(labels, **_sample(value))
    return cast(Metric, family)


def _sample(value: Value) -> dict[str, Any]:
    if isinstance(value, Buckets):
        return {"buckets": value.bounds, "sum_value": value.total}
    if isinstance(value, Mean):
        return {"count_value": value.count, "sum_value": value.total}
    return {"value": value}
