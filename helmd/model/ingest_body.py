"""What is posted to Helm: from a JSON body to rows, or to what is wrong with it, at which entry and field.

Those who post drop a batch that is refused. So whatever has a sensible reading is read, what had to be changed for
that is noted in the entry's context under CHANGED, with what was given, and only the rest is a fault. Nothing here
takes a faulty body in part.

A body is read entry by entry, not at one go: reading 16 MiB of JSON takes Python 0.2 s during which no other thread
runs, and a body can ask for a hundred times its own size in objects.
"""

import json
import math
import re
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from json.decoder import JSONDecodeError
from typing import Any, NamedTuple

from helmd.model.errors import UsageError
from helmd.model.formats import without_escapes
from helmd.model.level import LEVELS, level_named
from helmd.model.objects import decode_any_number, pid_of, storable, too_deep
from helmd.model.parsed import Parsed
from helmd.model.printable import printable
from helmd.model.row import HTTP, MESSAGE_LIMIT, LogRow

MAX_ENTRIES = 10_000
CHANGED = "_changed"
"""The key in an entry's context for what was not stored as given: field → what was given."""
AHEAD = timedelta(minutes=10)
"""A time further ahead than this is none that anything was logged at."""
CONTEXT_LIMIT = 1024 * 1024
"""Characters of a context, as JSON, above which it is kept as a text, and no more of it."""
ID_LIMIT = 2048
"""Bytes of an id or host name that have a place in an index (PostgreSQL, B-tree: a third of a page)."""

Reading = Callable[[str, str, int], Parsed]
"""What a message says by itself, from its text, its service, and when it was logged in microseconds since 1970."""

_NAME = re.compile(r"[a-z0-9_-]{1,50}\Z")
_METRIC = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,99}\Z")
_SPACE = re.compile(r"[ \t\n\r]*")
_HALVES = re.compile(rb"\\u[dD][89a-fA-F]")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_FIELDS = frozenset(
    {"level", "message", "context", "trace_id", "user_id", "timestamp", "hostname", "process_id", "service_name"}
)
_ORIGINAL_LIMIT = 4096
"""Characters of a message that are kept as they were given, beside what became of it."""
_METRIC_DAYS = 14
_MOST_TAGS, _TAG_KEY, _TAG_VALUE = 32, 100, 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encoder = json.JSONEncoder(ensure_ascii=False)
_encode = _encoder.encode


@dataclass(frozen=True, slots=True)
class Body:
    """A body as far as it is no matter what its entries are. ``single`` says that it is one entry and no list."""

    service_name: str
    entries: tuple[Any, ...]
    suspect: bool
    """Whether it may hold text that can't be stored."""
    large: bool
    """Whether it may hold a context that is too large."""
    single: bool = False


class Measurement(NamedTuple):
    """One posted value of a metric."""

    name: str
    value: float
    timestamp: datetime
    tags: Mapping[str, str] | None


def plain_reading(message: str, service: str, realtime: int) -> Parsed:
    """The reading that takes a message for what it is, but for colours."""
    return Parsed(None, without_escapes(message))


def read_body(body: bytes, listed: str, sign: str) -> Body:
    """The body of a request whose entries are under the key LISTED; SIGN is the key by which one entry, given instead
    of a list, is known. Raises UsageError.
    """
    try:
        text, suspect = _decoded(body)
        found = _members(text, listed)
    except RecursionError:
        raise UsageError("the body is nested too deeply") from None
    except JSONDecodeError as fault:
        raise UsageError(f"the body is no JSON object: {fault.msg} at character {fault.pos:,}") from None
    except ValueError:
        raise UsageError("the body is no JSON object") from None
    name = found.get("service_name")
    if not isinstance(name, str) or not _NAME.match(name):
        shown = _shown(name) if "service_name" in found else "missing"
        raise UsageError(f"service_name: must be 1 to 50 of a-z, 0-9, '_' and '-', and is {shown}")
    large = len(text) > CONTEXT_LIMIT
    if listed in found:
        entries = found[listed]
        if not isinstance(entries, list):
            raise UsageError(f"{listed}: must be a list, not {_kind(entries)}")
        return Body(name, tuple(entries), suspect, large)
    if sign not in found:
        raise UsageError(f"{listed}: is missing")
    return Body(name, (found,), suspect, large, single=True)


def _decoded(body: bytes) -> tuple[str, bool]:
    """The text of BODY, and whether there may be some in it that can't be stored. Raises ValueError.

    A regular expression over all of a large body would hold up every thread.
    """
    suspect = b"\0" in body or b"\\u0000" in body
    if not suspect and (b"\\ud" in body or b"\\uD" in body):
        suspect = _HALVES.search(body) is not None
    encoding = json.detect_encoding(body)
    try:
        text = body.decode(encoding)
    except UnicodeDecodeError:
        # Bytes that are no UTF-8 become lone surrogates, which are replaced where they turn up, and noted there.
        text, suspect = body.decode(encoding, "surrogateescape"), True
    return text.removeprefix("\ufeff"), suspect


def _members(text: str, listed: str) -> dict[str, Any]:
    """The members of the object that TEXT is. Raises ValueError, RecursionError and UsageError."""
    at = _past(text, _after_space(text, 0), "{", "Expecting an object")
    found: dict[str, Any] = {}
    if text[at : at + 1] == "}":
        at += 1
    else:
        while True:
            if text[at : at + 1] != '"':
                raise JSONDecodeError("Expecting property name enclosed in double quotes", "", at)
            key, at = decode_any_number(text, at)
            at = _past(text, _after_space(text, at), ":", "Expecting ':' delimiter")
            if key == listed and text[at : at + 1] == "[":
                found[key], at = _elements(text, at + 1, listed)
            else:
                found[key], at = decode_any_number(text, at)
            at = _after_space(text, at)
            if text[at : at + 1] == "}":
                at += 1
                break
            at = _past(text, at, ",", "Expecting ',' delimiter")
    if (at := _after_space(text, at)) < len(text):
        raise JSONDecodeError("Extra data", "", at)
    return found


def _elements(text: str, at: int, listed: str) -> tuple[list[Any], int]:
    """The elements of the list that begins before AT, and where it ends."""
    found: list[Any] = []
    at = _after_space(text, at)
    if text[at : at + 1] == "]":
        return found, at + 1
    while True:
        if len(found) == MAX_ENTRIES:
            raise UsageError(f"{listed}: at most {MAX_ENTRIES:,} are taken at once")
        try:
            element, at = decode_any_number(text, at)
        except RecursionError:
            raise UsageError(f"{listed}[{len(found)}]: is nested too deeply") from None
        found.append(element)
        at = _after_space(text, at)
        if text[at : at + 1] == "]":
            return found, at + 1
        at = _past(text, at, ",", "Expecting ',' delimiter")


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _past(text: str, at: int, sign: str, fault: str) -> int:
    if text[at : at + 1] != sign:
        raise JSONDecodeError(fault, "", at)
    return _after_space(text, at + 1)


def log_rows(body: Body, now: datetime, days: int, read: Reading = plain_reading) -> list[LogRow]:
    """The rows of a body of log entries that came NOW, of a service whose entries are kept for DAYS.

    Raises UsageError.
    """
    rows = []
    for where, entry in _objects(body, "logs"):
        try:
            rows.append(_Row(body, entry, now, days, read).made())
        except RecursionError:
            raise UsageError(f"{where or 'body'}: is nested too deeply") from None
    return rows


def _objects(body: Body, listed: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries, each with how a fault in it is to be addressed."""
    for index, entry in enumerate(body.entries):
        if not isinstance(entry, dict):
            raise UsageError(f"{listed}[{index}]: must be an object, not {_kind(entry)}")
        yield "" if body.single else f"{listed}[{index}]", entry


class _Row:
    """One entry on its way to a row."""

    def __init__(self, body: Body, entry: dict[str, Any], now: datetime, days: int, read: Reading) -> None:
        self._service = body.service_name
        self._suspect = body.suspect
        self._large = body.large
        self._entry = entry
        self._now = now
        self._days = days
        self._read = read
        self._changed: dict[str, Any] = {}

    def made(self) -> LogRow:
        timestamp = self._timestamp()
        level = self._level()
        parsed = self._message(timestamp)
        if parsed.level is not None and LEVELS.index(parsed.level) > LEVELS.index(level):
            level = parsed.level
        trace_id, user_id = self._text("trace_id"), self._text("user_id")
        hostname, process_id = self._text("hostname"), self._process_id()
        context = self._context(parsed)
        return LogRow(
            timestamp=timestamp,
            service_name=self._service,
            level=level,
            message=self._cut(parsed.message),
            context=self._noted(context),
            trace_id=trace_id or parsed.trace_id,
            user_id=user_id or parsed.user_id,
            hostname=hostname,
            process_id=process_id,
            source=HTTP,
        )

    def _timestamp(self) -> datetime:
        given = self._entry.get("timestamp")
        if given is None:
            return self._now
        moment = moment_of(given, self._now, self._days)
        if moment is None:
            self._change("timestamp", given)
        return moment or self._now

    def _level(self) -> str:
        given = self._entry.get("level")
        if isinstance(given, str):
            try:
                level = level_named(given)
            except ValueError:
                level = "INFO"
            if level == given.strip().upper():
                return level
        elif "level" not in self._entry:
            return "INFO"
        else:
            level = "INFO"
        self._change("level", given)
        return level

    def _message(self, timestamp: datetime) -> Parsed:
        given = self._entry.get("message")
        text = given if isinstance(given, str) else _encode(given)
        clean = self._clean(text)
        parsed = self._read(clean, self._service, (timestamp - _EPOCH) // timedelta(microseconds=1))
        if not isinstance(given, str):
            if given is None:
                self._change("message", None)
        elif clean != text:
            self._change("message", _escaped(text)[:_ORIGINAL_LIMIT])
        elif parsed.message != clean:
            self._change("message", clean[:_ORIGINAL_LIMIT])
        return parsed

    def _cut(self, message: str) -> str:
        if len(message) * 4 <= MESSAGE_LIMIT:
            return message
        raw = message.encode()
        if len(raw) <= MESSAGE_LIMIT:
            return message
        self._changed["message"] = {"bytes": len(raw), "cut_at_bytes": MESSAGE_LIMIT}
        # A character that the cut goes through is dropped, not shown as a broken one.
        return getincrementaldecoder("utf-8")().decode(raw[:MESSAGE_LIMIT])

    def _text(self, field: str) -> str | None:
        given = self._entry.get(field)
        if given is None or given == "":
            return None
        if not isinstance(given, str):
            self._change(field, given)
            given = _encode(given)
        text = self._clean(given)
        if text != given:
            self._change(field, _escaped(given))
        if len(text) * 4 > ID_LIMIT and len(raw := text.encode()) > ID_LIMIT:
            self._changed.setdefault(field, text)
            text = getincrementaldecoder("utf-8")().decode(raw[:ID_LIMIT])
        return text

    def _process_id(self) -> int | None:
        given = self._entry.get("process_id")
        number = pid_of(given)
        if number is None and given is not None:
            self._change("process_id", given)
        return number

    def _context(self, parsed: Parsed) -> dict[str, Any] | None:
        """What is in the entry besides what has a column, what its context says first."""
        given = self._entry.get("context")
        context: dict[str, Any] | None = None
        if isinstance(given, dict) and not too_deep(given):
            context = storable(given) if self._suspect else given
        elif given is not None:
            self._change("context", given)
        if parsed.context:
            context = {**parsed.context, **(context or {})}
        others = [name for name in self._entry if name not in _FIELDS]
        if not others:
            return context
        kept = dict(context or {})
        for name in others:
            value = self._entry[name]
            key = storable(name) if self._suspect else name
            if key in kept or (value.__class__ in (dict, list) and too_deep(value)):
                self._change(key, value)
            else:
                kept[key] = storable(value) if self._suspect else value
        return kept

    def _noted(self, context: dict[str, Any] | None) -> dict[str, Any] | None:
        if self._changed:
            if context and CHANGED in context:
                self._change(CHANGED, context[CHANGED])
            context = {**(context or {}), CHANGED: self._changed}
        if context is not None and self._large and len(text := _begun(context)) > CONTEXT_LIMIT:
            # As jsonb it would cost everybody who reads it a second and hundreds of megabytes.
            return {CHANGED: {"context": text[:CONTEXT_LIMIT]}}
        return context

    def _clean(self, text: str) -> str:
        return _UNSTORABLE.sub("\ufffd", text) if self._suspect else text

    def _change(self, field: str, given: Any) -> None:
        self._changed[field] = _encode(storable(given)) if too_deep(given) else storable(given)


def moment_of(given: object, now: datetime, days: int) -> datetime | None:
    """The moment that GIVEN is in ISO 8601, in UTC unless it says otherwise.

    None for what is none, and for one that is no more kept (for DAYS) or too far ahead of NOW.
    """
    if not isinstance(given, str):
        return None
    try:
        moment = datetime.fromisoformat(given.strip())
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if now - timedelta(days=days) <= moment <= now + AHEAD else None


def measurements(body: Body, now: datetime) -> list[Measurement]:
    """What a body of measurements that came NOW says. Raises UsageError."""
    return [_measurement(where, entry, now) for where, entry in _objects(body, "metrics")]


def _measurement(where: str, entry: dict[str, Any], now: datetime) -> Measurement:
    dot = f"{where}." if where else ""
    name, value = entry.get("name"), entry.get("value")
    if not isinstance(name, str) or not _METRIC.match(name):
        raise UsageError(
            f"{dot}name: must be a letter or '_' and up to 99 of A-Z, a-z, 0-9 and _.:-, not {_shown(name)}"
        )
    if value.__class__ not in (int, float) or abs(number := _float(value)) == math.inf:
        raise UsageError(f"{dot}value: must be a finite number, not {_shown(value)}")
    timestamp = moment_of(entry.get("timestamp"), now, _METRIC_DAYS) or now
    return Measurement(name, number, timestamp, _tags(dot, entry.get("tags")))


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _tags(dot: str, given: object) -> dict[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise UsageError(f"{dot}tags: must be an object, not {_kind(given)}")
    if len(given) > _MOST_TAGS:
        raise UsageError(f"{dot}tags: at most {_MOST_TAGS} are taken, not {len(given)}")
    tags: dict[str, str] = {}
    for key, value in given.items():
        if not isinstance(value, str):
            raise UsageError(f"{dot}tags: {_shown(key)} must be text, not {_kind(value)}")
        if len(key) > _TAG_KEY or len(value) > _TAG_VALUE:
            raise UsageError(
                f"{dot}tags: {_shown(key)} is longer than {_TAG_KEY} characters, or its text than {_TAG_VALUE:,}"
            )
        tags[storable(key)] = storable(value)
    return tags


def _begun(context: dict[str, Any]) -> str:
    """CONTEXT as JSON, or the beginning of it, which is longer than CONTEXT_LIMIT then."""
    parts: list[str] = []
    size = 0
    # Part by part, unlike `_encode`: no other thread runs during that.
    for part in _encoder.iterencode(context):
        parts.append(part)
        if (size := size + len(part)) > CONTEXT_LIMIT:
            break
    return "".join(parts)


def _escaped(text: str) -> str:
    """TEXT as JSON without quotes: what can't be stored is legible in it."""
    return json.dumps(text)[1:-1]


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names[value.__class__]


def _shown(value: object) -> str:
    """A value as a fault names it."""
    if isinstance(value, str):
        return ascii(printable(value[:80], 60))
    return _kind(value)
