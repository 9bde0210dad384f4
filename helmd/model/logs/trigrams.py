"""Whether a text search can use a trigram index: every match must contain three consecutive letters or digits.

pg_trgm extracts trigrams from words only. For a pattern without trigrams it scans the whole index, then every row.
"""

import re
import warnings
from collections.abc import Iterable
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

from helmd.model.logs.filter import RUN, LogFilter, longest_run, words_of


def indexable(wanted: LogFilter) -> bool:
    """Return whether a trigram index can reduce the rows to check for WANTED's text."""
    text = wanted.text or ""
    if wanted.mode == "regex":
        return regex_has_run(text)
    parts = words_of(text) if wanted.mode == "words" else (text,)
    return any(longest_run(part) >= RUN for part in parts)


def regex_has_run(pattern: str) -> bool:
    """Return whether every match of the regular expression must contain three consecutive letters or digits.

    PATTERN is parsed with Python's syntax, which is close enough to PostgreSQL's here; False if that fails.
    """
    try:
        with warnings.catch_warnings():
            # Warnings about future changes of Python's syntax do not matter: PostgreSQL evaluates the pattern.
            warnings.simplefilter("ignore", FutureWarning)
            return _run_in(_parser.parse(pattern, re.IGNORECASE))
    except (re.error, OverflowError, RecursionError):
        return False


def _run_in(parts: Iterable[tuple[Any, Any]]) -> bool:
    run = 0
    for operation, argument in parts:
        if operation is _constants.LITERAL and chr(argument).isalnum():
            run += 1
            if run >= RUN:
                return True
            continue
        run = 0
        if operation is _constants.SUBPATTERN and _run_in(argument[3]):
            return True
        if operation is _constants.MAX_REPEAT and argument[0] >= 1 and _run_in(argument[2]):
            return True
        if operation is _constants.BRANCH and all(_run_in(branch) for branch in argument[1]):
            return True
    return False
