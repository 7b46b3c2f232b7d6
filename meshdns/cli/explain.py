"""Root: `meshdns explain`. A name enters; why the agent answers it as it does leaves, look by look."""

import argparse
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from meshdns import names, wire
from meshdns.agent.config import AgentConfig
from meshdns.cli import DONE, USAGE, agent
from meshdns.cli.screen import say, show_columns, show_json, span

_FIELDS = ("host", "ips", "alias", "registry", "namespace", "ports", "pods", "ttl")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="as an application asks for it; an address means its reverse name")
    parser.add_argument("type", metavar="TYPE", nargs="?", help="A, AAAA, SRV … (default: A, for an address PTR)")


def run(args: argparse.Namespace) -> int:
    return agent.run(_run, args)


def _run(args: argparse.Namespace, config: AgentConfig) -> int:
    name, qtype = question(args)
    told = agent.get_json(config, "/v1/explain", {"name": names.text(name), "type": wire.type_text(qtype)})
    if args.json:
        show_json(told)
    else:
        show(told)
    return DONE


def question(args: argparse.Namespace) -> tuple[bytes, int]:
    """The wire name and type that the words mean; raises Stop."""
    try:
        address = str(ip_address(args.name))
    except ValueError:
        address = ""
    try:
        qtype = wire.parse_type(args.type or ("PTR" if address else "A"))
        reverse = address and qtype == wire.PTR
        return names.reverse(address) if reverse else names.parse(args.name), qtype
    except ValueError as error:
        raise agent.Stop(USAGE, f"{error}.") from None


def show(told: Mapping[str, Any]) -> None:
    """The whole explanation as text."""
    say(f"{told['name']} {told['type']}", "bold")
    say(f"-> {told['verdict']}", "green" if told["rcode"] in ("NOERROR", None) else "yellow")
    for hint in told["hints"]:
        say(f"   {hint}", "cyan")
    say("")
    show_columns(("", "", ""), _looks(told), indent="  ")
    if told["entry"]:
        say("\nits entry in the table")
        show_columns(("", ""), list(_entry(told["entry"])), indent="  ")
    for section in ("answer", "authority", "additional"):
        if told[section]:
            say(f"\n{section}" + (f" ({told['rcode']})" if told["rcode"] and section == "answer" else ""))
            show_records(told[section])
    if told["table"]:
        say(f"\n{_table_line(told['table'])}")


def show_records(records: list[dict[str, Any]]) -> None:
    rows = [(each["name"], str(each["ttl"]), each["type"], each["data"]) for each in records]
    show_columns(("", "", "", ""), rows, indent="  ")


def _looks(told: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for step in told["steps"]:
        yield "*" if step["decides"] else "-", step["check"], step["text"]


def _entry(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for field in _FIELDS:
        value = entry[field]
        if field == "ips" and value and entry["vip"]:
            yield field, f"{', '.join(value)} (virtual)"
        elif field == "ports" and value:
            yield field, ports_text(value)
        elif value or value == 0:
            yield field, ", ".join(value) if isinstance(value, list) else str(value)


def ports_text(ports: list[dict[str, Any]]) -> str:
    """`http 9080/TCP, 81/TCP`."""
    return ", ".join(f"{port['name']} {port['number']}/{port['protocol']}".lstrip() for port in ports)


def _table_line(table: Mapping[str, Any]) -> str:
    if not table["generation"]:
        return f"no name table is held ({table['source']})"
    return f"table of {table['hosts']} hosts, generation {table['generation']}, {span(table['age'])} old"
