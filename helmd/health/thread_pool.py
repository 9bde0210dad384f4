"""A few threads for what blocks: probes, directories on slow disks.

They are daemon threads rather than an executor's: the end of helmd must not wait for a service that doesn't answer.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from helmd.health.probe import run_probe
from helmd.health.target import probe_of
from helmd.model.suite.service import Service
from helmd.model.units.health import HealthVerdict

Result = TypeVar("Result")


class ProbeResult(NamedTuple):
    """A verdict, and how many milliseconds it took; None where nothing was asked over the network."""

    verdict: HealthVerdict
    response_ms: float | None


class ThreadPool:
    """SIZE threads; work that they have not got to waits in line."""

    def __init__(self, size: int = 8) -> None:
        self._work: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = SimpleQueue()
        for number in range(size):
            threading.Thread(target=self._serve, name=f"crew-{number}", daemon=True).start()

    async def run(self, function: Callable[[], Result]) -> Result:
        """What FUNCTION returns or raises, called in one of the threads."""
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._work.put((function, done))
        return await done

    async def probe(self, service: Service) -> ProbeResult:
        """One health check of a running SERVICE, bounded by its own time limit."""
        probe = probe_of(service)
        if probe.check == "process":
            return ProbeResult(run_probe(probe), None)

        def timed() -> ProbeResult:
            begun = time.perf_counter()
            verdict = run_probe(probe)
            return ProbeResult(verdict, round((time.perf_counter() - begun) * 1000, 2))

        return await self.run(timed)

    def _serve(self) -> None:
        while True:
            function, done = self._work.get()
            if done.cancelled():
                continue
            result: Any = None
            error: BaseException | None = None
            try:
                result = function()
            except BaseException as raised:  # noqa: BLE001 - it is handed to who waits for it
                error = raised
            # The loop may have been closed meanwhile; then nobody waits any more.
            with contextlib.suppress(RuntimeError):
                done.get_loop().call_soon_threadsafe(_settle, done, result, error)


def _settle(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
