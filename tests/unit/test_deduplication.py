"""Recognizing lines that were both printed and posted."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.logs.deduplication import MAX_DISTANCE, OTHER, Single, days_in, paired, windows
from helmd.model.logs.entry import LogRow

BASE = datetime(2026, 1, 31, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def row(source: str, seconds: float = 0.0, message: str = "m", service: str = "core") -> LogRow:
    return LogRow(BASE + timedelta(seconds=seconds), service, "INFO", message, source=source)


def marks(*rows: LogRow, stored: tuple[Single, ...] = ()) -> list[int | None]:
    return [each.duplicate_of for each in paired(rows, 100, stored)]


def test_printed_and_posted_lines_are_duplicates_in_any_order() -> None:
    assert marks(row("journal"), row("http", 1)) == [None, 100]
    assert marks(row("http", 1), row("journal")) == [None, 100]


def test_lines_of_the_same_source_are_not_duplicates() -> None:
    assert marks(row("journal"), row("journal")) == [None, None]
    assert marks(row("http"), row("http")) == [None, None]


def test_matching_is_one_to_one() -> None:
    assert marks(row("journal"), row("http"), row("http")) == [None, 100, None]
    assert marks(row("journal"), row("journal"), row("http"), row("http"), row("http")) == [None, None, 100, 101, None]


def test_the_nearest_line_is_matched() -> None:
    assert marks(row("journal", 0), row("journal", 1.5), row("http", 1.4), row("http", 1.4)) == [None, None, 101, 100]


@pytest.mark.parametrize("sign", [1, -1])
def test_duplicates_are_at_most_two_seconds_apart(sign: int) -> None:
    assert marks(row("journal"), row("http", 2 * sign)) == [None, 100]
    assert marks(row("journal"), row("http", 2.000_001 * sign)) == [None, None]


def test_other_messages_services_and_sources_do_not_match() -> None:
    assert marks(row("journal"), row("http", message="M"), row("http", service="nexus")) == [None, None, None]
    assert marks(row("systemd"), row("http"), row("helm"), row("journal")) == [None, None, None, 101]


def test_duplicates_of_stored_rows() -> None:
    stored = (
        Single(7, BASE, "core", "m", "http"),
        Single(8, BASE + 5 * MAX_DISTANCE, "core", "m", "http"),
        Single(9, BASE, "core", "m", "journal"),
    )
    assert marks(row("journal"), row("journal"), stored=stored) == [7, None]
    assert marks(row("http"), stored=stored) == [9]


def test_windows_are_split_at_gaps() -> None:
    rows = [row("http", 0), row("http", 5), row("journal", 7), row("http", 3600), row("helm", 3)]
    found = windows(rows, "http")
    assert [(window.since, window.until) for window in found] == [
        (BASE - MAX_DISTANCE, BASE + timedelta(seconds=7)),
        (BASE + timedelta(seconds=3598), BASE + timedelta(seconds=3602)),
    ]
    assert [len(window.rows) for window in found] == [2, 1]
    assert windows(rows, "systemd") == []


def test_days_of_a_window() -> None:
    midnight = row("http", 12 * 3600 + 1)
    assert days_in(windows([midnight], "http")[0]) == ["2026-01-31", "2026-02-01"]
    assert days_in(windows([row("http")], "http")[0]) == ["2026-01-31"]


@given(
    st.lists(st.tuples(st.sampled_from(["journal", "http", "helm"]), st.integers(0, 8), st.sampled_from("ab"))),
    st.lists(st.tuples(st.sampled_from(["journal", "http"]), st.integers(0, 8), st.sampled_from("ab"))),
)
def test_pairs_are_one_to_one_and_near_and_of_both_sources(
    given_rows: list[tuple[str, int, str]], before: list[tuple[str, int, str]]
) -> None:
    stored = [
        Single(n, BASE + timedelta(seconds=at), "core", text, source) for n, (source, at, text) in enumerate(before)
    ]
    rows = [row(source, at, text) for source, at, text in given_rows]
    marked = paired(rows, 1000, stored)
    assert [each._replace(duplicate_of=None) for each in marked] == rows
    earlier = {single.id: (single.source, single.message, single.timestamp) for single in stored}
    taken = set()
    for number, each in enumerate(marked, 1000):
        if each.duplicate_of is not None:
            source, message, timestamp = earlier[each.duplicate_of]
            assert (source, message) == (OTHER[each.source], each.message)
            assert abs(timestamp - each.timestamp) <= MAX_DISTANCE
            assert each.duplicate_of not in taken
            taken |= {each.duplicate_of, number}
        earlier[number] = (each.source, each.message, each.timestamp)
