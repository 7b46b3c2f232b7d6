"""Outside: where VIPs are remembered: a SQLite file that outlives processes, and a double in memory.

A function that decides enters; it is shown the leases held, and what it decides is written in the same transaction, so that
of two processes with one store none gives an address twice. The plan leaves only when it is on the disk. It must never
know who wants a VIP, or why.
"""

import os
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from twisted.internet.defer import Deferred

from meshdns.control.vips import Lease, Plan
from meshdns.defaults import LEASES_WAIT

_FORMAT = 1  # PRAGMA user_version
_TABLE = "CREATE TABLE leases (host TEXT PRIMARY KEY, ipv4 TEXT NOT NULL, ipv6 TEXT NOT NULL, freed REAL) STRICT"
Decide = Callable[[Mapping[str, Lease]], Plan]


class StoreProblem(Exception):
    """Why leases can be neither read nor written, as a sentence that says what to do."""


class MemoryLeases:
    """Leases that are gone with the process: for tests."""

    def __init__(self) -> None:
        self._held: dict[str, Lease] = {}

    async def update(self, decide: Decide) -> Plan:
        plan = decide(dict(self._held))
        self._held = _after(self._held, plan)
        return plan

    async def close(self) -> None:
        pass


def _after(held: Mapping[str, Lease], plan: Plan) -> dict[str, Lease]:
    kept = {host: lease for host, lease in held.items() if host not in plan.forget}
    return kept | {lease.host: lease for lease in plan.write}


class SqliteLeases:
    """Leases in a SQLite file, written by a thread of its own: a disk may take its time."""

    def __init__(self, path: str, call_from_thread: Callable[..., object]) -> None:
        """`call_from_thread` is the reactor's. Raises StoreProblem where the file cannot be used."""
        self._path = path
        self._call = call_from_thread
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="leases")
        try:
            self._prepare()
        except BaseException:
            self._thread.shutdown()
            raise

    async def update(self, decide: Decide) -> Plan:
        """Let `decide` see the leases, in another thread, and write what it says; raises StoreProblem, nothing written."""
        done: Deferred[Plan] = Deferred()

        def work() -> None:
            try:
                plan = self._update(decide)
            except BaseException as error:
                self._call(done.errback, error)
            else:
                self._call(done.callback, plan)

        self._thread.submit(work)
        return await done

    async def close(self) -> None:
        """End the thread, once what was asked of it is done."""
        self._thread.shutdown()

    # In the thread

    def _update(self, decide: Decide) -> Plan:
        try:
            with closing(self._open()) as store:
                store.execute("BEGIN IMMEDIATE")
                plan = decide(_read(store))
                store.executemany("DELETE FROM leases WHERE host = ?", [(host,) for host in plan.forget])
                rows = [(each.host, each.ipv4, each.ipv6, each.freed) for each in plan.write]
                store.executemany("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", rows)
                store.execute("COMMIT")
                return plan
        except sqlite3.Error as error:
            raise self._problem(error) from error

    def _prepare(self) -> None:
        """Make the file if it is not there, and look at it if it is: one that is damaged is never written to."""
        folder = os.path.dirname(self._path) or "."
        if not os.path.isdir(folder):
            raise StoreProblem(
                f"the directory {folder} of the lease store is not there; make it, or name another store"
            )
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            with closing(self._open()) as store:
                store.execute("BEGIN IMMEDIATE")
                (found,) = store.execute("PRAGMA user_version").fetchone()
                tables = store.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                if found == 0 and tables == 0:
                    store.execute(_TABLE)
                    store.execute(f"PRAGMA user_version = {_FORMAT}")
                elif found != _FORMAT:
                    told = f"{self._path} is no lease store of this version (it says {found}, {_FORMAT} is known)"
                    raise StoreProblem(f"{told}; it stays as it is: name another store, or upgrade meshdns")
                _read(store)
                store.execute("COMMIT")
        except OSError as error:
            raise StoreProblem(f"{self._path} cannot be opened: {error.strerror}") from error
        except sqlite3.Error as error:
            raise self._problem(error) from error

    def _open(self) -> sqlite3.Connection:
        store = sqlite3.connect(self._path, timeout=LEASES_WAIT, isolation_level=None)
        store.execute("PRAGMA synchronous = FULL")
        return store

    def _problem(self, error: sqlite3.Error) -> StoreProblem:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            kept = self._keep_copy()
            return StoreProblem(
                f"the lease store {self._path} is damaged ({error}){kept}; put a good copy in its place. To begin with none, "
                "move it away: then hosts may get other VIPs than before"
            )
        return StoreProblem(f"the lease store {self._path} cannot be used: {error}")

    def _keep_copy(self) -> str:
        """A copy of a damaged file beside it, made once: whoever mends it must not lose what is left."""
        copy = f"{self._path}.damaged"
        try:
            with open(self._path, "rb") as source, open(copy, "xb") as target:
                while piece := source.read(1 << 20):
                    target.write(piece)
        except FileExistsError:
            pass
        except OSError:
            return ""
        return f", a copy is kept in {copy}"


def _read(store: sqlite3.Connection) -> dict[str, Lease]:
    rows = store.execute("SELECT host, ipv4, ipv6, freed FROM leases")
    return {host: Lease(host, ipv4, ipv6, freed) for host, ipv4, ipv6, freed in rows}
