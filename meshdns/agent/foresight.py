"""Inside: what would become of a question if it were asked now, as far as the cache tells.

A question, the resolver and the time enter; the answer that a client would get leaves, or which questions an upstream would be
asked first. It goes the resolver's own ways with a look-up that asks nobody, so that it can tell nothing else than what
happens; nothing is counted, moved or turned by it. It must never know how that is told.
"""

from typing import NoReturn

import attrs

from meshdns import wire
from meshdns.agent.cache import Cache
from meshdns.agent.lookups import Lookups, Said, Word
from meshdns.agent.pursuit import End, Pursuit, deciding
from meshdns.agent.resolver import Answered, Decision, Resolver
from meshdns.agent.steps import Failed
from meshdns.wire import Ask


@attrs.frozen
class Glance:
    """What the cache holds of one question. `state` is fresh, stale, failure or nothing; `seconds` are left, negative
    since it expired, None where there is no answer; `asks`: an upstream is asked before anything is answered."""

    name: bytes
    type: int
    state: str
    asks: bool
    seconds: float | None = None
    message: bytes = b""
    failure: Failed | None = None

    @property
    def rcode(self) -> int | None:
        return self.message[3] & 0x0F if self.message else None

    @property
    def exists(self) -> bool | None:
        """Whether the name exists; None where the cache does not tell."""
        return None if self.rcode is None else self.rcode != wire.NXDOMAIN


@attrs.frozen
class Foresight:
    """What would happen. `told` None: upstreams would be asked first; `end` is that of a walk, where it is known; `glances`
    are the looks into the cache, in order."""

    glances: tuple[Glance, ...] = ()
    told: Answered | None = None
    end: End | None = None

    @property
    def asked(self) -> tuple[Glance, ...]:
        """What upstreams are asked before anything is answered."""
        return () if self.told else tuple(each for each in self.glances if each.asks)

    @property
    def seconds(self) -> float | None:
        """How long what is answered lasts in the cache, negative since it expired; None where it owes nothing to the cache."""
        end = self.end.name if self.end and self.end.exists else None
        given = (each for each in self.glances if not each.asks and (end is None or each.name == end))
        return min((each.seconds for each in given if each.seconds is not None), default=None)

    def of(self, name: bytes, qtype: int) -> Glance | None:
        """The look at a name by which its step of a walk is judged: for addresses that for A, so that A and AAAA agree."""
        decides = deciding(qtype)
        return next((each for each in self.glances if (each.name, each.type) == (name, decides)), None)


def foresee(resolver: Resolver, decision: Decision, name: bytes, qtype: int, now: float) -> Foresight:
    """What would become of a question of class IN with RD, as most clients ask."""
    question = name + qtype.to_bytes(2) + wire.IN.to_bytes(2)
    ask = Ask(question, wire.RD, b"")
    ends: list[End] = []
    if decision.walk and not decision.found:
        pursuit = Pursuit(decision.walk, ask, _Glances(resolver.lookups.cache), lambda end, _: ends.append(end))
        pursuit.start(now)
    glances = _Glances(resolver.lookups.cache)
    told = resolver.rehearse(wire.upstream_query(ask, 0, question, None), glances, now)
    return Foresight(glances.taken, told, ends[0] if ends else None)


class _Glances(Lookups):
    """Look-ups that find what the cache holds, and never anything else."""

    def __init__(self, cache: Cache) -> None:
        super().__init__(cache, _nobody, _nobody)
        self._taken: dict[tuple[bytes, int], Glance] = {}

    @property
    def taken(self) -> tuple[Glance, ...]:
        """One glance for each question, in order."""
        return tuple(self._taken.values())

    def find(self, ask: Ask, now: float, done: Said) -> None:
        """Call `done` at once where no upstream would be asked first, else never."""
        name, qtype = ask.question[:-4], int.from_bytes(ask.question[-4:-2])
        kept = self.cache.glance(ask, now)
        if kept is None:
            glance = Glance(name, qtype, "nothing", True)
        elif isinstance(kept, Failed):
            glance = Glance(name, qtype, "failure", False, failure=kept)
        else:
            state = "stale" if kept.seconds <= 0 else "fresh"
            glance = Glance(name, qtype, state, kept.asks, kept.seconds, kept.message)
        self._taken[name, qtype] = glance
        if glance.failure is not None:
            done(glance.failure, now)
        elif not glance.asks:
            source = "cache" if glance.state == "fresh" else glance.state
            done(Word(glance.message, wire.body(glance.message), source), now)


def _nobody(*_: object) -> NoReturn:
    raise AssertionError("foresight asks nobody and waits for nothing")
