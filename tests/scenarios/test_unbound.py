"""The scenarios that NLnet Labs wrote for unbound, played with our resolver where they apply to a forwarder.

They are not part of the project: they are run where they lie, beside the checkout or where MESHDNS_SCENARIOS says.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import SkipTest

import attrs
from twisted.trial.unittest import SynchronousTestCase

from meshdns.agent import cache, lookups
from tests.e2e.stage import ROOT, Stage
from tests.scenarios import script
from tests.scenarios.clocked import Clocked
from tests.scenarios.play import Differs, Play
from tests.scenarios.sockets import Wired

# unbound's options, as ours. What maps to None changes nothing that a client of ours could see.
_IRRELEVANT = {
    "name": "the forward zone; ours is everything that is not the mesh's",
    "module-config": "no validation here",
    "qname-minimisation": "iteration only",
    "target-fetch-policy": "iteration only",
    "iter-scrub-promiscuous": "rule D18: authority and additional are relayed as they came",
    "minimal-responses": "rule D18, too; where unbound leaves these sections out, only the answer section is compared",
    "msg-cache-size": "no scenario fills it",
    "access-control": "the asker is this host",
    "prefetch": "always on",
    "ede": "always on",
    "ede-serve-expired": "always on",
}
_AS_BY_CONTRACT = "rule D26 fixes 30 s and 1.8 s; the code that obeys them is tested with these numbers"


@attrs.define
class Ours:
    """A script's configuration in our words: sections of an agent's, and numbers that our contract fixes."""

    servers: list[str] = attrs.field(factory=list)
    upstream: dict[str, Any] = attrs.field(factory=dict)
    cache: dict[str, Any] = attrs.field(factory=dict)
    stale_ttl: int | None = None
    patience: float | None = None

    def sections(self, servers: Sequence[str]) -> dict[str, Any]:
        return {"upstream": {"servers": list(servers), **self.upstream}, "cache": self.cache, "autopath": "off"}


def translate(config: list[str]) -> Ours:
    """unbound's options in ours; one that is in no table fails the test."""
    ours = Ours()
    words = " ".join(line.split("#")[0] for line in config if not line.strip().startswith((";", "#"))).split()
    key, values = "", dict[str, list[str]]()
    for word in words:
        if word.endswith(":"):
            key = word[:-1]
        values.setdefault(key, []).extend([] if word.endswith(":") else [word.strip('"')])
    for option, said in values.items():
        if option in ("server", "forward-zone", "stub-zone") or option in _IRRELEVANT:
            continue
        _take(ours, option, said)
    return ours


def _take(ours: Ours, option: str, said: list[str]) -> None:
    if option in ("forward-addr", "stub-addr"):
        ours.servers += said
    elif option == "forward-host":
        ours.servers.append("1.2.3.5")  # what the name stands for: our servers are addresses (rule D23)
        ours.upstream["policy"] = "ordered"
    elif option == "num-queries-per-thread":
        ours.upstream["max_inflight"] = int(said[0])
    elif option == "forward-no-cache":
        ours.cache.update(max_ttl="0s", serve_stale="0s")
    elif option == "serve-expired":
        ours.cache.setdefault("serve_stale", "1d")  # unbound's default of serve-expired-ttl
    elif option == "serve-expired-ttl":
        ours.cache["serve_stale"] = f"{said[0]}s"
    elif option == "serve-expired-reply-ttl":
        ours.stale_ttl = int(said[0])
    elif option == "serve-expired-client-timeout":
        ours.patience = int(said[0]) / 1000
    else:
        raise AssertionError(f"no word of ours stands for {option}: {said}")


# Where we answer otherwise, and why.
_SYNTHESIS = "unbound makes ANY out of the RRsets it has; ours are whole messages, and ANY is asked upstream"
_KEYED = "DO stands for EDNS: our cache keeps answers with DO apart (rule D25), and EDE needs OPT alone"
DIFFERS = {
    "fwd_any": Differs(steps=dict.fromkeys((60, 64, 120), _SYNTHESIS), only_answer=True),
    # The newest question beyond the limit is not forgotten but refused at once (rule D22).
    "fwd_jostle": Differs(rcodes={"www.example.org": "SERVFAIL"}),
    "fwd_no_cache": Differs(only_answer=True),
    "serve_expired": Differs(do_is_edns=True, rd=True),  # without RD nothing stale is given: it would set nothing off
    "serve_expired_0ttl_nodata": Differs(do_is_edns=True),
    "serve_expired_client_timeout": Differs(do_is_edns=True),
    # Ours is a cache of messages: the authority section is as old as the answer it came with.
    "serve_expired_reply_ttl": Differs(do_is_edns=True, only_answer=(60,)),
    "serve_expired_zerottl": Differs(do_is_edns=True),
}
# Options that only the source of the scenario knows.
UPSTREAM = {"fwd_error": {"attempts": 5}}  # unbound's outbound-msg-retry
DO_NOT_APPLY = {
    "fwd_minimal": "it is about what unbound leaves out of answers, and ends in a referral out of its cache; a relayed "
    "answer is the upstream's, byte for byte (rule D18)",
    "ttl_max": "it iterates from the root and ends in a referral out of the cache; scenario d25_ttl_limits is ours",
    "ttl_min": "it iterates from the root, asks with CD and looks without (kept apart, rule D25), and wants TTLs raised, "
    "where ours are never higher than the upstream's; scenario d25_ttl_limits is ours",
}
# Everything that needs no time to pass.
OVER_SOCKETS = ("fwd", "fwd_any", "fwd_cached", "fwd_jostle", "fwd_name_lookup", "fwd_notcached", "fwd_two")


def folder() -> Path:
    said = os.environ.get("MESHDNS_SCENARIOS")
    return Path(said) if said else ROOT.parent / "shared" / "scenarios" / "unbound"


def read(name: str) -> script.Script:
    try:
        return script.read((folder() / f"{name}.rpl").read_text())
    except OSError:
        raise SkipTest(f"NLnet Labs' scenarios are not at {folder()}: say where in MESHDNS_SCENARIOS") from None


class UnboundTests(SynchronousTestCase):
    def play(self, name: str) -> None:
        played = read(name)
        ours = translate(played.config)
        ours.upstream.update(UPSTREAM.get(name, {}))
        if ours.stale_ttl is not None:
            self.patch(cache, "CACHE_STALE_TTL", ours.stale_ttl)
        if ours.patience is not None:
            self.patch(lookups, "STALE_PATIENCE", ours.patience)
        play = Play(played, DIFFERS.get(name))
        play.run(Clocked(ours.sections(ours.servers), play.hear))

    def test_each_is_known(self) -> None:
        """Whoever adds a scenario says what becomes of it; those that do not apply are there, with the reason."""
        if not folder().is_dir():
            raise SkipTest(f"NLnet Labs' scenarios are not at {folder()}: say where in MESHDNS_SCENARIOS")
        there = {path.stem for path in folder().glob("*.rpl")}
        self.assertEqual(there, {*PLAYED, *DO_NOT_APPLY})


PLAYED = (
    "fwd", "fwd_0ttlservfail", "fwd_any", "fwd_cached", "fwd_error", "fwd_jostle", "fwd_name_lookup", "fwd_no_cache",
    "fwd_notcached", "fwd_two", "serve_expired", "serve_expired_0ttl_nodata", "serve_expired_cached_servfail",
    "serve_expired_client_timeout", "serve_expired_reply_ttl", "serve_expired_ttl", "serve_expired_zerottl",
)  # fmt: skip


class UnboundOverSocketsTests(Stage):
    """The same with a real agent between a real client and UDP servers."""

    def play(self, name: str) -> None:
        played = read(name)
        ours = translate(played.config)
        play = Play(played, DIFFERS.get(name))
        play.run(Wired(self, ours.servers, ours.sections, play.hear))


def _add_tests() -> None:
    """One test per scenario, so that one that fails hides no other."""
    for case, names in ((UnboundTests, PLAYED), (UnboundOverSocketsTests, OVER_SOCKETS)):
        for name in names:

            def test(self: Any, name: str = name) -> None:
                self.play(name)

            test.__name__ = f"test_{name}"
            setattr(case, test.__name__, test)


_add_tests()
