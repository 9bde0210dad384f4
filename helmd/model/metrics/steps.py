"""The steps of a chart, and the source of its points: measurements or their roll-ups."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from helmd.model.errors import UsageError
from helmd.model.logs.retention import FIVE_MINUTE_DAYS, METRIC_DAYS, MINUTE_DAYS

_AUTOMATIC = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800)
_POINTS = 1_000
"""How many points of a series a chart has at most, where the step is chosen for it."""
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Source:
    """What is kept for ``days``: a value for each ``seconds``, 0 for measurements as they were taken."""

    seconds: int
    days: int


RAW = Source(0, METRIC_DAYS)
MINUTES = Source(60, MINUTE_DAYS)
FIVE_MINUTES = Source(300, FIVE_MINUTE_DAYS)
_SOURCES = (RAW, MINUTES, FIVE_MINUTES)


@dataclass(frozen=True, slots=True)
class Span:
    """Steps of ``step`` seconds, counted from 1970-01-01: from ``start`` up to but not including ``end``."""

    start: datetime
    end: datetime
    step: int
    source: Source

    @property
    def points(self) -> int:
        """How many points a series has at most."""
        return round((self.end - self.start).total_seconds()) // self.step


def kept_raw(start: datetime, now: datetime) -> bool:
    """Return whether measurements of START are still kept as they were taken."""
    return now - start <= timedelta(days=RAW.days)


def span(start: datetime, end: datetime, step: int, now: datetime) -> Span:
    """Whole steps that cover START to END, of the coarsest source that reaches back so far and whose values make STEP.

    Where there is none, STEP is rounded up to what the finest one makes that reaches back so far.
    """
    start, end = max(start, _FIRST), min(end, _LAST)
    reaching = [each for each in _SOURCES if now - start <= timedelta(days=each.days)] or [_SOURCES[-1]]
    fitting = [each for each in reaching if step % (each.seconds or 1) == 0]
    source = fitting[-1] if fitting else reaching[0]
    step = _rounded_up(step, source.seconds or 1)
    first = int(start.timestamp()) // step * step
    last = max(first, _rounded_up(math.ceil(end.timestamp()), step))
    return Span(_FIRST + timedelta(seconds=first), _FIRST + timedelta(seconds=last), step, source)


def automatic(start: datetime, end: datetime, series: int, most: int, now: datetime) -> Span:
    """Return the steps for a chart of SERIES series with at most MOST points in total."""
    # One less than fit: the first and the last step may be cut by START and END.
    points = max(1, min(_POINTS, most // max(series, 1)) - 1)
    seconds = max(0.0, (min(end, _LAST) - max(start, _FIRST)).total_seconds())
    fitting = (step for step in _AUTOMATIC if seconds / step <= points)
    return span(start, end, next(fitting, 0) or _rounded_up(math.ceil(seconds / points), _AUTOMATIC[-1]), now)


def _rounded_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def check_points(given: Span, asked: int, most: int) -> None:
    """Raise UsageError if GIVEN has more than MOST points for one series; ASKED is the requested step."""
    if given.points > most:
        raise too_many(given, asked, 1, most)


def too_many(given: Span, asked: int, series: int, most: int) -> UsageError:
    """Return the error message if GIVEN has more than MOST points for SERIES series."""
    least = math.ceil(given.points * series / most) * given.step
    return UsageError(
        f"step: {asked} makes more than {most:,} points: ask for a step of {least:,} seconds, for fewer metrics"
        " (metric_name) or for less time, or leave out step, which is then chosen"
    )
