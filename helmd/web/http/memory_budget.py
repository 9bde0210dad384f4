"""A bound on what requests hold in memory together; those that come when it is reached wait."""

import asyncio
from collections import deque


class MemoryBudget:
    """SIZE bytes. Who waits is let in in order."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, amount: int) -> None:
        """Take AMOUNT once it is there; at most all there is. `release` gives it back."""
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
        """Take AMOUNT more at once, even of what is not there: it is needed now, and others wait the longer."""
        self._free -= amount

    def release(self, amount: int, overdraw: int = 0) -> None:
        """Give back what `acquire` took for AMOUNT, and what was SPREAD besides."""
        self._free += min(amount, self._size) + overdraw
        while self._waiting:
            wanted, turn = self._waiting[0]
            if not turn.cancelled():
                if self._free < wanted:
                    return
                self._free -= wanted
                turn.set_result(None)
            self._waiting.popleft()
