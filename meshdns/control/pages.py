"""Inside: the pages of a control plane's status address, as values: what is asked enters, a `Page` or a `Refused` leaves.

`Facts` are looked at and never changed. It must never know of sockets.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs

from meshdns import __version__
from meshdns.control.explain import explain
from meshdns.control.model import Problem, Workload
from meshdns.control.registry import Registry
from meshdns.control.views import Views
from meshdns.metrics import Buckets, Measure
from meshdns.web import METHODS, Asked, Page, Refused, check_host, json_page, text_page

Vips = Mapping[str, tuple[str, ...]]


class Polls(Protocol):
    """The long poll, as it tells of itself."""

    @property
    def parked(self) -> int: ...
    @property
    def responses(self) -> Mapping[str, int]: ...
    @property
    def agents(self) -> Mapping[Any, Any]: ...
    @property
    def pushes(self) -> Buckets: ...


class Mesh(Protocol):
    """What the control plane knows."""

    @property
    def ready(self) -> bool: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def views(self) -> Views: ...
    @property
    def vips(self) -> Vips: ...
    @property
    def problems(self) -> Sequence[Problem]: ...
    @property
    def synced(self) -> Mapping[str, bool]: ...


@attrs.frozen(kw_only=True)
class Facts:
    """Everything that the status page reads. `clock` gives monotonic seconds; `more` are problems of the process itself."""

    mesh: Mesh
    polls: Polls
    clock: Callable[[], float]
    more: Callable[[], Sequence[str]]


def find(facts: Facts, asked: Asked, metrics: Callable[[], Page]) -> Page:
    """The page that is asked for; `metrics` gives that of /metrics. Raises Refused."""
    for host in asked.hosts:
        check_host(host, asked.address)
    if asked.method not in METHODS:
        raise Refused(405, "Only GET and HEAD are understood: there is nothing to change here.")
    show = _PATHS.get(asked.path)
    if show is None:
        raise Refused(404, "There is no such page here: / lists what there is.")
    return metrics() if asked.path == "/metrics" else show[0](facts, asked)


def _index(facts: Facts, asked: Asked) -> Page:
    lines = [f"{path:12} {about}" for path, (_, about) in _PATHS.items()]
    return text_page("\n".join([f"meshdns-control {__version__}", "", *lines]))


def _healthz(facts: Facts, asked: Asked) -> Page:
    return text_page("ok")


def _readyz(facts: Facts, asked: Asked) -> Page:
    if not facts.mesh.ready:
        waiting = [cluster for cluster, synced in facts.mesh.synced.items() if not synced]
        raise Refused(503, f"Not every source has been read once; missing: {', '.join(waiting) or 'the first tables'}.")
    return text_page("ready")


def _problems(facts: Facts, asked: Asked) -> Page:
    found = [attrs.asdict(problem) for problem in facts.mesh.problems]
    return json_page({"problems": found, "process": list(facts.more())})


def _agents(facts: Facts, asked: Asked) -> Page:
    now = facts.clock()
    return json_page(
        {
            "agents": [
                {
                    "peer": agent.peer,
                    "identity": agent.identity.how,
                    "namespace": agent.workload.namespace,
                    "cluster": agent.workload.cluster,
                    "network": agent.workload.network,
                    "generation": agent.known or None,
                    "parked": agent.parked,
                    "seconds": round(now - agent.since, 3),
                }
                for agent in facts.polls.agents.values()
            ]
        }
    )


def _explain(facts: Facts, asked: Asked) -> Page:
    said = asked.parameters
    if not said.get("host"):
        raise Refused(400, "Say which host, as in /v1/explain?host=db1.example.com&namespace=ns1&cluster=east.")
    workload = None
    if namespace := said.get("namespace"):
        clusters = facts.mesh.registry.clusters
        cluster = said.get("cluster") or next(iter(clusters))
        if cluster not in clusters:
            raise Refused(400, f"There is no cluster {cluster!r} here; there are {', '.join(clusters)}.")
        network = said.get("network") or clusters[cluster].network
        workload = Workload(cluster, network, namespace, said.get("service_account", "default"))
    host = said["host"].lower().removesuffix(".")
    return json_page(
        explain(facts.mesh.registry, facts.mesh.views, facts.mesh.vips, facts.mesh.problems, host, workload)
    )


_PATHS: dict[str, tuple[Callable[[Facts, Asked], Page], str]] = {
    "/": (_index, "this list"),
    "/healthz": (_healthz, "200 as long as the control plane runs"),
    "/readyz": (_readyz, "200 once every source has been read, else 503 with the reason"),
    "/metrics": (_index, "metrics for Prometheus"),
    "/v1/problems": (_problems, "what is wrong with manifests, VIPs and files"),
    "/v1/agents": (_agents, "who polls, and which generation it has"),
    "/v1/explain": (_explain, "?host=HOST&namespace=NS&cluster=C for why a host is in a workload's table, or not"),
}


def measures(facts: Facts) -> Iterator[Measure]:
    """Every measure, also those that have no sample yet."""
    mesh, polls = facts.mesh, facts.polls
    kinds: dict[str, int] = {}
    for problem in mesh.problems:
        kinds[problem.kind] = kinds.get(problem.kind, 0) + 1
    yield Measure("gauge", "agents", "Agents that have polled lately.", (), [((), len(polls.agents))])
    yield Measure("gauge", "parked_polls", "Polls that wait for news.", (), [((), polls.parked)])
    responses = [((kind,), count) for kind, count in polls.responses.items()]
    yield Measure("counter", "table_responses", "Polls answered.", ("kind",), responses)
    about = "From a change to the answer of a parked poll."
    yield Measure("histogram", "push_duration_seconds", about, (), [((), polls.pushes)])
    yield Measure(
        "gauge", "problems", "What is wrong now.", ("kind",), [((kind,), n) for kind, n in sorted(kinds.items())]
    )
    yield Measure("gauge", "vips_allocated", "Hosts with a VIP.", (), [((), len(mesh.vips))])
    synced = [((cluster,), int(done)) for cluster, done in mesh.synced.items()]
    yield Measure("gauge", "source_synced", "Whether a cluster's source has been read once.", ("cluster",), synced)
