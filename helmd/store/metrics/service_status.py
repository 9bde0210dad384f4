"""The last known state of each service, one row per service."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import datetime

from psycopg import sql

from helmd.store.session import Connection, store_errors


@dataclass(frozen=True, slots=True)
class StatusRow:
    """One row of ``service_status``; the fields are its columns."""

    service_name: str
    status: str
    last_checked: datetime
    pid: int | None = None
    port: int | None = None
    started_at: datetime | None = None
    health_status: str | None = None
    health_message: str | None = None
    cpu_percent: float | None = None
    memory_mb: float | None = None


_COLUMNS = [field.name for field in fields(StatusRow)]
_PUT = sql.SQL(
    "INSERT INTO service_status ({columns}) VALUES ({places})"
    " ON CONFLICT (service_name) DO UPDATE SET ({columns}) = ROW ({excluded})"
    " WHERE service_status.last_checked <= excluded.last_checked"
    # A row written while the clock was ahead would otherwise stay until then.
    " OR service_status.last_checked > now() + interval '10 minutes'"
).format(
    columns=sql.SQL(", ").join(map(sql.Identifier, _COLUMNS)),
    places=sql.SQL(", ").join(sql.Placeholder() * len(_COLUMNS)),
    excluded=sql.SQL(", ").join(sql.SQL("excluded.") + sql.Identifier(name) for name in _COLUMNS),
)


async def put_statuses(connection: Connection, rows: Sequence[StatusRow]) -> None:
    """Insert or update the states of services, unless a row is newer and not ahead of the clock. Raises StoreError."""
    with store_errors("service states can't be stored"):
        async with connection.transaction(), connection.cursor() as cursor:
            # Sorted, so that two writers can't deadlock.
            await cursor.executemany(_PUT, [astuple(row) for row in sorted(rows, key=lambda row: row.service_name)])


async def drop_statuses(connection: Connection, keep: Sequence[str]) -> None:
    """Delete the rows of services other than KEEP. Raises StoreError."""
    with store_errors("service states can't be tidied"):
        await connection.execute("DELETE FROM service_status WHERE service_name <> ALL (%s)", (list(keep),))
