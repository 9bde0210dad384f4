"""The last security audit as helmd keeps it. Audits run in a process of their own: they block, and take seconds.

That process is helmctl, so that helmd's memory, time and event loop are not those of an audit.
"""

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from helmd.model.api.json_codec import from_json
from helmd.model.api.security import SecurityAuditReply
from helmd.model.errors import CONTENT_FAULTS, HelmError
from helmd.model.printable import printable
from helmd.operations.security.acceptances import AcceptanceStore
from helmd.operations.security.audit import accepting

AUDIT_SECONDS = 120.0
"""After which an audit is given up."""
WAIT_SECONDS = 25.0
"""How long a request waits for an audit: the gateway ends it after 30 s."""
_NICE = "10"


class AuditUnfinishedError(HelmError):
    """No audit has finished yet; one runs."""

    code = "timeout"


class AuditFailedError(HelmError):
    """An audit could not be made; ``lines`` are the last that it printed."""

    code = "audit_failed"


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

    async def reply(self, max_age: float) -> SecurityAuditReply:
        """An audit that is at most MAX_AGE seconds old, with the acceptances of now.

        Where a new one takes long, the last one is given. Raises AuditUnfinishedError if there is none yet,
        AuditFailedError when an audit failed.
        """
        if self._last is None or self._clock() - self._at > max_age:
            if self._running is None:
                self._running = asyncio.create_task(self._audit())
                self._running.add_done_callback(self._ended)
            try:
                # The others who wait, and the next request, want it too.
                await asyncio.wait_for(asyncio.shield(self._running), self._wait)
            except TimeoutError:
                if self._last is None:
                    raise AuditUnfinishedError(
                        f"the security audit has not finished within {self._wait:g} s",
                        hint="It goes on: send the request again in a minute.",
                    ) from None
        assert self._last is not None
        return await asyncio.to_thread(accepting, self._last, self._store)

    def _ended(self, task: "asyncio.Task[SecurityAuditReply]") -> None:
        self._running = None
        if not task.cancelled() and task.exception() is None:
            self._last, self._at = task.result(), self._clock()

    async def _audit(self) -> SecurityAuditReply:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as problem:
            raise AuditFailedError(f"the security audit can't be run: {problem.strerror}") from None
        try:
            async with asyncio.timeout(AUDIT_SECONDS):
                out, errors = await process.communicate()
        except TimeoutError:
            raise AuditFailedError(f"the security audit did not finish within {AUDIT_SECONDS:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode != 0:
            lines = [printable(line) for line in errors.decode("utf-8", "replace").strip().splitlines()]
            # helmctl prints what happened, then what to do.
            why = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), "")
            sentence = f"the security audit failed: {why}" if why else "the security audit failed"
            raise AuditFailedError(sentence, hint="See: helmctl security audit", lines=lines[-5:])
        try:
            return from_json(SecurityAuditReply, json.loads(out))
        except CONTENT_FAULTS as fault:
            raise AuditFailedError(
                f"the security audit gave no result that can be read: {type(fault).__name__}"
            ) from None
