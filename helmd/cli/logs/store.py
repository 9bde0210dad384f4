"""Reading lines from the log store through helmd's API: filtered, in either order, and followed."""

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
from helmd.model.counted import counted
from helmd.model.logs.entry import SEARCH_LIMIT, LogRow, datetime_of

_ANSWER_SECONDS = 1.0
"""Timeout of requests that helmd answers by an index."""
_SEARCH_SECONDS = 10.0
"""Timeout of requests that need a search; helmd's own time limit is shorter, but it may be busy."""
_INDEXED = frozenset({"service", "start_time", "end_time", "source"})
"""Parameters that need no search."""
_STREAM_SECONDS = 3.0
"""Timeout for the start of an event stream."""
_SILENCE_SECONDS = 40.0
"""Timeout of an event stream without data; helmd sends a heartbeat every 15 s."""
_NOTIFY_AFTER = 2.0
_PAUSES = (0.2, 0.4, 0.8, 1.6, 3.2)
"""Pauses before retries while reading; in total longer than a restart of helmd."""
_IDLE_SECONDS = 8.0
_PAGE = 1000
"""Maximum number of entries in a response."""
_CLOCK_SLACK = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)

_Position = tuple[datetime, int]


class Boot(NamedTuple):
    """A boot: its id, start, a time before all of its lines even if the clock was wrong, and its end if it is over."""

    id: str
    began: datetime
    lines_after: datetime
    ended: datetime | None = None


class _Page(NamedTuple):
    lines: list[OutputLine]
    cursor: str | None


class StoreLines:
    """A query of the log store. After `open`, an error is raised only if helmd becomes unavailable while reading."""

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
        """Send the request and return the last COUNT lines, or all. Raises HelmdAwayError and UsageError."""
        if following:
            # Before the backlog is read, so that lines stored meanwhile are followed.
            self._followed_from = self._newest()
            return self._recorded(self._backlog(count, newest_first))
        return self._backlog(count, newest_first)

    def has(self, service: str) -> bool:
        """Return whether the store has a line of SERVICE. Raises as `open`."""
        return bool(self._page({"service": service}, 1, None).lines)

    def newest(self, services: frozenset[str] | None) -> datetime | None:
        """Return the time of the newest line that was not posted by HTTP, or None. Raises as `open`."""
        given = {"source": "journal,systemd,helm"} | ({"service": ",".join(sorted(services))} if services else {})
        found = self._page(given, 1, None).lines
        return found[0].row.timestamp if found else None

    def follow(self, caught_up: Callable[[], None], output: int) -> Iterator[OutputLine]:
        """Yield lines stored after `open`, each once, even if helmd restarts meanwhile.

        CAUGHT_UP is called before each wait. Ends when the reader of the descriptor OUTPUT closes it.
        """
        last, outage = self._followed_from, _Outage(self._notify)
        while True:
            wait = Wait(_STREAM_SECONDS, caught_up, output)
            try:
                response = request(self._socket, "/api/logs/stream", self._filter, wait, last)
                outage.over()
                wait.seconds = _SILENCE_SECONDS
                for event in events_of(lines_of(response)):
                    outage.pause = _Outage.FIRST_PAUSE
                    line = self._line_of(event)
                    if line is not None and line.id not in self._shown:
                        yield line
                    if event.kind == "log" and event.id is not None:
                        # Even if it is lower: the store may have been restored from a backup.
                        last = event.id
                    else:
                        last = max(last, event.id or 0, self._skipped(event))
            except HelmdAwayError:
                pass
            except OutputClosedError:
                return
            if _closed_within(output, outage.next_pause()):
                return

    def _backlog(self, count: int | None, newest_first: bool) -> Iterator[OutputLine]:
        if count is None or self._filter.keys() - _INDEXED:
            # A search may take long; this request fails at once if helmd or its database is unavailable.
            self._newest()
        if count is None:
            return self._exported(self._export(self._filter, newest_first), newest_first)
        lines = self._last(count)
        if newest_first:
            return lines
        last = deque(lines)
        return (last.pop() for _ in range(len(last)))

    def _last(self, count: int) -> Iterator[OutputLine]:
        """Return the newest COUNT lines, newest first. The first page is requested at once."""
        if count == 0:
            return iter(())
        size = min(_PAGE, max(2 * count, 50) if self._local else count)
        return islice(self._pages(self._page(self._filter, size, None), size, count), count)

    def _pages(self, page: _Page, size: int, count: int) -> Iterator[OutputLine]:
        seen = 0
        while True:
            for line in page.lines:
                if self._matches(line.row):
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
        seconds = _SEARCH_SECONDS if cursor or asked.keys() - _INDEXED else _ANSWER_SECONDS
        answer = document(request(self._socket, "/api/logs", given, Wait(seconds)))
        try:
            return _Page([_line(entry) for entry in answer["logs"]], answer.get("next_cursor"))
        except (KeyError, TypeError, AttributeError) as error:
            raise _invalid_response() from error

    def _export(self, given: dict[str, str], newest_first: bool) -> StreamedResponse:
        order = {"format": "ndjson", "order": "desc" if newest_first else "asc"}
        # No timeout: a search through the whole store may take long to find the first line.
        return request(self._socket, "/api/logs/export", given | order, Wait(None))

    def _exported(self, answer: StreamedResponse | None, newest_first: bool) -> Iterator[OutputLine]:
        """Yield the lines of an export; if helmd becomes unavailable, resume after the last line."""
        given, failures = dict(self._filter), 0
        last: _Position | None = None
        while True:
            resumed = last
            try:
                with _IdleWatch(answer or self._export(given, newest_first)) as watch:
                    for text in lines_of(watch.answer):
                        line = _line(_parsed(text))
                        position = (line.row.timestamp, line.id or 0)
                        if resumed is not None and (position >= resumed if newest_first else position <= resumed):
                            continue
                        failures, last = 0, position
                        if self._matches(line.row):
                            watch.idle_since = time.monotonic()
                            yield line
                            watch.idle_since = None
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
        """Return the id of the newest line, 0 if there is none. Lines stored later have higher ids."""
        # Without lines dated in the future by a sender's clock, which may have been stored long ago.
        end = datetime.now(UTC) + _CLOCK_SLACK
        lines = self._page({"end_time": end.isoformat()}, 1, None).lines
        return lines[0].id or 0 if lines else 0

    def _recorded(self, lines: Iterator[OutputLine]) -> Iterator[OutputLine]:
        for line in lines:
            if line.id is not None and line.id > self._followed_from:
                self._shown.add(line.id)
            yield line

    def _matches(self, row: LogRow) -> bool:
        """Return whether ROW meets the conditions that the API does not support."""
        pattern, boot = self._wanted.pattern, self._boot
        if boot is not None and row.boot_id is None:
            if row.timestamp < boot.began or (boot.ended is not None and row.timestamp > boot.ended):
                return False
        elif boot is not None and row.boot_id != boot.id:
            return False
        return pattern is None or pattern.search(row.message[:SEARCH_LIMIT]) is not None

    def _line_of(self, event: Event) -> OutputLine | None:
        if event.kind != "log":
            return None
        line = _line(_parsed(event.data))
        return line if self._matches(line.row) else None

    def _skipped(self, event: Event) -> int:
        """Report skipped lines; return the id of the last one."""
        if event.kind != "skipped":
            return 0
        skipped = _parsed(event.data)
        try:
            count, last = int(skipped["count"]), int(skipped["to_id"])
        except (KeyError, TypeError, ValueError) as error:
            raise _invalid_response() from error
        number = f"up to {counted(count, 'line')}" if skipped.get("at_most") else counted(count, "line")
        self._notify(f"{number} skipped, since they arrived too fast; helmctl logs without -f shows them")
        return last


def query_parameters(wanted: Wanted, boot: Boot | None) -> dict[str, str]:
    """Return the API's parameters for WANTED. The response may have more lines, since the API lacks some conditions."""
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
        # The API's end_time is exclusive.
        given["end_time"] = datetime_of(wanted.until + 1).isoformat()
    # PostgreSQL's syntax differs from Python's, and the API always ignores case.
    if wanted.pattern is not None and (text := required_text(wanted.pattern.pattern)):
        given["q"] = text
    if wanted.query:
        given["query"] = wanted.query
    return given


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise _invalid_response() from error


def _line(entry: Any) -> OutputLine:
    """Return the line for an entry in the API's JSON. Raises HelmdAwayError if it is invalid."""
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
        raise _invalid_response() from error


class _IdleWatch:
    """Closes an export whose lines are not consumed for some seconds, as in a pager; it is resumed on demand.

    An open export holds a database transaction, and the number of concurrent exports is limited.
    """

    def __init__(self, answer: StreamedResponse) -> None:
        self.answer = answer
        self.idle_since: float | None = None
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_IdleWatch":
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


class _Outage:
    """Tracks how long helmd is unavailable for a follower, and computes the pause before the next request."""

    FIRST_PAUSE, LAST_PAUSE = 0.1, 1.0

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._since: float | None = None
        self._notified = False
        self.pause = self.FIRST_PAUSE

    def over(self) -> None:
        if self._notified:
            self._notify("helmd is available again")
        self._since, self._notified = None, False

    def next_pause(self) -> float:
        """Return the seconds to wait. After some time, notify the user once."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if not self._notified and now - self._since > _NOTIFY_AFTER:
            self._notify("helmd is unavailable; waiting for it")
            self._notified = True
        pause, self.pause = self.pause, min(2 * self.pause, self.LAST_PAUSE)
        return pause


def _ended_early(error: HelmdAwayError) -> HelmdAwayError:
    return HelmdAwayError(f"{error.sentence}; the output is incomplete", hint=error.hint)


def _invalid_response() -> HelmdAwayError:
    return HelmdAwayError("helmd sent an invalid log entry", hint="Restart it: systemctl --user restart helmd")


def _closed_within(output: int, seconds: float) -> bool:
    """Wait; return whether the reader of OUTPUT has closed it."""
    poller = select.poll()
    poller.register(output, 0)
    return bool(poller.poll(seconds * 1000))
