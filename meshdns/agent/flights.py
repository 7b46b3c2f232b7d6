"""Inside: questions to upstreams: who waits for which, what counts as the answer, and who is asked when none comes.

Asks, datagrams, failures and the time enter; what to send, what to hand to whom, and what to say in the log leave as
steps. It must never know sockets, timers or clocks, nor what a waiter is.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import attrs

from meshdns.agent.attempts import Attempt, Attempts, Flight, Sole
from meshdns.agent.probes import Probes
from meshdns.agent.servers import CLOSED, OUTCOMES, Options, Peer, orders
from meshdns.agent.steps import Failed, Finished, Notice, Recovered, Reply, Result, Send, Step, Steps
from meshdns.defaults import EXPLORE_EVERY, PROBE_DEAD, PROBE_LOOP, UPSTREAM_WAITERS
from meshdns.values import Server
from meshdns.wire import (
    FORMERR,
    NOTIMP,
    QR,
    RD,
    REFUSED,
    SERVFAIL,
    TC,
    Ask,
    Body,
    is_truncated,
    rcode_text,
    read_plain,
    read_reply,
)

_UNREACHABLE, _NETWORK = 22, 23  # EDE codes, RFC 8914: No Reachable Authority, Network Error
_FAILURES = frozenset({FORMERR, SERVFAIL, NOTIMP, REFUSED})  # another server may know better
_TC = TC >> 8  # in the third octet
_PROBE_TAIL = b"\x00\x10\x00\x01"  # TXT, IN


__all__ = ["Failed", "Finished", "Flights", "Notice", "Recovered", "Reply", "Result", "Send", "Step", "Steps"]


class Flights:
    """All questions outstanding towards one set of servers. `random_bits(n)` gives n bits that nobody can predict."""

    def __init__(self, random_bits: Callable[[int], int]) -> None:
        self.peers: dict[int, Peer] = {}
        self.options = Options()
        self.joined = 0
        self.shed = 0
        self.dropped: Counter[str] = Counter()
        self._random_bits = random_bits
        self._servers: list[Peer] = []  # those in use, as configured
        self._orders: tuple[tuple[int, ...], ...] = ()
        self._stale = False  # the orders are
        self._hedges = False  # whether a slow server's question is put to the next one
        self._asked = 0
        self._flights: dict[Ask, Flight | Sole] = {}
        self._attempts = Attempts(random_bits, self._unfold)
        self._probes = Probes()

    # from the root

    def replace(self, servers: Sequence[Server], options: Options, slots: int, now: float) -> Steps:
        """Other servers or options, each server with so many slots; questions under way finish with those they have."""
        known = {peer.server: peer for peer in self._servers}
        self.options = attrs.evolve(options, timeout=min(options.timeout, options.deadline))
        self._servers = [known.get(server) or self._new_peer(server) for server in dict.fromkeys(servers)]
        self._stale = True
        self._hedges = options.policy == "fastest" and len(self._servers) > 1
        steps: Steps = []
        for peer in self._servers:
            peer.resize(slots)
            if peer.server not in known:
                self._probe(peer, now, steps)
        return steps

    def _new_peer(self, server: Server) -> Peer:
        index = max(self.peers, default=-1) + 1
        self.peers[index] = Peer(server, index, str(server))
        return self.peers[index]

    def release(self) -> list[int]:
        """Forget replaced servers that no question needs any more; their indexes."""
        gone = [peer.index for peer in self.peers.values() if peer not in self._servers and not peer.outstanding]
        wanted = {index for flight in self._flights.values() for index in flight.order} if gone else set()
        released = [index for index in gone if index not in wanted]
        for index in released:
            del self.peers[index]
        return released

    def abandon(self) -> Steps:
        """Fail every question; nothing is outstanding then."""
        steps: Steps = []
        for flight in [self._whole(flight) for flight in self._flights.values()]:
            self._finish(flight, Failed("stopped", _UNREACHABLE, "the agent is stopping"), steps)
        for attempt in self._attempts.all():
            self._attempts.close(attempt)
        for peer in self._servers:
            peer.probe_at = None
        return steps

    # from the status page

    @property
    def inflight(self) -> int:
        return len(self._flights)

    @property
    def servers(self) -> Sequence[Peer]:
        """Those in use, as configured."""
        return self._servers

    @property
    def turns(self) -> dict[int, int]:
        """When each server, by index, would be asked a question of now: 1 first; those that are not asked are not in it."""
        every = orders(self._servers, self.options)
        order = every[(self._asked + 1) % len(every)] if every else ()
        return {index: 1 if self.options.policy == "race" else turn for turn, index in enumerate(order, 1)}

    # from the resolver

    def ask(self, ask: Ask, waiter: object, now: float) -> Steps:
        """A question: asked, joined to an equal one under way, or failed at once (rule D22)."""
        if (sent := self.ask_alone(Sole(ask, waiter), now)) is not None:
            return [Send(*sent)]
        known = self._flights.get(ask)
        if known is not None:
            flight = self._whole(known)
            if len(flight.waiters) >= UPSTREAM_WAITERS:
                return self._shed(waiter, f"{UPSTREAM_WAITERS} clients already wait for this answer")
            self.joined += 1
            flight.waiters.append(waiter)
            return []
        if not self._orders:
            return [Finished([waiter], Failed("none", _UNREACHABLE, self._nobody()))]
        options = self.options
        if len(self._flights) >= options.max_inflight:
            return self._shed(
                waiter, f"{options.max_inflight} questions already wait for upstream servers (upstream.max_inflight)"
            )
        self._asked += 1
        order = self._orders[self._asked % len(self._orders)]
        flight = self._flights[ask] = Flight(ask, [waiter], now, now + options.deadline, order)
        flight.position = 1
        steps: Steps = []
        peer = self.peers[order[0]]
        self._launch(flight, peer, now, steps, peer.is_stream, peer.cased, peer.edns)
        if len(order) > 1:
            self._ask_others(flight, now, steps)
        return steps

    def ask_alone(self, sole: Sole, now: float) -> tuple[int, int, bool, bytes] | None:
        """The short way of `ask` for most questions: one message to one server over UDP. None: nothing was done."""
        if self._stale:
            self._orders, self._stale = orders(self._servers, self.options), False
        ask, flights, every = sole.ask, self._flights, self._orders
        if not every or ask.options or len(flights) >= self.options.max_inflight:
            return None
        turn = self._asked + 1
        order = every[turn % len(every)]
        peer = self.peers[order[0]]
        if peer.is_stream or (len(order) > 1 and (turn % EXPLORE_EVERY == 0 or self.options.policy == "race")):
            return None
        if flights.setdefault(ask, sole) is not sole:
            return None
        self._asked = turn
        sole.order = order
        wake = now + (min(peer.hedge, self.options.timeout) if self._hedges else self.options.timeout)
        return self._attempts.send_sole(sole, peer, now, wake)

    def _unfold(self, sole: Sole) -> Attempt:
        """The flight and the attempt that a Sole stands for, from now on in its place."""
        flight = Flight(sole.ask, [sole.whose()], sole.sent, sole.sent + self.options.deadline, sole.order)
        flight.position, flight.asking = 1, [sole.peer.index]
        attempt = Attempt(flight, sole.peer, sole.key, sole.question, sole.cased, sole.edns, sole.sent, sole.wake)
        self._flights[sole.ask] = flight
        self._attempts.unfolded(sole, attempt)
        return attempt

    def _whole(self, flight: Flight | Sole) -> Flight:
        return self._unfold(flight).flight if isinstance(flight, Sole) else flight

    def _ask_others(self, flight: Flight, now: float, steps: Steps) -> None:
        """In a race all at once; else now and then one more, since what is never asked would be thought slow for ever."""
        others = flight.order[1:]
        if self.options.policy == "race":
            flight.position = len(flight.order)
        elif self.options.policy == "fastest" and self._asked % EXPLORE_EVERY == 0:
            other = others[self._random_bits(16) % len(others)]
            others = () if self.peers[other].dead else (other,)
        else:
            return
        for index in others:
            peer = self.peers[index]
            if self._has_room():
                self._launch(flight, peer, now, steps, peer.is_stream, peer.cased, peer.edns)

    def _shed(self, waiter: object, text: str) -> Steps:
        self.shed += 1
        return [Finished([waiter], Failed("shed", _UNREACHABLE, text))]

    def _nobody(self) -> str:
        if self._servers:
            return "every upstream server sends questions back to this agent: name others in upstream.servers"
        return "there is no upstream server: name one in upstream.servers, or as nameserver in resolv.conf"

    def own_probe(self, name: bytes, now: float) -> tuple[bool, Steps]:
        """Whether a lower-case name that a client asks is a probe of ours: then its server forwards to us (D19)."""
        index = self._probes.came_back(name)
        peer = self.peers.get(index) if index is not None else None
        if peer is None or peer.loops:
            return index is not None, []
        peer.loops = self._stale = True
        peer.probe_at = now + PROBE_LOOP
        return True, [
            Notice(
                f"upstream {peer.label} sends our own questions back to this agent (a forwarding loop), so it is not "
                "asked any more: make it forward elsewhere, or name other servers in upstream.servers"
            )
        ]

    # from the sockets

    def received(self, server: int, slot: int, message: bytes, now: float) -> Steps:
        """A message that arrived in a slot. What is no reply to a question sent there is counted and dropped (D24)."""
        if (answered := self.answered_alone(server << 32 | slot << 16, message, now)) is not None:
            sole, body, _ = answered
            return [Finished([sole.whose()], Reply(message, sole.peer.label, now - sole.sent, body))]
        attempt = self._attempts.find(server, slot, message)
        if attempt is None:
            self.dropped["unexpected" if len(message) > 1 else "short"] += 1
            return []
        question = attempt.question
        read = read_reply(message, question)
        if read == "case" and not attempt.cased:
            # Asked in lower case since it does not keep the case: there is nothing to compare.
            message = message[:12] + question + message[12 + len(question) :]
            read = read_reply(message, question)
        if not isinstance(read, str):
            return self._replied(attempt, message, read, now)
        self.dropped[read] += 1
        steps: Steps = []
        self._misfit(attempt, message, read, now, steps)
        return steps

    def answered_alone(self, place: int, message: bytes, now: float) -> tuple[Sole, Body, bool] | None:
        """The short way of `received` for the good answer to a question asked alone: the question, where the answer's records
        stand, and whether it is plain (see `wire.read_plain`). None: nothing was done. `place` is server and slot in one number."""
        if len(message) < 12 or message[2] & _TC or (code := message[3] & 0x0F) in _FAILURES:
            return None
        key = place | message[0] << 8 | message[1]
        sole = self._attempts.outstanding.get(key)
        if sole is None or isinstance(sole, Attempt):
            return None
        peer = sole.peer
        if peer.dead or peer.misses or peer.timeouts:
            return None
        body: Body | str | None = read_plain(message, sole.question)
        plain = body is not None
        if isinstance(body := body or read_reply(message, sole.question), str):
            return None
        sole.over = True
        del self._attempts.outstanding[key], self._flights[sole.ask]
        peer.busy[place >> 16 & 0xFFFF] -= 1
        peer.heard_at = now
        peer.outcomes[OUTCOMES[code]] += 1
        if peer.answered(now - sole.sent):
            self._stale = True
        if sole.cased:
            peer.cased = True
        return sole, body, plain

    def failed(
        self,
        server: int,
        slot: int,
        text: str,
        now: float,
        *,
        reused: bool = False,
        closed: bool = False,
        reason: str = "network",
    ) -> Steps:
        """Sending through a slot, or receiving, ended in an error, for all that is outstanding there.

        `reused`: it was a connection that had served before, so the server may just have closed an idle one (RFC 7766
        section 6.2.4). `closed`: no socket stands in the slot any more. `reason` is network or untrusted.
        """
        steps: Steps = []
        if closed and server in self.peers:
            self.peers[server].left[slot] = CLOSED
        for attempt in self._attempts.at(server, slot):
            if reused and reason == "network" and not attempt.second and not attempt.flight.finished:
                self._attempts.close(attempt)
                self._launch(attempt.flight, attempt.peer, now, steps, True, False, attempt.edns).second = True
            else:
                self._lose(attempt, reason, text, now, steps)
        return steps

    def no_socket(self, sent: Send, now: float) -> Steps:
        """No socket could be opened for this message: it goes through an open one, as all do for the next second."""
        steps: Steps = []
        attempt = self._attempts.find(sent.server, sent.slot, sent.message)
        if attempt is None:
            return steps
        peer = attempt.peer
        peer.left[sent.slot] = CLOSED
        peer.frugal_until = now + 1.0
        if peer.has_socket:
            self._attempts.close(attempt)
            self._launch(attempt.flight, peer, now, steps, False, attempt.cased, attempt.edns)
        else:
            self._lose(attempt, "network", "could not be asked: no file descriptor is left", now, steps)
        return steps

    def _misfit(self, attempt: Attempt, message: bytes, reason: str, now: float, steps: Steps) -> None:
        """A dropped message may still tell that the server cannot cope with our question. The wait goes on meanwhile.

        A forger who guessed id and port gains no more by it than a second guess of both.
        """
        if attempt.streamed:
            # No forger writes into a connection: the server itself is broken, and nothing better will come.
            self._lose(attempt, "network", f"sent a broken answer ({reason})", now, steps)
            return
        if reason == "case":
            again = (False, attempt.edns)
        elif attempt.edns and _is_bare_formerr(message):
            again = (attempt.cased, False)
        else:
            return
        if not attempt.doubted and not attempt.flight.finished:
            attempt.again, attempt.doubted = again, True
            hedge = max(now, attempt.sent + attempt.peer.hedge)
            self._attempts.wake_at(attempt, min(attempt.sent + self.options.timeout, attempt.flight.deadline, hedge))

    # The life of a question

    def _advance(self, flight: Flight, now: float, steps: Steps, *, hedge: bool = False) -> None:
        """Ask the next server of the order. A new round begins only when nothing is outstanding, or as a hedge."""
        size = len(flight.order)
        if flight.asking and flight.position >= size and not hedge:
            return
        while now < flight.deadline and flight.position < size * self.options.attempts:
            peer = self.peers[flight.order[flight.position % size]]
            if peer.index in flight.asking:
                return
            flight.position += 1
            if peer.loops:
                continue
            self._launch(flight, peer, now, steps, peer.is_stream, peer.cased, peer.edns)
            if self.options.policy != "race" or flight.position % size == 0 or not self._has_room():
                return
        if not flight.asking or now >= flight.deadline:
            self._give_up(flight, steps)

    def _has_room(self) -> bool:
        """Whether attempts beyond the one that a question needs are affordable."""
        return len(self._attempts.outstanding) < 2 * self.options.max_inflight

    def _launch(
        self, flight: Flight, peer: Peer, now: float, steps: Steps, stream: bool, cased: bool, edns: bool
    ) -> Attempt:
        wait = min(peer.hedge, self.options.timeout) if self._hedges else self.options.timeout
        wake = min(now + wait, flight.deadline)
        attempt, send = self._attempts.launch(flight, peer, now, wake, stream, cased, edns)
        steps.append(send)
        return attempt

    def _replied(self, attempt: Attempt, message: bytes, body: Body, now: float) -> Steps:
        """A reply that fits: the answer, or the reason to ask otherwise or elsewhere."""
        self._attempts.close(attempt)
        peer, flight = attempt.peer, attempt.flight
        steps: Steps = [Recovered(peer.label)] if peer.dead else []
        if peer.heard(now):
            self._stale = True
        code = message[3] & 0x0F
        if flight.probe:
            self._probed(attempt, now, steps)
        elif is_truncated(message) and not attempt.streamed:
            self._truncated(attempt, message, now, steps)
        elif code in _FAILURES:
            self._refused(attempt, message, code, now, steps)
        else:
            peer.outcomes[OUTCOMES[code]] += 1
            if peer.answered(now - attempt.sent):
                self._stale = True
            if attempt.cased:
                peer.cased = True
            if not flight.finished:
                if attempt.second:
                    self._learn(attempt)
                self._finish(flight, Reply(message, peer.label, now - flight.began, body), steps)
        return steps

    def _learn(self, attempt: Attempt) -> None:
        """The second attempt at a server was answered: so it was right to leave out what was left out."""
        peer = attempt.peer
        peer.cased = peer.cased and (attempt.cased or attempt.streamed)
        peer.edns = peer.edns and attempt.edns

    def _truncated(self, attempt: Attempt, message: bytes, now: float, steps: Steps) -> None:
        """TC over UDP: the same question to the same server over TCP (RFC 7766 section 5)."""
        flight, peer = attempt.flight, attempt.peer
        peer.outcomes["truncated"] += 1
        if not flight.finished:
            flight.reply = message
            flight.note(peer.label, "truncated", "sent a truncated answer over UDP")
            self._launch(flight, peer, now, steps, True, False, attempt.edns)

    def _refused(self, attempt: Attempt, message: bytes, code: int, now: float, steps: Steps) -> None:
        """FORMERR, SERVFAIL, NOTIMP, REFUSED: once more without OPT where that may help, else the next server."""
        flight, peer = attempt.flight, attempt.peer
        peer.outcomes[OUTCOMES[code]] += 1
        if flight.finished:
            return
        if attempt.edns and code in (FORMERR, NOTIMP):
            self._launch(flight, peer, now, steps, attempt.streamed, attempt.cased, False).second = True
            return
        flight.reply = message
        flight.note(peer.label, "rcode", f"answered {rcode_text(code)}")
        self._advance(flight, now, steps)

    def _lose(self, attempt: Attempt, reason: str, text: str, now: float, steps: Steps) -> None:
        """The attempt is over without a reply."""
        self._attempts.close(attempt)
        peer, flight = attempt.peer, attempt.flight
        if peer.failed(attempt.sent, "error" if reason == "network" else reason):
            self._stale = True
            if not peer.loops:
                peer.probe_at = min(now + PROBE_DEAD, peer.probe_at or now + PROBE_DEAD)
        if flight.finished:
            return
        if attempt.again:
            self._ask_again(attempt, now, steps)
        else:
            flight.note(peer.label, reason, text)
            self._advance(flight, now, steps)

    def _ask_again(self, attempt: Attempt, now: float, steps: Steps) -> None:
        """The same server once more, without what it seems not to cope with."""
        cased, edns = attempt.again or (False, False)
        attempt.again = None
        self._launch(attempt.flight, attempt.peer, now, steps, False, cased, edns).second = True

    def _give_up(self, flight: Flight, steps: Steps) -> None:
        """Every server had its turns, or the deadline has come."""
        notes = dict(flight.notes or {})
        for index in flight.asking:  # the deadline came before their timeout
            notes.setdefault(self.peers[index].label, ("timeout", "gave no answer in time"))
        if flight.reply is not None:
            reason = "truncated" if is_truncated(flight.reply) else "rcode"
        else:
            reason = "timeout" if any(reason == "timeout" for reason, _ in notes.values()) else "network"
        text = "; ".join(f"{label} {text}" for label, (_, text) in notes.items()) or self._nobody()
        ede = _NETWORK if reason == "network" else _UNREACHABLE
        self._finish(flight, Failed(reason, ede, text, flight.reply), steps)

    def _finish(self, flight: Flight, result: Result, steps: Steps) -> None:
        flight.finished = True
        if not flight.probe:
            del self._flights[flight.ask]
            steps.append(Finished(flight.waiters, result))
            flight.waiters = []

    # The one timer

    @property
    def soonest(self) -> float:
        """The soonest wake since `next_wake` was called: so the timer need not be looked at for every question."""
        return self._attempts.soonest

    def next_wake(self) -> float | None:
        """When `tick` will have something to do."""
        wakes = [peer.probe_at for peer in self._servers if peer.probe_at is not None]
        wake = self._attempts.next_wake()
        return min(wakes if wake is None else [*wakes, wake], default=None)

    def tick(self, now: float) -> Steps:
        """Everything that is due: hedges, timeouts, deadlines, probes."""
        steps: Steps = []
        while (attempt := self._attempts.due(now)) is not None:
            self._woken(attempt, now, steps)
        for peer in self._servers:
            if peer.probe_at is not None and peer.probe_at <= now:
                self._probe(peer, now, steps)
        return steps

    def _woken(self, attempt: Attempt, now: float, steps: Steps) -> None:
        """The time of an attempt's hedge, of its flight's deadline, or of its own end has come."""
        flight, timeout = attempt.flight, self.options.timeout
        expires = attempt.sent + timeout
        if now >= expires:
            self._lose(attempt, "timeout", f"gave no answer in {timeout:g} s", now, steps)
            return
        if not flight.finished and now >= flight.deadline:
            self._give_up(flight, steps)
        elif not flight.finished and attempt.again:
            self._ask_again(attempt, now, steps)
        else:
            self._hedge(attempt, now, steps)
        self._attempts.wake_at(attempt, expires if flight.finished else min(expires, flight.deadline))

    def _hedge(self, attempt: Attempt, now: float, steps: Steps) -> None:
        """A server takes longer than it mostly does: the next one is asked, too (rule D21)."""
        if attempt.peer.missed():
            self._stale = True
        if not attempt.flight.finished and self._has_room():
            self._advance(attempt.flight, now, steps, hedge=True)

    # Probes: is a server alive, and does it send our questions back to us (rule D19)?

    def _probe(self, peer: Peer, now: float, steps: Steps) -> None:
        """Ask a server for a name that nobody else knows; if it stays silent, again."""
        name = self._probes.name(peer.index, self._random_bits(64))
        ask = Ask(name + _PROBE_TAIL, RD, b"")
        flight = Flight(ask, [], now, now + self.options.timeout, (peer.index,), name, position=self.options.attempts)
        self._launch(flight, peer, now, steps, peer.is_stream, peer.cased, peer.edns)
        silent = not peer.loops and (peer.dead or not peer.was_heard)
        peer.probe_at = now + (PROBE_DEAD if silent else PROBE_LOOP)

    def _probed(self, attempt: Attempt, now: float, steps: Steps) -> None:
        """A probe was answered, however: the server lives, and unless the probe came by here, it does not loop."""
        peer, flight = attempt.peer, attempt.flight
        if flight.finished or self._probes.has_returned(flight.probe or b""):
            return
        flight.finished = self._stale = True
        peer.probe_at = None
        if peer.smoothed is None:
            peer.smoothed = now - attempt.sent
        if attempt.second:
            self._learn(attempt)
        if peer.loops:
            peer.loops = False
            steps.append(Notice(f"upstream {peer.label} no longer sends our questions back: it is asked again"))


def _is_bare_formerr(message: bytes) -> bool:
    """A header alone that says FORMERR: what servers older than EDNS answer to it (RFC 6891 section 7)."""
    return len(message) == 12 and bool(message[2] & QR >> 8) and message[3] & 0x0F == FORMERR
