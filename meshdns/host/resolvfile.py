"""Outside: /etc/resolv.conf with the agent as its first nameserver, for a machine whose kernel redirects nothing.

The old servers stand behind the agent, so applications reach them when it does not answer, whoever else is dead or was
never started. The file that was there is kept, and comes back; a link, as systemd-resolved has one, is replaced as a link
and comes back as one: what it leads to is never written.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress

from meshdns.defaults import INTERCEPT_RESOLV_CONF_TIMEOUT, RESOLV_MAX_BYTES

_MARK = "# Put here by meshdns intercept; `meshdns intercept down` brings back what was here."
_LINK = "# It was a link to "
_SERVERS = 3  # glibc takes no more (MAXNS)
_REPLACED = ("timeout:", "rotate")  # options that would keep clients from the old servers, or from the agent
_IN_PLACE = (errno.EBUSY, errno.EXDEV)  # of a file that is mounted there: a container engine's


def text(before: str, agent: str, link: str | None = None) -> str:
    """A resolv.conf that asks `agent` first, then those of `before`; all else it says stays."""
    return "\n".join(_lines(before, agent, link)) + "\n"


def _lines(before: str, agent: str, link: str | None) -> Iterator[str]:
    yield _MARK
    if link is not None:
        yield f"{_LINK}{link}"
    servers, options, others = [agent], [f"timeout:{INTERCEPT_RESOLV_CONF_TIMEOUT}"], []
    for line in before.splitlines():
        keyword, *words = line.split() if line[:1].strip() else [""]
        if keyword == "nameserver":
            servers += [word for word in words[:1] if word not in servers]
        elif keyword == "options":
            options += [word for word in words if not word.startswith(_REPLACED)]
        elif keyword and not keyword.startswith(("#", ";")):
            others.append(line)
    yield from (f"nameserver {server}" for server in servers[:_SERVERS])
    yield from others
    yield f"options {' '.join(options)}"


def put(path: str, kept: str, agent: str) -> bool:
    """Make `agent` the first nameserver of `path`; the file that was there goes to `kept`. False: nothing had to change.

    Raises OSError with `path` as it was.
    """
    held = _read(path)
    wanted = preview(path, kept, agent)
    if wanted == held:
        return False
    if not stands(path):
        _keep(path, kept, _link(path))
    _replace(path, wanted)
    return True


def preview(path: str, kept: str, agent: str) -> str:
    """What `put` would make of `path`."""
    held = _read(path)
    if held.startswith(_MARK):
        return text(_read(kept) or held, agent, _link_in(held))
    return text(held, agent, _link(path))


def restore(path: str, kept: str) -> bool:
    """Bring back what was there, unless somebody has put in another file since. False: there was nothing of ours."""
    if stands(path):
        held = _read(path)
        link = _link_in(held)
        if link is not None:
            _replace_by_link(path, link)
        elif os.path.exists(kept):
            _replace(path, _read(kept))
        else:
            _replace(path, _without_agent(held))
    elif not os.path.lexists(kept):
        return False
    with suppress(FileNotFoundError):
        os.unlink(kept)
    return True


def stands(path: str) -> bool:
    """Whether the file there is ours."""
    return _read(path).startswith(_MARK)


def _without_agent(held: str) -> str:
    """What is left of a file of ours when the kept one is lost."""
    lines = held.splitlines()
    first = next((line for line in lines if line.startswith("nameserver ")), "")
    return "\n".join(line for line in lines if not line.startswith("#") and line != first) + "\n"


def _keep(path: str, kept: str, link: str | None) -> None:
    os.makedirs(os.path.dirname(kept), exist_ok=True)
    if link is None:
        _replace(kept, _read(path))
    else:
        # The agent reads on there: what is behind the link may change.
        _replace_by_link(kept, os.path.normpath(os.path.join(os.path.dirname(path), link)))


def _link(path: str) -> str | None:
    return os.readlink(path) if os.path.islink(path) else None


def _link_in(held: str) -> str | None:
    second = held.splitlines()[1:2]
    return second[0].removeprefix(_LINK) if second and second[0].startswith(_LINK) else None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as opened:
            return opened.read(RESOLV_MAX_BYTES)
    except FileNotFoundError:
        return ""


def _replace(path: str, content: str) -> None:
    """At once, and on the disk; readable by all, as resolv.conf must be."""
    new = f"{path}.meshdns"
    try:
        with open(new, "w", encoding="utf-8", errors="surrogateescape") as opened:
            opened.write(content)
            opened.flush()
            os.fchmod(opened.fileno(), 0o644)
            os.fsync(opened.fileno())
        os.replace(new, path)
    except OSError as error:
        with suppress(FileNotFoundError):
            os.unlink(new)
        if error.errno not in _IN_PLACE:
            raise
        _overwrite(path, content.encode("utf-8", "surrogateescape"))


def _overwrite(path: str, content: bytes) -> None:
    """Where nothing can be renamed to. It is never empty: somebody may just be reading."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, content)
        os.ftruncate(descriptor, len(content))
    finally:
        os.close(descriptor)


def _replace_by_link(path: str, target: str) -> None:
    new = f"{path}.meshdns"
    with suppress(FileNotFoundError):
        os.unlink(new)
    os.symlink(target, new)
    os.replace(new, path)
