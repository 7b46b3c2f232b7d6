"""Inside: the query by which an agent asks itself whether it answers. Who sees it knows it by its bytes, and does not count
it: nobody asked.
"""

from meshdns import names, wire

# version.bind TXT CH without RD: it takes the whole way of a query, needs no upstream, and no resolver asks like that.
QUESTION = wire.HEADER.pack(0, 0, 1, 0, 0, 0)[2:] + names.parse("version.bind") + bytes((0, wire.TXT, 0, wire.CH))
QUERY = b"\0\0" + QUESTION
