"""The filter for log entries, shared by the API, streams, exports and helmctl."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from helmd.model.errors import UsageError
from helmd.model.logs.level import LEVELS, level_named, levels_named
from helmd.model.logs.query_language.nodes import (
    Among,
    Contains,
    Matches,
    Node,
    Not,
    NumberIs,
    Term,
    TimeIs,
    Wild,
    all_of,
    conjuncts,
    subject,
    terms_in,
)
from helmd.model.logs.query_language.parse import parsed_query
from helmd.model.printable import printable

TextMode = Literal["substring", "words", "regex"]
TEXT_MODES: tuple[TextMode, ...] = ("substring", "words", "regex")

_TEXT_LIMIT = 1000
_SERVICE = re.compile(r"[a-z0-9_-]{1,50}\Z")
_SOURCES = frozenset({"journal", "systemd", "helm", "http"})
_STREAMS = frozenset({"stdout", "stderr"})
CURSOR_PATTERN = "^([0-9]{1,17}|1[0-9]{17}|2[0-4][0-9]{16}|25[0-2][0-9]{15}|253[0-3][0-9]{14})-([0-9]{1,18})$"
"""Of a cursor: microseconds until the end of the year 9999, and an id."""
_CURSOR = re.compile(CURSOR_PATTERN.removesuffix("$") + r"\Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ROLLED_UP = frozenset({"service_name", "level"})
_INSTANT = timedelta(microseconds=1)
RUN = 3
"""Letters or digits in a row that a text must have for a trigram index to be of use: pg_trgm takes words apart."""


class PageCursor(NamedTuple):
    """The last entry of a page of results; in a URL, ``MICROSECONDS-ID``."""

    timestamp: datetime
    id: int

    def __str__(self) -> str:
        return f"{(self.timestamp - _EPOCH) // timedelta(microseconds=1)}-{self.id}"


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Conditions on log entries; None means no condition. ``start`` is inclusive, ``end`` exclusive."""

    services: frozenset[str] | None = None
    levels: frozenset[str] | None = None
    start: datetime | None = None
    end: datetime | None = None
    trace_id: str | None = None
    user_id: str | None = None
    text: str | None = None
    mode: TextMode = "substring"
    """How ``text`` is interpreted; matching is always case-insensitive."""
    sources: frozenset[str] | None = None
    streams: frozenset[str] | None = None
    rest: Node | None = None
    """Conditions of a query that the other fields can't have."""

    @property
    def counted(self) -> bool:
        """Whether matching entries can be counted from the rollups alone, except in the range's partial minutes."""
        others = (self.trace_id, self.user_id, self.text, self.sources, self.streams)
        return all(condition is None for condition in others) and self.rest_counted

    @property
    def rest_counted(self) -> bool:
        """Whether the rollups have what ``rest`` is about."""
        return all(subject(leaf) in ROLLED_UP for leaf in terms_in(self.rest))

    @property
    def few(self) -> bool:
        """Whether an index finds the few entries of a trace, or with an id, among which the other conditions are
        checked.
        """
        ids = (node for node in conjuncts(self.rest) if isinstance(node, NumberIs) and node.column == "id")
        return self.trace_id is not None or any(node.comparison == "=" for node in ids)

    @property
    def expressions(self) -> tuple[str, ...]:
        """The regular expressions in it."""
        text = (self.text,) if self.text is not None and self.mode == "regex" else ()
        return (*text, *(leaf.expression for leaf in terms_in(self.rest) if isinstance(leaf, Matches)))

    @property
    def store_only(self) -> bool:
        """Whether only the store should match entries, which can cancel that: there is a regular expression."""
        return bool(self.expressions)

    def narrowed(self, query: Node | None) -> "LogFilter":
        """Return the filter that takes what also meets QUERY, in fields where they can have it: they have indexes."""
        wanted, rest = self, list[Node]()
        for node in conjuncts(query):
            taken = _taken(wanted, node)
            if taken is None:
                rest.append(node)
            else:
                wanted = taken
        if wanted.text is None:
            texts = [_text_in(node) for node in rest]
            best = max(texts, key=longest_run, default="")
            if longest_run(best) >= RUN or Contains(best) in rest:
                wanted = replace(wanted, text=best, mode="substring")
                rest = [node for node in rest if node != Contains(best)]
        return replace(wanted, rest=all_of((*conjuncts(wanted.rest), *rest)))

    def of_day(self, begins: datetime) -> "LogFilter":
        """Return the filter for the day beginning at BEGINS, without ``start`` or ``end`` if the whole day meets it."""
        start = None if self.start is not None and self.start <= begins else self.start
        end = None if self.end is not None and self.end >= begins + timedelta(days=1) else self.end
        return self if (start, end) == (self.start, self.end) else replace(self, start=start, end=end)

    def without(self, about: str) -> "LogFilter":
        """Return the filter without the conditions that are about a column or ``context.KEY`` alone."""
        field = {
            "service_name": "services",
            "level": "levels",
            "source": "sources",
            "stream": "streams",
            "trace_id": "trace_id",
            "user_id": "user_id",
        }.get(about)
        kept = tuple(
            node for node in conjuncts(self.rest) if any(not _is_about(term, about) for term in terms_in(node))
        )
        changed = replace(self, rest=all_of(kept))
        return changed if field is None else replace(changed, **{field: None})  # type: ignore[arg-type]

    def confined(self, services: frozenset[str]) -> "LogFilter":
        """Return the filter restricted to SERVICES, for a caller who may read only these."""
        return replace(self, services=services if self.services is None else self.services & services)


def _is_about(term: Term, about: str) -> bool:
    return subject(term) == about or (about == "context" and subject(term).startswith("context."))


def longest_run(text: str) -> int:
    """Return the number of letters or digits in a row that TEXT has at most."""
    longest = run = 0
    for character in text:
        run = run + 1 if character.isalnum() else 0
        longest = max(longest, run)
    return longest


def _text_in(node: Node) -> str:
    """Return a text that the message of each entry contains that meets NODE; empty if there is none."""
    match node:
        case Contains(text=text):
            return text
        case Wild(column="message", parts=parts):
            return max(parts, key=longest_run)
    return ""


def _taken(wanted: LogFilter, node: Node) -> LogFilter | None:
    """Return WANTED with NODE in its fields, or None if they can't have it."""
    match node:
        case Not(of=Among(column="level", values=values)):
            return _taken(wanted, Among("level", frozenset(LEVELS) - values))
        case Among(column="service_name", values=values):
            return replace(wanted, services=_both(wanted.services, values))
        case Among(column="level", values=values):
            levels = _both(wanted.levels, values)
            return replace(wanted, levels=None if levels == frozenset(LEVELS) else levels)
        case Among(column="source", values=values):
            return replace(wanted, sources=_both(wanted.sources, values))
        case Among(column="stream", values=values):
            return replace(wanted, streams=_both(wanted.streams, values))
        case Among(column="trace_id", values=values) if wanted.trace_id is None and len(values) == 1:
            return replace(wanted, trace_id=next(iter(values)))
        case Among(column="user_id", values=values) if wanted.user_id is None and len(values) == 1:
            return replace(wanted, user_id=next(iter(values)))
        case TimeIs():
            return _within(wanted, node)
        case Matches(expression=expression) if wanted.text is None:
            return replace(wanted, text=expression, mode="regex")
    return None


def _both(chosen: frozenset[str] | None, values: frozenset[str]) -> frozenset[str]:
    return values if chosen is None else chosen & values


def _within(wanted: LogFilter, node: TimeIs) -> LogFilter | None:
    try:
        behind = node.value + _INSTANT
    except OverflowError:
        return None
    if node.comparison in ("=", ">", ">="):
        start = behind if node.comparison == ">" else node.value
        wanted = replace(wanted, start=start if wanted.start is None else max(wanted.start, start))
    if node.comparison in ("=", "<", "<="):
        end = node.value if node.comparison == "<" else behind
        wanted = replace(wanted, end=end if wanted.end is None else min(wanted.end, end))
    return wanted


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a text in mode ``words``; a message must contain each, in any order."""
    return tuple(dict.fromkeys(text.split()))


def page_cursor_of(text: str) -> PageCursor:
    """Parse a cursor. Raises UsageError."""
    found = _CURSOR.match(text)
    try:
        if found is None:
            raise ValueError
        return PageCursor(_EPOCH + timedelta(microseconds=int(found.group(1))), int(found.group(2)))
    except (ValueError, OverflowError):
        raise UsageError("cursor: must be the next_cursor or prev_cursor of an earlier response") from None


def utc_timestamp(name: str, text: str) -> datetime:
    """Parse an ISO 8601 timestamp; without an offset it is UTC. NAME is the parameter. Raises UsageError."""
    try:
        parsed = datetime.fromisoformat(text.strip())
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{name}: {printable(text, 60)!r} is not an ISO 8601 timestamp", hint="For example 2026-01-31T09:30:00Z."
        ) from None


def log_filter_of(given: Mapping[str, str]) -> LogFilter:
    """Return the filter given by a request's parameters; other parameters are ignored. Raises UsageError."""
    mode = given.get("mode", "substring") or "substring"
    if mode not in TEXT_MODES:
        raise UsageError(f"mode: must be one of {', '.join(TEXT_MODES)}")
    text = given.get("q") or None
    if text is not None:
        _check_text(text, mode)
    return LogFilter(
        services=_names("service", given, _SERVICE),
        levels=_levels(given),
        start=utc_timestamp("start_time", given["start_time"]) if given.get("start_time") else None,
        end=utc_timestamp("end_time", given["end_time"]) if given.get("end_time") else None,
        trace_id=_optional_text("trace_id", given),
        user_id=_optional_text("user_id", given),
        text=text,
        mode=mode,
        sources=_choices("source", given, _SOURCES),
        streams=_choices("stream", given, _STREAMS),
    ).narrowed(parsed_query(given.get("query", "")))


def _optional_text(name: str, given: Mapping[str, str]) -> str | None:
    value = given.get(name) or None
    if value is not None and "\0" in value:
        raise UsageError(f"{name}: must not contain a NUL character")
    return value


def _check_text(text: str, mode: str) -> None:
    if len(text) > _TEXT_LIMIT:
        raise UsageError(f"q: must have at most {_TEXT_LIMIT:,} characters, has {len(text):,}")
    if "\0" in text:
        raise UsageError("q: must not contain a NUL character")
    if mode == "words" and not text.split():
        raise UsageError("q: must contain at least one word")


def _levels(given: Mapping[str, str]) -> frozenset[str] | None:
    try:
        exactly = {level_named(name) for name in given.get("level", "").split(",") if name.strip()}
        least = levels_named(given["min_level"]) if given.get("min_level") else frozenset(LEVELS)
    except ValueError as problem:
        raise UsageError(f"level: {problem}") from None
    chosen = frozenset(exactly) & least if exactly else least
    return None if chosen == frozenset(LEVELS) else chosen


def _names(name: str, given: Mapping[str, str], form: re.Pattern[str]) -> frozenset[str] | None:
    chosen = frozenset(word.strip() for word in given.get(name, "").split(",") if word.strip())
    for word in chosen:
        if not form.match(word):
            raise UsageError(f"{name}: {printable(word, 60)!r} is not a service name")
    return chosen or None


def _choices(name: str, given: Mapping[str, str], allowed: frozenset[str]) -> frozenset[str] | None:
    chosen = frozenset(word.strip() for word in given.get(name, "").split(",") if word.strip())
    if chosen - allowed:
        raise UsageError(f"{name}: must be one of {', '.join(sorted(allowed))}")
    return chosen or None
