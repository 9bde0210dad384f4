"""Running work once for several requests that wait for its result (single flight)."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any


class SingleFlight:
    """Work in progress, by key. Cancelling a waiter does not cancel the work; `stop` cancels all."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._tasks

    def start(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, None]]) -> "asyncio.Task[None]":
        """Start WORK unless KEY is in progress. It must handle its own errors: there may be no waiter."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(work())
            task.add_done_callback(lambda _: self._tasks.pop(key))
        return task

    async def join(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start WORK unless KEY is in progress, and wait until it is done."""
        await asyncio.shield(self.start(key, work))

    async def stop(self) -> None:
        """Cancel all work, and wait for its end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
