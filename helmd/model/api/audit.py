"""Parameters and reply of ``GET /api/audit``."""

from dataclasses import dataclass, field
from datetime import datetime

from helmd.model.json_fields import described
from helmd.model.logs.filter import CURSOR_PATTERN

DEFAULT_ENTRIES, MOST_ENTRIES = 100, 1000


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A change, or an attempt at one."""

    timestamp: datetime = field(metadata=described("when"))
    action: str = field(metadata=described("method and path of a request, or the command", example="restart"))
    service_name: str | None = field(metadata=described("the service; null for Helm itself", example="core"))
    result: str = field(metadata=described("done, failed, refused, or what a command came to", example="done"))
    who: str = field(
        metadata=described("the user, account or machine:NAME; unknown without a valid credential", example="hive")
    )
    reason: str | None = field(metadata=described("why it was done"))
    detail: str | None = field(metadata=described("what exactly, or why it failed"))
    via: str | None = field(metadata=described("socket, token, session, machine or helmctl", example="socket"))
    address: str | None = field(metadata=described("the caller's, as far as trusted proxies say it"))
    unit: str | None = field(
        metadata=described("the unit that sent it; elsewhere for another host, unknown", example="session-3.scope")
    )
    session: str | None = field(metadata=described("identifies a session or machine token; not a secret"))
    hostname: str | None = field(metadata=described("the host"))
    cursor: str = field(
        metadata=described("its place in the audit trail; as cursor, it asks for what is older", pattern=CURSOR_PATTERN)
    )


@dataclass(frozen=True, slots=True)
class AuditPage:
    """The audit trail."""

    audit: tuple[AuditRecord, ...] = field(metadata=described("the newest first"))
    limit: int = field(metadata=described("at most so many are given", example=DEFAULT_ENTRIES))
    next_cursor: str | None = field(
        metadata=described("cursor of the next page; null on the last one", pattern=CURSOR_PATTERN)
    )
    store_error: str | None = field(
        default=None,
        metadata=described("why what the journal does not have any more is missing; absent if it is not", omitted=True),
    )


@dataclass(frozen=True, slots=True)
class AuditFilterQuery:
    """Which entries of the audit trail."""

    service: str | None = field(default=None, metadata=described("about this service", omitted=True))
    who: str | None = field(default=None, metadata=described("by this caller", omitted=True))
    result: str | None = field(default=None, metadata=described("with this result", omitted=True))
    start_time: datetime | None = field(default=None, metadata=described("from this time on", omitted=True))
    end_time: datetime | None = field(default=None, metadata=described("before this time", omitted=True))
    limit: int = field(
        default=DEFAULT_ENTRIES,
        metadata=described(f"entries; at most {MOST_ENTRIES:,} are given", minimum=1, maximum=10**18 - 1),
    )
    cursor: str | None = field(
        default=None,
        metadata=described("next_cursor of another page", omitted=True, pattern=CURSOR_PATTERN),
    )
