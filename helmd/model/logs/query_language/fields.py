"""The fields of the query language: their names, and what a term ``FIELD:VALUE`` means."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import cast

from helmd.model.logs.level import LEVELS, level_named
from helmd.model.logs.query_language.nodes import (
    Among,
    ComparisonSign,
    Contains,
    ContextIs,
    ContextWild,
    Has,
    HasContext,
    Node,
    Not,
    NumberColumn,
    NumberIs,
    Path,
    TextColumn,
    TimeIs,
    Wild,
    any_of,
)

FIELD_COLUMNS: Mapping[str, str] = {
    "service": "service_name",
    "level": "level",
    "source": "source",
    "stream": "stream",
    "trace": "trace_id",
    "user": "user_id",
    "host": "hostname",
    "unit": "unit",
    "boot": "boot_id",
    "pid": "process_id",
    "id": "id",
    "time": "timestamp",
    "message": "message",
    "pattern": "message",
}
"""The column that each field is about. Columns' own names are fields as well."""
FIELD_NAMES = (*FIELD_COLUMNS, "has")
"""Names of fields, besides ``context.KEY``."""
SOURCES = frozenset({"journal", "systemd", "helm", "http"})
STREAMS = frozenset({"stdout", "stderr"})
CONTEXT_FIELD = "context"
FACET_COLUMNS = frozenset(FIELD_COLUMNS.values()) - {"id", "timestamp", "message"}
"""Columns with few enough values to list them."""
NUMERIC = re.compile(r"[+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?\Z")
"""How a number is written."""

_NAMES = {**FIELD_COLUMNS} | {column: column for column in FIELD_COLUMNS.values()}
_CHOICES = {"source": SOURCES, "stream": STREAMS}
_SERVICE = re.compile(r"[a-z0-9_*-]{1,50}\Z")
_PRESENT = frozenset({"trace_id", "user_id", "hostname", "unit", "boot_id", "stream", "process_id", CONTEXT_FIELD})


class TermError(ValueError):
    """A term makes no sense; the message is for users, ``hint`` says what to do."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class TermValue:
    """What a term has after its operator. ``parts`` are the texts between its asterisks; one is a plain text."""

    parts: tuple[str, ...]
    quoted: bool = False

    @property
    def text(self) -> str:
        """As it was written."""
        return "*".join(self.parts)

    @property
    def wild(self) -> bool:
        """Whether an asterisk in it stands for any text; in quotes that is so for patterns only."""
        return len(self.parts) > 1 and not self.quoted


def known_field(name: str) -> bool:
    """Return whether there is a field of this name, which is in lower case."""
    return name in _NAMES or name == "has"


def term(name: str, operator: str, value: TermValue) -> Node:
    """Return the condition of a term about the field NAME. Raises TermError."""
    if operator == "!=":
        return Not(term(name, "=", value))
    comparison = cast(ComparisonSign, "=" if operator == ":" else operator)
    if not value.text and not value.quoted:
        raise TermError(f"{name}: a value is missing", 'For an empty text write "".')
    if name == "has":
        return _has(comparison, value)
    column = _NAMES[name]
    if column == "level":
        return _level(comparison, value)
    if column == "timestamp":
        return TimeIs(comparison, _time(name, value))
    if column in ("id", "process_id"):
        return NumberIs(cast(NumberColumn, column), comparison, _integer(name, value))
    if comparison != "=":
        raise TermError(f"{name} can't be compared with {comparison}", "level, time, pid, id and context.KEY can.")
    if name == "pattern":
        return Wild("message", value.parts)
    if column == "message":
        if not value.text:
            raise TermError("an empty text is in every message")
        return Contains(value.text)
    return _text(name, cast(TextColumn, column), value)


def context_term(path: Path, operator: str, value: TermValue) -> Node:
    """Return the condition of a term about a value in the context. Raises TermError."""
    if operator == "!=":
        return Not(context_term(path, "=", value))
    comparison = cast(ComparisonSign, "=" if operator == ":" else operator)
    if not value.text and not value.quoted:
        raise TermError("a value is missing", 'For an empty text write "".')
    if value.wild:
        if comparison != "=":
            raise TermError(f"an asterisk can't be compared with {comparison}")
        return HasContext(path) if not any(value.parts) else ContextWild(path, value.parts)
    number = Decimal(value.text) if NUMERIC.match(value.text) else None
    if comparison == "=":
        return ContextIs(path, "=", value.text, number)
    if number is None:
        raise TermError(f"{value.text!r} is not a number", "Without one, context.KEY:VALUE is what can be asked.")
    return ContextIs(path, comparison, None, number)


def _has(comparison: ComparisonSign, value: TermValue) -> Node:
    if comparison != "=":
        raise TermError(f"has can't be compared with {comparison}")
    name = value.text
    if name.lower().startswith(f"{CONTEXT_FIELD}."):
        return HasContext(context_path(name[len(CONTEXT_FIELD) + 1 :]))
    column = _NAMES.get(name.lower(), name.lower())
    if column not in _PRESENT:
        raise TermError(f"has: {name!r} is nothing that an entry may lack", "For example has:trace, has:context.KEY.")
    return Has(cast(TextColumn, column))


def context_path(text: str) -> Path:
    """Return the path ``a.b.c``. Raises TermError."""
    path = tuple(text.split("."))
    if not all(path):
        raise TermError(f"{text!r} is not a path of keys")
    return path


def _level(comparison: ComparisonSign, value: TermValue) -> Node:
    names = value.text.split(",") if comparison == "=" else [value.text]
    try:
        given = [level_named(name) for name in names if name.strip()]
    except ValueError as problem:
        raise TermError(str(problem)) from None
    if not given:
        raise TermError("level: a value is missing")
    place = LEVELS.index(given[0])
    chosen = {
        "=": frozenset(given),
        "<": frozenset(LEVELS[:place]),
        "<=": frozenset(LEVELS[: place + 1]),
        ">": frozenset(LEVELS[place + 1 :]),
        ">=": frozenset(LEVELS[place:]),
    }
    return Among("level", chosen[comparison])


def _text(name: str, column: TextColumn, value: TermValue) -> Node:
    if value.wild and not any(value.parts):
        return Has(column) if column in _PRESENT else Wild(column, value.parts)
    if column == "service_name":
        return _services(value)
    if column in _CHOICES:
        given = frozenset(word.strip().lower() for word in value.text.split(",") if word.strip())
        if not given or given - _CHOICES[column]:
            raise TermError(f"{name} must be one of {', '.join(sorted(_CHOICES[column]))}")
        return Among(column, given)
    return Wild(column, value.parts) if value.wild else Among(column, frozenset({value.text}))


def _services(value: TermValue) -> Node:
    names = [name.strip().lower() for name in value.text.split(",") if name.strip()]
    for name in names:
        if not _SERVICE.match(name):
            raise TermError(f"{name!r} is not a service name")
    exact = frozenset(name for name in names if "*" not in name)
    found: list[Node] = [Among("service_name", exact)] if exact else []
    found += [Wild("service_name", tuple(name.split("*"))) for name in names if "*" in name]
    if not found:
        raise TermError("service: a value is missing")
    return any_of(tuple(found))


def _time(name: str, value: TermValue) -> datetime:
    try:
        parsed = datetime.fromisoformat(value.text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise TermError(
            f"{name}: {value.text!r} is not an ISO 8601 timestamp", "For example time>=2026-01-31T09:30:00Z."
        ) from None


def _integer(name: str, value: TermValue) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", value.text):
        raise TermError(f"{name}: {value.text!r} is not a number")
    return int(value.text)
