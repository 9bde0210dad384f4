"""Which times of a journal entry its neighbours contradict, and what takes their place."""

import pytest

from helmd.model.logs.parsing.entry_times import STEP, Times, plausible_times

START = 1_700_000_000_000_000
SECOND = 1_000_000
YEAR = 365 * 86_400 * SECOND


def at(second: int, ahead: int = 0) -> Times:
    """Return an entry SECOND seconds after the boot; the wall clock is AHEAD microseconds ahead."""
    return Times(START + second * SECOND + ahead, second * SECOND)


BEFORE, AFTER = [at(7), at(8), at(9)], [at(11), at(12), at(13)]


@pytest.mark.parametrize(
    ("before", "after"), [(BEFORE, AFTER), (BEFORE, []), ([], AFTER), ([], []), (BEFORE[2:], []), ([], AFTER[:1])]
)
def test_what_is_plausible_stays(before: list[Times], after: list[Times]) -> None:
    assert plausible_times(at(10), before, after) == at(10)


@pytest.mark.parametrize("far", [600 * YEAR, -20 * YEAR, 3600 * SECOND, -3600 * SECOND])
def test_a_damaged_wall_clock_time_is_replaced(far: int) -> None:
    for before, after in ((BEFORE, AFTER), (BEFORE, []), ([], AFTER)):
        assert plausible_times(at(10, far), before, after) == at(10)


@pytest.mark.parametrize("far", [2**40, 2**50, -9 * SECOND])
def test_a_damaged_monotonic_time_is_replaced(far: int) -> None:
    given = at(10)._replace(monotonic=10 * SECOND + far)
    found = plausible_times(given, BEFORE, AFTER)
    assert at(8).monotonic <= found.monotonic <= at(12).monotonic
    assert abs(found.realtime - at(10).realtime) < STEP


@pytest.mark.parametrize("damaged", range(6))
def test_a_damaged_neighbour_misleads_nobody(damaged: int) -> None:
    near = [*BEFORE, *AFTER]
    for wrong in (near[damaged]._replace(monotonic=2**50), near[damaged]._replace(realtime=2**54)):
        around = [*near[:damaged], wrong, *near[damaged + 1 :]]
        assert plausible_times(at(10), around[:3], around[3:]) == at(10)
        found = plausible_times(at(10, 600 * YEAR), around[:3], around[3:])
        assert abs(found.realtime - at(10).realtime) < 3 * SECOND


def test_a_step_of_the_clock_is_no_damage() -> None:
    later = [each._replace(realtime=each.realtime + 12 * YEAR) for each in AFTER]
    assert plausible_times(at(10), BEFORE, later) == at(10)
    assert plausible_times(at(10, 12 * YEAR), BEFORE, later) == at(10, 12 * YEAR)
