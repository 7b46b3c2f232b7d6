"""Outside: a configuration file of this machine, as bytes.

A path enters; content leaves, or the problem that it cannot be read. What it says is for `settings`.
"""

from meshdns.defaults import SETTINGS_MAX_BYTES
from meshdns.yamltext import Invalid, Problem


def content(file: str) -> bytes:
    """As much of a file as `settings.read` can judge. Raises settings.Invalid when it cannot be read."""
    try:
        with open(file, "rb") as opened:
            return opened.read(SETTINGS_MAX_BYTES + 1)
    except OSError as error:
        raise Invalid([Problem(file, 1, f"cannot be read: {error.strerror}")]) from None
