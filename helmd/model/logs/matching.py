"""Matching rows against a filter, for followers; searches evaluate the filter in SQL."""

import re
from collections.abc import Callable
from functools import lru_cache

from helmd.model.logs.entry import SEARCH_LIMIT, LogRow
from helmd.model.logs.filter import LogFilter, words_of
from helmd.model.logs.query_language.evaluate import meets


def matches(wanted: LogFilter, row: LogRow, number: int | None = None) -> bool:
    """Return whether ROW, of which NUMBER is the id, matches the filter WANTED.

    Raises ValueError for a filter that is `store_only` for the regular expression in ``text``.
    A duplicate matches only if the filter names its source.
    """
    return (
        (wanted.services is None or row.service_name in wanted.services)
        and (wanted.levels is None or row.level in wanted.levels)
        and (row.duplicate_of is None if wanted.sources is None else row.source in wanted.sources)
        and (wanted.streams is None or row.stream in wanted.streams)
        and (wanted.trace_id is None or row.trace_id == wanted.trace_id)
        and (wanted.user_id is None or row.user_id == wanted.user_id)
        and (wanted.start is None or row.timestamp >= wanted.start)
        and (wanted.end is None or row.timestamp < wanted.end)
        and (wanted.text is None or _searcher(wanted)(row.message[:SEARCH_LIMIT]))
        and (wanted.rest is None or meets(wanted.rest, row, number))
    )


@lru_cache(maxsize=512)
def _searcher(wanted: LogFilter) -> Callable[[str], bool]:
    text = wanted.text or ""
    if wanted.mode == "substring":
        folded = text.lower()
        return lambda message: folded in message.lower()
    if wanted.mode == "words":
        patterns = [re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE) for word in words_of(text)]
        return lambda message: all(pattern.search(message) for pattern in patterns)
    raise ValueError("regular expressions are matched by the store only, which can cancel them")
