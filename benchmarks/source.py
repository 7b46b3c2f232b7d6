"""A control plane that costs as little as can be, so that the agent is what is measured: two large tables and a small one, packed
beforehand, and deltas of one host each, over the long poll of contract section 2.2.

Told `{"show": "small" | "one" | "two"}` or `{"change": ADDRESS}`, it says the generation that it serves from then on.
"""

import argparse
import gzip
import json
import ssl
import sys
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import attrs

from benchmarks.helper import stand_back, tell
from benchmarks.names import MESH_ZONE, TTL
from benchmarks.processes import end_on_sigterm
from meshdns import exchange
from meshdns.table import Entry, Table, delta_lines, dump, entry, total_text, weigh
from meshdns.web import LINES

SMALL = 1000  # hosts of the small table
TABLES = ("small", "one", "two")  # each host has another address in `two`


def tables(hosts: int) -> dict[str, Table]:
    """The three; the hosts of the small one are in all."""
    return {
        "small": _table(min(hosts, SMALL), 0),
        "one": _table(hosts, 1),
        "two": _table(hosts, 2),
    }


def _table(hosts: int, version: int) -> Table:
    return Table.of((_entry(number, address(number, version)) for number in range(hosts)), (MESH_ZONE,), TTL)


def _entry(number: int, ip: str) -> Entry:
    """As a control plane has them: a service with two ports."""
    ports = [{"name": "http", "number": 80, "protocol": "TCP"}, {"name": "grpc", "number": 9080, "protocol": "TCP"}]
    namespace = f"ns{number % 500}"
    said: dict[str, object] = {
        "ips": [ip],
        "registry": "Kubernetes",
        "shortname": f"service-{number}",
        "namespace": namespace,
    }
    return entry({"host": host(number), **said, "ports": ports})


def host(number: int) -> str:
    return f"service-{number}.ns{number % 500}.svc.{MESH_ZONE}"


def address(number: int, version: int) -> str:
    return f"10.{64 * version + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def version(packed: bytes) -> int:
    """Of an address, packed, which it is from; 3 of one that a delta brought, and -1 of none."""
    return packed[1] >> 6 if packed else -1


def text(table: Table) -> bytes:
    """Its lines, as a file has them."""
    return "".join(f"{line}\n" for line in dump(table)).encode()


@attrs.frozen
class Body:
    """What an agent is sent: the table of this generation, or a delta that leads to it."""

    generation: str
    delta: bool
    packed: bytes


class Source:
    """What is served now; polls wait in threads of their own until it is something else."""

    def __init__(self, hosts: int) -> None:
        self._tables = tables(hosts)
        self._packed = {name: _packed(dump(each)) for name, each in self._tables.items()}
        self._turn = threading.Condition()
        self._show("small")

    def show(self, name: str) -> str:
        """Serve one of the tables, whole."""
        with self._turn:
            self._show(name)
            self._turn.notify_all()
            return self._generation

    def _show(self, name: str) -> None:
        self._table = self._tables[name]
        self._whole = self._packed[name]
        self._first = self._table.entries[host(0)]  # as it is now
        self._generation = self._table.generation
        self._past: set[str] = set()  # generations of this table since it is shown

    def change(self, ip: str) -> str:
        """The first host has another address; who holds what was served since the last `show` gets a delta."""
        new = _entry(0, ip)
        with self._turn:
            self._past.add(self._generation)
            total = int(self._generation, 16) - weigh(self._first.line) + weigh(new.line)
            self._first, self._generation = new, total_text(total)
            self._turn.notify_all()
            return self._generation

    def await_news(self, poll: exchange.Poll) -> Body | None:
        """What is to be sent to this poll; None when there was nothing in time."""
        with self._turn:
            self._turn.wait_for(lambda: self._generation not in poll.known, poll.wait)
            if self._generation in poll.known:
                return None
            base = next((each for each in poll.known if each in self._past), "")
            if not base:
                return Body(self._table.generation, False, self._whole)
            table, row = self._table, (self._first.host, self._first)
            lines = delta_lines(base, self._generation, len(table.entries), table.zones, table.ttl, [row])
            return Body(self._generation, True, _packed(lines))


def _packed(lines: Iterable[str]) -> bytes:
    return gzip.compress("".join(f"{line}\n" for line in lines).encode(), 6, mtime=0)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    source: Source

    def do_GET(self) -> None:
        poll = exchange.read_poll({}, {name.lower(): value for name, value in self.headers.items()})
        body = self.source.await_news(poll)
        if body is None:
            self._head(304, [("ETag", f'"{poll.known[0]}"')])
            return
        delta = [("IM", exchange.DELTA)] if body.delta else []
        more = [("Content-Type", LINES), ("Content-Encoding", "gzip"), ("Content-Length", str(len(body.packed)))]
        self._head(226 if delta else 200, [("ETag", f'"{body.generation}"'), *delta, *more])
        self.wfile.write(body.packed)

    def _head(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """There is no log."""


class Server(ThreadingHTTPServer):
    """Handshakes take place in the threads, and nobody waits for these at the end."""

    daemon_threads = True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.source", description="Tables over the long poll.")
    parser.add_argument("port", type=int)
    parser.add_argument("certificate", type=Path)
    parser.add_argument("key", type=Path)
    parser.add_argument("hosts", type=int)
    options = parser.parse_args()
    end_on_sigterm()
    stand_back()
    try:
        Handler.source = Source(options.hosts)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate, options.key)
        server = Server(("127.0.0.1", options.port), Handler)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tell(generation=Handler.source.show("small"))
        for said in _said():
            source = Handler.source
            tell(generation=source.show(said["show"]) if "show" in said else source.change(said["change"]))
    except KeyboardInterrupt:
        pass
    return 0


def _said() -> Iterator[dict[str, str]]:
    for line in sys.stdin:
        yield json.loads(line)


if __name__ == "__main__":
    sys.exit(main())
