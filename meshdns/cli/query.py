"""Root: `meshdns query`. A name enters; the agent is asked for it as an application asks, over DNS, and what it answers
leaves, with where that came from."""

import argparse
import secrets
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import attrs

from meshdns import defaults, messages, names, wire
from meshdns.agent import explain
from meshdns.agent.config import AgentConfig
from meshdns.cli import DONE, FAILED, agent
from meshdns.cli.explain import add_arguments as add_arguments
from meshdns.cli.explain import question, show_records
from meshdns.cli.screen import say, show_json, span
from meshdns.values import Endpoint
from meshdns.wire import Ask

_EDE = 15  # the EDNS option of extended errors, RFC 8914
_AGAIN = 2.0  # seconds after which a datagram may be lost


@attrs.frozen
class Exchange:
    """A whole answer, where it came from and how, after how many seconds."""

    message: bytes
    server: Endpoint
    transport: str
    seconds: float


def run(args: argparse.Namespace) -> int:
    return agent.run(_run, args)


def _run(args: argparse.Namespace, config: AgentConfig) -> int:
    name, qtype = question(args)
    why = _explained(config, name, qtype)  # before the answer is in the cache in any case
    exchange = _ask_any(config, Ask(name + struct.pack("!2H", qtype, wire.IN), wire.RD, b""))
    try:
        told = _told(name, qtype, exchange)
    except wire.Malformed as error:
        raise agent.Stop(FAILED, f"{exchange.server} gave an answer that makes no sense: {error}.") from None
    told |= _whence(why, told)
    if args.json:
        show_json(told)
    else:
        _show(told)
    return DONE if told["rcode"] == "NOERROR" else FAILED


# Asking


def _ask_any(config: AgentConfig, ask: Ask) -> Exchange:
    """Ask at the first address where the agent answers; raises Stop."""
    refused: list[tuple[Endpoint, OSError]] = []
    for endpoint in config.listen:
        try:
            return _ask(Endpoint(agent.near(endpoint.host), endpoint.port), ask)
        except OSError as error:
            refused.append((endpoint, error))
            if isinstance(error, TimeoutError):
                break
    raise agent.not_running(f"at {', '.join(str(endpoint) for endpoint, _ in refused)}", refused[-1][1])


def _ask(server: Endpoint, ask: Ask) -> Exchange:
    """Over UDP, and over TCP if the answer is too long for that; raises OSError."""
    query = wire.upstream_query(ask, secrets.randbits(16), ask.question, messages.UDP_SIZE)
    started = time.monotonic()
    message, transport = _over_udp(server, query, ask.question), "UDP"
    if wire.is_truncated(message):
        message, transport = _over_tcp(server, query, ask.question), "TCP"
    return Exchange(message, server, transport, time.monotonic() - started)


def _over_udp(server: Endpoint, query: bytes, asked: bytes) -> bytes:
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    until = time.monotonic() + defaults.QUERY_TIMEOUT
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((server.host, server.port))
        while True:
            sock.send(query)
            again = min(until, time.monotonic() + _AGAIN)
            while (left := again - time.monotonic()) > 0:
                sock.settimeout(left)
                try:
                    message = sock.recv(messages.TCP_LIMIT)
                except TimeoutError:
                    break
                if message[:2] == query[:2] and wire.reply_fits(message, asked) is None:
                    return message
            if again >= until:
                raise TimeoutError


def _over_tcp(server: Endpoint, query: bytes, asked: bytes) -> bytes:
    with socket.create_connection((server.host, server.port), defaults.QUERY_TIMEOUT) as sock:
        sock.sendall(struct.pack("!H", len(query)) + query)
        with sock.makefile("rb") as stream:
            length = int.from_bytes(stream.read(2))
            message = stream.read(length)
    if message[:2] != query[:2] or wire.reply_fits(message, asked) is not None:
        raise ConnectionError("it closed the TCP connection without a whole answer")
    return message


# Telling


def _told(name: bytes, qtype: int, exchange: Exchange) -> dict[str, Any]:
    """The answer as JSON has it; raises wire.Malformed."""
    message = exchange.message
    flags = wire.HEADER.unpack_from(message)[1]
    bits = {"aa": wire.AA, "tc": wire.TC, "rd": wire.RD, "ra": wire.RA, "ad": wire.AD, "cd": wire.CD}
    sections = messages.records(message)._asdict()
    return {
        "name": names.text(name),
        "type": wire.type_text(qtype),
        "rcode": wire.rcode_text(wire.rcode(message)),
        "flags": [word for word, bit in bits.items() if flags & bit],
        "server": str(exchange.server),
        "transport": exchange.transport,
        "seconds": round(exchange.seconds, 6),
        **{section: list(map(explain.record_dict, records)) for section, records in sections.items()},
        "errors": [{"code": code, "text": text} for code, text in _extended_errors(message)],
    }


def _extended_errors(message: bytes) -> Iterator[tuple[int, str]]:
    for spot in wire.spots(message):
        if spot.type != wire.OPT:
            continue
        options = wire.edns_at(message, spot.start).options
        starts = wire.option_starts(options)
        for start, end in pairwise(starts):
            code, length = struct.unpack_from("!2H", options, start)
            if code == _EDE and length >= 2:
                text = options[start + 6 : end].decode("utf-8", "replace")
                yield int.from_bytes(options[start + 4 : start + 6]), "".join(c for c in text if c.isprintable())


def _explained(config: AgentConfig, name: bytes, qtype: int) -> Mapping[str, Any] | None:
    """What the agent says on where the answer will come from; None if it does not."""
    try:
        why = agent.get_json(config, "/v1/explain", {"name": names.text(name), "type": wire.type_text(qtype)})
        return {key: why[key] for key in ("source", "rule", "verdict", "hints")}
    except (agent.Stop, KeyError):
        return None


def _whence(why: Mapping[str, Any] | None, told: dict[str, Any]) -> Mapping[str, Any]:
    """Where the answer came from: what the agent explains, or if it does not, what the AA bit says (rule D4)."""
    if why is not None:
        return why
    if "aa" in told["flags"]:
        source, verdict = "mesh", "Answered from the mesh, as its AA bit says."
    else:
        source, verdict = "upstream", "Not answered from the mesh, as it has no AA bit."
    return {"source": source, "rule": None, "verdict": verdict, "hints": []}


def _show(told: dict[str, Any]) -> None:
    good = told["rcode"] == "NOERROR"
    how = f"from {told['server']} over {told['transport']} in {span(told['seconds'])}"
    say(f"{told['name']} {told['type']}: {told['rcode']}, {how}", "bold green" if good else "bold yellow")
    for error in told["errors"]:
        say(f"  {error['text'] or 'no more is said'} (extended error {error['code']})", "yellow")
    if good and not told["answer"]:
        say("  no records")
    for section in ("answer", "authority", "additional"):
        if told[section]:
            if section != "answer":
                say(section)
            show_records(told[section])
    say(told["verdict"])
    for hint in told["hints"]:
        say(hint, "cyan")
