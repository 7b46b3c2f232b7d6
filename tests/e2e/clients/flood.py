"""So many questions for names that nobody asked before, at an even pace: prints how many were sent and how many answered."""

import socket
import struct
import sys
import time

port, count, pace = map(int, sys.argv[1:])
answered = 0
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.setblocking(False)
asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
asking.connect(("127.0.0.1", port))


def drain() -> int:
    """Take what has come."""
    taken = 0
    try:
        while asking.recv(4096):
            taken += 1
    except BlockingIOError:
        return taken
    return taken


began, sent = time.monotonic(), 0
while sent < count:
    due = min(count, int((time.monotonic() - began) * pace) + 1)
    for number in range(sent, due):
        name = b"\x0cflood-%06d\x05flood\x07example\x00" % number
        asking.send(struct.pack("!6H", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + name + b"\x00\x01\x00\x01")
    sent = due
    answered += drain()
    time.sleep(0.001)
deadline = time.monotonic() + 8  # what waits for the dead upstream is answered within 5 s
while answered < count and time.monotonic() < deadline:
    answered += drain()
    time.sleep(0.01)
print(sent, answered)
