"""The times of a journal entry, and replacing those that are wrong because the journal's file is damaged.

One flipped bit can move an entry by centuries. Within a boot the monotonic time never decreases from one entry to the
next, and its difference from the wall clock only changes when that is set; so neighbours in the file show which time is
wrong. It is replaced by a plausible one, and the row's context keeps the original.
"""

from collections.abc import Sequence
from typing import NamedTuple

NEIGHBOURS = 3
"""Number of neighbours considered on either side: with three, the median is right even if one is damaged."""
STEP = 2_000_000
"""Microseconds by which the difference of the clocks must change to count as a step of the wall clock; adjustments by
adjtimex(2) are smaller.
"""


class Times(NamedTuple):
    """Microseconds: ``realtime`` since 1970 by the wall clock, ``monotonic`` since the boot."""

    realtime: int
    monotonic: int

    @property
    def offset(self) -> int:
        return self.realtime - self.monotonic


def plausible_times(given: Times, before: Sequence[Times], after: Sequence[Times]) -> Times:
    """Return plausible times of an entry with the GIVEN ones, by those of the entries BEFORE and AFTER it, in order.

    These are of the same file and boot. Plausible times are unchanged. A monotonic time out of order is replaced by
    that of the nearest plausible neighbour, first of those before it; a wall-clock time whose offset no neighbour
    shares, by one with the median offset of the neighbours.
    """
    if not before and not after:
        return given
    # Imported here: it loads fractions and decimals, and only damaged entries come here.
    from statistics import median_low

    monotonic = _plausible_monotonic(given.monotonic, before, after)
    offset = given.realtime - monotonic
    neighbours = [each.offset for each in (*before, *after)]
    if any(abs(offset - each) < STEP for each in neighbours):
        return Times(given.realtime, monotonic)
    return Times(monotonic + median_low(neighbours), monotonic)


def _plausible_monotonic(given: int, before: Sequence[Times], after: Sequence[Times]) -> int:
    from statistics import median_high, median_low

    # Of two neighbours, the one that excludes less.
    earliest = median_low([each.monotonic for each in before]) if before else 0
    latest = median_high([each.monotonic for each in after]) if after else max(given, earliest)
    if earliest > latest:
        if len(before) < len(after):
            earliest = 0
        else:
            latest = max(given, earliest)
    if earliest <= given <= latest:
        return given
    near = [each.monotonic for each in (*reversed(before), *after)]
    return next((each for each in near if earliest <= each <= latest), earliest)
