"""Root: `meshdns status`. The state of the agent leaves: its table, its upstream servers, what it has answered."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from meshdns.agent.config import AgentConfig
from meshdns.cli import DEGRADED, DONE, agent
from meshdns.cli.screen import say, show_columns, show_json, span

_HEADERS = ("SERVER", "STATE", "LATENCY", "ANSWERED", "FAILED")
_MIB = 1 << 20
_ANSWERED = ("ok", "nxdomain", "truncated")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show the agent's health: its name table, its upstream servers, what it has answered."


def run(args: argparse.Namespace) -> int:
    return agent.run(_run, args)


def _run(args: argparse.Namespace, config: AgentConfig) -> int:
    told = agent.get_json(config, "/v1/status")
    if args.json:
        show_json(told)
    else:
        _show(told)
    return DEGRADED if told["problems"] else DONE


def _show(told: Mapping[str, Any]) -> None:
    ready = "ready" if told["ready"] else "not ready"
    say(f"meshdns {told['version']}, {ready}, running for {span(told['uptime'])} with {told['config']}", "bold")
    for sentence in told["problems"]:
        say(f"! {sentence}", "yellow")
    say("")
    show_columns(("", ""), list(_lines(told)))
    if told["upstreams"]:
        say("")
        show_columns(_HEADERS, map(_server, told["upstreams"]))


def _lines(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    table, workload, queries, upstream = told["table"], told["workload"], told["queries"], told["upstream"]
    if table["generation"]:
        yield "table", f"{table['hosts']} hosts, generation {table['generation']}, {span(table['age'])} old"
    yield "from", f"{table['source']} ({_times(table['updates'], 'table')} taken, {table['failures']} refused)"
    yield "zones", ", ".join(table["zones"]) or "-"
    yield "workload", f"namespace {workload['namespace']}, search {' '.join(workload['search']) or 'nothing'}"
    yield (
        "queries",
        f"{queries['total']}{_shares(queries['sources'])}; {queries['autopath']} by walking the search list",
    )
    yield "answers", _shares(queries["rcodes"]).removeprefix(": ") or "-"
    yield "cache", _cache(told["cache"], queries["sources"])
    yield "upstream", f"{upstream['inflight']} outstanding, {upstream['joined']} joined, {upstream['shed']} refused"
    if len(told["workers"]) > 1:
        yield "workers", ", ".join(map(_worker, told["workers"]))
    if told["dropped"]:
        yield "dropped", _shares(told["dropped"]).removeprefix(": ")


def _cache(cache: Mapping[str, int], sources: Mapping[str, int]) -> str:
    """`162 answers, 0.1 of 16 MiB; 85 % of 1176 queries from it, 2 expired; 9 refreshed early, 0 pushed out`."""
    kept = f"{_times(cache['entries'], 'answer')}, {cache['bytes'] / _MIB:.1f} of {cache['max_bytes'] / _MIB:g} MiB"
    fresh, stale, upstream = (sources.get(source, 0) for source in ("cache", "stale", "upstream"))
    if total := fresh + stale + upstream:
        share = 100 * (fresh + stale) // total
        kept += f"; {share} % of {total} {'query' if total == 1 else 'queries'} from it, {stale} expired"
    return f"{kept}; {cache['prefetches']} refreshed early, {cache['evictions']} pushed out"


def _worker(worker: Mapping[str, Any]) -> str:
    """`2: 1204 queries and starting after 3 restarts`."""
    more = "" if worker["state"] == "up" else f" and {worker['state']}"
    more += f" after {_times(worker['restarts'], 'restart')}" if worker["restarts"] else ""
    return f"{worker['number']}: {worker['queries']} {'query' if worker['queries'] == 1 else 'queries'}{more}"


def _times(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _shares(counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{word} {count}" for word, count in sorted(counts.items(), key=lambda item: -item[1]))
    return f": {listed}" if listed else ""


def _server(server: Mapping[str, Any]) -> tuple[str, ...]:
    requests: Mapping[str, int] = server["requests"]
    answered = sum(requests.get(outcome, 0) for outcome in _ANSWERED)
    failed = {outcome: count for outcome, count in requests.items() if count and outcome not in _ANSWERED}
    return (
        " for ".join([str(server["server"]), *([", ".join(server["domains"])] if server.get("domains") else [])]),
        str(server["state"]),
        span(server["latency"]),
        str(answered),
        f"{sum(failed.values())}{_shares(failed)}",
    )
