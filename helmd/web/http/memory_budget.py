"""A limit on the memory of all requests together, at which further ones wait."""

import asyncio
from collections import deque


class MemoryBudget:
    """A budget of SIZE bytes, given to waiting requests in order of arrival."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, amount: int) -> None:
        """Wait for AMOUNT bytes, at most SIZE, and take them. `release` returns them."""
        amount = min(amount, self._size)
        if not self._waiting and self._free >= amount:
            self._free -= amount
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(amount)
            raise

    def overdraw(self, amount: int) -> None:
        """Take AMOUNT more without waiting, even beyond SIZE."""
        self._free -= amount

    def release(self, amount: int, overdraw: int = 0) -> None:
        """Return what `acquire` took for AMOUNT, and OVERDRAW taken by `overdraw`."""
        self._free += min(amount, self._size) + overdraw
        while self._waiting:
            wanted, turn = self._waiting[0]
            if not turn.cancelled():
                if self._free < wanted:
                    return
                self._free -= wanted
                turn.set_result(None)
            self._waiting.popleft()
