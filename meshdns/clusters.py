"""Vocabulary: the cluster section of a configuration, which the control plane and an agent that is its own one share.

A section enters, a `Cluster` leaves. Live API servers come with a later version: their key is known and refused.
"""

from collections.abc import Iterator

import attrs

from meshdns import __version__, defaults, names
from meshdns.settings import Reader, Rule, Stated, domain, exactly_one, label, path, section, setting, word

CLUSTERSET = "clusterset.local"  # where ServiceImports stand (KEP-1645); no cluster's own domain


@attrs.frozen(kw_only=True)
class Cluster:
    """A cluster and where its objects are read."""

    name: str = setting(label)
    network: str = setting(word, "")
    domain: bytes = setting(domain, names.parse(defaults.CLUSTER_DOMAIN))
    manifests: str | None = setting(path, None)
    kubeconfig: str | None = setting(path, None)


def _not_yet(stated: Stated) -> Iterator[tuple[str, str]]:
    if "kubeconfig" in stated.lines and "manifests" not in stated.lines:
        version = __version__.rpartition(".")[0]
        yield (
            "kubeconfig",
            f"not in this version yet ({version}): use manifests, a directory that a job keeps up to date",
        )


def _own_domain(stated: Stated) -> Iterator[tuple[str, str]]:
    if stated.values.get("domain") == names.parse(CLUSTERSET):
        yield "domain", f"{CLUSTERSET} belongs to ServiceImports of all clusters; write the cluster's own domain"


cluster: Reader[Cluster] = section(Cluster, exactly_one("manifests", "kubeconfig"), _not_yet, _own_domain)


def apart(key: str) -> Rule:
    """A rule on a list of clusters: no name twice. The list's key enters."""

    def rule(stated: Stated) -> Iterator[tuple[str, str]]:
        seen: set[str] = set()
        for each in stated.values.get(key) or ():
            if isinstance(each, Cluster) and each.name in seen:
                yield key, f'two clusters are called "{each.name}"; give one another name'
            if isinstance(each, Cluster):
                seen.add(each.name)

    return rule
