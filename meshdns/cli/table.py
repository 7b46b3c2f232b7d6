"""Root: `meshdns table`. The agent's name table leaves: in columns, as JSON, or as the lines that it is made of."""

import argparse
import sys
from collections.abc import Iterator
from itertools import chain

from meshdns import names
from meshdns.agent import explain
from meshdns.agent.config import AgentConfig
from meshdns.cli import DONE, FAILED, agent
from meshdns.cli.explain import ports_text
from meshdns.cli.screen import on_terminal, say, show_columns, show_json
from meshdns.entries import BadTable, Entry, entry, parse
from meshdns.table import Loader, Table

_HEADERS = ("HOST", "ADDRESSES", "REGISTRY", "NAMESPACE", "PORTS")
_SHOWN = 4  # addresses of a host on a terminal; a pipe gets them all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", metavar="HOST", help="only this host, by its full name")
    parser.add_argument("--raw", action="store_true", help="the lines of the table as they are; may be used as a file")


def run(args: argparse.Namespace) -> int:
    return agent.run(_run, args)


def _run(args: argparse.Namespace, config: AgentConfig) -> int:
    pieces = agent.get(config, "/v1/table", None if args.host is None else {"host": args.host})
    if args.raw:
        return _copy(pieces)
    try:
        if args.host is not None:
            _show_entry(args, entry(parse(b"".join(pieces).decode().strip())))
        else:
            _show_table(args, _load(pieces))
    except (BadTable, UnicodeDecodeError) as error:
        raise agent.Stop(
            FAILED, f"the agent's table cannot be understood: {error}. Is it of another version?"
        ) from None
    return DONE


def _copy(pieces: Iterator[bytes]) -> int:
    first = next(pieces, b"")  # what is wrong shows here, before anything is written
    for piece in chain((first,), pieces):
        sys.stdout.buffer.write(piece)
    return DONE


def _load(pieces: Iterator[bytes]) -> Table:
    loader, rest = Loader(), b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            loader.feed(line)
    return loader.finish()


def _show_entry(args: argparse.Namespace, held: Entry) -> None:
    if args.json:
        show_json(explain.entry_dict(held))
    else:
        show_columns(_HEADERS, [_row(held)])


def _show_table(args: argparse.Namespace, held: Table) -> None:
    entries = [held.entries[host] for host in sorted(held.entries)]
    if args.json:
        told = {"generation": held.generation, "zones": list(held.zones), "ttl": held.ttl}
        show_json(told | {"entries": list(map(explain.entry_dict, entries))})
        return
    show_columns(_HEADERS, map(_row, entries))
    zones = ", ".join(held.zones) or "none of its own"
    if on_terminal():
        say(f"{len(entries)} hosts, generation {held.generation}, mesh zones: {zones}")


def _row(held: Entry) -> tuple[str, str, str, str, str]:
    told = explain.entry_dict(held)
    return held.host, _addresses(held), held.registry or "-", held.namespace or "-", ports_text(told["ports"]) or "-"


def _addresses(held: Entry) -> str:
    if held.alias:
        return f"-> {names.text(held.alias)}"
    ips = held.ips
    if on_terminal() and len(ips) > _SHOWN + 1:
        ips = [*ips[:_SHOWN], f"and {len(ips) - _SHOWN} more"]
    return (", ".join(ips) or "-") + (" (virtual)" if held.vip else "")
