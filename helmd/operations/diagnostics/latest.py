"""The last result of a check that takes seconds: the security audit, or doctor.

helmd starts no process: the check runs in ``helmd-check@.service``, which stores its result in a file. So results and
running checks survive a restart of helmd, and systemd merges concurrent requests.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from helmd.files.durable import write_atomically
from helmd.files.private import private_text
from helmd.journal.lines import last_lines
from helmd.model.api.json_codec import read_json, to_json
from helmd.model.errors import CONTENT_FAULTS, BusError, HelmError
from helmd.model.layout import Layout
from helmd.model.printable import printable
from helmd.model.suite.names import check_unit
from helmd.model.units.unit_state import UnitFacts, explain
from helmd.systemd.bus import Manager

CHECK_AGE = 300.0
"""Default maximum age of a result in seconds."""
WAIT_SECONDS = 25.0
"""Maximum time in seconds that a request waits for a check: the gateway times out after 30 s."""
FAILED_SECONDS = 60.0
"""Delay in seconds before a failed check is repeated automatically."""
_LOOK_SECONDS = 0.25
_ATTEMPTS, _PAUSE = 3, 0.2
"""Number of attempts to start while the manager does not respond, and the delay in seconds."""
_LINES = 20


class CheckReport(Protocol):
    """The result of a check."""

    @property
    def checked_at(self) -> datetime: ...


Kind = TypeVar("Kind", bound=CheckReport)


@dataclass(frozen=True, slots=True)
class Glance(Generic[Kind]):
    """The last result (None before the first), whether the check is running, and why its last run failed.

    ``failed_at`` is seconds since the epoch.
    """

    report: Kind | None
    running: bool = False
    failure: HelmError | None = None
    failed_at: float = 0.0

    def age(self) -> float:
        """Return seconds since the result; infinite before the first, or if it is from the future: the clock was set
        back.
        """
        age = float("inf") if self.report is None else time.time() - self.report.checked_at.timestamp()
        return age if age >= 0 else float("inf")


def keep_report(layout: Layout, check: str, report: Any) -> None:
    """Store the result of a check. Raises OSError."""
    write_atomically(layout.last_check(check), json.dumps(to_json(report)) + "\n", 0o600)


class LatestCheck(Generic[Kind]):
    """The last result of CHECK, which is of KIND. WHAT names it in sentences; COMMAND is helmctl's for it."""

    def __init__(
        self,
        layout: Layout,
        check: str,
        kind: type[Kind],
        what: str,
        command: str,
        connect: Callable[[], Manager] = Manager,
        wait: float = WAIT_SECONDS,
    ) -> None:
        self._path, self._unit, self._kind = layout.last_check(check), check_unit(check), kind
        self._what, self._connect, self._wait = what, connect, wait
        self._hint = f"Run: {command}; what it printed: journalctl --user-unit {self._unit}"

    async def known(self) -> Glance[Kind]:
        """Return what is known, at once."""
        return await asyncio.to_thread(self._look)

    async def glance(self, max_age: float) -> Glance[Kind]:
        """Return what is known, at once. The check is started if its result is older than MAX_AGE seconds.

        After a run that failed, not before FAILED_SECONDS have passed, unless a new result is asked for (0).
        """
        seen = await self.known()
        recent = max_age > 0 and seen.failure is not None and 0 <= time.time() - seen.failed_at < FAILED_SECONDS
        if seen.running or seen.age() <= max_age or recent:
            return seen
        try:
            await self._start()
        except BusError as error:
            return replace(seen, failure=self._not_started(error), failed_at=time.time())
        return replace(seen, running=True, failure=None)

    async def newest(self, max_age: float) -> Glance[Kind]:
        """Return what is known, once it is at most MAX_AGE seconds old, the check has failed, or it has taken
        too long.
        """
        before = await self.known()
        if before.age() <= max_age:
            return before
        if not before.running:
            try:
                await self._start()
            except BusError as error:
                return replace(before, failure=self._not_started(error), failed_at=time.time())
        until = time.monotonic() + self._wait
        while (running := await asyncio.to_thread(self._runs)) and time.monotonic() < until:
            await asyncio.sleep(_LOOK_SECONDS)
        seen = await self.known()
        if running or seen.running or seen.failure is not None or seen.report != before.report:
            return seen
        return replace(seen, failure=HelmError(f"{self._what} was stopped", hint=self._hint))

    async def _start(self) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await asyncio.to_thread(self._ask, lambda manager: manager.start(self._unit))
                return
            except BusError:
                # It may have been started nevertheless; then the next attempt changes nothing.
                if attempt == _ATTEMPTS:
                    raise
            await asyncio.sleep(_PAUSE)

    def _not_started(self, error: BusError) -> HelmError:
        return HelmError(f"{self._what} could not be started: {error.sentence}", hint=self._hint)

    def _ask(self, what: Callable[[Manager], Any]) -> Any:
        with self._connect() as manager:
            return what(manager)

    def _facts(self) -> UnitFacts | None:
        """Return what systemd says about the unit, or None while it can't be asked."""
        try:
            facts: UnitFacts = self._ask(lambda manager: manager.facts(self._unit))
        except BusError:
            return None
        return facts

    def _runs(self) -> bool:
        # Who waits asks again when the manager did not answer.
        return (facts := self._facts()) is None or _is_running(facts)

    def _look(self) -> Glance[Kind]:
        # In this order: a run that ends in between has its result read.
        facts = self._facts()
        seen = self._read()
        if facts is None:
            return seen
        if _is_running(facts):
            return replace(seen, running=True, failure=None)
        if facts.active_state == "failed" and (
            seen.report is None or facts.changed_at > seen.report.checked_at.timestamp()
        ):
            return replace(seen, failure=self._failure(facts), failed_at=facts.changed_at)
        return seen

    def _read(self) -> Glance[Kind]:
        """Return the stored result. The content of the file is not trusted."""
        try:
            return Glance(read_json(self._kind, json.loads(private_text(self._path))))
        except FileNotFoundError:
            return Glance(None)
        except (OSError, *CONTENT_FAULTS) as fault:
            why = f"{type(fault).__name__}: {printable(str(fault), 200)}"
        try:
            written = self._path.lstat().st_mtime
        except OSError:
            written = 0.0
        sentence = f"the result of {self._what} can't be read ({self._path}: {why})"
        return Glance(None, failure=HelmError(sentence, hint=self._hint), failed_at=written)

    def _failure(self, facts: UnitFacts) -> HelmError:
        printed = last_lines(self._unit, _LINES, invocation=facts.invocation)
        lines = [printable(line.message) for line in printed]
        # helmctl prints what happened, then what to do.
        why = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), "")
        sentence = f"{self._what} failed: {why}" if why else explain(facts, self._what)
        return HelmError(sentence, hint=self._hint, lines=lines[-5:])


def _is_running(facts: UnitFacts) -> bool:
    return bool(facts.job) or facts.active_state in ("activating", "deactivating")
