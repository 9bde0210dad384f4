"""Converting journal entries to rows of the log store, which includes parsing and joining lines.

Lines that services print (``_TRANSPORT=stdout``) are parsed by the formats and joined. Entries by journald's native
protocol have a level in their fields. All open entries can be stored with the position and restored.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from operator import itemgetter
from typing import Any, NamedTuple

from helmd.model.errors import CONTENT_FAULTS
from helmd.model.ingest.own_entries import PostedRow
from helmd.model.logs.entry import JOURNAL, MESSAGE_LIMIT, LogRow, datetime_of
from helmd.model.logs.level import more_severe
from helmd.model.logs.parsing.formats import parse_text, without_escapes
from helmd.model.logs.parsing.journal_fields import (
    LEVEL_OF_PRIORITY,
    REALTIME,
    STREAM_OF_PRIORITY,
    UNPARSED,
    UNVERIFIED,
    JournalEntry,
    Value,
    clean_text,
    fault_row,
    owner_of,
    plain_row,
    row_of,
    stream_of,
    suppression_row,
    text_of,
    with_given_time,
)
from helmd.model.logs.parsing.line_head import begins_with_head
from helmd.model.logs.parsing.multiline import JoinedEntry, Joiner, Key, opens
from helmd.model.logs.parsing.own_checks import OWN_CHECK_LEVEL, is_own_check
from helmd.model.logs.parsing.parsed import Formats, Parsed, RunawayError, without_pattern
from helmd.model.units.health_request import USER_AGENT

_ERRORS = frozenset({"ERROR", "CRITICAL"})
MAX_REALTIME = 1 << 62
"""Later than any time of the journal, in microseconds since 1970."""
_WRITERS = 4_096
"""Maximum number of cached writers: one for each process and stream."""

_IDENTITY = ("_TRANSPORT", "_STREAM_ID", "_PID", "SYSLOG_IDENTIFIER", "_HOSTNAME", "_SYSTEMD_USER_UNIT")
"""The fields that identify the writer of a line; without the last one USER_UNIT does as well."""
_identity = itemgetter(*_IDENTITY)

_MICROSECOND = timedelta(microseconds=1)
"""Multiplying it takes less time than calling `timedelta`."""

_State = dict[str, Any]
_new = tuple.__new__


class _Writer(NamedTuple):
    """The facts that all lines of one process's stream share."""

    service: str
    key: Key
    hostname: str | None
    process_id: int | None
    unit: str | None
    split: bool
    """Whether its stdout and stderr have different priorities."""
    verified: bool = True
    """`Owner.verified`."""


class _Line(NamedTuple):
    """The facts of a line besides its text. ``realtime`` is in microseconds since 1970."""

    writer: _Writer
    realtime: int
    priority: bytes
    boot_id: str


class _FirstLine(NamedTuple):
    """The first line of an open entry; ``row`` is None while parts of the line are missing."""

    line: _Line
    row: LogRow | None
    stated: bool = False
    """Whether its text states its level."""


def _not_own(_: JournalEntry) -> PostedRow | None:
    return None


def _no_paths(_: str) -> Collection[str]:
    return ()


class Assembler:
    """Assembles rows from entries in the journal's order. The caller takes complete ones from ``rows`` and ``posted``.

    ``own`` reads entries that Helm wrote itself; ``health_paths`` returns the paths of a service's health checks.
    ``faults`` are the errors of entries that could not be parsed, each with a cursor or the service; their rows have
    the unparsed text. ``runaways`` are the names of formats that were removed from ``formats`` because their patterns
    took too long. Raises ValueError for a ``state`` that `state` did not return.
    """

    def __init__(
        self,
        formats: Formats,
        state: Mapping[str, Any] | None = None,
        own: Callable[[JournalEntry], PostedRow | None] = _not_own,
        health_paths: Callable[[str], Collection[str]] = _no_paths,
    ) -> None:
        self.formats = formats
        self._own = own
        self._health_paths = health_paths
        self.faults: list[tuple[str, Exception]] = []
        self.runaways: list[str] = []
        self._writers: dict[tuple[Value | None, ...], _Writer | None] = {}
        self._units: dict[bytes, bytes] = {}
        """The unit of each stream, by ``_STREAM_ID``, if journald has named it in one of its lines."""
        self._joiner: Joiner[_FirstLine] = Joiner.restore(state, _decoded) if state else Joiner()
        self._second, self._begins = 0, datetime_of(0)
        self._realtime, self._timestamp = 0, self._begins
        """The time of the last line, cached since journald gives all lines of one read(2) the same time."""
        self.rows: list[LogRow] = []
        self.posted: list[PostedRow] = []

    def __len__(self) -> int:
        """Return how many entries are open."""
        return len(self._joiner)

    def state(self) -> _State | None:
        """Return all open entries in a form that JSON can hold, or None if there are none."""
        return self._joiner.dump(_encoded) if len(self._joiner) else None

    def take(self, entries: Iterable[JournalEntry]) -> None:
        """Parse and join ENTRIES. The hot path, without avoidable calls."""
        writers, splits = self._writers, self._joiner.splits
        for entry in entries:
            try:
                fields, _, boot_id, _, realtime = entry
                try:
                    writer = writers[_identity(fields)]
                except (KeyError, TypeError):  # new, or a field is missing or occurs twice
                    writer = self._writer(fields)
                if writer is not None:
                    raw, priority = fields.get("MESSAGE", b""), fields.get("PRIORITY", b"")
                    if type(raw) is list:
                        raw = b"\n".join(raw)
                    if type(priority) is list:
                        priority = priority[0]
                    if "_LINE_BREAK" in fields or (splits and writer.key in splits):
                        part = _Line(writer, realtime, priority, boot_id)  # type: ignore[arg-type]
                        self._take_part(part, raw, text_of(fields, "_LINE_BREAK"))  # type: ignore[arg-type]
                    else:
                        dated = fields if REALTIME in fields else None
                        self._add(writer, realtime, priority, boot_id, raw, False, dated)  # type: ignore[arg-type]
                elif (posted := self._own(entry)) is not None:
                    self.posted.append(posted)
                elif (row := suppression_row(entry) or row_of(self._with_unit(entry))) is not None:
                    self.rows.append(row)
            # No entry keeps those after it from being read.
            except CONTENT_FAULTS as fault:
                self._isolate(entry, fault)

    def _isolate(self, entry: JournalEntry, fault: Exception) -> None:
        """Append a row for an entry whose parsing raised FAULT."""
        self.faults.append((entry.cursor, fault))
        sentence = f"{type(fault).__name__}: {fault}"
        try:
            row = plain_row(entry, sentence)
        except CONTENT_FAULTS:
            row = fault_row(datetime_of(entry.realtime), sentence)
        if row is not None:
            self.rows.append(row)

    def expire(self, before: int, incomplete_before: int | None = None) -> None:
        """Finish entries whose last line is older than BEFORE (the journal's time in microseconds since 1970).

        INCOMPLETE_BEFORE is the limit for lines of which parts are missing, and for tracebacks without an end.
        """
        for line in self._joiner.expire_parts(before if incomplete_before is None else incomplete_before):
            self._add(*line.payload.line, line.raw, line.continues)
        for joined in self._joiner.expire(before, incomplete_before):
            self.rows.append(_finished(joined))

    def finish_all(self) -> None:
        """Finish all open entries, when no more lines can follow."""
        self.expire(MAX_REALTIME)

    def _writer(self, fields: Mapping[str, Value]) -> _Writer | None:
        """Return the writer of a printed line, or None if it was not printed, or its service is unknown."""
        get = fields.get
        if get("_TRANSPORT") != b"stdout":
            return None
        asked = tuple(map(get, _IDENTITY))
        if not asked[-1]:
            asked += (get("USER_UNIT"),)
        try:
            return self._writers[asked]
        except KeyError:
            pass
        except TypeError:  # a field occurs twice
            return None
        unit, stream = get("_SYSTEMD_USER_UNIT"), get("_STREAM_ID")
        if isinstance(unit, bytes) and isinstance(stream, bytes) and unit:
            if len(self._units) >= _WRITERS:
                del self._units[next(iter(self._units))]
            self._units[stream] = unit
        writer = _writer_of(self._with_stream_unit(fields))
        if writer is not None and not writer.verified:
            return writer  # the next line of its stream may have the unit
        if len(self._writers) >= _WRITERS:
            self._writers.clear()
        self._writers[asked] = writer
        return writer

    def _with_unit(self, entry: JournalEntry) -> JournalEntry:
        fields = self._with_stream_unit(entry.fields)
        return entry if fields is entry.fields else entry._replace(fields=fields)

    def _with_stream_unit(self, fields: Mapping[str, Value]) -> Mapping[str, Value]:
        """Return FIELDS with the unit of an earlier line of the stream, if journald has not named one.

        A stream belongs to the unit that opened it, also if the writing process has exited before journald read /proc.
        """
        stream = fields.get("_STREAM_ID")
        if fields.get("_SYSTEMD_USER_UNIT") or not isinstance(stream, bytes) or stream not in self._units:
            return fields
        return {**fields, "_SYSTEMD_USER_UNIT": self._units[stream]}

    def _take_part(self, line: _Line, raw: bytes, line_break: str) -> None:
        """Add a part of a line that journald split."""
        for found in self._joiner.part(line.writer.key, raw, line_break, _FirstLine(line, None), line.realtime):
            self._add(*found.payload.line, found.raw, found.continues)

    def _add(
        self,
        writer: _Writer,
        realtime: int,
        priority: bytes,
        boot_id: str,
        raw: bytes,
        continues: bool = False,
        dated: Mapping[str, Value] | None = None,
    ) -> None:
        """Add a complete line, parsed unless it continues an open entry. DATED are its fields if its time was replaced.

        CONTINUES: the rest of the line is in another entry.
        """
        service, key, hostname, pid, unit, split, verified = writer
        notes = None
        if len(raw) > MESSAGE_LIMIT or continues or b"\0" in raw:
            text, notes = clean_text(raw, continues)
        else:
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                text, notes = clean_text(raw)
        joiner = self._joiner
        opened = joiner.opened
        # Entries are joined without colours, which are not stored either.
        bare = text if "\x1b" not in text else without_escapes(text)
        if opened and key in opened and joiner.add(key, bare, realtime):
            return
        try:
            parsed = parse_text(self.formats, text, service, realtime)
        # Not in `take`, since the joiner has already returned the line.
        except CONTENT_FAULTS as fault:
            parsed = self._parsed_after(fault, text, service, realtime)
        level, message, context, trace_id, user_id, stated, complete = parsed
        if stated is not None and stated != pid:
            context = {**(context or {}), "pid": stated}
        if notes is not None:
            context = {**(context or {}), **notes}
        if not verified:
            context = {**(context or {}), **UNVERIFIED}
        if dated is not None:
            context = with_given_time(context or {}, dated)
        stated_level = level is not None
        # Health checks are GET requests; most lines have no G, which is the cheapest test.
        if (
            "G" in text
            and (USER_AGENT in text or "HTTP/1.0" in text)
            and is_own_check(text, self._health_paths(service))
        ):
            level = OWN_CHECK_LEVEL
        elif level is None:
            level = LEVEL_OF_PRIORITY.get(priority, "INFO")
        if realtime != self._realtime:
            second, rest = divmod(realtime, 1_000_000)
            if second != self._second:
                self._second, self._begins = second, datetime_of(second * 1_000_000)
            self._realtime, self._timestamp = realtime, self._begins + _MICROSECOND * rest
        stream = STREAM_OF_PRIORITY.get(priority) if split else None
        row = _new(
            LogRow,
            (
                self._timestamp,
                service,
                level,
                message,
                context,
                trace_id,
                user_id,
                hostname,
                pid,
                JOURNAL,
                unit,
                stream,
                boot_id,
                None,
            ),
        )
        is_open = bool(opened) and key in opened
        if not is_open and (complete or not opens(bare, level, stated_level)):
            self.rows.append(row)
            return
        first = _FirstLine(_Line(writer, realtime, priority, boot_id), row, stated_level)
        if (
            is_open
            and not (stated_level or complete or begins_with_head(bare))
            and joiner.add_plain(key, bare, first, realtime)
        ):
            return
        # After a colon or a banner, the message continues in the next lines.
        several = stated_level and level in _ERRORS and (len(message) < len(bare) or bare.endswith((":", "***", " ")))
        for joined in joiner.push(key, bare, level, first, realtime, complete, stated_level, several):
            self.rows.append(_finished(joined))

    def _parsed_after(self, fault: Exception, text: str, service: str, realtime: int) -> Parsed:
        """Parse TEXT again after FAULT, without a pattern that took too long; after another error return it as text."""
        while isinstance(fault, RunawayError):
            self.formats, name = without_pattern(self.formats, fault.pattern)
            self.runaways.append(name)
            try:
                return parse_text(self.formats, text, service, realtime)
            except CONTENT_FAULTS as another:
                fault = another
        self.faults.append((f"a line of {service}", fault))
        return Parsed(None, text, {UNPARSED: f"{type(fault).__name__}: {fault}"})


def _writer_of(fields: Mapping[str, Value]) -> _Writer | None:
    owner = owner_of(fields)
    if owner is None or owner.source != JOURNAL:
        return None
    process = text_of(fields, "_PID")
    pid = int(process) if process.isascii() and process.isdigit() and len(process) <= 9 else None
    return _Writer(
        owner.service,
        (owner.service, pid or 0, text_of(fields, "_STREAM_ID")),
        text_of(fields, "_HOSTNAME") or None,
        pid,
        text_of(fields, "_SYSTEMD_USER_UNIT") or None,
        stream_of(fields, b"6") is not None,
        owner.verified,
    )


def _finished(joined: JoinedEntry[_FirstLine]) -> LogRow:
    """Return the row of a joined entry."""
    row = joined.payload.row
    assert row is not None
    if joined.lines == 1 and not joined.traceback:
        return row
    # A level stated by the logger takes precedence over its stack trace's: a warning with a stack is a warning.
    level = row.level if joined.payload.stated else more_severe(row.level, joined.level) or row.level
    if joined.lines == 1:
        return row._replace(level=level)
    context = {**(row.context or {}), "lines": joined.lines}
    return row._replace(level=level, message=row.message + joined.more, context=context)


def _encoded(first: _FirstLine) -> list[Any]:
    (service, (_, pid, stream), *writer), realtime, priority, boot_id = first.line
    row = None if first.row is None else list(first.row[1:])
    return [[service, pid, stream, *writer], realtime, clean_text(priority)[0], boot_id, row, first.stated]


def _decoded(written: list[Any]) -> _FirstLine:
    (service, pid, stream, *writer_fields), realtime, priority, boot_id, row, *later = written
    # Earlier versions wrote no ``verified``.
    writer = _Writer(service, (service, pid, stream), *writer_fields)
    line = _Line(writer, realtime, str(priority).encode(), boot_id)
    # 1.1 did not write whether the level was stated.
    return _FirstLine(line, None if row is None else LogRow(datetime_of(realtime), *row), bool(later and later[0]))
