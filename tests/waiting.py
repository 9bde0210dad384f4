"""Waits for a state, with a bound that a busy machine keeps as well; what is still wrong then is shown."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

WITHIN = 60.0
"""Seconds within which what usually takes far less comes about on a machine that does other things as well."""


def until(what: Callable[[], Any], within: float = WITHIN, pause: float = 0.2) -> Any:
    """Asks until the answer is true; fails the test after WITHIN seconds, showing the last answer."""
    deadline = time.monotonic() + within
    while not (answer := what()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within:g} s; last: {answer!r}")
        time.sleep(pause)
    return answer


def until_none(what: Callable[[], Any], within: float = WITHIN, pause: float = 0.2) -> None:
    """Asks until nothing is found; fails the test after WITHIN seconds, showing what still is."""
    deadline = time.monotonic() + within
    while found := what():
        if time.monotonic() > deadline:
            pytest.fail(f"still there after {within:g} s: {found!r}")
        time.sleep(pause)


async def eventually(what: Callable[[], Any], within: float = WITHIN, pause: float = 0.02) -> Any:
    """As `until`, while the event loop goes on."""
    deadline = time.monotonic() + within
    while not (answer := what()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within:g} s; last: {answer!r}")
        await asyncio.sleep(pause)
    return answer
