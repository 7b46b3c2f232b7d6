"""Inside: what upstreams said, kept for as long as it may be given again.

Asks, an upstream's messages and failures and the time enter; messages ready for `messages.relay` leave, their TTLs lowered
by the time that has passed. It must never know clients, servers or who refreshes what it says wants refreshing.

Nothing has a timer: what is over goes when it is met, or is pushed out.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import attrs

from meshdns import names
from meshdns.agent.lifetimes import Limits, nobodys, older, with_ttl, without_ad, worth
from meshdns.agent.shelf import Shelf
from meshdns.agent.steps import Failed
from meshdns.defaults import (
    CACHE_ENTRY_BYTES,
    CACHE_FAILURE_BYTES,
    CACHE_FAILURE_PART,
    CACHE_FAILURE_TTL,
    CACHE_LARGEST_PART,
    CACHE_PREFETCH_LEAST,
    CACHE_PREFETCH_PART,
    CACHE_RECHECK,
    CACHE_RECORD_BYTES,
    CACHE_STALE_TTL,
)
from meshdns.wire import AD, CD, DO, RD, Ask, Body

# What keys apart besides the question: CD's answers were not validated, DO's hold signatures (CVE-2024-0874).
APART = DO | CD
_MARKS = {0: b"", CD: b"\x01", DO: b"\x02", DO | CD: b"\x03"}
_IN = b"\x00\x01"
_NEVER = -math.inf
_ANY_AD = -1
# Failures that say something of the question or its servers; the others are our own business and over at once.
_LASTING = frozenset({"timeout", "network", "rcode", "truncated"})


class Hit(NamedTuple):
    """An answer for `messages.relay`; its question may hold another type, which relaying overwrites.

    Fresh: give it. With `refresh`, also ask upstream, for nobody: it is popular and ends soon.
    It may be given as it is to equal questions before `until`, without looking again.
    Stale with `refresh`: ask upstream, and give it only if that fails or takes too long. Stale without: give it at once,
    for asking has failed lately (RFC 8767 section 5).
    """

    message: bytes
    body: Body
    stale: bool
    refresh: bool
    until: float = -math.inf


class Kept(NamedTuple):
    """For a person's eyes: a message as it would be given, the seconds it has left, negative when it is stale, and whether
    an upstream is asked before a stale one is given."""

    message: bytes
    seconds: float
    asks: bool


@attrs.define(eq=False, weakref_slot=False)
class _Entry:
    """An answer kept. Times are of the caller's clock."""

    hit: Hit  # as it was given last
    octets: int  # of memory
    began: float
    expires: float
    stale_ttl: int
    odd_ad: int  # the AD bit of those asks who cannot be given `hit` as it is, or _ANY_AD
    asked: int  # how often, one of each second counted; the question that brought it is the first
    age: int = 0  # by how many seconds its TTLs have been lowered
    prefetched: bool = False
    failed_at: float = _NEVER  # when a refresh failed last


class _Unread(NamedTuple):
    """An answer kept as it came, to be judged when somebody asks for it: most are never asked for again."""

    ask: Ask
    message: bytes
    body: Body
    came: float
    octets: int  # of memory


# A NamedTuple's own constructor is a Python function, and as dear as all else about keeping an answer.
_unread: Callable[[tuple[Ask, bytes, Body, float, int]], _Unread] = partial(tuple.__new__, _Unread)


class Cache:
    """Answers and failures by question, at most `limits.max_bytes` octets of memory."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.hits = 0  # fresh answers and failures found
        self.stale = 0  # expired answers found, given or held in readiness
        self.misses = 0
        self.prefetches = 0
        self._answers = Shelf[_Entry | _Unread]()
        self._used = self._answers.used
        self._idle = self._answers.idle
        self._failures: OrderedDict[bytes, tuple[Failed, float]] = OrderedDict()  # and when; the last one newest
        self._failure_bytes = 0
        self._back_at = _NEVER

    # from the root and the status page

    @property
    def entries(self) -> int:
        return len(self._answers) + len(self._failures)

    @property
    def octets(self) -> int:
        return self._answers.octets + self._failure_bytes

    @property
    def evictions(self) -> int:
        return self._answers.evictions

    def use(self, limits: Limits) -> None:
        """Other limits; what is kept and still fits stays, for as long as it was worth before."""
        self.limits = limits
        self._limit_failures()
        self._answers.shrink(self._room)

    def clear(self) -> None:
        """Let go of everything; what was counted stays counted."""
        self._answers.clear()
        self._failures.clear()
        self._failure_bytes = 0

    def forget(self, zone: bytes) -> int:
        """Let go of what was said of a name and of all names below it; how many there were."""
        gone = [key for key in (*self._answers, *self._failures) if zone in key and names.within(_name(key), zone)]
        for key in gone:
            self._answers.pop(key)
            self._drop_failure(key)
        return len(gone)

    def recovered(self, now: float) -> None:
        """An upstream server is back: what failed before may be asked at once."""
        self._back_at = now
        self._failures.clear()
        self._failure_bytes = 0

    def glance(self, ask: Ask, now: float) -> Kept | Failed | None:
        """What there is for a question; nothing is counted, moved or asked for by it."""
        if ask.options:
            return None
        found = self._find(_key(ask), ask, now)
        if found is None:
            return self._failure(_key(ask), ask, now)
        entry = found[1]
        message, body = entry.hit[:2]
        if self._is_stale(entry, now):
            asks = not self._failed_lately(entry, now)
            return Kept(with_ttl(message, body, entry.stale_ttl), min(entry.expires - now, 0.0), asks)
        age = math.ceil(now - entry.began) - entry.age
        return Kept(older(message, body, age) if age > 0 else message, entry.expires - now, False)

    # from the resolver

    def look_up(self, ask: Ask, now: float) -> Hit | Failed | None:
        """What is kept for a question, in time; None: ask upstream.

        Questions with EDNS options of their own are not for everybody's answer. One without RD wants to know what is there
        (RFC 1034 section 4.3.2): it gets fresh answers and sets nothing off.
        """
        question, flags, options = ask
        key = question + _MARKS[flags & APART] if flags & APART else question
        entry = self._used.get(key)
        if type(entry) is _Entry and now < entry.hit.until and flags & AD != entry.odd_ad and not options:
            self.hits += 1
            self._used.move_to_end(key)
            return entry.hit
        if self.lacks((key, _name_key(ask))):
            self.misses += 1
            return None
        found = None if options else self._find(key, ask, now)
        if found is not None and self._suits(found[1], flags, now):
            key, entry = found
            self._answers.touch(key, self._room)
            hit = self._stale(entry, now) if self._is_stale(entry, now) else self._fresh(entry, flags, now)
            return hit._replace(message=without_ad(hit.message)) if flags & AD == entry.odd_ad == 0 else hit
        failure = self._failure(key, ask, now) if found is None else None
        self.hits += failure is not None
        self.misses += failure is None
        return failure

    def lacks(self, keys: tuple[bytes, bytes]) -> bool:
        """Whether nothing at all is kept that could concern the question with these `keys_of`. Nothing is counted."""
        used, idle = self._used, self._idle
        key, name_key = keys
        return not (self._failures or key in used or key in idle or name_key in used or name_key in idle)

    def put(self, ask: Ask, message: bytes, body: Body, now: float) -> None:
        """Keep an upstream's reply, checked by `wire.read_reply`, its answer section nothing but the chain from the question
        (rule D24). What it proves outdated is not kept from then on."""
        if not ask.options and ask.flags & RD:
            self.put_at(keys_of(ask), ask, message, body, now)

    def put_at(self, keys: tuple[bytes, bytes], ask: Ask, message: bytes, body: Body, now: float) -> None:
        """`put` for an ask with RD, without options, and with these `keys_of`."""
        room = self.limits.max_bytes
        if not room:
            return
        # An answer that can push out none and deny no name is kept unread.
        if message[3] & 0x0F or not (message[6] or message[7]) or not self.lacks(keys):
            self._judge(ask, message, body, now)
            return
        key = keys[0]
        octets = CACHE_ENTRY_BYTES + len(key) + len(message) + CACHE_RECORD_BYTES * len(body.fixed)
        if octets <= room * CACHE_LARGEST_PART:
            self._answers.put(key, _unread((ask, message, body, now, octets)), False, room - self._failure_bytes)

    def _judge(self, ask: Ask, message: bytes, body: Body, now: float, *, late: bool = False) -> None:
        """Keep a reply for as long as it is worth. `late`: it came before whatever else is kept of its name."""
        if (value := worth(ask, message, body, self.limits)) is None:
            return
        key, name_key = _key(ask), _name_key(ask)
        used = False
        old: tuple[_Entry | _Unread, ...] = ()
        if not self.lacks((key, name_key)):
            used = key in self._used or name_key in self._used
            outdated = [self._answers.pop(each) for each in ((key,) if late else (key, name_key))]
            old = tuple(entry for entry in outdated if entry is not None)
            self._drop_failure(key)
        cap = value.cap if value.exceeds else None
        form = nobodys(ask.question, message, body, cap) if value.seconds > 0 else None
        if form is None:
            return
        entry = _Entry(
            hit=Hit(*form, False, False),
            octets=CACHE_ENTRY_BYTES + len(key) + len(form[0]) + CACHE_RECORD_BYTES * len(form[1].fixed),
            began=now,
            expires=now + value.seconds,
            stale_ttl=min(CACHE_STALE_TTL, value.smallest, value.cap),
            odd_ad=_odd_ad(ask, message),
            asked=0 if any(type(each) is _Entry and each.prefetched and now < each.expires for each in old) else 1,
        )
        if entry.octets <= self.limits.max_bytes * CACHE_LARGEST_PART:
            self._answers.put(name_key if value.no_name else key, entry, used, self._room)

    def _read(self, key: bytes) -> _Entry | None:
        """What is kept under a key, judged now if it was not yet."""
        kept = self._answers.get(key)
        if type(kept) is _Unread:
            self._answers.pop(key)
            self._judge(*kept[:4], late=True)
            kept = self._answers.get(key)
        return kept if type(kept) is _Entry else None

    def failed(self, ask: Ask, failure: Failed, now: float) -> None:
        """Asking upstream failed, or has taken so long that a stale answer went out.

        A good answer stays, and is given for a while without asking again; only where there is none the failure is kept
        (RFC 9520 section 3.2).
        """
        if ask.options or not ask.flags & RD:
            return
        key = _key(ask)
        found = self._find(key, ask, now)
        if found is not None:
            found[1].failed_at = now
            found[1].prefetched = False
        elif failure.reason in _LASTING:
            self._drop_failure(key)
            self._failures[key] = failure, now
            self._failure_bytes += _failure_size(key, failure)
            self._limit_failures()
            self._answers.shrink(self._room)

    # Answers

    def _find(self, key: bytes, ask: Ask, now: float) -> tuple[bytes, _Entry] | None:
        """The answer that may be given, fresh or stale; what may not any more is let go.

        NXDOMAIN is of all types (RFC 2308 section 5). Where both are kept it came later; yet what is fresh is good for as
        long as it was promised to be, and a server that denies a name only because it lacks AAAA (RFC 4074 section 4.2)
        must not hide it.
        """
        entry = self._read(key)
        if entry is not None and now < entry.expires:
            return key, entry
        name_key = _name_key(ask)
        for each, kept in ((name_key, self._read(name_key)), (key, entry)):
            if kept is None:
                continue
            if now < kept.expires + self.limits.serve_stale:
                return each, kept
            self._answers.pop(each)
        return None

    def _is_stale(self, entry: _Entry, now: float) -> bool:
        return now >= entry.expires or entry.hit.stale

    def _suits(self, entry: _Entry, flags: int, now: float) -> bool:
        """Whether an ask can be given it at all."""
        if self._is_stale(entry, now) and not flags & RD:
            return False
        # Where nobody asked for AD, nobody knows whether it would be set.
        return not flags & AD or entry.odd_ad != AD or self._failed_lately(entry, now)

    def _fresh(self, entry: _Entry, flags: int, now: float) -> Hit:
        """An answer as it is now, whether it wants a refresh, and until when that holds."""
        self.hits += 1
        entry.asked += 1
        age = math.ceil(now - entry.began)  # never a TTL above what is left
        message, body = entry.hit[:2]
        if age > entry.age:
            message = older(message, body, age - entry.age)
            entry.age = age
        until = min(entry.began + age, entry.expires)
        life = entry.expires - entry.began
        last_part = entry.expires - life * CACHE_PREFETCH_PART
        is_last = now >= last_part
        if not self.limits.prefetch or entry.prefetched or life < CACHE_PREFETCH_LEAST:
            is_last = False
        elif is_last:
            until = _NEVER  # the next who asks may be the one to set off a refresh
        else:
            until = min(until, last_part)
        hit = entry.hit = Hit(message, body, False, False, until)
        if not is_last:
            return hit
        if entry.asked < 2 or not flags & RD or self._failed_lately(entry, now):
            return hit
        entry.prefetched = True
        self.prefetches += 1
        return hit._replace(refresh=True)

    def _stale(self, entry: _Entry, now: float) -> Hit:
        """An expired answer, and whether asking comes first."""
        self.stale += 1
        hit = entry.hit
        if not hit.stale:
            # Capped by the smallest TTL it came with: never above what came.
            hit = entry.hit = Hit(with_ttl(hit.message, hit.body, entry.stale_ttl), hit.body, True, False)
        if entry.failed_at > self._back_at:
            if self._failed_lately(entry, now):
                return hit
            entry.failed_at = now  # one asks; until it knows more, nobody else waits
        return hit._replace(refresh=True)

    def _failed_lately(self, entry: _Entry, now: float) -> bool:
        return entry.failed_at > self._back_at and 0 <= now - entry.failed_at < CACHE_RECHECK

    @property
    def _room(self) -> int:
        """Octets for answers."""
        return self.limits.max_bytes - self._failure_bytes

    # Failures

    def _failure(self, key: bytes, ask: Ask, now: float) -> Failed | None:
        kept = self._failures.get(key)
        if kept is None or ask.options or not ask.flags & RD or not 0 <= now - kept[1] < CACHE_FAILURE_TTL:
            return None
        return kept[0]

    def _limit_failures(self) -> None:
        """Failures keep to their part of the room: the oldest go, and those that are over."""
        now = next(reversed(self._failures.values()))[1] if self._failures else 0.0
        while self._failures:
            key, (_, at) = next(iter(self._failures.items()))
            over = now - at >= CACHE_FAILURE_TTL
            if not over and self._failure_bytes <= self.limits.max_bytes * CACHE_FAILURE_PART:
                return
            self._drop_failure(key)

    def _drop_failure(self, key: bytes) -> None:
        kept = self._failures.pop(key, None)
        if kept is not None:
            self._failure_bytes -= _failure_size(key, kept[0])


def keys_of(ask: Ask) -> tuple[bytes, bytes]:
    """Name, type, class, DO and CD (rule D25), and the same for all types of the name; class IN goes without saying there.

    A name says where it ends, and all that may stand behind it differs in length, so that no two have one key.
    """
    question, marks = ask.question, _MARKS[ask.flags & APART]
    of_name = question[:-4] if question.endswith(_IN) else question[:-4] + question[-2:]
    return question + marks, of_name + marks


def _key(ask: Ask) -> bytes:
    return keys_of(ask)[0]


def _name_key(ask: Ask) -> bytes:
    return keys_of(ask)[1]


def _name(key: bytes) -> bytes:
    """The name that a key of either kind begins with."""
    end = 0
    while key[end]:
        end += 1 + key[end]
    return key[: end + 1]


def _odd_ad(ask: Ask, message: bytes) -> int:
    """Which asks cannot be given the message as it is: those without AD, where it says AD; those with AD, where nobody
    asked for it (RFC 6840 section 5.7). DO asks for it, too, and has entries of its own."""
    if ask.flags & DO:
        return _ANY_AD
    if message[3] & AD:
        return 0
    return _ANY_AD if ask.flags & AD else AD


def _failure_size(key: bytes, failure: Failed) -> int:
    return CACHE_FAILURE_BYTES + len(key) + len(failure.text) + len(failure.reply or b"")
