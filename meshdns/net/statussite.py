"""Outside: the site of a status page: plain HTTP, with metrics for Prometheus.

A function that finds pages, and one that measures, enter; a site leaves. It must never know what is told, nor where it is open.
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

from meshdns.metrics import Buckets, Mean, Measure, Value
from meshdns.net.site import Before, Pages, Site
from meshdns.web import Asked, Page

Measures = Callable[[], Iterable[Measure]]


def status_site(
    find: Callable[[Asked, Callable[[], Page]], Page],
    measures: Measures,
    reactor: Any,
    before: Before = lambda asked: None,
) -> Site:
    """`find` gets what is asked, and what makes the page of metrics; it gives a page, or raises Refused. `before` says what a page
    must wait for, if anything."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Measures(measures))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)

    def metrics() -> Page:
        return Page(CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry))

    return Site(Pages(lambda asked: find(asked, metrics), before), reactor)


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
