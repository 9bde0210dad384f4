"""Finding text that every match of a regular expression contains, so that the store can pre-filter lines."""

import re
from collections.abc import Iterable, Iterator
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

_LIMIT = 200


def required_text(pattern: str) -> str | None:
    """Return the longest text that every match of PATTERN (Python syntax) contains, or None if there is none.

    The text is to be compared case-insensitively. It is ASCII, for which PostgreSQL and Python agree on that.
    """
    try:
        runs = list(_runs(_parser.parse(pattern)))
    except (re.error, OverflowError, RecursionError):
        return None
    return max(runs, key=len, default="")[:_LIMIT] or None


def _runs(parts: Iterable[tuple[Any, Any]]) -> Iterator[str]:
    run = ""
    for operation, argument in parts:
        if operation is _constants.LITERAL and 0 < argument < 128:
            run += chr(argument)
            continue
        yield run
        run = ""
        if operation is _constants.SUBPATTERN:
            yield from _runs(argument[3])
        elif operation in (_constants.MAX_REPEAT, _constants.MIN_REPEAT) and argument[0] >= 1:
            yield from _runs(argument[2])
    yield run
