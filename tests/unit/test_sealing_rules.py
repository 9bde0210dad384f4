"""When text indexes are built."""

from datetime import UTC, date, datetime, timedelta

from helmd.model.logs.index_policy import MAX_RANGES, MAX_UNINDEXED, TextIndex, bounds_with, is_over, text_index

DAY = date(2026, 1, 31)


def at(day: date, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)


def test_a_day_is_over_an_hour_after_its_end() -> None:
    following = DAY + timedelta(days=1)
    assert not is_over(DAY, at(DAY, 23, 59))
    assert not is_over(DAY, at(following, 0, 59))
    assert is_over(DAY, at(following, 1))
    assert not is_over(following + timedelta(days=3), at(following, 1))


def test_no_index_for_few_entries() -> None:
    assert text_index((1,), MAX_UNINDEXED - 1, MAX_UNINDEXED) is None
    assert text_index((1,), MAX_UNINDEXED, MAX_UNINDEXED) == TextIndex(1, MAX_UNINDEXED + 1)
    assert text_index((1, 500), MAX_UNINDEXED, 900_000) == TextIndex(500, 900_001)
    assert text_index((1, 500), 0, 900_000) is None


def test_many_ranges_are_merged() -> None:
    bounds = tuple(range(1, 100 * (MAX_RANGES + 2), 100))
    found = text_index(bounds, 0, bounds[-1])
    assert found == TextIndex(1, bounds[-1])
    assert bounds_with(bounds, found) == (1, bounds[-1])


def test_a_large_range_is_not_merged_with_small_ones() -> None:
    bounds = (1, 1_000_000, *range(1_000_100, 1_000_100 + 100 * MAX_RANGES, 100))
    found = text_index(bounds, 0, bounds[-1])
    assert found is not None and found.first == 1_000_000
    assert bounds_with(bounds, found) == (1, 1_000_000, bounds[-1])


def test_bounds_are_extended_at_their_end() -> None:
    assert bounds_with((1, 500), TextIndex(500, 900)) == (1, 500, 900)
    assert bounds_with((1,), TextIndex(1, 5)) == (1, 5)


def test_indexing_cost_of_a_running_day_is_bounded() -> None:
    """Ranges are few, ordered and without gaps, and each entry is re-indexed only a few times."""
    bounds: tuple[int, ...] = (1,)
    newest = written = 0
    for _ in range(400):
        newest += MAX_UNINDEXED
        while (found := text_index(bounds, newest + 1 - bounds[-1], newest)) is not None:
            written += found.end - found.first
            after = bounds_with(bounds, found)
            assert after != bounds
            bounds = after
            assert bounds[0] == 1 and bounds == tuple(sorted(set(bounds)))
        assert len(bounds) <= MAX_RANGES + 1
        assert newest + 1 - bounds[-1] < MAX_UNINDEXED
    assert written <= 8 * newest
