"""The suite's lines from the log store, which helmd is asked for: chosen, in either direction, and followed."""

import json
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from helmd.cli.client import (
    Event,
    HelmdAwayError,
    OutputClosedError,
    StreamedResponse,
    Wait,
    document,
    events_of,
    lines_of,
    request,
)
from helmd.cli.logs.format import OutputLine
from helmd.cli.logs.required import required_text
from helmd.journal.query import Wanted
from helmd.model.logs.entry import LogRow, datetime_of
from helmd.model.logs.matching import SEARCH_LIMIT

"""Says a sentence to the admin, beside the lines."""

_ANSWER_SECONDS = 1.0
"""In which helmd answers what it finds by an index."""
_SEARCH_SECONDS = 10.0
"""In which it answers, with what it found until then, when it has to search and is busy."""
_QUICK = frozenset({"service", "start_time", "end_time", "source"})
"""What it finds without a search."""
_STREAM_SECONDS = 3.0
"""In which it begins to tell a follower what is new."""
_SILENCE_SECONDS = 40.0
"""Without a heartbeat, which comes every 15 s, a follower takes helmd for gone."""
_NOTIFY_AFTER = 2.0
_PAUSES = (0.2, 0.4, 0.8, 1.6, 3.2)
"""Before asking again in the middle, together longer than helmd takes to restart."""
_IDLE_SECONDS = 8.0
_PAGE = 1000
"""Entries that helmd gives at once."""
_CLOCK_SLACK = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)

_Place = tuple[datetime, int]


class Boot(NamedTuple):
    """The running boot: its id, when it began, and a moment before all of its lines, whatever the clock did."""

    id: str
    began: datetime
    lines_after: datetime


class _Page(NamedTuple):
    lines: list[OutputLine]
    cursor: str | None


class StoreLines:
    """One question to the store. ``open`` asks it; from then on only an end in the middle is an error."""

    def __init__(self, socket: Path, wanted: Wanted, boot: Boot | None, notify: Callable[[str], None]) -> None:
        self._socket = socket
        self._wanted = wanted
        self._boot = boot
        self._notify = notify
        self._filter = query_parameters(wanted, boot)
        self._local = wanted.pattern is not None or boot is not None
        self._followed_from = 0
        self._shown: set[int] = set()

    def open(self, count: int | None, newest_first: bool, following: bool) -> Iterator[OutputLine]:
        """The last COUNT lines, or all; the first of them asked for already. Raises HelmdAwayError and UsageError."""
        if following:
            # Before the lines that are there already, so that what comes in between is among those that follow.
            self._followed_from = self._newest()
            return self._noted(self._backlog(count, newest_first))
        return self._backlog(count, newest_first)

    def has(self, service: str) -> bool:
        """Whether the store has a line of SERVICE. Raises as `open`."""
        return bool(self._page({"service": service}, 1, None).lines)

    def newest(self, services: frozenset[str] | None) -> datetime | None:
        """When the newest line was that did not come by HTTP. Raises as `open`."""
        given = {"source": "journal,systemd,helm"} | ({"service": ",".join(sorted(services))} if services else {})
        found = self._page(given, 1, None).lines
        return found[0].row.timestamp if found else None

    def follow(self, caught_up: Callable[[], None], output: int) -> Iterator[OutputLine]:
        """Lines that came into the store after `open`, each once, whatever becomes of helmd meanwhile.

        CAUGHT_UP is called before each wait. Ends when nobody reads from the descriptor OUTPUT any more.
        """
        last, absence = self._followed_from, _Absence(self._notify)
        while True:
            wait = Wait(_STREAM_SECONDS, caught_up, output)
            try:
                response = request(self._socket, "/api/logs/stream", self._filter, wait, last)
                absence.over()
                wait.seconds = _SILENCE_SECONDS
                for event in events_of(lines_of(response)):
                    absence.pause = _Absence.FIRST_PAUSE
                    line = self._line_of(event)
                    if line is not None and line.id not in self._shown:
                        yield line
                    if event.kind == "log" and event.id is not None:
                        # Also when that is a lower one: a store may have been put back to an earlier state.
                        last = event.id
                    else:
                        last = max(last, event.id or 0, self._skipped(event))
            except HelmdAwayError:
                pass
            except OutputClosedError:
                return
            if _closed_within(output, absence.next_pause()):
                return

    def _backlog(self, count: int | None, newest_first: bool) -> Iterator[OutputLine]:
        if count is None or self._filter.keys() - _QUICK:
            # A search may be a while in coming; whether helmd and its database are there shows at once.
            self._newest()
        if count is None:
            return self._exported(self._export(self._filter, newest_first), newest_first)
        lines = self._last(count)
        if newest_first:
            return lines
        last = deque(lines)
        return (last.pop() for _ in range(len(last)))

    def _last(self, count: int) -> Iterator[OutputLine]:
        """The newest COUNT lines, newest first. The first page is asked for at once."""
        if count == 0:
            return iter(())
        size = min(_PAGE, max(2 * count, 50) if self._local else count)
        return islice(self._pages(self._page(self._filter, size, None), size, count), count)

    def _pages(self, page: _Page, size: int, count: int) -> Iterator[OutputLine]:
        seen = 0
        while True:
            for line in page.lines:
                if self._suits(line.row):
                    seen += 1
                    yield line
            if page.cursor is None or seen >= count:
                return
            size = min(_PAGE, 4 * size if self._local else count - seen)
            page = self._page_after(page.cursor, size)

    def _page_after(self, cursor: str, size: int) -> _Page:
        for pause in _PAUSES:
            try:
                return self._page(self._filter, size, cursor)
            except HelmdAwayError:
                time.sleep(pause)
        try:
            return self._page(self._filter, size, cursor)
        except HelmdAwayError as error:
            raise _ended_early(error) from error

    def _page(self, asked: dict[str, str], size: int, cursor: str | None) -> _Page:
        given = asked | {"limit": str(size), "total": "false"} | ({"cursor": cursor} if cursor else {})
        seconds = _SEARCH_SECONDS if cursor or asked.keys() - _QUICK else _ANSWER_SECONDS
        answer = document(request(self._socket, "/api/logs", given, Wait(seconds)))
        try:
            return _Page([_line(entry) for entry in answer["logs"]], answer.get("next_cursor"))
        except (KeyError, TypeError, AttributeError) as error:
            raise _nonsense() from error

    def _export(self, given: dict[str, str], newest_first: bool) -> StreamedResponse:
        order = {"format": "ndjson", "order": "desc" if newest_first else "asc"}
        # Without an end: a search through everything may be long in finding its first line.
        return request(self._socket, "/api/logs/export", given | order, Wait(None))

    def _exported(self, answer: StreamedResponse | None, newest_first: bool) -> Iterator[OutputLine]:
        """The lines of an export. When helmd goes away in the middle it is asked for those behind the last one."""
        given, failures = dict(self._filter), 0
        last: _Place | None = None
        while True:
            resumed = last
            try:
                with _Held(answer or self._export(given, newest_first)) as held:
                    for text in lines_of(held.answer):
                        line = _line(_parsed(text))
                        place = (line.row.timestamp, line.id or 0)
                        if resumed is not None and (place >= resumed if newest_first else place <= resumed):
                            continue
                        failures, last = 0, place
                        if self._suits(line.row):
                            held.idle_since = time.monotonic()
                            yield line
                            held.idle_since = None
                return
            except HelmdAwayError as error:
                if failures == len(_PAUSES):
                    raise _ended_early(error) from error
                time.sleep(_PAUSES[failures])
                failures += 1
                answer = None
                if last is not None and newest_first:
                    given["end_time"] = (last[0] + _MICROSECOND).isoformat()
                elif last is not None:
                    given["start_time"] = last[0].isoformat()

    def _newest(self) -> int:
        """The id of the newest line there is, 0 for none. No line that is stored from now on has a lower one."""
        # Without what a sender's clock, which is ahead, has dated later than now: that may have been stored long ago.
        end = datetime.now(UTC) + _CLOCK_SLACK
        lines = self._page({"end_time": end.isoformat()}, 1, None).lines
        return lines[0].id or 0 if lines else 0

    def _noted(self, lines: Iterator[OutputLine]) -> Iterator[OutputLine]:
        for line in lines:
            if line.id is not None and line.id > self._followed_from:
                self._shown.add(line.id)
            yield line

    def _suits(self, row: LogRow) -> bool:
        """Whether ROW, which helmd chose, meets what helmd was not asked for."""
        pattern, boot = self._wanted.pattern, self._boot
        if boot is not None and (row.timestamp < boot.began if row.boot_id is None else row.boot_id != boot.id):
            return False
        return pattern is None or pattern.search(row.message[:SEARCH_LIMIT]) is not None

    def _line_of(self, event: Event) -> OutputLine | None:
        if event.kind != "log":
            return None
        line = _line(_parsed(event.data))
        return line if self._suits(line.row) else None

    def _skipped(self, event: Event) -> int:
        """Tells of lines that were left out; the id up to which they were."""
        if event.kind != "skipped":
            return 0
        skipped = _parsed(event.data)
        try:
            count, last = int(skipped["count"]), int(skipped["to_id"])
        except (KeyError, TypeError, ValueError) as error:
            raise _nonsense() from error
        number = f"up to {count:,} lines" if skipped.get("at_most") else f"{count:,} lines"
        self._notify(f"{number} came too fast to be shown here; helmctl logs without -f has them")
        return last


def query_parameters(wanted: Wanted, boot: Boot | None) -> dict[str, str]:
    """WANTED as parameters of the API, as far as it has them: its answer may hold more lines than are wanted."""
    given: dict[str, str] = {}
    for name, chosen in (("service", wanted.services), ("level", wanted.levels), ("stream", wanted.streams)):
        if chosen is not None:
            given[name] = ",".join(sorted(chosen))
    if wanted.trace is not None:
        given["trace_id"] = wanted.trace
    since = [] if wanted.since is None else [datetime_of(wanted.since)]
    if boot is not None:
        since.append(boot.lines_after)
    if since:
        given["start_time"] = max(since).isoformat()
    if wanted.until is not None:
        # The API's end is the first moment that is not asked for.
        given["end_time"] = datetime_of(wanted.until + 1).isoformat()
    # The expression itself is Python's; PostgreSQL's differ, and know no difference of case here.
    if wanted.pattern is not None and (text := required_text(wanted.pattern.pattern)):
        given["q"] = text
    return given


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise _nonsense() from error


def _line(entry: Any) -> OutputLine:
    """The line of an entry as the API writes it. Raises HelmdAwayError for what is none."""
    try:
        row = LogRow(
            datetime.fromisoformat(entry["timestamp"]),
            entry["service_name"],
            entry["level"],
            entry["message"],
            entry["context"],
            entry["trace_id"],
            entry["user_id"],
            entry["hostname"],
            entry["process_id"],
            entry["source"],
            entry["unit"],
            entry["stream"],
            entry["boot_id"],
        )
        return OutputLine(row, int(entry["id"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _nonsense() from error


class _Held:
    """An export that is given up while nobody takes its lines, as when a pager rests: it holds a transaction in the
    database, and one of few turns. It is asked for again behind the last line then.
    """

    def __init__(self, answer: StreamedResponse) -> None:
        self.answer = answer
        self.idle_since: float | None = None
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_Held":
        self._watch.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(_IDLE_SECONDS / 4):
            since = self.idle_since
            if since is not None and time.monotonic() - since > _IDLE_SECONDS:
                self.answer.give_up()
                return


class _Absence:
    """How long helmd is away from a follower, and how long to wait before it is asked again."""

    FIRST_PAUSE, LAST_PAUSE = 0.1, 1.0

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._since: float | None = None
        self._notified = False
        self.pause = self.FIRST_PAUSE

    def over(self) -> None:
        if self._notified:
            self._notify("helmd is back")
        self._since, self._notified = None, False

    def next_pause(self) -> float:
        """Seconds to wait. Says so once when it takes long."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if not self._notified and now - self._since > _NOTIFY_AFTER:
            self._notify("helmd can't be reached; waiting for it")
            self._notified = True
        pause, self.pause = self.pause, min(2 * self.pause, self.LAST_PAUSE)
        return pause


def _ended_early(error: HelmdAwayError) -> HelmdAwayError:
    return HelmdAwayError(f"{error.sentence} any more; these are not all the lines", hint=error.hint)


def _nonsense() -> HelmdAwayError:
    return HelmdAwayError("helmd answers with what is no log entry", hint="Restart it: systemctl --user restart helmd")


def _closed_within(output: int, seconds: float) -> bool:
    """Waits; whether the reader of OUTPUT has gone away."""
    poller = select.poll()
    poller.register(output, 0)
    return bool(poller.poll(seconds * 1000))
