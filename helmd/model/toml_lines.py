"""Which line of a TOML file sets which key, so that a fault can name it.

`tomllib` gives values without positions. This scanner only has to be right about files that `tomllib` accepts; for
what it doesn't recognise (a key inside an inline table, say) the nearest enclosing key's line is used.
"""

import re
from collections.abc import Mapping, Sequence

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_KEY = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")
_TABLE = re.compile(rf"\s*\[\[?\s*({_PART}(?:\s*\.\s*{_PART})*)\s*\]")
_SPLIT = re.compile(_PART)
_DELIMITER = re.compile(r'"""|\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#')

Lines = Mapping[tuple[str, ...], int]


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _SPLIT.findall(dotted))


def _open_string(line: str, start: int) -> str | None:
    """The delimiter of a multi-line string that LINE opens after START and does not close."""
    position = start
    while found := _DELIMITER.search(line, position):
        token = found.group()
        if token == "#":
            return None
        position = found.end()
        if token in ('"""', "'''"):
            end = line.find(token, position)
            if end < 0:
                return token
            position = end + 3
    return None


def key_lines(source: str) -> Lines:
    """Line numbers, from 1, by key path; tables have the line of their header."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    inside: str | None = None
    for number, line in enumerate(source.split("\n"), 1):
        start = 0
        if inside:
            end = line.find(inside)
            if end < 0:
                continue
            start, inside = end + 3, None
        elif found := _TABLE.match(line):
            table = _parts(found.group(1))
            lines.setdefault(table, number)
        elif found := _KEY.match(line):
            lines.setdefault((*table, *_parts(found.group(1))), number)
        inside = _open_string(line, start)
    return lines


def line_of(lines: Lines, key: Sequence[str]) -> int:
    """The line of KEY or of the nearest key that encloses it; 0 when there is none."""
    for length in range(len(key), 0, -1):
        if (line := lines.get(tuple(key[:length]))) is not None:
            return line
    return 0
