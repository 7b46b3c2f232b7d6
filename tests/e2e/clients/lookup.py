"""getaddrinfo as Python has it: prints the canonical name, then each address."""

import socket
import sys

found = socket.getaddrinfo(sys.argv[-1], None, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
print("canonical", found[0][3])
for entry in found:
    print("address", entry[4][0])
