"""A daemon that makes no progress."""

import asyncio
import logging

import pytest

from helmd.lifecycle import Lifecycle


def test_without_progress_the_places_of_all_tasks_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    lifecycle = Lifecycle(lambda _: None, watchdog=0.2)

    async def stuck_work() -> None:
        while sum("no progress for" in line for line in caplog.messages) < 3:
            await asyncio.sleep(0.01)

    with caplog.at_level(logging.WARNING):
        asyncio.run(lifecycle.run(stuck_work()))
    (places,) = [line for line in caplog.messages if "tasks wait at" in line]
    assert "stuck_work:" in places and "Lifecycle._watch:" in places
