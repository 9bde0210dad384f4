"""Which line of a TOML file sets which key, so that a fault can name it.

`tomllib` gives values without positions. This scanner only needs to be right for files that `tomllib` accepts; for
what it doesn't recognise (a key inside an inline table, say) the nearest enclosing key's line is used.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_KEY = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")
_TABLE = re.compile(rf"\s*\[\[?\s*({_PART}(?:\s*\.\s*{_PART})*)\s*\]")
_SPLIT = re.compile(_PART)
_TOKEN = re.compile(r'"""|\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#|[][{}]')
_CLOSE = {'"""': re.compile(r'\\.|("{3,5})'), "'''": re.compile(r"('{3,5})")}
"""What may end a multi-line string, as the first group; it may have two quotes of its own before that."""
_DEEPEST = 8
"""Depth to which lines of enclosing keys are recorded; the schema has five levels."""

Lines = Mapping[tuple[str, ...], int]


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(_plain(part) for part in _SPLIT.findall(dotted))


def _plain(part: str) -> str:
    if "\\" in part and part[0] == '"':
        return next(iter(tomllib.loads(f"{part} = 0")))
    return part[1:-1] if part[0] in "\"'" else part


def _after(line: str, start: int, inside: str, depth: int) -> tuple[str, int]:
    """Return what LINE, read from START, leaves open: the delimiter of a multi-line string or "", and how many
    brackets.
    """
    position = start
    while True:
        if inside:
            closed = next((end for end in _CLOSE[inside].finditer(line, position) if end.group(1)), None)
            if closed is None:
                return inside, depth
            position, inside = closed.end(), ""
        found = _TOKEN.search(line, position)
        if not found or found.group() == "#":
            return "", depth
        position = found.end()
        token = found.group()
        if token in _CLOSE:
            inside = token
        elif token in "[{":
            depth += 1
        elif token in "]}":
            depth -= 1


def key_lines(source: str) -> Lines:
    """Return line numbers, from 1, by key path; tables have the line of their header, or else of their first key."""
    lines: dict[tuple[str, ...], int] = {}
    implied: dict[tuple[str, ...], int] = {}

    def note(path: tuple[str, ...], number: int) -> None:
        lines.setdefault(path, number)
        for length in range(1, min(len(path), _DEEPEST)):
            implied.setdefault(path[:length], number)

    table: tuple[str, ...] = ()
    inside, depth = "", 0
    for number, line in enumerate(source.split("\n"), 1):
        start = 0
        if not inside and not depth:
            if found := _TABLE.match(line):
                table = _parts(found.group(1))
                note(table, number)
                continue
            if found := _KEY.match(line):
                note((*table, *_parts(found.group(1))), number)
                start = found.end()
        inside, depth = _after(line, start, inside, depth)
    return implied | lines


def line_of(lines: Lines, key: Sequence[str]) -> int:
    """Return the line of KEY or of the nearest key that encloses it; 0 when there is none."""
    for length in range(len(key), 0, -1):
        if (line := lines.get(tuple(key[:length]))) is not None:
            return line
    return 0
