"""A window of log entries that can be extended in both directions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from helmd.model.logs.filter import PageCursor
from helmd.store.logs.counts import Total
from helmd.store.logs.entries import StoredEntry
from helmd.store.logs.search import Page, cursor_of


@dataclass(frozen=True, slots=True)
class LogWindow:
    """Consecutive entries, newest first, with the cursors for older and newer ones.

    ``oldest`` and ``newest`` say that there are none beyond. ``total`` is the number of all matching entries, if
    requested. ``searched_back_to`` and ``searched_up_to`` are set if the time limit was reached.
    """

    entries: Sequence[StoredEntry]
    total: Total | None
    older: PageCursor | None
    newer: PageCursor | None
    oldest: bool = False
    newest: bool = False
    searched_back_to: datetime | None = None
    searched_up_to: datetime | None = None


def older_window(page: Page, total: Total | None) -> LogWindow:
    """Return the window of a search for the newest."""
    first = cursor_of(page.entries[0]) if page.entries else None
    end = page.next is None
    return LogWindow(page.entries, total, page.next, first, oldest=end, searched_back_to=page.searched_to)


def newer_window(page: Page, total: Total | None) -> LogWindow:
    """Return the window of a search for the oldest."""
    entries = page.entries[::-1]
    last = cursor_of(entries[-1]) if entries else None
    newer = page.next or (cursor_of(entries[0]) if entries else None)
    return LogWindow(entries, total, last, newer, newest=page.next is None, searched_up_to=page.searched_to)


def surrounding_window(entry: StoredEntry, newer: Page, older: Page, limit: int, total: Total | None) -> LogWindow:
    """Return LIMIT entries around ENTRY, half of them from NEWER and half from OLDER, which were searched from it."""
    most, place = limit - 1, cursor_of(entry)
    taken = min(len(newer.entries), max(most // 2, most - len(older.entries)))
    above, below = _first(newer, taken, place), _first(older, most - taken, place)
    entries = (*above.entries[::-1], entry, *below.entries)
    return LogWindow(
        entries,
        total,
        below.next or cursor_of(entries[-1]),
        above.next or cursor_of(entries[0]),
        below.next is None,
        above.next is None,
        below.searched_to,
        above.searched_to,
    )


def _first(page: Page, number: int, place: PageCursor) -> Page:
    """Return PAGE, which was searched from PLACE on, truncated to NUMBER entries."""
    if len(page.entries) <= number:
        return page
    entries = page.entries[:number]
    return Page(entries, cursor_of(entries[-1]) if entries else place)
