"""What each server is told of its cache, in its own words."""

import attrs


@attrs.frozen
class Caching:
    """One way to cache, or not to. `unbound` are lines of its `server:`, `forward` of its `forward-zone:`; `dnsmasq` is its
    `cache-size`, a number of names; `named` are lines of its `options`; what meshdns is not told is as by default."""

    title: str
    meshdns: str
    unbound: str
    forward: str
    dnsmasq: int
    named: str = ""


NONE = Caching(
    "no cache",
    "cache: {max_bytes: 0}\n",
    "",
    "    forward-no-cache: yes\n",
    0,
    "    max-cache-ttl 0;\n    max-ncache-ttl 0;\n",
)

# As a reader would set them up. 10,000 is the largest cache-size that dnsmasq takes without a warning.
USUAL = Caching("cache", "", "    prefetch: yes\n", "", 10_000)

# The same for names that never come again: into a full cache dnsmasq puts nothing without a look at all that is in it,
# which with 10,000 costs it several times what it does with its own default.
PASSING = attrs.evolve(USUAL, title="small cache in dnsmasq", dnsmasq=150)

# For counting: nothing that was said once is ever pushed out, so that only asking can tell the servers apart.
AMPLE = Caching(
    "room for all",
    "",
    "    prefetch: yes\n    msg-cache-size: 32m\n    rrset-cache-size: 64m\n",
    "",
    40_000,
)
