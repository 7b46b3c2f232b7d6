"""Outside: how many processors this process may keep busy."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import ceil

_GROUP = "/proc/self/cgroup"
_GROUPS = "/sys/fs/cgroup"


def _content(path: str) -> str:
    """What a file says; nothing where it cannot be read."""
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as opened:
        return opened.read()
    return ""


def count(content: Callable[[str], str] = _content) -> int:
    """Those that it may run on, or fewer where its control group, or one that this lies in, has less time than that."""
    return min([len(os.sched_getaffinity(0)), *_quotas(content)])


def _quotas(content: Callable[[str], str]) -> Iterator[int]:
    """In whole processors, of cgroup v2; what is begun counts."""
    group = content(_GROUP).partition("0::")[2].partition("\n")[0]
    path = _GROUPS
    for part in ("", *filter(None, group.split("/"))):
        path = f"{path}/{part}" if part else path
        quota, _, period = content(f"{path}/cpu.max").strip().partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
            yield ceil(int(quota) / int(period))
