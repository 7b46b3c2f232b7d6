"""Outside: the agent's own identity, renewed in time (rule X9: over the same trusted channel as its tables).

The file with its certificate and key enters; at two thirds of its life a new key is made, its request goes to the control plane,
and what comes back is put in the file's place, both at once. TLS reads the file again when it has changed. It must never know
what the identity is good for.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from meshdns import certificates
from meshdns.defaults import CERTIFICATE_BACKDATE, RENEWAL_LOOK, RENEWAL_RETRY, RENEWAL_RETRY_LEAST
from meshdns.values import time_text

_log = Logger()
# The status and the body of an answer; raises OSError and others of a connection's failures.
Post = Callable[[bytes], Awaitable[tuple[int, str, bytes]]]


class Renewal:
    """One identity. It is looked at now and then, for the wall's clock may be stepped."""

    def __init__(
        self,
        path: str,
        keep: Callable[[bytes], None],
        reactor: Any,
        now: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        """`keep` puts a content into the file's place, or raises OSError; `now` is wall time."""
        self._path = path
        self._keep = keep
        self._reactor = reactor
        self._now = now
        self._chance = chance
        self._call: IDelayedCall | None = None
        self._asking: Deferred[None] | None = None
        self._told = ""

    # from the poller

    def start(self, post: Post) -> None:
        self._post = post
        self._look()

    def stop(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        if self._asking is not None:
            self._asking.cancel()

    # Turns

    def _look(self) -> None:
        """Is it time?"""
        held = self._held()
        if held is None:
            self._again(RENEWAL_LOOK)
            return
        due = _due(held)
        if self._now() < due:
            self._again(min(due - self._now(), RENEWAL_LOOK))
            return
        self._asking = Deferred.fromCoroutine(self._renew(held))
        self._asking.addErrback(lambda failure: failure.trap(CancelledError))

    def _again(self, seconds: float) -> None:
        self._call = self._reactor.callLater(max(seconds, RENEWAL_RETRY_LEAST), self._look)

    async def _renew(self, held: x509.Certificate) -> None:
        why = await self._renewed(held)
        if not why:
            self._told = ""
            self._again(
                RENEWAL_LOOK if (after := self._held()) is None else min(_due(after) - self._now(), RENEWAL_LOOK)
            )
            return
        if why != self._told:
            self._told = why
            until = time_text(held.not_valid_after_utc.timestamp())
            told = "the agent's certificate, valid until {until}, was not renewed, and it is tried again: {why}"
            _log.error(told, until=until, why=why)
        left = held.not_valid_after_utc.timestamp() - self._now()
        self._again(self._chance() * min(RENEWAL_RETRY, max(left / 8, 0)))

    async def _renewed(self, held: x509.Certificate) -> str:
        """Why it was not, "" when it was."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            status, told, body = await self._post(certificates.request(key, certificates.subject(held)).encode())
            if status != 200:
                return f"the control plane refuses it ({status}): {told}"
            new = certificates.read_certificates(body)
            if not certificates.fits(new[0], key) or certificates.spiffe_names(new[0]) != certificates.spiffe_names(
                held
            ):
                return "the control plane sent a certificate for another key or another name"
            self._keep(f"{certificates.key_text(key)}{certificates.text(new)}".encode())
        except CancelledError:
            raise
        except OSError as error:
            return error.strerror or str(error) or type(error).__name__
        except ValueError as error:
            return f"the control plane's answer {error}"
        except Exception as error:  # of a connection: Twisted has many
            return f"the control plane cannot be asked: {str(error) or type(error).__name__}"
        until = time_text(new[0].not_valid_after_utc.timestamp())
        _log.info(
            "the agent's certificate is renewed until {until}: {path}", until=until, path=os.path.basename(self._path)
        )
        return ""

    def _held(self) -> x509.Certificate | None:
        try:
            with open(self._path, "rb") as opened:
                return certificates.read_certificates(opened.read())[0]
        except (OSError, ValueError):  # TLS says so, in the log
            return None


def _due(certificate: x509.Certificate) -> float:
    """Two thirds of its life, in seconds since 1970."""
    begin, end = (each.timestamp() for each in (certificate.not_valid_before_utc, certificate.not_valid_after_utc))
    return end - max(end - begin - CERTIFICATE_BACKDATE, 0) / 3
