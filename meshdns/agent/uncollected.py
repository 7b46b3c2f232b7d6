"""Inside: a while in which Python looks for no garbage, since what is made is a table, and is kept.

It would look through the new entries again and again as they become more, and through all of them at once, which takes tens of
milliseconds, soon after the while is over: so whoever takes a table over says first that it is none (`gc.freeze`).
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Of several such whiles at a time the first that ends may end them all."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
