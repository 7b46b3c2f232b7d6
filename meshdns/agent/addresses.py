"""Outside: the addresses of a control plane's name, without asking ourselves: from /etc/hosts, the upstream servers, or memory.

A name enters, addresses leave, those that served last in front. What was good is kept in a file, so that an agent finds its
control plane at the next start though nobody can be asked. It must never know what is said there.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address

from twisted.internet.defer import Deferred

from meshdns import messages, names, wire
from meshdns.agent.lookups import Lookups, Word
from meshdns.agent.steps import Failed
from meshdns.defaults import POLL_RESOLVE
from meshdns.wire import Ask

HOSTS = "/etc/hosts"
AskUpstream = Callable[[str], "Deferred[list[str]]"]


class Addresses:
    """The addresses of names. `ask` gives those that upstream servers know, and none when they know none."""

    def __init__(self, ask: AskUpstream, clock: object, memory: str | None = None, hosts: str = HOSTS) -> None:
        self._ask = ask
        self._clock = clock
        self._memory = memory
        self._hosts = hosts
        self._good: dict[str, list[str]] = self._recall()

    async def find(self, name: str) -> list[str]:
        """The addresses of a name, or the name itself where it is one; [] when nobody knows any."""
        if _is_address(name):
            return [name]
        found = self._listed(name)
        if not found:
            asked = self._ask(name)
            asked.addTimeout(POLL_RESOLVE, self._clock, lambda *_: [])  # type: ignore[arg-type]
            found = await asked
        good = self._good.get(name, [])
        return [each for each in good if each in found or not found] + [each for each in found if each not in good]

    def served(self, name: str, address: str) -> None:
        """A control plane called so was reached and trusted at this address."""
        if _is_address(name) or self._good.get(name, [])[:1] == [address]:
            return
        self._good[name] = [address, *(each for each in self._good.get(name, []) if each != address)][:8]
        if self._memory is not None:
            with suppress(OSError):  # it is a convenience: the next start may have to ask
                new = f"{self._memory}.new"
                with open(new, "w") as opened:
                    json.dump(self._good, opened)
                os.replace(new, self._memory)

    def _recall(self) -> dict[str, list[str]]:
        try:
            with open(self._memory or os.devnull, "rb") as opened:
                said = json.loads(opened.read(1 << 16) or b"{}")
            return {str(name): [each for each in several if _is_address(each)] for name, several in said.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _listed(self, name: str) -> list[str]:
        """What the hosts file says of a name."""
        found = []
        with suppress(OSError), open(self._hosts, "rb") as opened:
            for line in opened.read(1 << 20).decode("utf-8", "replace").splitlines():
                words = line.partition("#")[0].split()
                if len(words) > 1 and name.lower() in map(str.lower, words[1:]) and _is_address(words[0]):
                    found.append(words[0])
        return found


def _is_address(text: object) -> bool:
    try:
        ip_address(str(text))
    except ValueError:
        return False
    return True


async def from_upstream(lookups: Lookups, name: str, seconds: Callable[[], float]) -> list[str]:
    """The addresses of a name as upstream servers know them, IPv4 first; [] where they know none or say nothing."""
    found: list[str] = []
    for rtype in (wire.A, wire.AAAA):
        said: Deferred[Word | Failed] = Deferred()
        question = names.parse(name) + rtype.to_bytes(2) + wire.IN.to_bytes(2)
        lookups.find(Ask(question, wire.RD, b""), seconds(), lambda word, _, said=said: said.callback(word))  # type: ignore[misc]
        word = await said
        if not isinstance(word, Failed):
            found += [
                str(ip_address(each.rdata)) for each in messages.records(word.message).answer if each.type == rtype
            ]
    return found
