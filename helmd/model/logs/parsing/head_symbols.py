"""Lines that begin with a symbol: a level follows it, or the symbol itself stands for one."""

import re

from helmd.model.logs.parsing.parsed import Formats, Parsed, level_of
from helmd.model.logs.parsing.structured import json_object, parse_object

_SYMBOL = re.compile(
    r"[^\x00-\x7f\w\s][^\x00-\x7f\w\s]? {1,3}"
    r"(?:\w{2,10}: │ )?(?:(?P<level>[A-Za-z]{3,11})(?:: | {2,12})|\[(?P<second>[A-Z]{4,8})\] )(?=\S)"
)
_SIGNS = {
    **dict.fromkeys("\u2a2f\u274c\u2716\u2717\u2718\u00d7\u26d4\U0001f6a8\U0001f4a5", "ERROR"),
    **dict.fromkeys("\u26a0\u203c", "WARNING"),
    "\U0001f4a3": "CRITICAL",
}
"""Symbols that stand for a level at the beginning of a line."""


def parse_symbol(formats: Formats, text: str) -> Parsed | None:
    """Parse TEXT, which begins with a symbol. The level follows it, before a colon or spaces, or is the symbol's.

    Returns None if there is neither.
    """
    found = _SYMBOL.match(text)
    known = None if found is None else level_of(formats.levels, found["level"] or found["second"])
    if found is not None and known is not None:
        return Parsed(known[0], text[found.end() :])
    level = _SIGNS.get(text[0]) if text[1:2] in (" ", "\ufe0f") and text[2:].strip() else None
    if text[0] == "\u00d7" and not text[2:3].isalpha():
        return None  # a product
    return None if level is None else Parsed(level, text)


def parse_indented_symbol(formats: Formats, text: str) -> Parsed | None:
    """Parse TEXT as `parse_symbol` does, for a symbol that stands for a level, after one to three spaces."""
    spaces = 1 if text[1:2] != " " else 2 if text[2:3] != " " else 3
    return parse_symbol(formats, text[spaces:]) if text[spaces : spaces + 1] in _SIGNS else None


def parse_cee(formats: Formats, text: str, realtime: int) -> Parsed | None:
    """Parse a JSON object after "@cee:", the prefix by which programs mark one in syslog. Return None for others."""
    found = json_object(text[5:].lstrip()) if text.startswith("@cee:") else None
    return None if found is None else parse_object(formats, found, text, realtime, False)
