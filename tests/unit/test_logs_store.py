"""``helmctl logs`` from the log store: selection, order, following without loss, and outages of helmd."""

import os
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from helmd.cli.client import HelmdAwayError, events_of
from helmd.cli.exits import exit_of
from helmd.cli.logs import store as log_store
from helmd.cli.logs.format import OutputLine, format_named
from helmd.cli.logs.required import required_text
from helmd.cli.logs.store import Boot, StoreLines
from helmd.journal.query import Wanted
from helmd.model.errors import UsageError
from tests.unit.helmd_stand_in import BEGAN, StandIn, row, stand_in
from tests.waiting import WITHIN, until

NOBODY = Path("/nonexistent/helm.sock")


@pytest.fixture
def helmd(tmp_path: Path) -> Iterator[StandIn]:
    with stand_in(tmp_path) as made:
        yield made


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_store, "_PAUSES", (0.01, 0.02))


def ids(lines: Iterator[OutputLine]) -> list[int | None]:
    return [line.id for line in lines]


def lines_of(
    helmd: StandIn, wanted: Wanted, count: int | None = None, *, newest_first: bool = False
) -> list[int | None]:
    return ids(StoreLines(helmd.socket, wanted, None, no_word).open(count, newest_first, False))


def no_word(sentence: str) -> None:
    pytest.fail(f"said {sentence!r}")


def test_all_lines_in_either_order_and_the_last_ones(helmd: StandIn) -> None:
    helmd.add(*(row(n) for n in range(1, 2501)))
    every = list(range(1, 2501))
    assert lines_of(helmd, Wanted()) == every
    assert lines_of(helmd, Wanted(), newest_first=True) == every[::-1]
    assert lines_of(helmd, Wanted(), 3) == [2498, 2499, 2500]
    assert lines_of(helmd, Wanted(), 3, newest_first=True) == [2500, 2499, 2498]
    assert lines_of(helmd, Wanted(), 1700) == every[-1700:]
    assert lines_of(helmd, Wanted(), 0) == []


def test_the_last_few_lines_take_one_request(helmd: StandIn) -> None:
    helmd.add(*(row(n) for n in range(1, 100)))
    lines_of(helmd, Wanted(services=frozenset({"core"})), 20)
    assert helmd.asked == ["/api/logs?service=core&limit=20&total=false"]


def test_filters(helmd: StandIn) -> None:
    helmd.add(
        row(1, "one", level="ERROR", stream="stderr"),
        row(2, "Two", "nexus", trace_id="t-17", stream="stdout"),
        row(3, "three", "nexus", level="CRITICAL", source="http"),
        row(4, "three again", duplicate_of=3),
    )
    assert lines_of(helmd, Wanted()) == [1, 2, 3]
    assert lines_of(helmd, Wanted(services=frozenset({"nexus", "codex"}))) == [2, 3]
    assert lines_of(helmd, Wanted(levels=frozenset({"ERROR", "CRITICAL"}))) == [1, 3]
    assert lines_of(helmd, Wanted(streams=frozenset({"stderr"}))) == [1]
    assert lines_of(helmd, Wanted(trace="t-17")) == [2]
    assert lines_of(helmd, Wanted(trace="\udcff")) == []
    second = int(BEGAN.timestamp()) * 1_000_000
    assert lines_of(helmd, Wanted(since=second + 2_000_000, until=second + 3_000_000)) == [2, 3]
    assert lines_of(helmd, Wanted(since=second + 2_000_001, until=second + 2_999_999)) == []


def test_a_pattern_means_the_same_as_for_the_journal(helmd: StandIn) -> None:
    """Case is significant if the pattern has upper case, and PostgreSQL never receives Python's syntax."""
    helmd.add(*(row(n, f"Request {n} took {n} ms") for n in range(1, 1001)))
    helmd.add(row(1001, "request took 5 ms"), row(1002, "REQUEST"))
    assert lines_of(helmd, Wanted(pattern=re.compile(r"Request \d+ took (5|7) ms"))) == [5, 7]
    assert lines_of(helmd, Wanted(pattern=re.compile(r"\brequest\b", re.IGNORECASE)), 2) == [1001, 1002]
    assert lines_of(helmd, Wanted(pattern=re.compile(r" \d00 took")), 3, newest_first=True) == [900, 800, 700]
    assert lines_of(helmd, Wanted(pattern=re.compile("^(?!request)", re.IGNORECASE)), 3) == []
    assert all("%5C" not in asked and "mode=" not in asked for asked in helmd.asked)


def test_a_search_ended_by_the_time_limit_is_continued(helmd: StandIn) -> None:
    helmd.add(*(row(n) for n in range(1, 101)))
    helmd.page_limit = 7
    assert lines_of(helmd, Wanted(), 50) == list(range(51, 101))
    assert lines_of(helmd, Wanted(pattern=re.compile("line 1$"))) == [1]


def test_only_lines_of_this_boot(helmd: StandIn) -> None:
    """Posted lines have no boot id; lines dated before the boot by a wrong clock belong to it."""
    helmd.add(
        row(1, boot_id="a"), row(2, source="http"), row(3, boot_id="b"), row(5, boot_id="b"), row(6, source="http")
    )
    boot = Boot("b", BEGAN + timedelta(seconds=4), BEGAN)
    assert ids(StoreLines(helmd.socket, Wanted(boot="b"), boot, no_word).open(None, False, False)) == [3, 5, 6]
    assert ids(StoreLines(helmd.socket, Wanted(boot="b"), boot, no_word).open(2, True, False)) == [6, 5]


def test_an_interrupted_export_is_resumed_after_its_last_line(helmd: StandIn, hurried: None) -> None:
    """Including several rows with the same time, of which some were received."""
    instant = BEGAN + timedelta(seconds=5)
    helmd.add(*(row(n, timestamp=instant) for n in range(1, 11)), *(row(n) for n in range(11, 21)))
    for newest_first in (False, True):
        helmd.export_ends_after = [0, 4, 8, 12]
        assert lines_of(helmd, Wanted(), newest_first=newest_first) == list(range(1, 21))[:: -1 if newest_first else 1]
        assert helmd.export_ends_after == []


def test_an_outage_while_reading_is_an_error(helmd: StandIn, hurried: None) -> None:
    helmd.add(*(row(n) for n in range(1, 11)))
    helmd.export_ends_after = [4, 0, 0, 0]
    seen = []
    with pytest.raises(HelmdAwayError, match="the output is incomplete") as caught:
        for line in StoreLines(helmd.socket, Wanted(), None, no_word).open(None, False, False):
            seen.append(line.id)
    assert seen == [1, 2, 3, 4]
    assert exit_of(caught.value.code) == 69


def test_a_failed_page_is_requested_again(helmd: StandIn, hurried: None) -> None:
    helmd.add(*(row(n) for n in range(1, 1501)))
    lines = StoreLines(helmd.socket, Wanted(), None, no_word).open(5000, True, False)
    assert [next(lines).id for _ in range(1000)] == list(range(1500, 500, -1))

    def fail_once() -> web.Response:
        helmd.failure = None
        return refusal(503, "store")

    helmd.failure = fail_once
    assert ids(lines) == list(range(500, 0, -1))


def refusal(status: int, code: str) -> web.Response:
    return web.json_response({"code": code, "detail": "a \x1b[31mreason"}, status=status)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (lambda: refusal(503, "store"), "helmd's database can't be reached"),
        (lambda: refusal(404, "not_found"), r"helmd failed: a \\x1b\[31mreason"),
        (lambda: web.Response(status=502, text="<html>"), r"helmd failed: status 502 for /api/logs"),
        (lambda: web.Response(text="no JSON"), "helmd can't be reached"),
        (lambda: web.json_response({"logs": [{"id": 1}]}), "invalid log entry"),
        (lambda: web.json_response([]), "invalid log entry"),
    ],
    ids=["database away", "older helmd", "somebody else", "no JSON", "no entry", "no page"],
)
def test_invalid_responses(helmd: StandIn, failure: Callable[[], web.Response], said: str) -> None:
    helmd.failure = failure
    for count in (5, None):
        with pytest.raises(HelmdAwayError, match=said):
            StoreLines(helmd.socket, Wanted(), None, no_word).open(count, False, False)


def test_a_request_refused_by_helmd_is_not_sent_to_the_journal(helmd: StandIn) -> None:
    helmd.failure = lambda: refusal(400, "usage")
    with pytest.raises(UsageError, match="reason"):
        lines_of(helmd, Wanted(), 5)


def test_a_stopped_or_hanging_helmd_is_detected_within_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert log_store._ANSWER_SECONDS <= 1.0
    for longer in ("_SEARCH_SECONDS", "_STREAM_SECONDS", "_SILENCE_SECONDS"):
        monkeypatch.setattr(log_store, longer, 10 * WITHIN)
    path = tmp_path / "helm.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(HelmdAwayError):
            StoreLines(path, Wanted(trace="x"), None, no_word).open(5, False, False)
        assert time.monotonic() - began < WITHIN
    for gone in (path, NOBODY):
        with pytest.raises(HelmdAwayError, match="helmd can't be reached"):
            StoreLines(gone, Wanted(), None, no_word).open(5, False, False)


class Follower:
    """Follows in a thread, like ``helmctl logs -f``."""

    def __init__(self, helmd: StandIn, wanted: Wanted, count: int | None = 10) -> None:
        self.seen: list[int | None] = []
        self.said: list[str] = []
        self.idle = threading.Semaphore(0)
        self._reading, self._writing = os.pipe()
        self._store = StoreLines(helmd.socket, wanted, None, self.said.append)
        self.seen += ids(self._store.open(count, False, True))
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def _follow(self) -> None:
        for line in self._store.follow(self.idle.release, self._writing):
            self.seen.append(line.id)

    def start(self) -> "Follower":
        self._thread.start()
        return self

    def until(self, what: Callable[[], bool]) -> None:
        until(what, pause=0.005)

    def end(self) -> None:
        """The reader of the output goes away."""
        os.close(self._reading)
        self._thread.join(WITHIN)
        os.close(self._writing)
        assert not self._thread.is_alive()


def test_followed_lines_are_shown_once(helmd: StandIn) -> None:
    """Lines stored between the requests for the backlog and for the stream."""
    helmd.add(*(row(n) for n in range(1, 21)))
    store_lines = Follower(helmd, Wanted(), 3)
    helmd.add(row(21), row(22, timestamp=BEGAN))
    follower = store_lines.start()
    follower.until(lambda: len(follower.seen) == 5)
    helmd.add(row(23))
    follower.until(lambda: len(follower.seen) == 6)
    follower.end()
    assert follower.seen == [18, 19, 20, 21, 22, 23]
    assert helmd.resumed_at == [20]
    assert follower.said == []


def test_lines_stored_while_the_backlog_is_listed_are_not_duplicated(
    helmd: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    helmd.add(row(1), row(2))
    newest = StoreLines._newest

    def and_then_some(self: StoreLines) -> int:
        found = newest(self)
        helmd.add(row(3), row(4))
        return found

    monkeypatch.setattr(StoreLines, "_newest", and_then_some)
    follower = Follower(helmd, Wanted(), 10)
    assert follower.seen == [1, 2, 3, 4]
    monkeypatch.undo()
    follower.start()
    helmd.add(row(5))
    follower.until(lambda: 5 in follower.seen)
    follower.end()
    assert follower.seen == [1, 2, 3, 4, 5]


def test_lines_dated_in_the_future_do_not_repeat_old_lines(helmd: StandIn) -> None:
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    helmd.add(row(1, timestamp=now + timedelta(minutes=9)), row(2, timestamp=now), row(3, timestamp=now))
    follower = Follower(helmd, Wanted(), 1).start()
    helmd.add(row(4, timestamp=now))
    follower.until(lambda: 4 in follower.seen)
    follower.end()
    assert follower.seen == [1, 4]


def test_a_pattern_applies_to_followed_lines(helmd: StandIn) -> None:
    follower = Follower(helmd, Wanted(pattern=re.compile(r"\d\d"))).start()
    helmd.add(*(row(n) for n in range(8, 13)))
    follower.until(lambda: len(follower.seen) == 3)
    follower.end()
    assert follower.seen == [10, 11, 12]


def test_a_restart_of_helmd_neither_loses_nor_duplicates_lines(helmd: StandIn) -> None:
    follower = Follower(helmd, Wanted()).start()
    for n in range(2, 12, 2):
        helmd.add(row(n))
        follower.until(partial(follower.seen.__contains__, n))
        helmd.stop()
        helmd.rows.append(row(n + 1))
        helmd.start()
    follower.until(lambda: 11 in follower.seen)
    follower.end()
    assert follower.seen == list(range(2, 12))
    assert follower.said == []


def test_a_long_outage_and_its_end_are_reported_once(helmd: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_store, "_NOTIFY_AFTER", 0.2)
    helmd.add(row(1))
    follower = Follower(helmd, Wanted()).start()
    follower.until(lambda: bool(helmd.resumed_at))
    helmd.stop()
    follower.until(lambda: bool(follower.said))
    helmd.add(row(2), row(3))
    time.sleep(0.3)
    helmd.start()
    follower.until(lambda: len(follower.seen) == 3)
    follower.end()
    assert follower.seen == [1, 2, 3]
    assert follower.said == ["helmd is unavailable; waiting for it", "helmd is available again"]


def test_the_reader_may_close_during_an_outage(helmd: StandIn) -> None:
    follower = Follower(helmd, Wanted()).start()
    follower.until(lambda: bool(helmd.resumed_at))
    helmd.stop()
    follower.end()


def test_skipped_lines_are_reported_and_not_requested_again(helmd: StandIn) -> None:
    helmd.skipped = [{"from_id": 1, "to_id": 5000, "count": 4321}]
    helmd.add(*(row(n) for n in range(1, 4)))
    follower = Follower(helmd, Wanted(), 0).start()
    follower.until(lambda: bool(follower.said))
    helmd.stop()
    helmd.start()
    follower.until(lambda: len(helmd.resumed_at) == 2)
    follower.end()
    assert follower.said == ["4,321 lines skipped, since they arrived too fast; helmctl logs without -f shows them"]
    assert helmd.resumed_at[1] == 5000


def test_an_export_is_closed_while_nobody_reads_it(helmd: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of 20,000 lines are not sent yet when the reader pauses; each is received once anyway."""
    monkeypatch.setattr(log_store, "_IDLE_SECONDS", 0.1)
    helmd.add(*(row(n, "x" * 500) for n in range(1, 20_001)))
    lines = StoreLines(helmd.socket, Wanted(), None, no_word).open(None, False, False)
    seen = [next(lines).id for _ in range(10)]
    until(lambda: not helmd.exporting, pause=0.01)
    assert seen + ids(lines) == list(range(1, 20_001))
    assert len([asked for asked in helmd.asked if "/export" in asked]) >= 2


def test_events() -> None:
    stream = [b"retry: 2000", b"", b": heartbeat", b"", b"id: 7", b"event: log", b"data: {", b"data:}", b"", b"data: x"]
    assert [(event.kind, event.data, event.id) for event in events_of(stream)] == [("log", "{\n}", 7)]
    assert [(event.data, event.id) for event in events_of([b"id: 7", b"", b"id: x", b"", b"data: x"])] == [("", 7)]


def test_a_header_cannot_be_smuggled_in(helmd: StandIn) -> None:
    with pytest.raises(UsageError):
        lines_of(helmd, Wanted(services=frozenset({"core\r\nX: y"})), 1)
    assert helmd.asked == ["/api/logs?service=core%0D%0AX%3A+y&limit=1&total=false"]


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("health", "health"),
        (r"GET /api/\w+ 50[0-9]", "GET /api/"),
        (r"(time-?out|refused)", None),
        (r"(?:connection )+lost", "connection "),
        (r"colou?r", "colo"),
        (r"a{0,2}bc", "bc"),
        (r"(?x) a b # c", "ab"),
        (r"größe", "gr"),
        (r"\.\*", ".*"),
        (r"[", None),
        (r"", None),
    ],
)
def test_required_text(pattern: str, text: str | None) -> None:
    assert required_text(pattern) == text


@given(st.text("abAB .*+?|()[]^$\\d-{}12", max_size=12), st.text("abABd 12.-", max_size=30))
def test_required_text_is_in_every_match(pattern: str, message: str) -> None:
    try:
        with warnings.catch_warnings(action="ignore"):
            found = re.search(pattern, message, re.IGNORECASE)
    except re.error:
        return
    text = required_text(pattern)
    assert found is None or text is None or text.lower() in message.lower()


RED = "\x1b[31mred\x1b[0m\nbelow"
HOSTILE = OutputLine(row(5, RED, level="ERROR", trace_id="\x1b]0;t\x07", context={"k\x1b": "v\x9b"})[1], 5)


def test_no_escape_of_a_stored_line_reaches_a_terminal() -> None:
    for name in ("short", "cat", "json", "verbose"):
        shown = format_named(name, colour=False, terminal=True)(HOSTILE)
        assert not any(c in shown.decode() for c in "\x1b\x07\x9b"), name
    assert format_named("cat", colour=False, terminal=False)(HOSTILE) == RED.encode() + b"\n"


def test_posted_lines_look_like_printed_ones() -> None:
    posted, printed = (OutputLine(row(1, source=source)[1], 1) for source in ("http", "journal"))
    for name in ("short", "cat"):
        write = format_named(name, colour=True, terminal=True)
        assert write(posted) == write(printed)
    assert b"core systemd[77]: line 1" in format_named("short", False, True)(OutputLine(row(1, source="systemd")[1], 1))


def test_verbose_has_every_column_and_the_context() -> None:
    line = OutputLine(row(7, "text", trace_id="t-1", context={"status": 500, "path": "/x"})[1], 7)
    shown = format_named("verbose", colour=False, terminal=False)(line).decode()
    assert "[7]\n" in shown
    for part in ("message=text", "trace_id=t-1", "context.status=500", "context.path=/x", "process_id=77"):
        assert f"    {part}\n" in shown
    assert "user_id" not in shown
