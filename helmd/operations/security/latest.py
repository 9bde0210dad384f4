"""The last security audit, made by ``helmd-check@audit.service``, with the present acceptances."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from helmd.model.api.security import SecurityAuditReply
from helmd.model.errors import HelmError
from helmd.model.layout import Layout
from helmd.operations.diagnostics.latest import WAIT_SECONDS, Glance, LatestCheck
from helmd.operations.security.acceptances import AcceptanceStore, accepting
from helmd.systemd.bus import Manager


class AuditUnfinishedError(HelmError):
    """No audit has finished yet; one is running."""

    code = "timeout"


class AuditFailedError(HelmError):
    """An audit failed; ``lines`` are the last ones of its output."""

    code = "audit_failed"


class LatestAudit:
    """The last audit of the account with this LAYOUT."""

    def __init__(
        self,
        layout: Layout,
        store: AcceptanceStore,
        connect: Callable[[], Manager] = Manager,
        wait: float = WAIT_SECONDS,
    ) -> None:
        self._check = LatestCheck(
            layout, "audit", SecurityAuditReply, "the security audit", "helmctl security audit", connect, wait
        )
        self._store, self._wait = store, wait

    async def glance(self, max_age: float) -> Glance[SecurityAuditReply]:
        """Return the last audit without waiting, as `LatestCheck.glance`."""
        return await self._accepting(await self._check.glance(max_age))

    async def reply(self, max_age: float) -> SecurityAuditReply:
        """Return an audit that is at most MAX_AGE seconds old.

        If a new one takes long, the last one is returned. Raises AuditUnfinishedError if there is none yet,
        AuditFailedError when an audit failed.
        """
        seen = await self._accepting(await self._check.newest(max_age))
        if (failure := seen.failure) is not None:
            raise AuditFailedError(failure.sentence, hint=failure.hint, lines=failure.lines)
        if seen.report is None:
            raise AuditUnfinishedError(
                f"the security audit has not finished within {self._wait:g} s",
                hint="It goes on: send the request again in a minute.",
            )
        return seen.report

    async def _accepting(self, seen: Glance[SecurityAuditReply]) -> Glance[SecurityAuditReply]:
        if seen.report is None:
            return seen
        return replace(seen, report=await asyncio.to_thread(accepting, seen.report, self._store))
