"""Vocabulary: the bundle: all that one VM needs to join the mesh, in one JSON file.

A `Bundle` enters and bytes leave, or the other way round; and what speaks against installing one here and now, in sentences.
A checksum inside shows damage. Against a hand that changes it as well there is the digest of the whole file, which travels by
another way: it protects each kind of bundle alike, also one whose identity is a token, and asks for no key that the VM would need
to know beforehand. It must never know where its files are put.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import attrs

from meshdns.defaults import BUNDLE_BYTES, CLOCK_SLACK
from meshdns.values import parse_time, quote, time_text

FORMAT = 1
CONFIG, ROOT, IDENTITY, TOKEN = FILES = ("agent.yaml", "root.pem", "identity.pem", "token")
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")


class BadBundle(Exception):
    """Why a file is no bundle, as the end of a sentence on it."""


@attrs.frozen(kw_only=True)
class Bundle:
    """`version` is of the meshdns that made it; `created` and `expires` in seconds since 1970; `files` are texts by name."""

    version: str
    host: str
    created: float
    expires: float
    files: Mapping[str, str]


def to_bytes(bundle: Bundle) -> bytes:
    """The file of a bundle."""
    said: dict[str, Any] = {
        "bundle": FORMAT,
        "version": bundle.version,
        "host": bundle.host,
        "created": time_text(bundle.created),
        "expires": time_text(bundle.expires),
        "files": dict(bundle.files),
    }
    return json.dumps({**said, "checksum": _checksum(said)}, indent=2, ensure_ascii=False).encode() + b"\n"


def read(data: bytes, version: str) -> Bundle:
    """The bundle in a file's content, read by this `version` of meshdns. Raises BadBundle."""
    if len(data) > BUNDLE_BYTES:
        raise BadBundle(f"has more than {BUNDLE_BYTES >> 10} KiB: it is no bundle")
    try:
        said = json.loads(data)
    except ValueError:
        raise BadBundle("is no bundle, or was cut off on its way: copy it again") from None
    if not isinstance(said, dict) or "bundle" not in said:
        raise BadBundle("is no bundle; `meshdns bundle create` makes one")
    if said["bundle"] != FORMAT:
        made = quote(str(said.get("version")))
        raise BadBundle(
            f"was made by meshdns {made}, whose bundles meshdns {version} cannot read: install that version here"
        )
    if not hmac.compare_digest(str(said.pop("checksum", "")), _checksum(said)):
        raise BadBundle(
            "was changed or damaged since it was made: its checksum does not fit; have it copied or made again"
        )
    try:
        return _bundle(said)
    except (KeyError, ValueError, TypeError, AttributeError):
        raise BadBundle("was not made by `meshdns bundle create`: something is missing in it") from None


def _bundle(said: Mapping[str, Any]) -> Bundle:
    files = cast("dict[str, str]", said["files"])
    if (
        not files.keys() <= set(FILES)
        or CONFIG not in files
        or not all(isinstance(each, str) for each in files.values())
    ):
        raise ValueError
    return Bundle(
        version=str(said["version"]),
        host=str(said["host"]),
        created=parse_time(said["created"]),
        expires=parse_time(said["expires"]),
        files=files,
    )


def digest(data: bytes) -> str:
    """What `sha256sum` says of the file."""
    return hashlib.sha256(data).hexdigest()


def is_digest(data: bytes, said: str) -> bool:
    """Whether a person's word is the digest of a file. Raises ValueError with a sentence if it is none at all."""
    found = _DIGEST.fullmatch(said.strip())
    if not found:
        raise ValueError(f"{quote(said)} is no digest: 64 hex digits are, as `meshdns bundle create` prints them")
    return hmac.compare_digest(found[1].lower(), digest(data))


def objections(bundle: Bundle, host: str | None, now: float) -> Iterator[str]:
    """What speaks against installing a bundle on a machine of this name (None: any), whose clock says `now`."""
    clock = f"this machine's clock says {time_text(now)}"
    if now < bundle.created - CLOCK_SLACK:
        yield f"it was made on {time_text(bundle.created)}, but {clock}: set the clock, as with `timedatectl set-ntp true`"
    elif now >= bundle.expires:
        yield (
            f"it has expired on {time_text(bundle.expires)}; {clock}. If the clock is right, have a new bundle made; "
            "else set it, as with `timedatectl set-ntp true`"
        )
    if host is not None and not is_same_host(bundle.host, host):
        yield (
            f"it is for the host {quote(bundle.host)}, and this is {quote(host)}: have one made for this host, "
            "or install it all the same with --force-host"
        )


def is_same_host(one: str, other: str) -> bool:
    """Whether two names mean one host: a short name is that of any domain."""
    first, second = one.rstrip(".").lower(), other.rstrip(".").lower()
    if "." in first and "." in second:
        return first == second
    return first.partition(".")[0] == second.partition(".")[0]


def _checksum(said: Mapping[str, Any]) -> str:
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
