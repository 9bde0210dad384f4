"""Saved views of the log page."""

from collections.abc import Iterable

from helmd.model.api.log_views import LogView, LogViewRequest
from helmd.store.session import Connection, store_errors

MOST_VIEWS = 100
"""Views of one owner."""
_READ = "id, name, owner, owner = %(owner)s AS own, shared, query, columns, last, start_time, end_time, changed_at"


async def read_views(connection: Connection, owner: str) -> list[LogView]:
    """Return the views of OWNER, then those that others share, by name. Raises StoreError."""
    with store_errors("saved views can't be read"):
        cursor = await connection.execute(
            f"SELECT {_READ} FROM log_views WHERE owner = %(owner)s OR shared"  # noqa: S608 - a constant
            " ORDER BY owner <> %(owner)s, name, id LIMIT 1000",
            {"owner": owner},
        )
        return [LogView(*row) async for row in cursor]


async def save_view(connection: Connection, owner: str, view: LogViewRequest) -> LogView | None:
    """Save VIEW for OWNER, instead of one with its name. None if OWNER has MOST_VIEWS others. Raises StoreError."""
    with store_errors("the view can't be saved"):
        cursor = await connection.execute(
            "INSERT INTO log_views AS known (owner, name, shared, query, columns, last, start_time, end_time)"  # noqa: S608
            " SELECT %(owner)s, %(name)s, %(shared)s, %(query)s, %(columns)s::text[], %(last)s, %(start)s, %(end)s"
            " WHERE (SELECT count(*) FROM log_views WHERE owner = %(owner)s AND name <> %(name)s) < %(most)s"
            " ON CONFLICT (owner, name) DO UPDATE SET shared = excluded.shared, query = excluded.query,"
            " columns = excluded.columns, last = excluded.last, start_time = excluded.start_time,"
            f" end_time = excluded.end_time, changed_at = now() RETURNING {_READ}",
            {
                "owner": owner,
                "name": view.name,
                "shared": view.shared,
                "query": view.query,
                "columns": list(view.columns),
                "last": view.last,
                "start": view.start_time,
                "end": view.end_time,
                "most": MOST_VIEWS,
            },
        )
        found = await cursor.fetchone()
        return None if found is None else LogView(*found)


async def remove_view(connection: Connection, number: int, owner: str, *, any_shared: bool) -> str | None:
    """Remove a view of OWNER, or with ANY_SHARED also a shared one; its name, or None if there is none.

    Raises StoreError.
    """
    with store_errors("the view can't be removed"):
        cursor = await connection.execute(
            "DELETE FROM log_views WHERE id = %s AND (owner = %s OR (shared AND %s)) RETURNING name",
            (number, owner, any_shared),
        )
        found = await cursor.fetchone()
        return None if found is None else str(found[0])


async def every_view(connection: Connection) -> list[LogView]:
    """Return the views of all owners. Raises StoreError."""
    with store_errors("saved views can't be read"):
        cursor = await connection.execute(f"SELECT {_READ} FROM log_views ORDER BY id", {"owner": ""})  # noqa: S608
        return [LogView(*row) async for row in cursor]


async def put_views(connection: Connection, views: Iterable[LogView]) -> None:
    """Restore VIEWS, but for those whose owners have one with their name. Raises StoreError."""
    with store_errors("saved views can't be restored"):
        for view in views:
            await connection.execute(
                "INSERT INTO log_views (owner, name, shared, query, columns, last, start_time, end_time, changed_at)"
                " VALUES (%s, %s, %s, %s, %s::text[], %s, %s, %s, %s) ON CONFLICT (owner, name) DO NOTHING",
                (
                    view.owner,
                    view.name,
                    view.shared,
                    view.query,
                    list(view.columns),
                    view.last,
                    view.start_time,
                    view.end_time,
                    view.changed_at,
                ),
            )
