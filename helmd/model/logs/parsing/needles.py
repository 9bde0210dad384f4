"""Substrings of everything that a regular expression matches: a text without it need not be matched."""

import re
from collections.abc import Iterable
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any


def needle_of(pattern: re.Pattern[str]) -> str:
    """Return the longest literal that every match of PATTERN contains, or ""."""
    if pattern.flags & re.IGNORECASE:
        return ""
    return max(_runs(_parser.parse(pattern.pattern, pattern.flags)), key=len)


def _runs(parts: Iterable[tuple[Any, Any]]) -> list[str]:
    """Return the literals in PARTS of an expression, "" for anything else between them."""
    runs = [""]
    for operation, argument in parts:
        if operation is _constants.LITERAL:
            runs[-1] += chr(argument)
        elif operation is _constants.SUBPATTERN and not argument[1] & re.IGNORECASE:
            first, *others = _runs(argument[3])
            runs[-1] += first
            runs += others
        elif operation is _constants.MAX_REPEAT and argument[0] >= 1:
            runs += [*_runs(argument[2]), ""]
        else:
            runs.append("")
    return runs
