"""The times of a journal entry, and which of them damage to the journal's file has made wrong.

One flipped bit dates an entry centuries ahead. Within a boot the monotonic time never goes back from one entry to the
next, and the wall clock keeps its distance from it but when it is set; so the entries before and after in the same file
show which time can't be right. Then the time that they make plausible takes its place, and the row keeps the other.
"""

from collections.abc import Sequence
from typing import NamedTuple

NEIGHBOURS = 3
"""Entries on either side that are looked at: with three, one that is damaged itself misleads nobody."""
STEP = 2_000_000
"""Microseconds by which the distance of both clocks has to change to count as a step of the wall clock; keeping the
clock in time (adjtimex) never steps so far."""


class Times(NamedTuple):
    """Microseconds: ``realtime`` since 1970 by the wall clock, ``monotonic`` since the boot."""

    realtime: int
    monotonic: int

    @property
    def offset(self) -> int:
        return self.realtime - self.monotonic


def plausible_times(given: Times, before: Sequence[Times], after: Sequence[Times]) -> Times:
    """Return the times of an entry that says GIVEN, between those BEFORE and AFTER it in its file and boot, in their
    order.

    What is plausible stays as it is. A time ahead of all after it, or before all before it, is replaced by that of the
    last entry before; a wall clock that no neighbour shares, by the distance that the neighbours have.
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

    # Of two, the one that excludes less.
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
