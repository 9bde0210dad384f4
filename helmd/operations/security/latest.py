"""The last security audit as helmd keeps it. Audits run in a process of their own: they block, and take seconds.

That process is helmctl, so that helmd's memory, time and event loop are not those of an audit.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from helmd.model.api.json_codec import from_json
from helmd.model.api.security import SecurityAuditReply
from helmd.model.errors import CONTENT_FAULTS, HelmError
from helmd.model.printable import printable
from helmd.operations.diagnostics.program_output import program_output
from helmd.operations.security.acceptances import AcceptanceStore
from helmd.operations.security.audit import accepting

AUDIT_SECONDS = 120.0
"""After which an audit is given up."""
WAIT_SECONDS = 25.0
"""How long a request waits for an audit: the gateway ends it after 30 s."""
FAILED_SECONDS = 60.0
"""For which an audit that failed is not tried again by itself."""
_NICE = "10"


class AuditUnfinishedError(HelmError):
    """No audit has finished yet; one runs."""

    code = "timeout"


class AuditFailedError(HelmError):
    """An audit could not be made; ``lines`` are the last that it printed."""

    code = "audit_failed"


@dataclass(frozen=True, slots=True)
class AuditGlance:
    """What is known without waiting: the last audit, with the acceptances of now, and whether another one runs.

    ``failure`` is why the last one could not be made; None where it was.
    """

    reply: SecurityAuditReply | None
    running: bool
    failure: HelmError | None


class LatestAudit:
    """The last audit. HELMCTL is the program; CLOCK counts seconds."""

    def __init__(
        self,
        helmctl: Path,
        store: AcceptanceStore,
        clock: Callable[[], float] = time.monotonic,
        wait: float = WAIT_SECONDS,
    ) -> None:
        self._command = ("nice", "-n", _NICE, str(helmctl), "security", "audit", "--json")
        self._store, self._clock, self._wait = store, clock, wait
        self._last: SecurityAuditReply | None = None
        self._at = 0.0
        self._running: asyncio.Task[SecurityAuditReply] | None = None
        self._failure: HelmError | None = None
        self._failed_at = 0.0

    async def glance(self, max_age: float) -> AuditGlance:
        """The last audit, at once. A new one is begun if that is older than MAX_AGE seconds, or there is none.

        After one that failed, not before FAILED_SECONDS have passed.
        """
        if self._is_older(max_age) and (self._failure is None or self._clock() - self._failed_at > FAILED_SECONDS):
            self._begin()
        last = self._last
        shown = None if last is None else await asyncio.to_thread(accepting, last, self._store)
        return AuditGlance(shown, self._running is not None, self._failure)

    async def reply(self, max_age: float) -> SecurityAuditReply:
        """An audit that is at most MAX_AGE seconds old, with the acceptances of now.

        Where a new one takes long, the last one is given. Raises AuditUnfinishedError if there is none yet,
        AuditFailedError when an audit failed.
        """
        if self._is_older(max_age):
            try:
                # The others who wait, and the next request, want it too.
                await asyncio.wait_for(asyncio.shield(self._begin()), self._wait)
            except TimeoutError:
                if self._last is None:
                    raise AuditUnfinishedError(
                        f"the security audit has not finished within {self._wait:g} s",
                        hint="It goes on: send the request again in a minute.",
                    ) from None
        assert self._last is not None
        return await asyncio.to_thread(accepting, self._last, self._store)

    def _is_older(self, max_age: float) -> bool:
        return self._last is None or self._clock() - self._at > max_age

    def _begin(self) -> "asyncio.Task[SecurityAuditReply]":
        """The audit that runs, a new one if none does."""
        if self._running is None:
            self._running = asyncio.create_task(self._audit())
            self._running.add_done_callback(self._ended)
        return self._running

    def _ended(self, task: "asyncio.Task[SecurityAuditReply]") -> None:
        self._running = None
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._last, self._at, self._failure = task.result(), self._clock(), None
        else:
            self._failed_at = self._clock()
            self._failure = error if isinstance(error, HelmError) else AuditFailedError(f"the audit failed: {error!r}")

    async def _audit(self) -> SecurityAuditReply:
        try:
            printed = await program_output(self._command, AUDIT_SECONDS)
        except TimeoutError:
            raise AuditFailedError(f"the security audit did not finish within {AUDIT_SECONDS:g} s") from None
        except OSError as problem:
            raise AuditFailedError(f"the security audit can't be run: {problem.strerror}") from None
        if printed.code != 0:
            lines = [printable(line) for line in printed.errors.decode("utf-8", "replace").strip().splitlines()]
            # helmctl prints what happened, then what to do.
            why = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), "")
            sentence = f"the security audit failed: {why}" if why else "the security audit failed"
            raise AuditFailedError(sentence, hint="See: helmctl security audit", lines=lines[-5:])
        try:
            return from_json(SecurityAuditReply, json.loads(printed.out))
        except CONTENT_FAULTS as fault:
            raise AuditFailedError(
                f"the security audit gave no result that can be read: {type(fault).__name__}"
            ) from None
