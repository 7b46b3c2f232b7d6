"""Vocabulary: the long poll as values: what an agent asks of a control plane, and what it is answered (contract section 2.2).

Both directions of each: a `Poll` to path and headers and back, an `Answer` out of a status and headers. It must never know of
sockets, nor who is trusted.
"""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

import attrs

from meshdns.defaults import POLL_MOST
from meshdns.web import JSON, LINES, SHOWN, Refused

PATH = "/v1/nametable"
IDENTITY_PATH = "/v1/identity"  # where an agent renews its certificate
REQUEST, CERTIFICATES = "application/x-pem-file", "application/pem-certificate-chain"
DELTA = "meshdns-delta"
_GENERATION = re.compile(r'(?:W/)?"([0-9a-f]{32})"')
_WAIT = re.compile(r"wait\s*=\s*\"?([0-9]{1,6})\"?", re.IGNORECASE)
_PARAMETERS = ("cluster", "network", "namespace")


@attrs.frozen(kw_only=True)
class Poll:
    """What an agent asks. `known` are the generations that it names, mostly one; `wait` seconds to be parked at most.

    `namespace` "" : that of the identity. `deltas`, `gzip`, `istio`: what it understands, and wants.
    """

    cluster: str = ""
    network: str = ""
    namespace: str = ""
    known: tuple[str, ...] = ()
    wait: float = 0.0
    deltas: bool = False
    gzip: bool = False
    istio: bool = False

    @property
    def path(self) -> str:
        """As the request line has it."""
        said = {name: value for name in _PARAMETERS if (value := getattr(self, name))}
        return f"{PATH}?{urlencode(said)}" if said else PATH

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request for lines; those with nothing to say are left out."""
        found = {"Accept": LINES}
        if self.known:
            found["If-None-Match"] = ", ".join(f'"{each}"' for each in self.known)
        if self.wait:
            found["Prefer"] = f"wait={self.wait:.0f}"
        if self.deltas:
            found["A-IM"] = DELTA
        if self.gzip:
            found["Accept-Encoding"] = "gzip"
        return found


def read_poll(parameters: Mapping[str, str], headers: Mapping[str, str]) -> Poll:
    """The poll in a request; header names are in lower case. Raises Refused (400, 406)."""
    for name in parameters:
        if name not in _PARAMETERS:
            told = f'"{name[:SHOWN]}" is no parameter of {PATH}, which takes {", ".join(_PARAMETERS)}.'
            raise Refused(400, told)
    accept = _tokens(headers.get("accept", "*/*"))
    takes_lines = any(accept.get(each, 0) for each in (LINES, "application/*", "*/*"))
    if not takes_lines and not accept.get(JSON):
        raise Refused(406, f"Tables come as {LINES}, or as {JSON} in Istio's form: ask for one of them in Accept.")
    found = _WAIT.search(headers.get("prefer", ""))
    return Poll(
        cluster=parameters.get("cluster", ""),
        network=parameters.get("network", ""),
        namespace=parameters.get("namespace", ""),
        known=tuple(_GENERATION.findall(headers.get("if-none-match", ""))),
        wait=min(float(found[1]), POLL_MOST) if found else 0.0,
        deltas=DELTA in _tokens(headers.get("a-im", "")),
        gzip=_tokens(headers.get("accept-encoding", "")).get("gzip", 0) > 0,
        istio=accept.get(JSON, 0) > 0 and not accept.get(LINES),
    )


def _tokens(header: str) -> dict[str, float]:
    """The members of a list header, in lower case, with their quality (RFC 9110 section 12.4.2)."""
    found: dict[str, float] = {}
    for member in header.split(","):
        token, *parameters = (part.strip() for part in member.split(";"))
        if token:
            quality = next((each[2:].strip() for each in parameters if each.lower().startswith("q=")), "1")
            found[token.lower()] = float(quality) if re.fullmatch(r"[01](\.[0-9]{0,3})?", quality) else 0.0
    return found


@attrs.frozen(kw_only=True)
class Answer:
    """What an agent is answered. `kind` is table, delta, nothing (nothing new) or refused; `generation` is the ETag's, "" without;
    `retry_after` seconds, 0 where nothing is said."""

    kind: str
    status: int
    generation: str = ""
    gzip: bool = False
    retry_after: float = 0.0


def read_answer(status: int, headers: Mapping[str, str]) -> Answer:
    """The answer that begins with a status and headers, their names in lower case. Raises ValueError with a clause where it
    makes no sense."""
    tag = _GENERATION.fullmatch(headers.get("etag", ""))
    after = headers.get("retry-after", "")
    answer = Answer(
        kind={200: "table", 226: "delta", 304: "nothing"}.get(status, "refused"),
        status=status,
        generation=tag[1] if tag else "",
        gzip=headers.get("content-encoding", "").lower() == "gzip",
        retry_after=float(after) if after.isdigit() and len(after) < 6 else 0.0,
    )
    if answer.kind in ("table", "delta") and headers.get("content-type", "").partition(";")[0].strip() != LINES:
        raise ValueError(f"it sends {headers.get('content-type', 'something')[:80]!r} instead of a table ({LINES})")
    return answer


def next_poll(before: Poll, generation: str | None) -> Poll:
    """The next poll of an agent that holds this generation; naming it is the acknowledgement (rule X7)."""
    return attrs.evolve(before, known=(generation,) if generation else ())


def joined(headers: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Headers with several values as one, names in lower case (RFC 9110 section 5.2)."""
    return {name.lower(): ", ".join(values) for name, values in headers.items()}
