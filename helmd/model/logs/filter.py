"""Which log entries are asked for: one fact for the API, the streams, the export and helmctl."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from helmd.model.errors import UsageError
from helmd.model.logs.level import LEVELS, level_named, levels_named
from helmd.model.printable import printable

TextMode = Literal["substring", "words", "regex"]
TEXT_MODES: tuple[TextMode, ...] = ("substring", "words", "regex")

_TEXT_LIMIT = 1000
_SERVICE = re.compile(r"[a-z0-9_-]{1,50}\Z")
_SOURCES = frozenset({"journal", "systemd", "helm", "http"})
_STREAMS = frozenset({"stdout", "stderr"})
_CURSOR = re.compile(r"(\d{1,18})-(\d{1,18})\Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Place(NamedTuple):
    """Where a page of entries ended; written in a URL as ``MICROSECONDS-ID``."""

    timestamp: datetime
    id: int

    def __str__(self) -> str:
        return f"{(self.timestamp - _EPOCH) // timedelta(microseconds=1)}-{self.id}"


@dataclass(frozen=True, slots=True)
class LogFilter:
    """None asks for all. ``start`` is the first moment asked for, ``end`` the first one that is not."""

    services: frozenset[str] | None = None
    levels: frozenset[str] | None = None
    start: datetime | None = None
    end: datetime | None = None
    trace_id: str | None = None
    user_id: str | None = None
    text: str | None = None
    mode: TextMode = "substring"
    """How ``text`` is meant; case never matters."""
    sources: frozenset[str] | None = None
    streams: frozenset[str] | None = None

    @property
    def counted(self) -> bool:
        """Whether the rollups alone can tell how many entries there are (whole minutes aside)."""
        asked = (self.trace_id, self.user_id, self.text, self.sources, self.streams)
        return all(part is None for part in asked)

    def of_day(self, begins: datetime) -> "LogFilter":
        """What is left to ask of the entries of the day that BEGINS then: not what all times of the day meet."""
        start = None if self.start is not None and self.start <= begins else self.start
        end = None if self.end is not None and self.end >= begins + timedelta(days=1) else self.end
        return self if (start, end) == (self.start, self.end) else replace(self, start=start, end=end)

    def confined(self, services: frozenset[str]) -> "LogFilter":
        """The same, for a caller who may see only SERVICES."""
        return replace(self, services=services if self.services is None else self.services & services)


def words_of(text: str) -> tuple[str, ...]:
    """The words that mode ``words`` asks for; each must be in the message, in any order."""
    return tuple(dict.fromkeys(text.split()))


def place_of(text: str) -> Place:
    """The place that a cursor names. Raises UsageError."""
    found = _CURSOR.match(text)
    try:
        if found is None:
            raise ValueError
        return Place(_EPOCH + timedelta(microseconds=int(found.group(1))), int(found.group(2)))
    except (ValueError, OverflowError):
        raise UsageError("cursor: this is no cursor of an earlier answer") from None


def utc_timestamp(name: str, text: str) -> datetime:
    """A moment in ISO 8601; without an offset it is UTC. Raises UsageError."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{name}: {printable(text, 60)!r} is no moment in ISO 8601", hint="For example 2026-01-31T09:30:00Z."
        ) from None


def log_filter_of(given: Mapping[str, str]) -> LogFilter:
    """The filter that the parameters of a request make; those that are no filter are passed by. Raises UsageError."""
    mode = given.get("mode", "substring") or "substring"
    if mode not in TEXT_MODES:
        raise UsageError(f"mode: must be one of {', '.join(TEXT_MODES)}")
    text = given.get("q") or None
    if text is not None:
        _check_text(text, mode)
    return LogFilter(
        services=_some("service", given, _SERVICE),
        levels=_levels(given),
        start=utc_timestamp("start_time", given["start_time"]) if given.get("start_time") else None,
        end=utc_timestamp("end_time", given["end_time"]) if given.get("end_time") else None,
        trace_id=_plain("trace_id", given),
        user_id=_plain("user_id", given),
        text=text,
        mode=mode,
        sources=_among("source", given, _SOURCES),
        streams=_among("stream", given, _STREAMS),
    )


def _plain(name: str, given: Mapping[str, str]) -> str | None:
    value = given.get(name) or None
    if value is not None and "\0" in value:
        raise UsageError(f"{name}: must not hold a NUL character")
    return value


def _check_text(text: str, mode: str) -> None:
    if len(text) > _TEXT_LIMIT:
        raise UsageError(f"q: is {len(text):,} characters long; at most {_TEXT_LIMIT:,} are allowed")
    if "\0" in text:
        raise UsageError("q: must not hold a NUL character")
    if mode == "words" and not text.split():
        raise UsageError("q: holds no word")


def _levels(given: Mapping[str, str]) -> frozenset[str] | None:
    try:
        exactly = {level_named(name) for name in given.get("level", "").split(",") if name.strip()}
        least = levels_named(given["min_level"]) if given.get("min_level") else frozenset(LEVELS)
    except ValueError as problem:
        raise UsageError(f"level: {problem}") from None
    chosen = frozenset(exactly) & least if exactly else least
    return None if chosen == frozenset(LEVELS) else chosen


def _some(name: str, given: Mapping[str, str], form: re.Pattern[str]) -> frozenset[str] | None:
    chosen = frozenset(word.strip() for word in given.get(name, "").split(",") if word.strip())
    for word in chosen:
        if not form.match(word):
            raise UsageError(f"{name}: {printable(word, 60)!r} is no service's name")
    return chosen or None


def _among(name: str, given: Mapping[str, str], allowed: frozenset[str]) -> frozenset[str] | None:
    chosen = frozenset(word.strip() for word in given.get(name, "").split(",") if word.strip())
    if chosen - allowed:
        raise UsageError(f"{name}: must be one of {', '.join(sorted(allowed))}")
    return chosen or None
