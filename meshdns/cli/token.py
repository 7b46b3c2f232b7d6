"""Root: `meshdns token`. Who may poll with a token: added, listed and removed in a tokens file, which holds only hashes."""

import argparse
import json
import os
import secrets
from datetime import UTC, datetime

from meshdns.cli import DONE, FAILED, USAGE
from meshdns.cli.screen import complain
from meshdns.control.tokens import PREFIX, Token, hashed, parse, text
from meshdns.settings import Invalid
from meshdns.values import parse_duration, parse_label, time_text

_FILE = "tokens.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("add", "list", "remove"), help="what to do")
    parser.add_argument("id", nargs="?", help="with remove: which token")
    parser.add_argument("--file", default=_FILE, help="the tokens file (default: %(default)s)")
    parser.add_argument("--namespace", help="with add: the namespace of the workloads that will use it")
    parser.add_argument(
        "--service-account", default="default", help="with add: their service account (default: %(default)s)"
    )
    parser.add_argument(
        "--expires", metavar="DURATION", help="with add: after so long it is of no use any more, like 90d"
    )


def run(args: argparse.Namespace) -> int:
    try:
        tokens = _read(args.file)
        return {"add": _add, "list": _list, "remove": _remove}[args.action](args, tokens)
    except Invalid as invalid:
        complain(f"the tokens file cannot be used, and stays as it is:\n{invalid}")
    except OSError as error:
        complain(f"{args.file}: {error.strerror}")
    return FAILED


def _read(file: str) -> tuple[Token, ...]:
    try:
        with open(file, "rb") as opened:
            return parse(opened.read(), file)
    except FileNotFoundError:
        return ()


def _write(file: str, tokens: tuple[Token, ...]) -> None:
    """At once: a control plane may read it at any moment."""
    new = f"{file}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as opened:
        opened.write(text(tokens))
        opened.flush()
        os.fsync(descriptor)
    os.replace(new, file)


def make(namespace: str, account: str, expires: float | None) -> tuple[str, Token]:
    """A new token: the secret, and what the file says of it. `expires` in seconds since 1970."""
    secret = PREFIX + secrets.token_urlsafe(32)
    said = Token(
        id=secrets.token_hex(4),
        hash=hashed(secret),
        namespace=namespace,
        service_account=account,
        expires=expires,
    )
    return secret, said


def add(file: str, token: Token) -> None:
    """Make a token known to who reads the file. Raises OSError, Invalid."""
    _write(file, (*_read(file), token))


def _add(args: argparse.Namespace, tokens: tuple[Token, ...]) -> int:
    if not args.namespace:
        complain("say whose it is: meshdns token add --namespace NAMESPACE")
        return USAGE
    try:
        namespace = parse_label(args.namespace)
        lasts = parse_duration(args.expires) if args.expires else None
    except ValueError as error:
        complain(str(error))
        return USAGE
    expires = None if lasts is None else datetime.now(UTC).timestamp() + lasts
    secret, token = make(namespace, args.service_account, expires)
    _write(args.file, (*tokens, token))
    if args.json:
        print(json.dumps({"id": token.id, "token": secret}))
    else:
        print(secret)
        complain(f"this token, {token.id}, is shown once only; put it into the agent's token_file")
    return DONE


def _list(args: argparse.Namespace, tokens: tuple[Token, ...]) -> int:
    rows = [
        {
            "id": each.id,
            "namespace": each.namespace,
            "service_account": each.service_account,
            "expires": time_text(each.expires) if each.expires is not None else None,
        }
        for each in tokens
    ]
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            until = f"until {row['expires']}" if row["expires"] else "without end"
            print(f"{row['id']}  {row['namespace']}/{row['service_account']}  {until}")
    return DONE


def _remove(args: argparse.Namespace, tokens: tuple[Token, ...]) -> int:
    if not args.id:
        complain("say which: meshdns token remove ID; meshdns token list shows them")
        return USAGE
    left = tuple(each for each in tokens if each.id != args.id)
    if len(left) == len(tokens):
        complain(f"there is no token {args.id} in {args.file}")
        return FAILED
    _write(args.file, left)
    return DONE
