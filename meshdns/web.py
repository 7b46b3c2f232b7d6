"""Vocabulary: a web request and what is said to it, as values: what pages of both sides are made of.

Of HTTP it knows methods, paths, parameters and a few headers; of sockets nothing.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address

import attrs

from meshdns.defaults import STATUS_PIECE

LINES, JSON, TEXT = "application/jsonl", "application/json", "text/plain; charset=utf-8"
METHODS = ("GET", "HEAD")
SHOWN = 300  # characters of what was asked that a sentence repeats


@attrs.frozen
class Asked:
    """A request: method, path, parameters, the Host and Accept headers as they came, and the address it came to."""

    method: str
    path: str
    parameters: Mapping[str, str]
    hosts: Sequence[str]
    accept: str
    address: str


@attrs.frozen
class Page:
    """What is said: the whole of it, or pieces made as they are sent. `etag` is quoted, as the header has it."""

    type: str
    content: bytes | Iterator[bytes]
    etag: str | None = None


class Refused(Exception):
    """Why there is no page: a status code, and a sentence that says what to do."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def check_host(said: str, own: str) -> None:
    """Against DNS rebinding: a page of evil.example may make its own name mean 127.0.0.1, and read what we say."""
    host = said[1:].partition("]")[0] if said.startswith("[") else said.partition(":")[0]
    if host.lower() in ("", "localhost"):
        return
    try:
        ip_address(host)
    except ValueError:
        raise Refused(403, f"Ask for this page by address, as in http://{own}/, or as localhost.") from None


def text_page(text: str) -> Page:
    return Page(TEXT, f"{text}\n".encode())


def json_page(value: object) -> Page:
    return Page(JSON, json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n")


def pieces(lines: Iterable[str]) -> Iterator[bytes]:
    """Lines in pieces of some that are made quickly."""
    piece: list[str] = []
    for line in lines:
        piece.append(line + "\n")
        if len(piece) >= STATUS_PIECE:
            yield "".join(piece).encode()
            piece.clear()
    yield "".join(piece).encode()
