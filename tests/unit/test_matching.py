"""Matching rows against a follower's filter."""

from datetime import UTC, datetime, timedelta

import pytest

from helmd.model.logs.entry import SEARCH_LIMIT, LogRow
from helmd.model.logs.filter import LogFilter
from helmd.model.logs.matching import matches

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ROW = LogRow(NOON, "core", "ERROR", "The Disk is full: größer", None, "t1", "u1", "box", 7, "journal", "x", "stderr")


def some(*words: str) -> frozenset[str]:
    return frozenset(words)


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        (LogFilter(), True),
        (LogFilter(services=some("core", "nexus")), True),
        (LogFilter(services=some("nexus")), False),
        (LogFilter(services=some()), False),
        (LogFilter(levels=some("ERROR")), True),
        (LogFilter(levels=some()), False),
        (LogFilter(levels=some("INFO")), False),
        (LogFilter(sources=some("journal")), True),
        (LogFilter(sources=some("http")), False),
        (LogFilter(streams=some("stderr")), True),
        (LogFilter(streams=some("stdout")), False),
        (LogFilter(trace_id="t1"), True),
        (LogFilter(trace_id="T1"), False),
        (LogFilter(user_id="u1"), True),
        (LogFilter(user_id="u"), False),
        (LogFilter(start=NOON), True),
        (LogFilter(start=NOON + timedelta(microseconds=1)), False),
        (LogFilter(end=NOON), False),
        (LogFilter(end=NOON + timedelta(microseconds=1)), True),
        (LogFilter(text="disk is"), True),
        (LogFilter(text="is disk"), False),
        (LogFilter(text="GRÖSSER"), False),
        (LogFilter(text="GRÖßER"), True),
        (LogFilter(text="%"), False),
        (LogFilter(text="d.sk"), False),
        (LogFilter(text="full DISK", mode="words"), True),
        (LogFilter(text="dis", mode="words"), False),
        (LogFilter(text="full:", mode="words"), True),
        (LogFilter(text="full disk empty", mode="words"), False),
        (LogFilter(services=some("core"), text="absent"), False),
    ],
)
def test_a_row(wanted: LogFilter, taken: bool) -> None:
    assert matches(wanted, ROW) is taken


def test_a_duplicate_matches_only_if_its_source_is_requested() -> None:
    again = ROW._replace(source="http", duplicate_of=5)
    assert not matches(LogFilter(), again)
    assert matches(LogFilter(sources=some("http")), again)


def test_a_row_without_stream_matches_no_stream() -> None:
    assert not matches(LogFilter(streams=some("stdout", "stderr")), ROW._replace(stream=None))


def test_a_long_message_is_searched_up_to_a_limit() -> None:
    assert matches(LogFilter(text="end"), ROW._replace(message="x" * (SEARCH_LIMIT - 3) + "end"))
    assert not matches(LogFilter(text="end"), ROW._replace(message="x" * SEARCH_LIMIT + "end"))


def test_regular_expressions_are_refused() -> None:
    with pytest.raises(ValueError, match="by the store only"):
        matches(LogFilter(text="a+", mode="regex"), ROW)
