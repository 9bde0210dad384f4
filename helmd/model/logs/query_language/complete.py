"""Completion of the term being typed."""

from collections.abc import Iterable

from helmd.model.logs.level import LEVELS
from helmd.model.logs.query_language.fields import CONTEXT_FIELD, FIELD_COLUMNS, SOURCES, STREAMS

_OPERATORS = (">=", "<=", "!=", ":", "=", ">", "<")
_ORDERED = frozenset({"level", "time", "pid", "id"})


def completions(word: str, services: Iterable[str]) -> list[str]:
    """Whole terms that WORD, the last one of a query, may become; SERVICES are those that there are."""
    sign = "-" if word.startswith("-") else ""
    inner = word.removeprefix("-")
    for operator in _OPERATORS:
        field, found, value = inner.partition(operator)
        if found and field.isalpha():
            return [f"{sign}{field}{operator}{each}" for each in values(field, services) if each.startswith(value)]
    return [f"{sign}{term}" for term in _beginnings() if term.startswith(inner)]


def values(field: str, services: Iterable[str]) -> list[str]:
    """Return the values that a field may have, where these are known."""
    return {
        "service": sorted(services),
        "level": [level.lower() for level in LEVELS],
        "source": sorted(SOURCES),
        "stream": sorted(STREAMS),
        "has": ["trace", "user", "host", "unit", "boot", "pid", "stream", CONTEXT_FIELD],
    }.get(field, [])


def _beginnings() -> list[str]:
    fields = [f"{field}{'>=' if field in _ORDERED else ':'}" for field in FIELD_COLUMNS]
    return [*fields, "level:", "has:", f"{CONTEXT_FIELD}."]
