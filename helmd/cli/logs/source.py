"""Where ``helmctl logs`` has its lines from: the log store, through helmd, or the journal when that is away."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from helmd.cli.logs.format import OutputLine
from helmd.journal.query import Found, JournalQuery, JournalUnreadableError, Wanted
from helmd.model.layout import Layout
from helmd.model.logs.entry import datetime_of

if TYPE_CHECKING:
    from helmd.cli.logs.store import Boot, StoreLines

_SERVICE = re.compile(r"[a-z0-9_-]{1,50}\Z")
"""Under such a name lines can be posted (SPEC), and asked for."""
_LATE = timedelta(seconds=5)
"""What the store may lack of the newest lines without a word; it is a tenth of a second on a machine that is well."""
_LOOKED_BACK = timedelta(hours=1)
_BOOT_SLACK = timedelta(hours=1)
"""By how much a line may be dated, by itself, before the journal had it."""


class LineSource(Protocol):
    """The lines of one question."""

    def follow(self, caught_up: Callable[[], None], output: int) -> Iterator[OutputLine]:
        """Lines that come after those of the backlog, until nobody reads from OUTPUT any more."""


class JournalLines:
    """A question to the journal."""

    def __init__(self, query: JournalQuery) -> None:
        self._query = query

    def open(self, count: int | None, newest_first: bool) -> Iterator[OutputLine]:
        """The last COUNT lines, or all."""
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
    """Where the lines come from, and those that there are already. TELL says what the admin should know of it.

    Raises JournalUnreadableError, and HelmdAwayError when helmd goes away for good in the middle.
    """
    store = None if from_journal else _from_store(places, wanted, count, newest_first, following, notify)
    if store is not None:
        yield store
        return
    with JournalQuery(places.uid, wanted) as query:
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
        if wanted.until is None and (late := _lateness(places, wanted, store)):
            notify(f"the log store is {late} behind the journal; --journal shows what is newer")
    except HelmdAwayError as error:
        notify(f"{error.sentence}; this is from the journal")
        return None
    return store, lines


def store_has(places: Layout, service: str) -> bool:
    """Whether the log store is known to have a line of SERVICE."""
    from helmd.cli.client import HelmdAwayError
    from helmd.cli.logs.store import StoreLines

    if not _SERVICE.match(service):
        return False
    try:
        return StoreLines(places.socket, Wanted(), None, lambda _: None).has(service)
    except HelmdAwayError:
        return False


def _lateness(places: Layout, wanted: Wanted, store: "StoreLines") -> str:
    """By how much the store lacks the newest lines of the journal, in words; empty when it has them."""
    now = datetime.now(UTC)
    recent = Wanted(services=wanted.services, since=_microseconds(now - _LOOKED_BACK), until=_microseconds(now - _LATE))
    try:
        with JournalQuery(places.uid, recent) as query:
            newest = next(query.backward(), None)
    except JournalUnreadableError:
        return ""
    if newest is None:
        return ""
    there = store.newest(wanted.services)
    written = datetime_of(newest.entry.realtime)
    if there is not None and written - there <= _LATE:
        return ""
    from helmd.cli.output import format_duration

    return format_duration((written - there).total_seconds()) if there is not None else "far"


def _boot(places: Layout, boot_id: str) -> "Boot":
    """The running boot, whose lines may be dated before it: the clock may have been wrong at first."""
    from helmd.cli.logs.store import Boot

    began = _booted()
    try:
        with JournalQuery(places.uid, Wanted(boot=boot_id)) as query:
            first = next(query.forward(), None)
    except JournalUnreadableError:
        first = None
    dated = began if first is None else datetime_of(first.entry.realtime)
    return Boot(boot_id, began, min(began, dated) - _BOOT_SLACK)


def _booted() -> datetime:
    """When the kernel was booted, by today's clock (proc(5), btime)."""
    with Path("/proc/stat").open() as file:
        for line in file:
            if line.startswith("btime "):
                return datetime.fromtimestamp(int(line.split()[1]), UTC)
    return datetime.fromtimestamp(0, UTC)


def _microseconds(when: datetime) -> int:
    return int(when.timestamp() * 1_000_000)
