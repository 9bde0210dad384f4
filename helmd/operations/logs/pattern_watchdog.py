"""Interrupts regular expression matches that take too long, since a user's pattern may backtrack exponentially.

Python's `re` holds the global interpreter lock during a match, but it checks for signals. So a timer of the processor
time used by this process (setitimer(2), ITIMER_VIRTUAL) sends one every few milliseconds, and its handler finds out
which pattern is being matched. This costs nothing per match. Python runs signal handlers in the main thread, so
patterns are only matched there.
"""

import asyncio
import logging
import re
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType

from helmd.model.ingest.logs import plain_reading
from helmd.model.logs.parsing.formats import may_match_inside, parse_message, running_pattern
from helmd.model.logs.parsing.parsed import Formats, Parsed, RunawayError, without_pattern

LIMIT = 0.5
"""Seconds of processor time that slow matches of one pattern may take together."""
_RECOVERED = 0.02
"""Part of it that is regained per second."""
_TICK = 0.01
"""Interval of the timer in seconds; a match that spans two ticks counts as slow."""

_log = logging.getLogger(__name__)


class PatternWatchdog:
    """A context manager for the main thread: within it, a pattern that takes too long raises RunawayError."""

    def __init__(self) -> None:
        self._left = _TICK
        self._frame: FrameType | None = None
        self._taken: dict[re.Pattern[str], tuple[float, float]] = {}

    def __enter__(self) -> "PatternWatchdog":
        if signal.getsignal(signal.SIGVTALRM) != self._tick:
            signal.signal(signal.SIGVTALRM, self._tick)
        signal.setitimer(signal.ITIMER_VIRTUAL, self._left, _TICK)
        return self

    def __exit__(self, *_: object) -> None:
        # The rest of the tick is kept, so that many short uses get as many ticks as one long use.
        self._left = signal.setitimer(signal.ITIMER_VIRTUAL, 0)[0] or _TICK
        self._frame = None

    def _tick(self, _: int, frame: FrameType | None) -> None:
        pattern = running_pattern(frame) if frame is not None else None
        if pattern is None or frame is not self._frame:
            self._frame = frame if pattern is not None else None
            return
        now = time.monotonic()
        taken, at = self._taken.get(pattern, (0.0, now))
        taken = max(0.0, taken - (now - at) * _RECOVERED) + _TICK
        self._taken[pattern] = taken, now
        if taken > LIMIT:
            del self._taken[pattern]
            self._frame = None
            raise RunawayError(pattern)


def disabled_sentence(name: str) -> str:
    """Return the warning about a format that was disabled."""
    return f"{name} in formats.toml takes too long; it is not used until the configuration is reloaded"


class MessageReader:
    """Parses posted messages by the formats that ``formats`` returns, in any thread.

    Large bodies are parsed in other threads, which have the event loop in the main thread match the patterns.
    """

    def __init__(self, formats: Callable[[], Formats | None]) -> None:
        self._formats = formats
        self._given: Formats | None = None
        self._used: Formats | None = None
        self._watchdog = PatternWatchdog()
        self._loop = asyncio.get_running_loop()
        self.disabled: list[str] = []
        """Names of the formats that were disabled because their patterns took too long."""

    def read(self, message: str, service: str, realtime: int) -> Parsed:
        """Parse MESSAGE, which was logged at REALTIME, in microseconds since 1970."""
        if threading.current_thread() is threading.main_thread():
            return self._read(message, service, realtime)
        formats = self._current()
        if formats is None or not may_match_inside(formats, message, service):
            return plain_reading(message, service, realtime)
        done: Future[Parsed] = Future()

        def read() -> None:
            try:
                done.set_result(self._read(message, service, realtime))
            except BaseException as error:
                done.set_exception(error)
                raise

        self._loop.call_soon_threadsafe(read)
        return done.result()

    def _current(self) -> Formats | None:
        given = self._formats()
        if given is not self._given:
            self._given = self._used = given
            self.disabled = []
        return self._used

    def _read(self, message: str, service: str, realtime: int) -> Parsed:
        while (formats := self._current()) is not None:
            if not may_match_inside(formats, message, service):
                break
            try:
                with self._watchdog:
                    return parse_message(formats, message, service, realtime)
            except RunawayError as runaway:
                self._used, name = without_pattern(formats, runaway.pattern)
                self.disabled.append(name)
                _log.warning("%s", disabled_sentence(name))
        return plain_reading(message, service, realtime)
