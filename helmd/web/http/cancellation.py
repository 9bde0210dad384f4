"""Long-running handlers, which end when their client disconnects or loses its authorization."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiohttp import web

from helmd.model.errors import DeniedError
from helmd.web.auth.roles import Identity

_LOOK_SECONDS = 0.1
_WATCH_SECONDS = 1.0
_RECHECK_SECONDS = 15.0
"""Interval in seconds of checks, by which a stream ends within a minute after its session
(helmd/web/auth/verifier.py).
"""

Result = TypeVar("Result")


class GoneError(ConnectionResetError):
    """The client has disconnected."""


async def run_while_connected(request: web.Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of WORK, which is cancelled when the client disconnects. Raises GoneError then.

    aiohttp 3.8 does not cancel a handler when its client disconnects.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_LOOK_SECONDS)
            if request.transport is None:
                raise GoneError("the client went away")
        return task.result()
    finally:
        await cancel_and_wait(task)


async def run_while_authorized(request: web.Request, work: Coroutine[Any, Any, None]) -> None:
    """Run WORK until it ends, the client disconnects, or the caller's authorization ends.

    Raises GoneError, and as `Callers.authorize` if the caller is not authorized any more.
    """
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(_watch(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        for task in (working, watching):
            if task.done():
                task.result()
    finally:
        await cancel_and_wait(working, watching)


async def cancel_and_wait(*tasks: asyncio.Future[Any]) -> None:
    """Cancel TASKS and wait for their end; their errors are ignored."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()


async def _watch(request: web.Request) -> None:
    checked = time.monotonic()
    while True:
        await asyncio.sleep(_WATCH_SECONDS)
        if request.transport is None:
            raise GoneError("the client went away")
        if time.monotonic() - checked >= _RECHECK_SECONDS:
            before: Identity | None = request["identity"]
            now: Identity | None = await request["recheck"]()
            if (now and now.services) != (before and before.services):
                raise DeniedError("what may be seen here has changed", hint="Ask again.")
            checked = time.monotonic()
