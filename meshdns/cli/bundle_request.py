"""Root: `meshdns bundle request`. A key is made that never leaves this VM; the request for its certificate is printed."""

import argparse
import os
import socket
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from meshdns import certificates, defaults
from meshdns.cli import DONE, FAILED
from meshdns.cli.screen import complain
from meshdns.host.placing import File, place

PENDING = f"{defaults.STATE}/request.key"


class Refused(Exception):
    """Why nothing is done, as the end of a sentence."""


def run(args: argparse.Namespace) -> int:
    """A second request before the bundle has come is for the same key."""
    path = Path(args.root, PENDING.lstrip("/"))
    try:
        key = certificates.read_key(path.read_bytes())
    except (OSError, ValueError):
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            content = certificates.key_text(key).encode()
            place([File(path=str(path), content=content, mode=0o600, owner=owner_of(args), folder_mode=0o700)])
        except OSError as error:
            complain(f"{path} cannot be written: {error.strerror}")
            return FAILED
        except Refused as refused:
            complain(f"a bundle {refused}")
            return FAILED
    print(certificates.request(key, socket.gethostname()), end="")
    complain("have it signed: meshdns bundle create HOST --csr FILE …; the key stays here")
    return DONE


def owner_of(args: argparse.Namespace) -> tuple[int, int] | None:
    """User and group, by number, of whom the agent runs as; None where we can give files to nobody else. Raises Refused."""
    if os.geteuid() and args.root == "/":
        raise Refused("is installed by root only: run it with sudo")
    if os.geteuid():
        return None
    try:
        lines = Path(args.root, "etc/passwd").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    for each in lines:
        words = each.split(":")
        if words[0] == args.user and len(words) > 3 and words[2].isdecimal() and words[3].isdecimal():
            return int(words[2]), int(words[3])
    where = "" if args.root == "/" else f" in {args.root}"
    raise Refused(
        f"cannot be installed: there is no user {args.user}{where}, whom the agent runs as. The Debian package makes one; "
        f"or run: useradd --system --home-dir {defaults.STATE} --shell /usr/sbin/nologin {args.user}"
    )
