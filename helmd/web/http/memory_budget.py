"""A bound on what requests hold in memory together; those that come when it is reached wait."""

import asyncio
from collections import deque


class Room:
    """SIZE bytes. Who waits is let in in order."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, amount: int) -> None:
        """Takes AMOUNT once it is there; at most all there is. `leave` gives it back."""
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
                self.leave(amount)
            raise

    def spread(self, amount: int) -> None:
        """Takes AMOUNT more at once, even of what is not there: it is needed now, and others wait the longer."""
        self._free -= amount

    def leave(self, amount: int, spread: int = 0) -> None:
        """Gives back what `enter` took for AMOUNT, and what was SPREAD besides."""
        self._free += min(amount, self._size) + spread
        while self._waiting:
            wanted, turn = self._waiting[0]
            if not turn.cancelled():
                if self._free < wanted:
                    return
                self._free -= wanted
                turn.set_result(None)
            self._waiting.popleft()
