"""Parsing the filter parameters of a request."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.errors import UsageError
from helmd.model.logs.filter import LogFilter, PageCursor, log_filter_of, page_cursor_of, utc_timestamp, words_of

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_no_parameters_select_everything() -> None:
    assert log_filter_of({}) == LogFilter()
    empty = dict.fromkeys(("service", "level", "min_level", "q", "mode", "source", "stream", "trace_id", "user_id"), "")
    assert log_filter_of({**empty, "start_time": "", "end_time": "", "limit": "5"}) == LogFilter()


def test_all_parameters() -> None:
    wanted = log_filter_of(
        {
            "service": "core, nexus", "level": "error,Warn", "start_time": "2026-01-31T12:00:00Z",
            "end_time": "2026-01-31T13:00:00+01:00", "trace_id": "t", "user_id": "u", "q": "a b", "mode": "words",
            "source": "journal", "stream": "stderr",
        }
    )  # fmt: skip
    assert wanted == LogFilter(
        services=frozenset({"core", "nexus"}),
        levels=frozenset({"ERROR", "WARNING"}),
        start=NOON,
        end=NOON,
        trace_id="t",
        user_id="u",
        text="a b",
        mode="words",
        sources=frozenset({"journal"}),
        streams=frozenset({"stderr"}),
    )
    assert not wanted.counted


@pytest.mark.parametrize(
    ("given_levels", "levels"),
    [
        ({"min_level": "error"}, {"ERROR", "CRITICAL"}),
        ({"min_level": "debug"}, None),
        ({"level": "debug,info,warning,error,critical"}, None),
        ({"level": "info,error", "min_level": "warning"}, {"ERROR"}),
        ({"level": "info", "min_level": "warning"}, set()),
        ({"level": " , "}, None),
    ],
)
def test_levels(given_levels: dict[str, str], levels: set[str] | None) -> None:
    assert log_filter_of(given_levels).levels == (None if levels is None else frozenset(levels))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("service", "no service"),
        ("service", "x" * 51),
        ("service", "core\0"),
        ("level", "loud"),
        ("min_level", "loud"),
        ("start_time", "yesterday"),
        ("end_time", "2026-02-30T00:00:00Z"),
        ("end_time", "9999-12-31T23:59:59-14:00"),
        ("start_time", "0001-01-01T00:00:00+14:00"),
        ("q", "x" * 1001),
        ("q", "\0"),
        ("trace_id", "a\0b"),
        ("user_id", "\0"),
        ("mode", "fuzzy"),
        ("source", "tty"),
        ("stream", "stdin"),
    ],
)
def test_invalid_parameters_are_refused(name: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        log_filter_of({name: value})
    assert caught.value.sentence.startswith(("level" if name == "min_level" else name) + ":")
    assert caught.value.sentence.isprintable()


def test_words_mode_needs_a_word() -> None:
    with pytest.raises(UsageError):
        log_filter_of({"q": "  ", "mode": "words"})
    assert log_filter_of({"q": "  "}).text == "  "
    assert words_of(" a  b\ta ") == ("a", "b")


def test_times_without_an_offset_are_utc() -> None:
    assert utc_timestamp("t", "2026-01-31T12:00:00") == utc_timestamp("t", " 2026-01-31 13:00+01:00 ") == NOON
    assert utc_timestamp("t", "2026-01-31") == NOON.replace(hour=0)


def test_a_filter_is_confined_to_permitted_services() -> None:
    allowed = frozenset({"core", "nexus"})
    assert LogFilter().confined(allowed).services == allowed
    assert LogFilter(services=frozenset({"core", "codex"})).confined(allowed).services == frozenset({"core"})
    assert LogFilter(services=frozenset({"codex"})).confined(allowed).services == frozenset()


def test_filters_that_the_rollups_can_count() -> None:
    assert LogFilter(services=frozenset({"core"}), levels=frozenset({"ERROR"}), start=NOON, end=NOON).counted
    for wanted in (
        LogFilter(trace_id="t"),
        LogFilter(user_id="u"),
        LogFilter(text="x"),
        LogFilter(sources=frozenset({"http"})),
        LogFilter(streams=frozenset({"stdout"})),
    ):
        assert not wanted.counted


@given(st.datetimes(datetime(1970, 1, 1), datetime(9998, 12, 31)), st.integers(0, 10**18 - 1))
def test_a_cursor_round_trips(timestamp: datetime, number: int) -> None:
    place = PageCursor(timestamp.replace(tzinfo=UTC), number)
    assert page_cursor_of(str(place)) == place
    elsewhere = timezone(timedelta(hours=5))
    assert str(PageCursor(place.timestamp.astimezone(elsewhere), number)) == str(place)


@pytest.mark.parametrize(
    "text", ["", "1", "-", "1-", "-1", "1-2-3", "a-1", "1-1\n", "1" * 19 + "-1", "1-" + "1" * 19, "9" * 18 + "-1"]
)
def test_invalid_cursors_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cursor"):
        page_cursor_of(text)


@given(st.text(max_size=30))
def test_any_text_is_parsed_or_refused_as_cursor(text: str) -> None:
    with suppress(UsageError):
        assert isinstance(page_cursor_of(text), PageCursor)
