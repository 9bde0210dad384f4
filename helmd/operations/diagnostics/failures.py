"""The output of the last run of a failing service, for its page."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from helmd.health.thread_pool import ThreadPool
from helmd.journal.lines import PrintedLine
from helmd.model.units.status import Observed
from helmd.model.units.unit_state import UnitFacts, condition
from helmd.operations.diagnostics.why import CAUSE_LINES, cause_line, lines_of_run, of_this_run

FAILS = frozenset({"failed", "flapping", "unhealthy"})
"""States of a service that are explained by its lines."""
_LONGEST = 300
"""Maximum number of characters of a line that are shown."""
_FRESH_SECONDS = 5.0
_WAIT_SECONDS = 1.0
"""Maximum time in seconds that a page waits for the journal."""


@dataclass(frozen=True, slots=True)
class Failure:
    """``line`` is the most likely cause, empty if none is. ``lines`` are the last ones, with their times.

    ``since`` is when systemd noticed; None while it still restarts the service, or it runs.
    """

    line: str
    lines: tuple[tuple[datetime, str], ...]
    since: datetime | None
    restarts: int


class FailureReader:
    """OBSERVED gives what is known of a service. What was read is used for some seconds: many tabs ask at once."""

    def __init__(
        self,
        observed: Callable[[str], Observed | None],
        read: Callable[[UnitFacts], Sequence[PrintedLine]] = lines_of_run,
    ) -> None:
        self._observed = observed
        self._read = read
        self._threads = ThreadPool(2)
        self._kept: dict[str, tuple[float, UnitFacts, Failure]] = {}

    async def of(self, name: str) -> Failure | None:
        """That of a service; None where nothing of it can be read soon, or it has no unit."""
        seen = self._observed(name)
        if seen is None or seen.external or not seen.facts.exists:
            return None
        facts, now = seen.facts, time.monotonic()
        kept = self._kept.get(name)
        if kept is not None and now - kept[0] < _FRESH_SECONDS and _same_run(kept[1], facts):
            return kept[2]
        try:
            printed = await asyncio.wait_for(self._threads.run(lambda: self._read(facts)), _WAIT_SECONDS)
        except TimeoutError:
            return None
        failure = failure_of(facts, printed, time.time())
        self._kept[name] = now, facts, failure
        return failure


def failure_of(facts: UnitFacts, printed: Sequence[PrintedLine], now: float) -> Failure:
    """Return what PRINTED, the lines of its last run, and its unit say. NOW is seconds since the epoch."""
    texts = [line.message for line in printed[-CAUSE_LINES:]]
    word = condition(facts, now)
    line = cause_line(texts)
    if not line and word in ("failed", "flapping"):
        line = next((text.strip() for text in reversed(texts) if text.strip()), "")
    return Failure(
        line[:_LONGEST],
        tuple((datetime.fromtimestamp(each.seconds, UTC), each.message[:_LONGEST]) for each in of_this_run(printed)),
        datetime.fromtimestamp(facts.changed_at, UTC) if word == "failed" and facts.changed_at else None,
        facts.restarts,
    )


def _same_run(one: UnitFacts, other: UnitFacts) -> bool:
    return (one.invocation, one.active_state, one.restarts) == (other.invocation, other.active_state, other.restarts)
