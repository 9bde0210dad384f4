"""Reading one TOML text against declared settings: values with the place they came from, and every fault at once."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from helmd.model.config.setting import Setting
from helmd.model.config.toml_lines import Lines, key_lines, line_of
from helmd.model.errors import Fault

MAX_FILE = 1 << 20
"""Configuration files larger than this (bytes) are refused unread."""

GUESSES = 100
"""Number of faults for which a similar key is suggested; the search takes time."""

_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)")


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """A configuration file's text. ``catalogue`` is set for defaults that do not bring a service into the suite."""

    file: str
    text: str
    catalogue: bool = False


class Given(NamedTuple):
    """A value from a file, and its place."""

    value: Any
    file: str
    line: int


def parse_toml(source: ConfigSource, faults: list[Fault]) -> tuple[Mapping[str, Any], Lines]:
    """Return the tables of a TOML text; empty, with a fault added, if it is not valid."""
    if len(source.text.encode("utf-8", "replace")) > MAX_FILE:
        faults.append(Fault(source.file, 0, "", f"is larger than {MAX_FILE >> 20} MiB"))
        return {}, {}
    try:
        tables = tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as problem:
        found = _AT_LINE.search(str(problem))
        sentence = _AT_LINE.sub("", str(problem)).strip()
        sentence = sentence if len(sentence) <= 200 else sentence[:197] + "..."
        last = source.text.count("\n") + 1
        faults.append(Fault(source.file, int(found.group(1)) if found else last, "", f"is not valid TOML: {sentence}"))
        return {}, {}
    except ValueError:
        # Python's own limit on the digits of an integer; the error has no line.
        faults.append(Fault(source.file, 0, "", "is not valid TOML: a number has too many digits"))
        return {}, {}
    except RecursionError:
        faults.append(Fault(source.file, 0, "", "is nested too deeply"))
        return {}, {}
    return tables, key_lines(source.text)


def shown_key(key: object) -> str:
    """Return a key as it may be printed: short, and without control characters."""
    word = str(key)
    word = word if word.isascii() and word.isprintable() else ascii(word)
    return word if len(word) <= 60 else word[:57] + "..."


def _leaves(
    table: Mapping[str, Any], groups: frozenset[str], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in table.items():
        path = (*above, key)
        if isinstance(value, dict) and ".".join(path) in groups:
            yield from _leaves(value, groups, path)
        else:
            yield path, value


def _groups(keys: Iterable[str]) -> Iterator[str]:
    """Yield the tables above KEYS: ``a`` and ``a.b`` above ``a.b.c``."""
    for key in keys:
        while key := key.rpartition(".")[0]:
            yield key


class SettingsReader:
    """Reads tables that may have SETTINGS; make it once for many tables."""

    def __init__(self, settings: Sequence[Setting]) -> None:
        self._known = {setting.key: setting for setting in settings}
        self._groups = frozenset(_groups(self._known))

    def read(
        self, table: Mapping[str, Any], place: tuple[str, ...], file: str, lines: Lines, faults: list[Fault]
    ) -> Mapping[str, Given]:
        """Return the values of TABLE by dotted key. Unknown keys and unreadable values are added to FAULTS."""
        read: dict[str, Given] = {}
        for path, value in _leaves(table, self._groups):
            key = ".".join(path)
            line = line_of(lines, (*place, *path))
            setting = self._known.get(key)
            if setting is None or len(path) != key.count(".") + 1:
                meant = _meant(key, self._known) if len(faults) < GUESSES else ""
                sentence = "must be a table" if key in self._groups else "is not a known setting" + meant
                faults.append(Fault(file, line, shown_key(".".join((*place, *path))), sentence))
                continue
            try:
                read[key] = Given(setting.read(value), file, line)
            except ValueError as problem:
                faults.append(Fault(file, line, shown_key(".".join((*place, *path))), str(problem)))
        return read


def _meant(key: str, known: Mapping[str, Setting]) -> str:
    import difflib

    close = difflib.get_close_matches(key[:60], known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
