"""Which days are dropped, under clocks that are right, wrong, and set both ways."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.logs.retention import (
    FASTEST,
    HOLD_SECONDS,
    Expiry,
    Held,
    Partition,
    clock_warnings,
    days_by_arrival,
    decide,
    followed,
    is_plausible,
    most_at_once,
    warnings,
)

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def partition(day: date, begun: int, retention: int = 90, **more: object) -> Partition:
    return replace(Partition(f"{retention}_{day:%Y%m%d}", retention, day, begun), **more)  # type: ignore[arg-type]


def history(days: int = 91, retention: int = 90, now: datetime = NOW) -> list[Partition]:
    """Return a partition for each of the last DAYS, today's among them."""
    first = now.date() - timedelta(days=days - 1)
    return [partition(first + timedelta(days=n), n * 1000, retention) for n in range(days)]


class Maintenance:
    """Rounds of maintenance over a store, an hour of running time apart."""

    def __init__(self, partitions: list[Partition]) -> None:
        self.partitions = partitions
        self.running = 0
        self.dropped: list[Partition] = []
        self.last = Expiry((), {}, ())

    def run(self, hours: int, clock: datetime, newest: datetime | None, *, frozen: bool = False) -> None:
        for hour in range(hours):
            at = clock if frozen else clock + timedelta(hours=hour)
            self.last = decide(self.partitions, at, at if newest is None else newest, self.running)
            self.dropped += self.last.drop
            gone = {each.name for each in self.last.drop}
            self.partitions = [
                replace(each, expired_at=self.last.expired_at.get(each.name, each.expired_at))
                for each in self.partitions
                if each.name not in gone
            ]
            self.running += 3600

    def store(self, day: date) -> None:
        """Entries of a day come, and with them its partition."""
        if all(each.day != day for each in self.partitions):
            self.partitions.append(partition(day, 1_000_000 + self.running))


@pytest.mark.parametrize("retention", [7, 30, 90, 365])
def test_a_day_goes_within_a_day_of_its_expiry(retention: int) -> None:
    maintenance = Maintenance(history(retention, retention))
    now = NOW
    for _ in range(40):
        now += DAY
        maintenance.store(now.date()) if retention == 90 else maintenance.partitions.append(
            partition(now.date(), 10**7 + maintenance.running, retention)
        )
        maintenance.run(24, now, None)
        assert retention <= len(maintenance.partitions) <= retention + 3
        assert not maintenance.last.held
    assert all(now.date() - each.day > timedelta(days=retention) for each in maintenance.dropped)


@pytest.mark.parametrize("year", [1970, 2000, 2038, 2100])
@pytest.mark.parametrize("stored", [False, True])
def test_a_wrong_clock_that_is_set_right_within_a_day_drops_nothing(year: int, stored: bool) -> None:
    """Whether or not entries were stored with its time."""
    maintenance = Maintenance(history(88))
    wrong = datetime(year, 1, 19, 3, 14, tzinfo=UTC)
    if stored:
        maintenance.store(wrong.date())
    maintenance.run(23, wrong, wrong if stored else NOW)
    assert maintenance.dropped == []
    assert bool(maintenance.last.held) == (stored and year > 2026)
    maintenance.run(48, NOW, NOW, frozen=True)
    assert maintenance.dropped == []
    assert not maintenance.last.held
    assert all(each.expired_at is None for each in maintenance.partitions)


def test_a_clock_that_steps_both_ways_drops_nothing() -> None:
    maintenance = Maintenance(history(88))
    for year in (2038, 1970, 2050, 1999):
        maintenance.store(date(year, 1, 1))
    for n in range(60):
        wrong = datetime((2038, 1970, 2050, 1999)[n % 4], 1, 1, tzinfo=UTC)
        maintenance.run(20, wrong, wrong)
        maintenance.run(1, NOW, NOW)
    assert maintenance.dropped == []


def test_a_clock_that_stays_wrong_takes_a_share_at_a_time() -> None:
    maintenance = Maintenance(history(90))
    wrong = datetime(2038, 1, 19, tzinfo=UTC)
    maintenance.store(wrong.date())
    maintenance.run(24 * 4 + 1, wrong, wrong, frozen=True)
    assert len(maintenance.dropped) == 9 + 8 + 7 + 6
    assert [each.day for each in maintenance.dropped] == sorted(each.day for each in maintenance.dropped)
    assert maintenance.last.held == (Held(90, 66, 67),)
    assert maintenance.last.held[0].at_once == 6


def test_a_machine_that_was_off_catches_up() -> None:
    maintenance = Maintenance(history(91, now=NOW - 60 * DAY))
    maintenance.run(24, NOW, NOW, frozen=True)
    assert maintenance.dropped == [] and maintenance.last.held
    maintenance.store(NOW.date())
    maintenance.run(24 * 25, NOW, NOW, frozen=True)
    assert len(maintenance.dropped) == 60 and not maintenance.last.held


def test_lines_of_a_wrong_clock_stay_as_long_as_others_of_their_day() -> None:
    """They were written on one day of October, dated 1970 and 2038."""
    october = NOW - 30 * DAY
    before = history(58, now=october)
    odd = [partition(date(1970, 1, 1), 58_001), partition(date(2038, 1, 19), 58_002)]
    after = [partition(october.date() + timedelta(days=n + 1), 59_000 + n) for n in range(30)]
    found = days_by_arrival([*before, *odd, *after], NOW.date())
    assert {found[each.name] for each in odd} == {october.date()}
    maintenance = Maintenance([*before, *odd, *after])
    now = NOW
    while now.date() <= october.date() + timedelta(days=90):
        maintenance.run(24, now, None)
        now += DAY
    assert not {each.name for each in odd} & {each.name for each in maintenance.dropped}
    for _ in range(4):
        maintenance.run(24, now, None)
        now += DAY
    assert {each.name for each in odd} <= {each.name for each in maintenance.dropped}


def test_an_entry_dated_ahead_moves_no_bound() -> None:
    maintenance = Maintenance(history(88))
    maintenance.store(date(2038, 1, 19))
    maintenance.run(72, NOW, datetime(2038, 1, 19, tzinfo=UTC), frozen=True)
    assert maintenance.dropped == [] and not maintenance.last.held


def test_a_late_entry_of_an_old_day_does_not_keep_it() -> None:
    """A day's age depends on when it was begun, not by what was added last."""
    days = days_by_arrival(history(91), NOW.date())
    assert days == {each.name: each.day for each in history(91)}


def test_empty_partitions_far_ahead_go() -> None:
    ahead = [partition(date(2038, 1, n), 91_000 + n, empty=True) for n in (19, 20, 21)]
    maintenance = Maintenance([*history(88), *ahead, partition(NOW.date() + timedelta(days=2), 91_100, empty=True)])
    maintenance.run(26, NOW, NOW, frozen=True)
    assert [each.name for each in maintenance.dropped] == [each.name for each in ahead]


def test_partitions_are_made_ahead_only_near_what_was_stored() -> None:
    assert is_plausible(NOW, None)
    assert is_plausible(NOW, NOW - 3 * DAY) and is_plausible(NOW, NOW + timedelta(minutes=5))
    assert not is_plausible(NOW.replace(year=2038), NOW)
    assert not is_plausible(NOW.replace(year=1970), NOW)


def test_what_is_held_is_said() -> None:
    said = warnings([Held(90, 60, 91)], "log entries", NOW, NOW)
    assert said == [
        "60 of 91 days of log entries kept for 90 days have expired by the clock (2026-11-28): at most 9 of them are"
        " dropped in 24 hours"
    ]
    (behind,) = warnings([], "log entries", NOW.replace(year=1970), NOW)
    assert "1970-11-28" in behind and "behind the newest" in behind


@given(
    st.lists(st.tuples(st.integers(-400, 5000), st.integers(0, 10**6), st.sampled_from((7, 90))), max_size=60),
    st.lists(st.integers(-20_000, 20_000), min_size=1, max_size=30),
)
def test_no_clock_drops_more_than_a_share(days: list[tuple[int, int, int]], clocks: list[int]) -> None:
    found = {
        name.name: name for offset, begun, kept in days for name in [partition(NOW.date() + offset * DAY, begun, kept)]
    }
    maintenance = Maintenance(list(found.values()))
    for offset in clocks:
        before = {kept: sum(each.retention == kept for each in maintenance.partitions) for kept in (7, 90)}
        dropped = len(maintenance.dropped)
        clock = NOW + offset * DAY if offset > -20_000 else NOW
        maintenance.run(HOLD_SECONDS // 3600, clock, clock, frozen=True)
        for kept, number in before.items():
            assert sum(each.retention == kept for each in maintenance.dropped[dropped:]) <= most_at_once(number)


HOUR = timedelta(hours=1)


def test_a_synchronized_clock_is_followed_at_once() -> None:
    for clock in (NOW + 4000 * DAY, NOW - 4000 * DAY, NOW + HOUR):
        assert followed(NOW, 0, clock, True) == clock


def test_another_clock_is_followed_at_a_limited_speed() -> None:
    assert followed(NOW, 3600, NOW + HOUR, False) == NOW + HOUR
    assert followed(NOW, 0, NOW + 4000 * DAY, False) == NOW
    assert followed(NOW, 3600, NOW + 4000 * DAY, False) == NOW + FASTEST * HOUR
    assert followed(NOW, 3600, NOW - 4000 * DAY, False) == NOW - FASTEST * HOUR
    time = NOW
    for day in range(1, 30):  # a machine that runs for six hours a day
        for _ in range(6):
            time = followed(time, 3600, NOW + day * DAY, False)
        assert time == NOW + day * DAY


def test_what_is_said_of_the_clock() -> None:
    built = NOW - 10 * DAY
    assert clock_warnings(NOW, NOW, built) == []
    assert clock_warnings(NOW + 2 * DAY, NOW, built) == []
    (said,) = clock_warnings(NOW + 4000 * DAY, NOW, built)
    assert "4,000 days ahead" in said and "not synchronized" in said
    (said,) = clock_warnings(NOW - 11 * DAY, NOW, built)
    assert "before the day on which Helm was built (2026-11-18)" in said


def test_a_day_is_not_dropped_soon_after_it_was_begun() -> None:
    old = partition((NOW - 200 * DAY).date(), 0, begun_up=0)
    quarter = 90 * 86_400 // FASTEST
    assert decide([old], NOW, NOW, quarter).expired_at == {}
    assert decide([old], NOW, NOW, quarter + 60).expired_at == {old.name: quarter + 60}
