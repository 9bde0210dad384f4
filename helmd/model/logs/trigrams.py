"""Whether a text search can use an index of trigrams: three letters or digits in a row that every match must hold.

pg_trgm draws trigrams out of words alone; a pattern without any has it read the whole index and then every row.
"""

import re
import warnings
from collections.abc import Iterable
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

from helmd.model.logs.filter import LogFilter, words_of

_RUN = 3


def indexable(wanted: LogFilter) -> bool:
    """Whether an index of trigrams narrows down what WANTED's text can be in."""
    text = wanted.text or ""
    if wanted.mode == "regex":
        return regex_has_run(text)
    parts = words_of(text) if wanted.mode == "words" else (text,)
    return any(_longest(part) >= _RUN for part in parts)


def _longest(text: str) -> int:
    longest = run = 0
    for character in text:
        run = run + 1 if character.isalnum() else 0
        longest = max(longest, run)
    return longest


def regex_has_run(pattern: str) -> bool:
    """Whether every match of a regular expression holds three letters or digits in a row that can be told from it.

    It is read as Python's, whose syntax is close enough to PostgreSQL's for this; one that Python can't read has none.
    """
    try:
        with warnings.catch_warnings():
            # Of what may mean something else in a later Python: it is PostgreSQL that reads the pattern.
            warnings.simplefilter("ignore", FutureWarning)
            return _run_in(_parser.parse(pattern, re.IGNORECASE))
    except (re.error, OverflowError, RecursionError):
        return False


def _run_in(parts: Iterable[tuple[Any, Any]]) -> bool:
    run = 0
    for operation, argument in parts:
        if operation is _constants.LITERAL and chr(argument).isalnum():
            run += 1
            if run >= _RUN:
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
