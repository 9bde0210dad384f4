"""Saved views of the log page as a file, which is part of every backup, with or without the log store."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from helmd.model.api.json_codec import from_json, to_json
from helmd.model.api.log_views import LogView
from helmd.store.logs.views import every_view, put_views
from helmd.store.session import Connection, connect

_log = logging.getLogger(__name__)


def views_as_file(store: str) -> bytes:
    """Return the content of the file: the views in STORE (a conninfo string). Blocks. Raises StoreError."""

    async def read() -> list[LogView]:
        connection = await connect(store, "helm-backup")
        try:
            return await every_view(connection)
        finally:
            await connection.close()

    return json.dumps([to_json(view) for view in asyncio.run(read())], indent=1).encode() + b"\n"


def restore_views(file: Path) -> Callable[[Connection], Awaitable[None]]:
    """Return a coroutine function that stores the views in FILE, if a restore has left one, and removes it.

    That function raises StoreError.
    """

    async def put(connection: Connection) -> None:
        try:
            views = [from_json(LogView, each) for each in json.loads(file.read_bytes())]
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
            _log.warning("saved views can't be restored: %s: %s", file, problem)
            file.rename(file.with_suffix(".unreadable"))
            return
        await put_views(connection, views)
        file.unlink(missing_ok=True)
        _log.info("%d saved views of the log page were restored", len(views))

    return put
