"""Root: `meshdns pin`. A certificate's file enters; the pin of each certificate in it leaves, one in a line."""

import argparse
import json
import sys

from meshdns.cli import DONE, FAILED
from meshdns.cli.screen import complain
from meshdns.pins import pins

_MOST = 1 << 20  # octets; a bundle of every public authority has a quarter of that


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="CERT.pem", help='certificates as PEM; "-" for standard input')


def run(args: argparse.Namespace) -> int:
    """Prints the pins of `args.file`, each with the subject of its certificate."""
    try:
        if args.file == "-":
            data = sys.stdin.buffer.read(_MOST)
        else:
            with open(args.file, "rb") as opened:
                data = opened.read(_MOST)
        found = list(pins(data))
    except OSError as error:
        complain(f"{args.file} cannot be read: {error.strerror}")
        return FAILED
    except ValueError as error:
        complain(f"{args.file} {error}")
        return FAILED
    if args.json:
        print(json.dumps([{"pin": pin, "subject": subject} for pin, subject in found], indent=2))
    else:
        for pin, subject in found:
            print(f"{pin}  {subject}")
    return DONE
