"""Root: `meshdns bundle install`. A bundle enters; its files stand in their places, the agent runs, and what to do next is said.

All is checked before anything is written, and all files are put into place or none.
"""

import argparse
import errno
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

from meshdns import __version__, bundles, certificates, defaults
from meshdns.agent import config as agent_config
from meshdns.agent.config import AgentConfig
from meshdns.bundles import BadBundle, Bundle
from meshdns.cli import DONE, FAILED, USAGE, main
from meshdns.cli.agent import Stop, get_json
from meshdns.cli.bundle_request import PENDING, Refused, owner_of
from meshdns.cli.screen import complain
from meshdns.host import services
from meshdns.host.placing import File, is_there, place
from meshdns.settings import Invalid
from meshdns.values import time_text

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FOLDER = os.path.dirname(defaults.CONFIG_FILE)
# Where each file of a bundle goes, its mode, and whether it is the agent's own: it renews its identity.
_PLACES = {
    bundles.ROOT: (f"{_FOLDER}/{bundles.ROOT}", 0o644, False),
    bundles.TOKEN: (f"{defaults.STATE}/{bundles.TOKEN}", 0o600, True),
    bundles.IDENTITY: (f"{defaults.STATE}/{bundles.IDENTITY}", 0o600, True),
    bundles.CONFIG: (defaults.CONFIG_FILE, 0o640, False),  # the last one: it names the others
}


def run(args: argparse.Namespace) -> int:
    try:
        bundle = _checked(args, datetime.now(UTC).timestamp())
        config = _config(bundle)
        files = list(_files(args, bundle, _identity(args, bundle)))
    except Refused as refused:
        complain(f"{args.file} {refused}")
        return FAILED
    except ValueError as error:
        complain(str(error))
        return USAGE
    if args.dry_run:
        return _show(args, bundle, files)
    try:
        place(files)
    except OSError as error:
        why = f"{error.strerror} ({error.filename})" if error.filename else error.strerror
        advice = "; make room on the disk, then install again" if error.errno in _FULL else ""
        complain(f"nothing was installed, and all is as it was: {why}{advice}")
        return FAILED
    _forget_request(args)
    print(f"Installed for {bundle.host}: {', '.join(each.path for each in files)}")
    return _bring_up(args, config)


# Checks


def _checked(args: argparse.Namespace, now: float) -> Bundle:
    """The bundle, if nothing speaks against it. Raises Refused, and ValueError for a digest that is none."""
    try:
        with open(args.file, "rb") as opened:
            data = opened.read(defaults.BUNDLE_BYTES + 1)
    except OSError as error:
        raise Refused(f"cannot be read: {error.strerror}") from None
    if args.digest and not bundles.is_digest(data, args.digest):
        raise Refused(f"is not the file that was made: its digest is {bundles.digest(data)}; nothing was installed")
    try:
        bundle = bundles.read(data, __version__)
    except BadBundle as bad:
        raise Refused(str(bad)) from None
    found = list(bundles.objections(bundle, None if args.force_host else _host(args.root), now))
    if found:
        raise Refused("cannot be installed: " + "; and ".join(found))
    if not args.digest:
        complain(f"without --digest, be sure that this is what `meshdns bundle create` printed: {bundles.digest(data)}")
    return bundle


def _host(root: str) -> str | None:
    """This machine's name; None for an image that has none yet."""
    if root == "/":
        return socket.gethostname()
    try:
        return Path(root, "etc/hostname").read_text("utf-8", "replace").strip() or None
    except OSError:
        return None


def _config(bundle: Bundle) -> AgentConfig:
    try:
        return agent_config.parse(bundle.files[bundles.CONFIG].encode(), bundles.CONFIG, _FOLDER)
    except Invalid as invalid:
        told = f"was made by meshdns {bundle.version}, and this is {__version__}, which cannot use its configuration"
        raise Refused(f"{told}; install the same version here:\n{invalid}") from None


def _identity(args: argparse.Namespace, bundle: Bundle) -> str | None:
    """Key and certificate as one file; the key of a bundle that was made by a request is here already."""
    said = bundle.files.get(bundles.IDENTITY)
    if said is None:
        return None
    try:
        certificate = certificates.read_certificates(said.encode())[0]
        if "PRIVATE KEY" in said:
            if not certificates.fits(certificate, certificates.read_key(said.encode())):
                raise ValueError("holds a key that is not its certificate's")
            return said
    except ValueError as error:
        raise Refused(f"cannot be used: its {bundles.IDENTITY} {error}") from None
    for path in (PENDING, _PLACES[bundles.IDENTITY][0]):
        try:
            key = certificates.read_key(Path(args.root, path.lstrip("/")).read_bytes())
        except (OSError, ValueError):
            continue
        if certificates.fits(certificate, key):
            return certificates.key_text(key) + said
    raise Refused(
        "brings a certificate for a key that is not here: make the request here, with `meshdns bundle request`"
    )


def _files(args: argparse.Namespace, bundle: Bundle, identity: str | None) -> Iterator[File]:
    """What is put where. Raises Refused where the agent's user is missing, or we may not."""
    owner = owner_of(args)
    texts = {**bundle.files, **({bundles.IDENTITY: identity} if identity else {})}
    for name, (path, mode, own) in _PLACES.items():
        if name in texts:
            whose = owner and (owner if own else (0, owner[1]))
            folder_mode = 0o700 if own else 0o755
            yield File(
                path=os.path.join(args.root, path.lstrip("/")),
                content=texts[name].encode(),
                mode=mode,
                owner=whose,
                folder_mode=folder_mode,
            )


def _show(args: argparse.Namespace, bundle: Bundle, files: Sequence[File]) -> int:
    print(f"{args.file} is for {bundle.host}, made {time_text(bundle.created)}, and can be installed:")
    for each in files:
        print(f"  {each.path}, mode {each.mode:04o}, {'as it is there' if is_there(each) else 'new'}")
    service = services.find("meshdns", args.root)
    if service:
        print(f"  {' '.join(service.enable)}")
    if service and args.root == "/":
        print(f"  {' '.join(service.start)}")
    return DONE


def _forget_request(args: argparse.Namespace) -> None:
    Path(args.root, PENDING.lstrip("/")).unlink(missing_ok=True)


# Start


def _bring_up(args: argparse.Namespace, config: AgentConfig) -> int:
    service = services.find("meshdns", args.root)
    image = args.root != "/"
    if service is None:
        print(_BY_HAND_IN_IMAGE if image else _by_hand())
        return DONE
    for command in (service.enable,) if image else (service.enable, service.start):
        if why := services.run(command):
            complain(
                f"the files are in place, but `{' '.join(command)}` failed: {why}. {' '.join(service.look)} says more."
            )
            return FAILED
    if image:
        print("The agent starts when this machine does.")
        return DONE
    if why := services.run(service.redirect):
        complain(f"`{' '.join(service.redirect)}` failed, so applications are not redirected: {why}")
    print("The agent runs, now and after each boot.")
    return _verify(config)


def _verify(config: AgentConfig) -> int:
    """Whether a table has come and applications reach the agent; and what to do if not."""
    trouble = _await_table(config)
    if trouble:
        complain(
            f"the agent has no table yet: {trouble}\n"
            "Names of the mesh fail until it has one, all others are answered. `meshdns status` says how it stands."
        )
    code = main(["intercept", "verify", "--config", defaults.CONFIG_FILE])
    if code == DONE and not trouble:
        print("All is well. Try: meshdns explain NAME; meshdns status; getent hosts NAME")
    return code or (FAILED if trouble else DONE)


def _await_table(config: AgentConfig) -> str:
    """Why there is no table after some time, "" when there is one."""
    if config.status is None:
        return ""
    end, said = monotonic() + defaults.FIRST_TABLE, _table_trouble(config)
    while said and monotonic() < end:
        Event().wait(defaults.FIRST_TABLE_LOOK)
        said = _table_trouble(config)
    return said


def _table_trouble(config: AgentConfig) -> str:
    try:
        status: dict[str, Any] = get_json(config, "/v1/status")
    except Stop as stop:
        return stop.sentence
    table = status.get("table") or {}
    if table.get("trouble"):
        return str(table["trouble"])
    return "" if table.get("age") is not None else "the control plane has not answered yet"


def _by_hand() -> str:
    folder = os.path.dirname(sys.executable)
    return f"""\
This machine has no service "meshdns" for systemd or sysvinit (the Debian package has one). Start it by hand, as root:
  {folder}/twistd --pidfile=/run/meshdns.pid --uid={defaults.USER} meshdns --config {defaults.CONFIG_FILE}
  {folder}/meshdns intercept up
  {folder}/meshdns intercept verify"""


_BY_HAND_IN_IMAGE = """\
There is no service "meshdns" in this image: install the Debian package in it, or start the agent at boot yourself."""
