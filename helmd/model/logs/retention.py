"""Which partitions are dropped, in a way that no wrong clock can empty the store.

- A day's age is measured by the clock or the newest stored entry, whichever is earlier. A wrong clock dates new entries
  wrongly as well, so this bound alone is not enough.
- A partition is never older than those that were begun before it: a day of 1970 that was begun after yesterday's holds
  lines of today, written while the clock was wrong. One that is dated ahead of the clock is as old as these.
- A partition must have been expired for HOLD_SECONDS of upkeep's own running time, by the monotonic clock, without a
  break. A clock that is set right within that time has done nothing.
- In that time no more than a share of a class's days goes, the oldest first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

HOLD_SECONDS = 24 * 3600
LEAST_DAYS, ONE_IN = 3, 10
"""In HOLD_SECONDS a tenth of a class's days may go, or three days where that is more: on a machine that runs eight
hours a day three expire in that time."""
METRIC_DAYS = 14
"""How long measurements are kept."""
AHEAD_DAYS = 7
"""An empty partition that is dated further ahead than this was made by a wrong clock."""
_CLOCK_BEHIND = timedelta(hours=1)
_CLOCK_AHEAD = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Partition:
    """A day's partition. ``retention`` is its class, in days."""

    name: str
    retention: int
    day: date
    begun: int
    """The highest id when it was made: its entries have higher ones."""
    expired_at: int | None = None
    """Seconds of upkeep's running time at which it was first seen to be expired; None when it is not."""
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """More days of a class are expired than may be dropped at once."""

    retention: int
    expired: int
    days: int

    @property
    def at_once(self) -> int:
        return most_at_once(self.days)


@dataclass(frozen=True, slots=True)
class Expiry:
    """What is to be done: partitions to drop, the oldest first, and new values for ``expired_at``."""

    drop: tuple[Partition, ...]
    expired_at: dict[str, int | None]
    held: tuple[Held, ...]


def most_at_once(days: int) -> int:
    """How many of a class's DAYS may be dropped in HOLD_SECONDS."""
    return max(LEAST_DAYS, days // ONE_IN)


def days_by_arrival(partitions: Iterable[Partition], today: date) -> dict[str, date]:
    """How old each partition is: its day, or the latest day that was begun before it, whichever is later."""
    latest: date | None = None
    found = {}
    for partition in sorted(partitions, key=lambda each: (each.begun, each.day)):
        plausible = partition.day <= today + timedelta(days=1)
        if plausible and (latest is None or partition.day > latest):
            latest = partition.day
        found[partition.name] = partition.day if latest is None else latest
    return found


def decide(partitions: Sequence[Partition], clock: datetime, newest: datetime | None, running: int) -> Expiry:
    """What expires. NEWEST is when the newest entry was written, RUNNING upkeep's running time in seconds."""
    today = (clock if newest is None else min(clock, newest)).date()
    days = days_by_arrival(partitions, clock.date())
    drop: list[Partition] = []
    changed: dict[str, int | None] = {}
    held = []
    for retention in sorted({partition.retention for partition in partitions}):
        its = [partition for partition in partitions if partition.retention == retention]
        due = [partition for partition in its if _is_due(partition, days[partition.name], today, clock.date())]
        due.sort(key=lambda partition: (days[partition.name], partition.begun))
        names = {partition.name for partition in due}
        changed |= {each.name: None for each in its if each.expired_at is not None and each.name not in names}
        changed |= {each.name: running for each in due if each.expired_at is None}
        ready = [each for each in due if each.expired_at is not None and running - each.expired_at >= HOLD_SECONDS]
        most = most_at_once(len(its))
        drop += ready[:most]
        if ready:
            # The others start waiting again: that is what makes it a share in HOLD_SECONDS.
            changed |= {each.name: running for each in due if each not in ready[:most]}
        if len(due) > most:
            held.append(Held(retention, len(due), len(its)))
    return Expiry(tuple(drop), changed, tuple(held))


def _is_due(partition: Partition, day: date, today: date, clock: date) -> bool:
    if partition.empty and partition.day > clock + timedelta(days=AHEAD_DAYS):
        return True
    return today - day > timedelta(days=partition.retention)


def is_plausible(clock: datetime, newest: datetime | None) -> bool:
    """Whether partitions may be made ahead by the CLOCK: it is not far from the NEWEST entry."""
    return newest is None or newest - _CLOCK_BEHIND <= clock <= newest + _CLOCK_AHEAD


def warnings(held: Iterable[Held], what: str, clock: datetime, newest: datetime | None) -> list[str]:
    """What retention does not do, as sentences without a full stop. WHAT is a noun in the plural: "log entries"."""
    said = [
        f"{each.expired} of {each.days} days of {what} kept for {each.retention} days have expired by the clock"
        f" ({clock.date().isoformat()}): at most {each.at_once} of them are dropped in {HOLD_SECONDS // 3600} hours"
        for each in held
    ]
    if newest is not None and newest - clock > _CLOCK_BEHIND:
        behind = f"the clock ({clock.isoformat(timespec='seconds')}) is behind the newest of the {what}"
        said.append(f"{behind} ({newest.isoformat(timespec='seconds')}): expiry follows the clock")
    return said
