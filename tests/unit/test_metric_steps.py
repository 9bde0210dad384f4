"""Which roll-ups a chart is made of, and with which steps."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.api.metrics import LONGEST_STEP, MOST_SAMPLES
from helmd.model.errors import UsageError
from helmd.model.metrics.steps import FIVE_MINUTES, MINUTES, RAW, Source, automatic, check_points, kept_raw, span

NOW = datetime(2026, 11, 28, 12, 34, 56, 789, UTC)


@pytest.mark.parametrize(
    ("days", "step", "used", "source"),
    [
        (1, 1, 1, RAW),
        (1, 45, 45, RAW),
        (1, 60, 60, MINUTES),
        (1, 90, 90, RAW),
        (1, 300, 300, FIVE_MINUTES),
        (1, 3600, 3600, FIVE_MINUTES),
        (14, 15, 15, RAW),
        (15, 15, 60, MINUTES),
        (15, 90, 120, MINUTES),
        (15, 900, 900, FIVE_MINUTES),
        (91, 60, 300, FIVE_MINUTES),
        (91, 301, 600, FIVE_MINUTES),
        (1000, 60, 300, FIVE_MINUTES),
    ],
)
def test_a_step_chooses_its_source(days: int, step: int, used: int, source: Source) -> None:
    found = span(NOW - timedelta(days=days), NOW, step, NOW)
    assert (found.step, found.source) == (used, source)


TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2300, 1, 1), timezones=st.just(UTC)) | st.floats(-1e8, 1e6).map(
    lambda seconds: NOW + timedelta(seconds=seconds)
)


@given(TIMES, TIMES, st.integers(1, LONGEST_STEP))
def test_steps_are_whole_and_cover_what_is_asked_for(one: datetime, other: datetime, step: int) -> None:
    start, end = sorted((one, other))
    found = span(start, end, step, NOW)
    assert found.step >= step
    assert found.start.timestamp() % found.step == 0 == found.end.timestamp() % found.step
    if start.year >= 1970 and end.year < 2200:
        assert found.start <= start and end <= found.end
        assert found.points <= (end - start).total_seconds() / found.step + 2


@given(TIMES, TIMES, st.integers(0, 30_000))
def test_an_automatic_step_makes_no_more_points_than_fit(one: datetime, other: datetime, series: int) -> None:
    start, end = sorted((one, other))
    found = automatic(start, end, series, MOST_SAMPLES, NOW)
    assert found.points <= 1000
    assert found.points * series <= MOST_SAMPLES or found.points <= 2


@pytest.mark.parametrize(("days", "step"), [(1 / 24, 60), (1, 120), (7, 900), (30, 3600), (183, 21_600), (397, 43_200)])
def test_automatic_steps(days: float, step: int) -> None:
    assert automatic(NOW - timedelta(days=days), NOW, 5, MOST_SAMPLES, NOW).step == step


def test_too_many_points_are_refused_with_what_is_possible() -> None:
    with pytest.raises(UsageError, match="step of 900 seconds"):
        check_points(span(NOW - timedelta(days=183), NOW, 60, NOW), 60, MOST_SAMPLES)
    check_points(span(NOW - timedelta(days=183), NOW, 900, NOW), 900, MOST_SAMPLES)
    assert kept_raw(NOW - timedelta(days=14), NOW) and not kept_raw(NOW - timedelta(days=14.1), NOW)
