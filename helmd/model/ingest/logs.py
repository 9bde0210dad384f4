"""Log entries that are posted to Helm: the rows they become, and what is wrong with them.

What had to be changed is noted in the entry's context under CHANGED, with what was given.
"""

import json
import re
from codecs import getincrementaldecoder
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from helmd.model.ingest.body import Body, body_fault, objects, timestamp_in
from helmd.model.logs.entry import HTTP, MESSAGE_LIMIT, LogRow
from helmd.model.logs.ids import CHANGED, short_id, trace_id_in, trace_id_of
from helmd.model.logs.level import LEVELS, level_named
from helmd.model.logs.parsing.formats import without_escapes
from helmd.model.logs.parsing.own_checks import OWN_CHECK_LEVEL, is_own_check
from helmd.model.logs.parsing.parsed import Parsed
from helmd.model.logs.parsing.structured import pid_of, storable, too_deep

CONTEXT_LIMIT = 1024 * 1024
"""Characters of a context, as JSON, above which it is kept as a text, and no more of it."""

ReadMessage = Callable[[str, str, int], Parsed]
"""What a message says by itself, from its text, its service, and when it was logged in microseconds since 1970."""

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_FIELDS = frozenset(
    {"level", "message", "context", "trace_id", "user_id", "timestamp", "hostname", "process_id", "service_name"}
)
_ORIGINAL_LIMIT = 4096
"""Characters of the original message that are kept besides the parsed one."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encoder = json.JSONEncoder(ensure_ascii=False)
_encode = _encoder.encode


def plain_reading(message: str, service: str, realtime: int) -> Parsed:
    """Return the reading that takes a message for what it is, but for colours."""
    return Parsed(None, without_escapes(message))


def log_rows(
    body: Body, now: datetime, days: int, read: ReadMessage = plain_reading, health_paths: Collection[str] = ()
) -> list[LogRow]:
    """Return the rows of a body of log entries that came NOW, of a service whose entries are kept for DAYS.

    HEALTH_PATHS are those that Helm requests of the service, which may post its access log. Raises UsageError.
    """
    rows = []
    for where, entry in objects(body, "logs"):
        try:
            rows.append(_Row(body, entry, now, days, read, health_paths).made())
        except RecursionError:
            raise body_fault(where, "is nested too deeply", "json") from None
    return rows


class _Row:
    """One entry on its way to a row."""

    def __init__(
        self,
        body: Body,
        entry: dict[str, Any],
        now: datetime,
        days: int,
        read: ReadMessage,
        health_paths: Collection[str],
    ) -> None:
        self._service = body.service_name
        self._suspect = body.suspect
        self._large = body.size > CONTEXT_LIMIT
        self._entry = entry
        self._now = now
        self._days = days
        self._read = read
        self._health_paths = health_paths
        self._changed: dict[str, Any] = {}

    def made(self) -> LogRow:
        timestamp = self._timestamp()
        level = self._level()
        parsed = self._message(timestamp)
        if parsed.level is not None and LEVELS.index(parsed.level) > LEVELS.index(level):
            level = parsed.level
        given = self._entry.get("message")
        if isinstance(given, str) and is_own_check(given, self._health_paths):
            level = OWN_CHECK_LEVEL
        trace_id = self._trace_id() or self._short("trace_id", parsed.trace_id)
        user_id = self._text("user_id") or self._short("user_id", parsed.user_id)
        hostname, process_id = self._text("hostname"), self._process_id()
        context = self._context(parsed)
        return LogRow(
            timestamp=timestamp,
            service_name=self._service,
            level=level,
            message=self._cut(parsed.message),
            context=self._noted(context),
            trace_id=trace_id,
            user_id=user_id,
            hostname=hostname,
            process_id=process_id,
            source=HTTP,
        )

    def _timestamp(self) -> datetime:
        given = self._entry.get("timestamp")
        if given is None:
            return self._now
        timestamp = timestamp_in(given, self._now, self._days)
        if timestamp is None:
            self._change("timestamp", given)
        return timestamp or self._now

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
        return self._short(field, text)

    def _trace_id(self) -> str | None:
        """Return the trace id of the entry, else the one in its context; zeros stand for none, as in OpenTelemetry."""
        given = self._text("trace_id")
        if given is not None:
            trace_id = trace_id_in(given)
            if trace_id != given:
                self._changed.setdefault("trace_id", given)
            if trace_id is not None:
                return trace_id
        context = self._entry.get("context")
        if isinstance(context, dict) and (trace_id := trace_id_of(context)) is not None:
            return self._short("trace_id", self._clean(trace_id))
        return None

    def _short(self, field: str, text: str | None) -> str | None:
        if text is not None and (short := short_id(text)) is not text:
            self._changed.setdefault(field, text)
            return short
        return text

    def _process_id(self) -> int | None:
        given = self._entry.get("process_id")
        number = pid_of(given)
        if number is None and given is not None:
            self._change("process_id", given)
        return number

    def _context(self, parsed: Parsed) -> dict[str, Any] | None:
        """Return what is in the entry besides what has a column, what its context says first."""
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


def _begun(context: dict[str, Any]) -> str:
    """Return CONTEXT as JSON, or the beginning of it, which is longer than CONTEXT_LIMIT then."""
    parts: list[str] = []
    size = 0
    # Part by part, unlike `_encode`: no other thread runs during that.
    for part in _encoder.iterencode(context):
        parts.append(part)
        if (size := size + len(part)) > CONTEXT_LIMIT:
            break
    return "".join(parts)


def _escaped(text: str) -> str:
    """Return TEXT as JSON without quotes: what can't be stored is legible in it."""
    return json.dumps(text)[1:-1]
