"""ares_getaddrinfo of c-ares, through pycares: prints the canonical name where a CNAME leads to one, then each address."""

import sys
from queue import Queue
from typing import Any

import pycares

answers: Queue[tuple[Any, int | None]] = Queue()
channel = pycares.Channel()
channel.getaddrinfo(sys.argv[-1], None, callback=lambda result, error: answers.put((result, error)))
result, error = answers.get(timeout=20)
if error is not None:
    sys.exit(str(pycares.errno.strerror(error)))
for cname in result.cnames[-1:]:
    print("canonical", cname.name)
for node in result.nodes:
    print("address", node.addr[0].decode())
