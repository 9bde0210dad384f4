"""Waits for a state, with a bound that a busy machine keeps as well; what is still wrong then is shown."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

import pytest

WITHIN = 60.0
"""Seconds within which what usually takes far less comes about on a machine that does other things as well."""


def until(what: Callable[[], Any], within: float = WITHIN, pause: float = 0.2) -> Any:
    """Ask until the answer is true; fail the test after WITHIN seconds, showing the last answer. Between two
    questions it waits PAUSE seconds, or as long as the last one took, so that asking does not keep a processor busy.
    """
    return _ask(what, bool, f"not within {within:g} s; last", within, pause)


def until_none(what: Callable[[], Any], within: float = WITHIN, pause: float = 0.2) -> None:
    """Ask until nothing is found; fail the test after WITHIN seconds, showing what still is. It pauses as `until`."""
    _ask(what, lambda found: not found, f"still there after {within:g} s", within, pause)


def _ask(what: Callable[[], Any], done: Callable[[Any], bool], failure: str, within: float, pause: float) -> Any:
    deadline = time.monotonic() + within
    while True:
        begun = time.monotonic()
        if done(answer := what()):
            return answer
        if time.monotonic() > deadline:
            pytest.fail(f"{failure}: {answer!r}")
        time.sleep(max(pause, time.monotonic() - begun))


async def eventually(what: Callable[[], Any], within: float = WITHIN, pause: float = 0.02) -> Any:
    """As `until`, while the event loop goes on, and pausing for PAUSE seconds. WHAT may be a coroutine function."""
    deadline = time.monotonic() + within
    while True:
        answer = what()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within:g} s; last: {answer!r}")
        await asyncio.sleep(pause)
