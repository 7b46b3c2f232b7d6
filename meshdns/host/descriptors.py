"""Outside: how many files and sockets this process may have open."""

import resource


def allow(most: int) -> None:
    """Allow ourselves so many file descriptors, or as many as the host lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
