"""What both daemons share: notifications to systemd (sd_notify(3)), the watchdog, signals that reload and stop."""

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from helmd.model.errors import HelmError

_log = logging.getLogger(__name__)

_CANCEL_AGAIN_SECONDS = 10.0
"""Time for a task to clean up; a second cancellation would interrupt that."""


def watchdog_seconds(environment: Mapping[str, str], pid: int) -> float | None:
    """Return the watchdog's timeout in seconds, or None (sd_watchdog_enabled(3))."""
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    given = environment.get("WATCHDOG_USEC", "")
    return int(given) / 1_000_000 if given.isdigit() and int(given) > 0 else None


class Lifecycle:
    """Runs a daemon. The work calls ``beat`` whenever it makes progress, ``ready`` once it can serve.

    ``notify`` sends one sd_notify message; it may do nothing when there is no systemd. ``watchdog`` is in seconds.
    """

    def __init__(self, notify: Callable[[str], object], watchdog: float | None = None) -> None:
        self._notify = notify
        self._watchdog = watchdog
        self._beaten = time.monotonic()
        self._status = ""

    def beat(self) -> None:
        """Record progress. Without it for half the watchdog's timeout, systemd gets no WATCHDOG=1."""
        self._beaten = time.monotonic()

    def ready(self, status: str) -> None:
        """The daemon serves; STATUS is what systemctl status shows."""
        self._status = status
        self._notify(f"READY=1\nSTATUS={_line(status)}")

    def status(self, sentence: str) -> None:
        """What systemctl status shows from now on."""
        if sentence != self._status:
            self._status = sentence
            self._notify(f"STATUS={_line(sentence)}")

    async def run(self, work: Coroutine[Any, Any, None], reload: Callable[[], Awaitable[None]] | None = None) -> None:
        """Do WORK until it ends or SIGTERM or SIGINT cancels it; RELOAD runs on SIGHUP; its HelmError is only logged.

        An error of WORK comes out in an ExceptionGroup.
        """
        loop = asyncio.get_running_loop()
        hangup, stop_requested = asyncio.Event(), asyncio.Event()
        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        try:
            async with asyncio.TaskGroup() as group:
                main = group.create_task(work)
                beside = [
                    group.create_task(self._watch()),
                    group.create_task(self._reload(hangup, reload)),
                    group.create_task(self._end(stop_requested, main)),
                ]
                main.add_done_callback(lambda _: [task.cancel() for task in beside])
                for number in (signal.SIGTERM, signal.SIGINT):
                    loop.add_signal_handler(number, stop_requested.set)
                loop.add_signal_handler(signal.SIGHUP, hangup.set)
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    async def _end(self, stop_requested: asyncio.Event, main: asyncio.Task[None]) -> None:
        await stop_requested.wait()
        self._notify("STOPPING=1\nSTATUS=stopping")
        await end(main)

    async def _watch(self) -> None:
        if self._watchdog is None:
            return
        period = self._watchdog / 2
        warned = False
        while True:
            silent = time.monotonic() - self._beaten
            if silent < period:
                self._notify("WATCHDOG=1")
            else:
                _log.warning("no progress for %.0f s; systemd restarts this process if that continues", silent)
                if not warned:
                    _log.warning("tasks wait at: %s", "; ".join(sorted(map(_place, asyncio.all_tasks()))))
            warned = silent >= period
            await asyncio.sleep(period / 2)

    async def _reload(self, hangup: asyncio.Event, reload: Callable[[], Awaitable[None]] | None) -> None:
        while True:
            await hangup.wait()
            hangup.clear()
            # By the time, Type=notify-reload (systemd 253) distinguishes this reload from an earlier one.
            usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._notify(f"RELOADING=1\nMONOTONIC_USEC={usec}")
            status = self._status
            try:
                if reload is not None:
                    await reload()
            except HelmError as error:
                _log.error("reload failed; the old configuration stays in use: %s", error.sentence)
                status = f"reload failed: {error.sentence}"
            self.ready(status)


def _place(task: asyncio.Task[Any]) -> str:
    """Return what TASK runs, and in which line of it."""
    coroutine = task.get_coro()
    frames = task.get_stack(limit=1)
    return f"{getattr(coroutine, '__qualname__', coroutine)}:{frames[0].f_lineno if frames else '?'}"


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task, repeatedly if it continues, until it is done.

    asyncio.wait_for, with which psycopg connects, can swallow a cancellation before Python 3.12 (CPython issue 86296).
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_AGAIN_SECONDS)


def log_to_stderr(environment: Mapping[str, str]) -> None:
    """Log lines to stderr, with the priority prefix that journald reads (sd-daemon(3)) when it listens there."""
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(levelname)s %(message)s")
    handler.setFormatter(_Prefixed() if "JOURNAL_STREAM" in environment else plain)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class _Prefixed(logging.Formatter):
    """``<4>text``, on every line of a record."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))


def _line(text: str) -> str:
    return " ".join(text.splitlines())
