"""Work that several requests wait for is done once."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any


class SingleFlight:
    """The work under way, by key. A waiter that is cancelled leaves it to the others; `stop` ends it all."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._tasks

    def start(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, None]]) -> "asyncio.Task[None]":
        """WORK, begun now unless KEY is under way. It must keep its own errors: nobody may be there to take them."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(work())
            task.add_done_callback(lambda _: self._tasks.pop(key))
        return task

    async def join(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Waits until WORK is done, which is begun unless KEY is under way."""
        await asyncio.shield(self.start(key, work))

    async def stop(self) -> None:
        """Cancels what is under way, and waits for its end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
