"""Root: `twistd meshdns`: the agent's service. What only some configurations need is imported only for those."""

import sys
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as twisted_reactor

from meshdns.agent.answering import prepare
from meshdns.agent.config import AgentConfig
from meshdns.agent.facts import TableSource
from meshdns.agent.service import AgentService, Options
from meshdns.net.tls import TrustProblem
from meshdns.table import Table

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> AgentService:
    """The service for `twistd meshdns`."""
    reactor: Any = twisted_reactor
    prepare(reactor)
    try:
        return AgentService(options["config"], options["loaded"], reactor, _open_manifests)
    except TrustProblem as problem:
        sys.stderr.write(f"meshdns cannot start: {problem}\n")
        raise SystemExit(1) from None


def _open_manifests(config: AgentConfig, adopt: Callable[[Table], None], reactor: Any) -> TableSource:
    from meshdns.embedded import Manifests

    return Manifests(config, adopt, reactor)
