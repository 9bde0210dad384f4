"""Threads for calls that block: health checks, file systems, the journal.

They are daemon threads rather than an executor's, so that helmd can exit while a service doesn't answer.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from helmd.health.probe import run_probe
from helmd.health.target import probe_of
from helmd.model.suite.service import Service
from helmd.model.units.health import HealthVerdict

Result = TypeVar("Result")

PROBES = 64
"""How many health checks helmd runs at once. A service has one at most, so only more services than this would wait."""
_IDLE_THREADS = 4
"""How many threads of a pool wait for the next call instead of ending; to make one takes longer than most calls."""


class ProbeResult(NamedTuple):
    """A verdict, and how many milliseconds it took; None where nothing was asked over the network."""

    verdict: HealthVerdict
    response_ms: float | None


class ThreadPool:
    """Runs calls in threads, SIZE at once. Further calls wait until a thread has ended, not only its caller.

    A pool is for one kind of call: calls that hang use up the pool's threads, and so hold up their own kind only.
    """

    def __init__(self, size: int) -> None:
        self._free = asyncio.Semaphore(size)
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        """Of idle threads. None ends one."""
        self._idle = 0

    async def run(self, function: Callable[[], Result]) -> Result:
        """Return what FUNCTION returns or raises, called in a thread.

        Cancelled, it leaves the call to end by itself.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()

        def ended(result: Any, error: BaseException | None) -> None:
            if self._idle < _IDLE_THREADS:
                self._idle += 1
            else:
                self._calls.put(None)
            self._free.release()
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)

        def call() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = function()
            except BaseException as raised:  # noqa: BLE001 - raised again in the caller
                error = raised
            # The loop is closed when helmd has ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(ended, result, error)

        if self._idle:
            self._idle -= 1
            self._calls.put(call)
        else:
            try:
                threading.Thread(target=self._work, args=(call,), name="helmd-blocking", daemon=True).start()
            except RuntimeError:
                self._free.release()
                raise
        return await done

    def _work(self, call: Callable[[], None] | None) -> None:
        while call is not None:
            call()
            call = self._calls.get()

    async def probe(self, service: Service) -> ProbeResult:
        """Make one health check of a running SERVICE, bounded by its own time limit."""
        probe = probe_of(service)
        if probe.check == "process":
            return ProbeResult(run_probe(probe), None)

        return await self.timed(lambda: run_probe(probe))

    async def timed(self, check: Callable[[], HealthVerdict]) -> ProbeResult:
        """Return the verdict of CHECK, which blocks for a limited time, with how long it took."""

        def measured() -> ProbeResult:
            begun = time.perf_counter()
            verdict = check()
            return ProbeResult(verdict, round((time.perf_counter() - begun) * 1000, 2))

        return await self.run(measured)
