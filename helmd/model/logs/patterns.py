"""Patterns of messages: what messages that differ only in numbers, ids and quoted parts have in common."""

import re

from helmd.model.logs.query_language.write import quoted

VARYING_PART = (
    r"\"[^\"]*\""
    r"|(?<![A-Za-z0-9])'[^']*'"
    r"|(?<![A-Za-z0-9])[A-Fa-f]*[0-9][A-Za-z0-9_.:@%+-]*"
    r"|[0-9][A-Za-z0-9_.:@%+-]*"
)
"""A part that varies, as a regular expression of Python and PostgreSQL: a quoted text, or what begins with a digit, or
with letters of hexadecimal numbers before one.
"""
PLACE = "\x01"
"""Stands for a part that varies; a message that has this character itself has one there, too."""
LENGTH = 300
"""Characters of a message's first line that make its pattern; with more, it ends with a part that varies."""

_VARIABLE = re.compile(VARYING_PART)
_PLACES = re.compile(f"{PLACE}+")


def pattern_of(message: str) -> str:
    """Return the pattern of a message, with PLACE for each part that varies."""
    line = message.partition("\n")[0][:LENGTH]
    rest = PLACE if len(message) > len(line) else ""
    return _PLACES.sub(PLACE, _VARIABLE.sub(PLACE, line) + rest)


def shown_pattern(pattern: str) -> str:
    """Return PATTERN for display, with an asterisk for each part that varies."""
    return pattern.replace(PLACE, "*")


def pattern_term(pattern: str) -> str:
    """Return the term of the query language that messages with PATTERN meet."""
    return "pattern:" + quoted(*pattern.split(PLACE))
