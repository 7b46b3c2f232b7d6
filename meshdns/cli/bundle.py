"""Root: `meshdns bundle`. One file with all that a VM needs is made beside the control plane, and installed on the VM."""

import argparse
from importlib import import_module

from meshdns import defaults
from meshdns.values import duration_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    _add_create(actions.add_parser("create", help="make the bundle of one VM", description=_CREATE, allow_abbrev=False))
    _add_install(
        actions.add_parser("install", help="install a bundle on this VM", description=_INSTALL, allow_abbrev=False)
    )
    _add_request(
        actions.add_parser(
            "request", help="ask for a certificate for this VM", description=_REQUEST, allow_abbrev=False
        )
    )


def run(args: argparse.Namespace) -> int:
    """Each action is a module of its own."""
    code: int = import_module(f"meshdns.cli.bundle_{args.action}").run(args)
    return code


_CREATE = """Make a bundle: configuration, whom to trust, and an identity, for one VM. It is made beside a control plane, from
whose configuration it knows most. Whoever has the file has the VM's identity: send it where nobody else can read it."""
_INSTALL = """Check a bundle, put its files into their places (all or none), have the agent started, now and at boot, and verify
that it answers. A second bundle replaces the first one."""
_REQUEST = """Make a key that never leaves this VM, and print the request for its certificate, for `meshdns bundle create --csr`."""


def _add_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", help="the VM's host name: the bundle can be installed there only")
    parser.add_argument("--namespace", required=True, help="the namespace of the VM's workload")
    parser.add_argument("--service-account", default="default", help="its service account (default: %(default)s)")
    parser.add_argument("--cluster", help="the cluster it belongs to; not needed where there is but one")
    parser.add_argument(
        "--control-plane",
        metavar="URL",
        action="append",
        required=True,
        help="where it is reached, https://ADDRESS:PORT, as often as there are replicas",
    )
    parser.add_argument("--name", help="the name in its certificate, if it is not for these addresses")
    parser.add_argument(
        "--control",
        metavar="FILE",
        default=defaults.CONTROL_CONFIG_FILE,
        help="the control plane's configuration (default: %(default)s)",
    )
    parser.add_argument("--ca-key", metavar="FILE", help="the key of tls.client_ca (default: tls.client_ca_key)")
    parser.add_argument(
        "--trust", metavar="FILE", help="who has issued the control plane's certificate (default: tls.client_ca)"
    )
    parser.add_argument("--pin", action="append", default=[], help="one more pin to trust, for rotation")
    parser.add_argument("--csr", metavar="FILE", help="sign this request; else a key is made and put into the bundle")
    parser.add_argument("--token", action="store_true", help="put a token into the bundle, and no certificate")
    parser.add_argument(
        "--lifetime",
        metavar="DURATION",
        default=duration_text(defaults.IDENTITY_LIFETIME),
        help="of the certificate or token (default: %(default)s)",
    )
    parser.add_argument(
        "--expires",
        metavar="DURATION",
        default=duration_text(defaults.BUNDLE_EXPIRES),
        help="after so long the bundle cannot be installed (default: %(default)s)",
    )
    parser.add_argument("--settings", metavar="FILE", help="more of the agent's configuration, as YAML")
    parser.add_argument("--output", metavar="FILE", help="the bundle (default: HOST.bundle)")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def _add_install(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the bundle")
    parser.add_argument("--digest", help="the digest that `meshdns bundle create` printed: refuse any other file")
    parser.add_argument("--dry-run", action="store_true", help="check it and show what would be done; change nothing")
    parser.add_argument("--force-host", action="store_true", help="although it is for another host")
    _add_place(parser)


def _add_request(parser: argparse.ArgumentParser) -> None:
    _add_place(parser)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", metavar="DIR", default="/", help="the machine's files are below this (an image)")
    parser.add_argument("--user", default=defaults.USER, help="whom the agent runs as (default: %(default)s)")
