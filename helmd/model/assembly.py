"""From journal entries to rows of the log store: parsed, joined, and told apart from what Helm itself wrote down.

Lines that services print (``_TRANSPORT=stdout``) go through the formats and the joiner. Whatever speaks the journal's
own protocol says its level itself. All that is open can be written down with the position and taken up again.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from helmd.model.formats import parse
from helmd.model.joining import Joined, Joiner, Key, opens
from helmd.model.parsed import Formats
from helmd.model.posted import PostedRow, posted_row
from helmd.model.row import (
    JOURNAL,
    LEVEL_OF_PRIORITY,
    MESSAGE_LIMIT,
    STREAM_OF_PRIORITY,
    Entry,
    LogRow,
    Value,
    clean_text,
    moment,
    owner_of,
    row_of,
    stream_of,
    suppression_row,
    text_of,
)

_ERRORS = frozenset({"ERROR", "CRITICAL"})
_WRITERS = 4_096
"""Writers that are remembered: one for each process and stream."""

_State = dict[str, Any]


class _Writer(NamedTuple):
    """What all lines of one process's stream have in common."""

    service: str
    key: Key
    hostname: str | None
    process_id: int | None
    unit: str | None
    split: bool
    """Its streams are told apart by the priority."""


class _Line(NamedTuple):
    """What a line is but for its text."""

    writer: _Writer
    realtime: int
    priority: bytes
    boot_id: str


class _Begun(NamedTuple):
    """What an open entry keeps: its first line, and the row of that once it is whole."""

    line: _Line
    row: LogRow | None


class Assembler:
    """Takes entries in the journal's order; ``rows`` and ``posted`` are what is complete and was not taken yet."""

    def __init__(self, formats: Formats, state: Mapping[str, Any] | None = None) -> None:
        self._formats = formats
        self._writers: dict[tuple[Value | None, ...], _Writer | None] = {}
        self._joiner: Joiner[_Begun] = Joiner.restore(state, _decoded) if state else Joiner()
        self._second, self._begins = 0, moment(0)
        self.rows: list[LogRow] = []
        self.posted: list[PostedRow] = []

    def __len__(self) -> int:
        """How many entries are open."""
        return len(self._joiner)

    def state(self) -> _State | None:
        """All that is open, as JSON can hold it; None when nothing is."""
        return self._joiner.dump(_encoded) if len(self._joiner) else None

    def take(self, entry: Entry) -> None:
        """One more entry."""
        fields = entry.fields
        if fields.get("_TRANSPORT") == b"stdout":
            writer = self._writer(fields)
            if writer is not None:
                self._take_line(writer, entry)
                return
        if (posted := posted_row(fields)) is not None:
            self.posted.append(posted)
        elif (row := suppression_row(entry) or row_of(entry)) is not None:
            self.rows.append(row)

    def expire(self, before: int) -> None:
        """Lets go what no line came to since BEFORE (the journal's time, microseconds since 1970)."""
        for whole in self._joiner.expire_parts(before):
            self._add(whole.payload.line, whole.raw, whole.cut)
        for joined in self._joiner.expire(before):
            self.rows.append(_finished(joined))

    def let_go(self) -> None:
        """Lets go everything: no line can come any more."""
        self.expire(1 << 62)

    def _writer(self, fields: Mapping[str, Value]) -> _Writer | None:
        """Whose line it is; None for a line that is nobody's of the suite, or not told by its process alone."""
        get = fields.get
        asked = (get("_SYSTEMD_USER_UNIT"), get("SYSLOG_IDENTIFIER"), get("_PID"), get("_STREAM_ID"), get("USER_UNIT"))
        try:
            return self._writers[asked]
        except KeyError:
            pass
        except TypeError:  # a field that is there twice
            return None
        if len(self._writers) >= _WRITERS:
            self._writers.clear()
        self._writers[asked] = writer = _writer_of(fields)
        return writer

    def _take_line(self, writer: _Writer, entry: Entry) -> None:
        fields, joiner = entry.fields, self._joiner
        raw = fields.get("MESSAGE", b"")
        if isinstance(raw, list):
            raw = b"\n".join(raw)
        priority = fields.get("PRIORITY", b"")
        if isinstance(priority, list):
            priority = priority[0]
        line = _Line(writer, entry.realtime, priority, entry.boot_id)
        if "_LINE_BREAK" in fields or (len(joiner) and joiner.splitting(writer.key)):
            line_break = text_of(fields, "_LINE_BREAK")
            for whole in joiner.part(writer.key, raw, line_break, _Begun(line, None), entry.realtime):
                self._add(whole.payload.line, whole.raw, whole.cut)
            return
        self._add(line, raw)

    def _add(self, line: _Line, raw: bytes, cut: bool = False) -> None:
        """A whole line: parsed, unless it goes on an open entry."""
        writer, realtime, priority, boot_id = line
        notes = None
        if len(raw) > MESSAGE_LIMIT or cut or b"\0" in raw:
            text, notes = clean_text(raw, cut)
        else:
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                text, notes = clean_text(raw)
        joiner, key = self._joiner, writer.key
        joining = len(joiner) > 0
        if joining and joiner.add(key, text, realtime):
            return
        level, message, context, trace_id, user_id, process_id, complete = parse(
            self._formats, text, writer.service, realtime
        )
        if process_id is not None and process_id != writer.process_id:
            context = {**(context or {}), "pid": process_id}
        if notes is not None:
            context = {**(context or {}), **notes}
        row = LogRow(
            self._moment(realtime),
            writer.service,
            level or LEVEL_OF_PRIORITY.get(priority, "INFO"),
            message,
            context,
            trace_id,
            user_id,
            writer.hostname,
            writer.process_id,
            JOURNAL,
            writer.unit,
            STREAM_OF_PRIORITY.get(priority) if writer.split else None,
            boot_id,
        )
        if not joining and not opens(text, row.level, complete):
            self.rows.append(row)
            return
        for joined in joiner.push(key, text, row.level, _Begun(line, row), realtime, complete):
            self.rows.append(_finished(joined))

    def _moment(self, realtime: int) -> datetime:
        """The same as `moment`, a little quicker for many of one second."""
        second, rest = divmod(realtime, 1_000_000)
        if second != self._second:
            self._second, self._begins = second, moment(second * 1_000_000)
        return self._begins.replace(microsecond=rest)


def _writer_of(fields: Mapping[str, Value]) -> _Writer | None:
    owner = owner_of(fields)
    if owner is None or owner[1] != JOURNAL:
        return None
    process = text_of(fields, "_PID")
    pid = int(process) if process.isdigit() and len(process) <= 9 else None
    return _Writer(
        owner[0],
        (owner[0], pid or 0, text_of(fields, "_STREAM_ID")),
        text_of(fields, "_HOSTNAME") or None,
        pid,
        text_of(fields, "_SYSTEMD_USER_UNIT") or None,
        stream_of(fields, b"6") is not None,
    )


def _finished(joined: Joined[_Begun]) -> LogRow:
    """The row of an entry with all its lines."""
    row = joined.payload.row
    assert row is not None
    if joined.lines == 1 and not joined.traceback:
        return row
    level = "ERROR" if joined.traceback and row.level not in _ERRORS else row.level
    if joined.lines == 1:
        return row._replace(level=level)
    context = {**(row.context or {}), "lines": joined.lines}
    return row._replace(level=level, message=row.message + joined.more, context=context)


def _encoded(begun: _Begun) -> list[Any]:
    (service, (_, pid, stream), *writer), realtime, priority, boot_id = begun.line
    row = None if begun.row is None else list(begun.row[1:])
    return [[service, pid, stream, *writer], realtime, priority.decode("ascii", "replace"), boot_id, row]


def _decoded(written: list[Any]) -> _Begun:
    (service, pid, stream, hostname, process_id, unit, split), realtime, priority, boot_id, row = written
    writer = _Writer(service, (service, pid, stream), hostname, process_id, unit, split)
    line = _Line(writer, realtime, priority.encode(), boot_id)
    return _Begun(line, None if row is None else LogRow(moment(realtime), *row))
