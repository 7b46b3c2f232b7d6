"""Inside: what an agent asks of its control planes next, what an answer means to it, and how long it waits (rules X7, X8).

Outcomes of polls and chance enter; the next poll, the delay before it and sentences for the log leave. It must never know of
connections, nor what is in a table.
"""

import attrs

from meshdns.defaults import POLL_BACKOFF_LEAST, POLL_BACKOFF_MOST, POLL_WAIT
from meshdns.exchange import Answer, Poll

OUTCOMES = ("table", "delta", "nothing", "unready", "refused", "untrusted", "unreachable", "broken")


@attrs.frozen
class Next:
    """What to do now: poll this URL so, after a delay in seconds; `notice` is for the log, "" for nothing."""

    url: str
    poll: Poll
    delay: float
    notice: str = ""


@attrs.define
class Subscription:
    """One agent's polls. `held` is the generation that it holds, "" for none."""

    urls: tuple[str, ...]
    cluster: str
    network: str
    held: str = ""
    trouble: str = ""  # why the last poll came to nothing, "" when it did not
    polls: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(OUTCOMES, 0))
    _turn: int = 0  # which URL
    _failures: int = 0  # polls in a row that came to nothing
    _wants_whole: bool = False  # a delta did not fit
    _heard: bool = False  # that what we hold is right, since the start or the last failure
    _told: str = ""

    def first(self) -> Next:
        return Next(self.urls[0], self._poll(), 0.0)

    # What a poll came to

    def adopted(self, answer: Answer, generation: str) -> Next:
        """A table or a delta came, whole, and is in force."""
        self.polls[answer.kind] += 1
        self.held, self._wants_whole = generation, False
        return self._well()

    def confirmed(self) -> Next:
        """Nothing new: what we hold is right."""
        self.polls["nothing"] += 1
        return self._well()

    def misfit(self, why: str, chance: float) -> Next:
        """A table or delta came that is broken or does not fit: what we have stays, and the whole table is asked for (rule X3)."""
        self.polls["broken"] += 1
        self._wants_whole = True
        return self._failed(f"sent a table that cannot be used: {why}", chance)

    def refused(self, answer: Answer, detail: str, chance: float) -> Next:
        """It answers, but not with a table."""
        unready = answer.status == 503
        self.polls["unready" if unready else "refused"] += 1
        told = f"is not ready: {detail}" if unready else f"refuses us ({answer.status}): {detail}"
        return self._failed(told, chance, at_least=answer.retry_after)

    def unreachable(self, why: str, chance: float, *, untrusted: bool = False, worked: bool = False) -> Next:
        """No answer. `worked`: the connection had served before, so somebody may just have closed an idle one."""
        self.polls["untrusted" if untrusted else "unreachable"] += 1
        if worked and not self._failures:
            self._failures = 1
            return Next(self.url, self._poll(), 0.0)
        return self._failed(f"is not trusted, so nothing is taken from it: {why}" if untrusted else why, chance)

    # Turns

    @property
    def url(self) -> str:
        """The control plane that is asked next."""
        return self.urls[self._turn % len(self.urls)]

    def _poll(self) -> Poll:
        """Without a table nothing is waited for, nor before a control plane has said, since the start or the last
        trouble, that ours is right: so that shows at once. Where a delta did not fit none is asked for."""
        known = (self.held,) if self.held and not self._wants_whole else ()
        wait = POLL_WAIT if known and self._heard else 0.0
        return Poll(cluster=self.cluster, network=self.network, known=known, wait=wait, deltas=bool(known), gzip=True)

    def _well(self) -> Next:
        notice = f"control plane {self.url} can be used again" if self._told else ""
        self.trouble, self._told, self._failures, self._heard = "", "", 0, True
        return Next(self.url, self._poll(), 0.0, notice)

    def _failed(self, why: str, chance: float, at_least: float = 0.0) -> Next:
        """The next URL; when all had their turn, after a wait by chance: a fleet must not come back as one."""
        self.trouble = f"control plane {self.url} {why}"
        kept = f"the table of generation {self.held} stays in force" if self.held else "there is no table yet"
        notice = f"{self.trouble}; {kept}" if why != self._told else ""
        self._told, self._heard = why, False
        self._turn += 1
        self._failures += 1
        rounds, within = divmod(self._failures, len(self.urls))
        if within:
            return Next(self.url, self._poll(), 0.0, notice)
        most = min(POLL_BACKOFF_MOST, POLL_BACKOFF_LEAST * 2 ** min(rounds, 10))
        delay = POLL_BACKOFF_LEAST + chance * (most - POLL_BACKOFF_LEAST)
        return Next(self.url, self._poll(), max(delay, min(at_least, POLL_BACKOFF_MOST)), notice)
