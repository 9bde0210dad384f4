"""Converting a journal entry's fields to a row of the log store: its service, level and message.

Only fields that start with an underscore are trusted (systemd.journal-fields(7)); the program itself wrote the others,
which are used only where a wrong value does no harm.
"""

import codecs
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from helmd.model.counted import counted
from helmd.model.logs.entry import HELM, JOURNAL, MESSAGE_LIMIT, SYSTEMD, LogRow, datetime_of, realtime_of
from helmd.model.logs.ids import CHANGED
from helmd.model.logs.level import LEVELS
from helmd.model.logs.parsing.entry_times import Times
from helmd.model.logs.parsing.position import Gap, Missing
from helmd.model.suite.names import SERVICE_NAME, service_of, service_of_identifier

Value = bytes | list[bytes]
"""A field's value; a list when the entry has the field more than once."""

LEVEL_OF_PRIORITY = {
    b"0": "CRITICAL",
    b"1": "CRITICAL",
    b"2": "CRITICAL",
    b"3": "ERROR",
    b"4": "WARNING",
    b"5": "INFO",
    b"6": "INFO",
    b"7": "DEBUG",
}
STREAM_OF_PRIORITY = {b"6": "stdout", b"5": "stderr"}
"""Units print through ``systemd-cat -p info --stderr-priority=notice``: the priority identifies the stream."""
ACTION = "HIVEMATRIX_ACTION"
"""The field of Helm's action: start, stop, restart, ..."""
_ACTORS = frozenset({b"helmctl", b"helmd"})
_ACTION_FIELDS = {
    f"HIVEMATRIX_{key.upper()}": key
    for key in ("action", "service", "result", "reason", "actor", "detail", "via", "address", "unit", "session")
}
_MANAGER = b"init.scope"
"""The unit of the user manager itself."""
_OWN_COLUMN = frozenset({"MESSAGE", "PRIORITY", "USER_UNIT", "USER_INVOCATION_ID", "TID"})
SUPPRESSED = b"a596d6fe7bfa4994828e72309e95d61e"
"""MESSAGE_ID of journald's notice that it has suppressed messages (sd-messages.h)."""
UNPARSED = "_unparsed"
"""The key in a row's context for the reason why its text was not parsed."""
REALTIME = "__REALTIME_TIMESTAMP"
"""The field added for the original time of an entry in a damaged file (microseconds since 1970), if it was replaced. No
entry has such a field: journald accepts none that begins with two underscores.
"""
UNVERIFIED: dict[str, object] = {"_unverified": "service_name"}
"""Context of a row whose service was named by the program alone."""
CUT = "__CUT_FIELDS"
"""The field added for the names of fields that were dropped because the entry is too large."""
_EXTRA_FIELDS = 32
_EXTRA_LIMIT = 4096


class JournalEntry(NamedTuple):
    """A journal entry as read, with its address fields; times are in microseconds, ``realtime`` since 1970."""

    fields: Mapping[str, Value]
    cursor: str
    boot_id: str
    monotonic: int
    realtime: int


def with_realtime_field(entry: JournalEntry, given: Times) -> JournalEntry:
    """Return ENTRY with the field REALTIME for the GIVEN wall-clock time, if its own was replaced."""
    if given.realtime == entry.realtime:
        return entry
    return entry._replace(fields={**entry.fields, REALTIME: b"%d" % given.realtime})


def with_given_time(context: Mapping[str, object], fields: Mapping[str, Value]) -> dict[str, object]:
    """Return CONTEXT of a row with the entry's original time from FIELDS, if it was replaced by a plausible one."""
    given = text_of(fields, REALTIME)
    if not given:
        return dict(context)
    stated = datetime_of(int(given))
    changed: dict[str, object] = {"timestamp": stated.isoformat() if realtime_of(stated) == int(given) else given}
    if CHANGED in context:
        changed[CHANGED] = context[CHANGED]
    return {**context, CHANGED: changed}


def row_of(entry: JournalEntry) -> LogRow | None:
    """Return the row for an unparsed entry, or None if it belongs to no service of the suite.

    The text of a printed line is parsed, and lines that belong together are joined, in
    `helmd.model.logs.parsing.journal_entries`.

    The time is journald's own (``__REALTIME_TIMESTAMP``): every entry has it and no program can set it, unlike
    ``_SOURCE_REALTIME_TIMESTAMP``, which lines printed to stdout do not have.
    """
    fields = entry.fields
    owner = owner_of(fields)
    if owner is None:
        return None
    unit = _first(fields, "USER_UNIT") if owner.source == SYSTEMD else _first(fields, "_SYSTEMD_USER_UNIT")
    more = _extra(fields) if owner.verified else _extra(fields) | UNVERIFIED
    return _row(entry, owner.service, owner.source, unit, more)


def action_row(entry: JournalEntry) -> LogRow:
    """Return the row for Helm's own record of an action; the caller must have verified that ENTRY is one."""
    fields = entry.fields
    service = text_of(fields, "HIVEMATRIX_SERVICE")
    context: dict[str, object] = {
        key: text_of(fields, name)[:_EXTRA_LIMIT] for name, key in _ACTION_FIELDS.items() if name in fields
    }
    name = service if SERVICE_NAME.match(service) else "helm"
    return _row(entry, name, HELM, _first(fields, "USER_UNIT"), context)


def plain_row(entry: JournalEntry, fault: str) -> LogRow | None:
    """Return the row with the text of an entry that could not be parsed for the reason FAULT, or None if it belongs to
    no service of the suite.
    """
    fields = entry.fields
    if (owner := owner_of(fields)) is None:
        return None
    more = ({} if owner.verified else UNVERIFIED) | {UNPARSED: _fault_text(fault)}
    return _row(entry, owner.service, owner.source, _first(fields, "_SYSTEMD_USER_UNIT"), more)


def text_row(row: LogRow, fault: str) -> LogRow:
    """Return ROW with only its text, time, service, level and source, if PostgreSQL refuses it for the reason FAULT."""
    return LogRow(
        timestamp=row.timestamp,
        service_name=row.service_name,
        level=row.level if row.level in LEVELS else "INFO",
        message=clean_text(row.message.encode("utf-8", "replace"))[0],
        context={UNPARSED: _fault_text(fault)},
        source=row.source,
    )


def fault_row(timestamp: datetime, fault: str, entries: int = 1) -> LogRow:
    """Return the row that reports that ENTRIES of the journal could not be stored for the reason FAULT."""
    what = "An entry" if entries == 1 else f"{entries:,} entries"
    return LogRow(
        timestamp=timestamp,
        service_name="helm",
        level="WARNING",
        message=f"{what} of the journal could not be stored: {_fault_text(fault)}",
        context={"gap": "refused", "count": entries},
        source=HELM,
    )


def _fault_text(fault: str) -> str:
    return clean_text(fault.encode("utf-8", "replace"))[0][:1000]


def _row(entry: JournalEntry, service: str, source: str, unit: bytes, more: Mapping[str, object]) -> LogRow:
    fields = entry.fields
    priority = _first(fields, "PRIORITY")
    message, context = message_of(fields)
    if CUT in fields:
        context["_cut_fields"] = text_of(fields, CUT)
    context = with_given_time(context | {**more}, fields)
    return LogRow(
        timestamp=datetime_of(entry.realtime),
        service_name=service,
        level=LEVEL_OF_PRIORITY.get(priority, "INFO"),
        message=message,
        context=context or None,
        hostname=_text(_first(fields, "_HOSTNAME")) or None,
        process_id=_pid(_first(fields, "_PID")),
        source=source,
        unit=_text(unit) or None,
        stream=stream_of(fields, priority),
        boot_id=entry.boot_id,
    )


def gap_row(gap: Gap, hostname: str) -> LogRow:
    """Return the row that reports that lines may be missing: the time range, and the maximum number."""
    since, until = datetime_of(gap.since), datetime_of(gap.until)
    reason = {
        Missing.LOST: "the journal no longer has the entry where reading stopped",
        Missing.UNREADABLE: "a journal file is damaged",
    }[gap.why]
    count = "an unknown number of lines" if gap.at_most is None else f"at most {gap.at_most:,} lines"
    return LogRow(
        timestamp=until,
        service_name="helm",
        level="WARNING",
        message=f"Lines may be missing between {since.isoformat()} and {until.isoformat()}: {reason} ({count}).",
        context={
            "gap": str(gap.why),
            "since": since.isoformat(),
            "until": until.isoformat(),
            "at_most": gap.at_most,
        },
        hostname=hostname,
        source=HELM,
    )


def suppression_row(entry: JournalEntry) -> LogRow | None:
    """Return the row for journald's notice that its rate limit has dropped lines of this account; None for others.

    Their service is unknown: journald counts all of an account's units together.
    """
    fields = entry.fields
    if _first(fields, "MESSAGE_ID") != SUPPRESSED or _first(fields, "_TRANSPORT") != b"driver":
        return None
    dropped = text_of(fields, "N_DROPPED")
    count = int(dropped) if dropped.isascii() and dropped.isdigit() and len(dropped) <= 18 else None
    until = datetime_of(entry.realtime)
    lines = "an unknown number of lines" if count is None else counted(count, "line")
    return LogRow(
        timestamp=until,
        service_name="helm",
        level="WARNING",
        message=f"{lines} of this account's units were thrown away by journald before {until.isoformat()}: "
        "they came faster than its rate limit allows; helmctl doctor says more.",
        context={"gap": "suppressed", "until": until.isoformat(), "count": count},
        hostname=text_of(fields, "_HOSTNAME") or None,
        source=HELM,
        boot_id=entry.boot_id,
    )


class Owner(NamedTuple):
    """The service an entry belongs to, and the source of its row."""

    service: str
    source: str
    verified: bool = True
    """Whether journald named the unit; otherwise the program itself named the service."""


def owner_of(fields: Mapping[str, Value]) -> Owner | None:
    """Return the service that an entry belongs to, by its trusted fields if it has any; None if it belongs to none.

    journald reads a process's unit after it has received the line. If the process has exited by then, only untrusted
    fields name a service, which any process can set. A line of a known unit never belongs to another one.
    """
    identifier = _first(fields, "SYSLOG_IDENTIFIER")
    unit = _first(fields, "_SYSTEMD_USER_UNIT")
    about = service_of(_text(_first(fields, "USER_UNIT")))
    if unit:
        service = service_of(_text(unit))
        if service is not None:
            return Owner(service, JOURNAL)
        if unit == _MANAGER and about is not None:
            return Owner(about, SYSTEMD)
    else:
        stated = service_of_identifier(_text(identifier)) or about
        if stated is not None:
            return Owner(stated, JOURNAL, verified=False)
    if identifier in _ACTORS and ACTION in fields:
        # The record of an action without a signature is only a line.
        return Owner("helm", JOURNAL, verified=False)
    return None


def message_of(fields: Mapping[str, Value]) -> tuple[str, dict[str, object]]:
    """Return the message as text that can be stored, and context on the changes."""
    value = fields.get("MESSAGE", b"")
    text, notes = clean_text(b"\n".join(value) if isinstance(value, list) else value)
    line_break = _first(fields, "_LINE_BREAK")
    if line_break:
        notes["line_break"] = _text(line_break)
    return text, notes


def clean_text(raw: bytes, continues: bool = False) -> tuple[str, dict[str, object]]:
    """Return the bytes of a line as text that can be stored, at most MESSAGE_LIMIT bytes, and context on the changes.

    With CONTINUES, the context says that the line continues in another entry.
    """
    notes: dict[str, object] = {}
    if len(raw) > MESSAGE_LIMIT:
        # An incremental decoder drops a character that is incomplete at the end instead of replacing it.
        raw = codecs.getincrementaldecoder("utf-8")("replace").decode(raw[:MESSAGE_LIMIT]).encode()
        notes["cut_at_bytes"] = MESSAGE_LIMIT
    if continues:
        notes["goes_on"] = True
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "replace")
        notes["bytes_replaced"] = True
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
        notes["bytes_replaced"] = True
    return text, notes


def text_of(fields: Mapping[str, Value], name: str) -> str:
    """Return the first value of a field as text, or "" if there is none."""
    return _text(_first(fields, name))


def _extra(fields: Mapping[str, Value]) -> dict[str, object]:
    """Return the fields that a program added by journald's native protocol, such as systemd's exit codes."""
    if fields.get("_TRANSPORT") != b"journal":
        return {}
    # The cheapest test is first: most names begin with "_".
    names = [n for n in fields if n[:1] != "_" and n not in _OWN_COLUMN and not n.startswith("SYSLOG_")]
    return {name.lower(): _text(_first(fields, name))[:_EXTRA_LIMIT] for name in sorted(names)[:_EXTRA_FIELDS]}


def stream_of(fields: Mapping[str, Value], priority: bytes) -> str | None:
    """Return the stream of a printed line, or None if unknown (without systemd-cat, or with a prefix like ``<3>``)."""
    if fields.get("_TRANSPORT") != b"stdout":
        return None
    service = service_of_identifier(_text(_first(fields, "SYSLOG_IDENTIFIER")))
    return None if service in (None, "helm") else STREAM_OF_PRIORITY.get(priority)


def _first(fields: Mapping[str, Value], name: str) -> bytes:
    value = fields.get(name, b"")
    return value[0] if isinstance(value, list) else value


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\0", "\ufffd")


def _pid(raw: bytes) -> int | None:
    """Return a process id as pid_t has it, or None."""
    return int(raw) if raw.isdigit() and len(raw) <= 9 else None
