"""Inside: the tokens file: whose a bearer token is (rule X10). Tokens themselves stand nowhere, only their hashes.

A file's bytes enter, `Token`s leave, or every problem at once; and a file's text for tokens. A token has 256 random bits, so that a
plain SHA-256 of it cannot be guessed backwards. It must never know who presents one.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import attrs

from meshdns.settings import Stated, label, listed, read, scalar, section, setting, word
from meshdns.values import parse_time, quote, time_text

PREFIX = "mdt_"  # so that secret scanners know one when they see it
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_HEAD = """\
# Who may poll with a token. `meshdns token add`, `list` and `remove` keep this file; of the tokens it holds hashes only.
"""


def hashed(token: str) -> str:
    """What the file says of a token."""
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


def _hash(text: str) -> str:
    if not _HASH.fullmatch(text):
        raise ValueError(f"{quote(text)} is no hash; write sha256: and 64 hex digits, as `meshdns token add` does")
    return text


@attrs.frozen(kw_only=True)
class Token:
    """Whose a token is. `id` tells it from others, for people; `expires` in seconds since 1970, None for never."""

    id: str = setting(label)
    hash: str = setting(scalar(_hash))
    namespace: str = setting(label)
    service_account: str = setting(word, "default")
    expires: float | None = setting(scalar(parse_time), None)


def _apart(stated: Stated) -> Iterator[tuple[str, str]]:
    tokens: tuple[Token, ...] = stated.values.get("tokens", ())
    for name in ("id", "hash"):
        counted = Counter(getattr(each, name) for each in tokens)
        if twice := next((value for value, count in counted.items() if count > 1), None):
            yield "tokens", f"two tokens have the {name} {quote(twice)}; remove one"


@attrs.frozen(kw_only=True)
class _File:
    tokens: tuple[Token, ...] = setting(listed(section(Token)), ())


_file = section(_File, _apart)


def parse(data: bytes, file: str) -> tuple[Token, ...]:
    """The tokens of a file's content; raises settings.Invalid with every problem."""
    if not data.strip() or all(line.lstrip().startswith(b"#") for line in data.splitlines() if line.strip()):
        return ()
    return read(data, file, _file).tokens


def text(tokens: Iterable[Token]) -> str:
    """A file with these tokens."""
    lines = [_HEAD, "tokens:\n"]
    for each in tokens:
        until = f", expires: {time_text(each.expires)}" if each.expires is not None else ""
        whose = f"namespace: {each.namespace}, service_account: {each.service_account}{until}"
        lines.append(f'  - {{id: {each.id}, {whose}, hash: "{each.hash}"}}\n')
    return "".join(lines) if len(lines) > 2 else f"{_HEAD}tokens: []\n"


def by_hash(tokens: Iterable[Token]) -> dict[str, Token]:
    """Tokens as `find` wants them."""
    return {each.hash: each for each in tokens}


def find(tokens: Mapping[str, Token], presented: str) -> Token | None:
    """The token that was presented. How long that takes tells at most how hashes begin, which no guess of a token follows from."""
    return tokens.get(hashed(presented))
