"""Decide which partitions are dropped, so that no wrong clock can empty the store.

- A day's age is measured by the clock, the newest stored entry or `followed`, whichever is earliest. A wrong clock
  dates new entries wrongly as well, so these two are not enough; `followed` is a time that follows a clock which is not
  synchronized at most FASTEST times as fast as the running time of maintenance (`StoreMaintenance`) grows.
- A partition is never older than those that were begun before its last entry came: a day of 1970 with entries that came
  after yesterday's holds lines of today, written while the clock was wrong. One dated ahead of the clock is as old as
  these.
- Maintenance must have run for a share of a partition's retention (one in FASTEST) since it was begun, whatever its
  date.
- A partition must have been expired for HOLD_SECONDS of this running time, by the monotonic clock, without a
  break. A clock that is set right within that time has done nothing.
- In that time no more than a share of a class's days goes, the oldest first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

HOLD_SECONDS = 24 * 3600
FASTEST = 4
"""How many times as fast as the running time entries may age by a clock that is not synchronized: a machine that runs
six hours a day needs it."""
LEAST_DAYS, ONE_IN = 3, 10
"""In HOLD_SECONDS a tenth of a class's days may go, or three days where that is more: on a machine that runs eight
hours a day three expire in that time."""
METRIC_DAYS = 14
"""How long measurements are kept."""
MINUTE_DAYS = 90
"""How long their roll-ups by minute are kept: as long as log entries are by default, to be read beside them."""
FIVE_MINUTE_DAYS = 397
"""How long their roll-ups by five minutes are kept: 13 months. Minutes for that time would take five times the space,
and a chart of more than 90 days can't show them."""
AHEAD_DAYS = 7
"""An empty partition that is dated further ahead than this was made by a wrong clock."""
_CLOCK_BEHIND = timedelta(hours=1)
_CLOCK_AHEAD = timedelta(days=7)
_FAR_AHEAD = timedelta(days=3)
"""How far ahead of `followed` the clock is reported: it may be by a weekend during which the machine was off."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A day's partition. ``retention`` is its class, in days."""

    name: str
    retention: int
    day: date
    begun: int
    """The highest id when it was made: its entries have higher ones. Of one whose day is not the order of arrival, the
    highest id in it."""
    begun_up: int = -(10**9)
    """Running time of maintenance, in seconds, when the partition was created."""
    expired_at: int | None = None
    """Running time, in seconds, when the partition was first found expired; None if it is not."""
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """More days of a class are expired than may be dropped at once."""

    retention: int
    expired: int
    days: int

    @property
    def spans(self) -> str:
        """What one partition of the class has: a day, or, of those kept longest by week, a week."""
        return "weeks" if self.retention > FIVE_MINUTE_DAYS else "days"

    @property
    def at_once(self) -> int:
        return most_at_once(self.days)


@dataclass(frozen=True, slots=True)
class Expiry:
    """What is to be done: partitions to drop, the oldest first, and new values for ``expired_at``."""

    drop: tuple[Partition, ...]
    expired_at: dict[str, int | None]
    held: tuple[Held, ...]


def followed(before: datetime, elapsed: float, clock: datetime, synchronized: bool) -> datetime:
    """Return the time by which days expire, ELAPSED seconds of running time after it was BEFORE. It follows the
    CLOCK.
    """
    most = timedelta(seconds=FASTEST * elapsed)
    return clock if synchronized else min(max(clock, before - most), before + most)


def most_at_once(days: int) -> int:
    """Return how many of a class's DAYS may be dropped in HOLD_SECONDS."""
    return max(LEAST_DAYS, days // ONE_IN)


def days_by_arrival(partitions: Iterable[Partition], today: date) -> dict[str, date]:
    """Return how old each partition is: its day, or the latest day that was begun before it, whichever is later."""
    latest: date | None = None
    found = {}
    for partition in sorted(partitions, key=lambda each: (each.begun, each.day)):
        plausible = partition.day <= today + timedelta(days=1)
        if plausible and (latest is None or partition.day > latest):
            latest = partition.day
        found[partition.name] = partition.day if latest is None else latest
    return found


def decide(partitions: Sequence[Partition], clock: datetime, newest: datetime | None, running: int) -> Expiry:
    """Return what expires. NEWEST is the time of the newest entry, RUNNING that of maintenance in seconds."""
    today = (clock if newest is None else min(clock, newest)).date()
    days = days_by_arrival(partitions, clock.date())
    drop: list[Partition] = []
    changed: dict[str, int | None] = {}
    held = []
    for retention in sorted({partition.retention for partition in partitions}):
        its = [partition for partition in partitions if partition.retention == retention]
        due = [each for each in its if _is_due(each, days[each.name], today, clock.date(), running)]
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


def _is_due(partition: Partition, day: date, today: date, clock: date, running: int) -> bool:
    if partition.empty and partition.day > clock + timedelta(days=AHEAD_DAYS):
        return True
    kept = timedelta(days=partition.retention)
    return today - day > kept and running - partition.begun_up > kept.total_seconds() / FASTEST


def is_to_be_dropped(partition: Partition, today: date, running: int) -> bool:
    """Return whether its date says that it expires, or goes, right now: then it matters when its last entry came."""
    if today - partition.day <= timedelta(days=partition.retention):
        return False
    return partition.expired_at is None or running - partition.expired_at >= HOLD_SECONDS


def is_plausible(clock: datetime, newest: datetime | None) -> bool:
    """Return whether partitions may be made ahead by the CLOCK: it is not far from the NEWEST entry."""
    return newest is None or newest - _CLOCK_BEHIND <= clock <= newest + _CLOCK_AHEAD


def clock_warnings(clock: datetime, follower: datetime, built: datetime) -> list[str]:
    """Return what is wrong with the CLOCK, as sentences without a full stop.

    FOLLOWER is the time that `followed` has reached; BUILT is when Helm was built.
    """
    if clock < built:
        return [f"the clock ({_shown(clock)}) is before the day on which Helm was built ({built.date().isoformat()})"]
    if clock - follower <= _FAR_AHEAD:
        return []
    return [
        f"the clock ({_shown(clock)}) is {(clock - follower).days:,} days ahead of the time by which days expire"
        f" ({_shown(follower)}) and not synchronized; that time follows at {FASTEST} times its speed"
    ]


def _shown(time: datetime) -> str:
    return time.isoformat(timespec="seconds")


def warnings(held: Iterable[Held], what: str, clock: datetime, newest: datetime | None) -> list[str]:
    """Return what retention does not do, as sentences without a full stop.

    WHAT is a noun in the plural: "log entries".
    """
    said = [
        f"{each.expired} of {each.days} {each.spans} of {what} kept for {each.retention} days have expired by the clock"
        f" ({clock.date().isoformat()}): at most {each.at_once} of them are dropped in {HOLD_SECONDS // 3600} hours"
        for each in held
    ]
    if newest is not None and newest - clock > _CLOCK_BEHIND:
        behind = f"the clock ({_shown(clock)}) is behind the newest of the {what}"
        said.append(f"{behind} ({_shown(newest)}): expiry follows the clock")
    return said
