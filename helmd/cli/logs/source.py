"""Sources of ``helmctl logs``: the log store, through helmd, or the journal if that is unavailable."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from helmd.cli.logs.format import OutputLine
from helmd.journal.query import Found, JournalQuery, JournalUnreadableError, Wanted, boots, this_boot
from helmd.model.layout import Layout
from helmd.model.logs.entry import datetime_of

if TYPE_CHECKING:
    from helmd.cli.logs.store import Boot, StoreLines

_SERVICE = re.compile(r"[a-z0-9_-]{1,50}\Z")
"""Names under which lines can be posted."""
_LAG = timedelta(seconds=5)
"""Lag of the store behind the journal above which a notice is printed; it is normally about 0.1 s."""
_LAG_WINDOW = timedelta(hours=1)
_BOOT_SLACK = timedelta(hours=1)
"""Maximum age of a line, by its own timestamp, when the journal receives it."""


class LineSource(Protocol):
    """The source of the lines of one query."""

    def follow(self, caught_up: Callable[[], None], output: int) -> Iterator[OutputLine]:
        """Yield lines after those of the backlog until the reader of the descriptor OUTPUT closes it."""


class JournalLines:
    """A query of the journal."""

    def __init__(self, query: JournalQuery) -> None:
        self._query = query

    def open(self, count: int | None, newest_first: bool) -> Iterator[OutputLine]:
        """Yield the last COUNT lines, or all."""
        if count is None:
            yield from map(_line, self._query.backward() if newest_first else self._query.forward())
        elif newest_first:
            yield from map(_line, islice(self._query.backward(), count))
        else:
            yield from map(_line, self._query.last(count))

    def follow(self, caught_up: Callable[[], None], output: int) -> Iterator[OutputLine]:
        yield from map(_line, self._query.follow(caught_up, output))


def _line(found: Found) -> OutputLine:
    return OutputLine(found.row, entry=found.entry)


@contextmanager
def opened(
    places: Layout,
    wanted: Wanted,
    count: int | None,
    newest_first: bool,
    following: bool,
    from_journal: bool,
    notify: Callable[[str], None],
) -> Iterator[tuple[LineSource, Iterator[OutputLine]]]:
    """Open a source; return it and the lines of the backlog. NOTIFY prints notices for the admin.

    Raises JournalUnreadableError, and HelmdAwayError if helmd becomes unavailable while lines are read.
    """
    store = None if from_journal else _from_store(places, wanted, count, newest_first, following, notify)
    if store is not None:
        yield store
        return
    with JournalQuery(places.uid, wanted, keys_file=places.journal_keys) as query:
        source = JournalLines(query)
        yield source, source.open(count, newest_first)


def _from_store(
    places: Layout,
    wanted: Wanted,
    count: int | None,
    newest_first: bool,
    following: bool,
    notify: Callable[[str], None],
) -> "tuple[StoreLines, Iterator[OutputLine]] | None":
    from helmd.cli.client import HelmdAwayError
    from helmd.cli.logs.store import StoreLines

    store = StoreLines(places.socket, wanted, _boot(places, wanted.boot) if wanted.boot else None, notify)
    try:
        lines = store.open(count, newest_first, following)
        if wanted.until is None and (lag := _lag(places, wanted, store)):
            reason = _reason()
            notify(f"the log store is {lag} behind the journal{reason}; use --journal for newer lines")
    except HelmdAwayError as error:
        notify(f"{error.sentence}; reading the journal instead")
        return None
    return store, lines


def store_has(places: Layout, service: str) -> bool:
    """Return whether the log store has a line of SERVICE; False if it is unavailable."""
    from helmd.cli.client import HelmdAwayError
    from helmd.cli.logs.store import StoreLines

    if not _SERVICE.match(service):
        return False
    try:
        return StoreLines(places.socket, Wanted(), None, lambda _: None).has(service)
    except HelmdAwayError:
        return False


def _lag(places: Layout, wanted: Wanted, store: "StoreLines") -> str:
    """Return how far the store is behind the journal, such as ``2min 5s``; empty if it is not."""
    now = datetime.now(UTC)
    recent = Wanted(services=wanted.services, since=_microseconds(now - _LAG_WINDOW), until=_microseconds(now - _LAG))
    try:
        with JournalQuery(places.uid, recent) as query:
            newest = next(query.backward(), None)
    except JournalUnreadableError:
        return ""
    if newest is None:
        return ""
    stored = store.newest(wanted.services)
    written = datetime_of(newest.entry.realtime)
    if stored is not None and written - stored <= _LAG:
        return ""
    from helmd.cli.output import format_duration

    return format_duration((written - stored).total_seconds()) if stored is not None else "far"


def _reason() -> str:
    """Return why helmd-journal stores nothing, as it says itself, after a colon.

    Empty if it does, or can't be asked.
    """
    from helmd.model.errors import BusError
    from helmd.model.suite.names import JOURNAL_UNIT
    from helmd.model.units.unit_state import waiting_for
    from helmd.systemd.bus import Manager

    try:
        with Manager() as manager:
            reason = waiting_for(manager.facts(JOURNAL_UNIT))
    except BusError:
        return ""
    return f": {reason}" if reason else ""


def _boot(places: Layout, boot_id: str) -> "Boot":
    """Return a boot. Its lines may be dated before it, if the clock was wrong at first."""
    from helmd.cli.logs.store import Boot

    if boot_id != this_boot():
        found = next((each for each in boots(places.uid) if each.id == boot_id), None)
        if found is not None:
            first = datetime_of(found.first)
            return Boot(boot_id, first, first - _BOOT_SLACK, datetime_of(found.last))
    began = _boot_time()
    try:
        with JournalQuery(places.uid, Wanted(boot=boot_id)) as query:
            oldest = next(query.forward(), None)
    except JournalUnreadableError:
        oldest = None
    dated = began if oldest is None else datetime_of(oldest.entry.realtime)
    return Boot(boot_id, began, min(began, dated) - _BOOT_SLACK)


def _boot_time() -> datetime:
    """Return when the kernel was booted, by the current clock (btime in proc(5))."""
    with Path("/proc/stat").open() as file:
        for line in file:
            if line.startswith("btime "):
                return datetime.fromtimestamp(int(line.split()[1]), UTC)
    return datetime.fromtimestamp(0, UTC)


def _microseconds(when: datetime) -> int:
    return int(when.timestamp() * 1_000_000)
