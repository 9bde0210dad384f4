"""Figures and times as pages show them. Filters of the templates; no I/O."""

from datetime import datetime
from typing import Any

from helmd.model.counted import counted
from helmd.model.printable import without_unseen

NOTHING = "\N{EN DASH}"
_SIZES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, ""), (0, "s", 1, ""))


def shown_text(value: Any) -> Any:
    """Return what a template prints: text of others has what is not seen written out."""
    return without_unseen(value) if type(value) is str else value


def predicate(sentence: str, service: str) -> str:
    """Return what SENTENCE says of SERVICE, for beside its name: "exited with code 1", "not running"."""
    return sentence.removeprefix(f"{service} ").removeprefix("is ")


def duration_text(seconds: float | None) -> str:
    """Return SECONDS in the largest unit, from an hour up in the two largest: "45 s", "12 min", "3 d 4 h"."""
    if seconds is None:
        return NOTHING
    left = max(0, int(seconds))
    size, unit, next_size, next_unit = next(each for each in _UNITS if left >= each[0])
    amount, rest = (left // size, left % size // next_size) if size else (left, 0)
    return f"{amount} {unit}" + (f" {rest} {next_unit}" if rest and next_unit else "")


def size_text(size: float | None) -> str:
    """Return SIZE bytes: "812 MiB", "1.9 GiB"."""
    if size is None:
        return NOTHING
    for factor, unit in _SIZES:
        if size >= factor:
            amount = size / factor
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:,.0f} {unit}"
    return f"{size:,.0f} B"


def number_text(number: float | None, digits: int = 0) -> str:
    """Return NUMBER with separators of thousands, or a dash where there is none."""
    return NOTHING if number is None else f"{number:,.{digits}f}"


def count_text(number: int, word: str) -> str:
    """Return how many: "1 service", "2 services"."""
    return counted(number, word)


def date_text(when: datetime | None) -> str:
    """Return the value of an attribute ``datetime``, which format.js shows in local time."""
    return "" if when is None else when.isoformat(timespec="milliseconds")
