"""A daemon that makes no progress: systemd gets no WATCHDOG=1, and the log says where each task waits."""

import asyncio
import logging

import pytest

from helmd.lifecycle import Lifecycle


async def stuck_work(notified: list[str]) -> None:
    while len(notified) < 1:
        await asyncio.sleep(0.01)
    await asyncio.sleep(1.0)


def test_without_progress_the_places_of_all_tasks_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    notified: list[str] = []
    lifecycle = Lifecycle(notified.append, watchdog=0.2)
    with caplog.at_level(logging.WARNING):
        asyncio.run(lifecycle.run(stuck_work(notified)))
    assert set(notified) == {"WATCHDOG=1"}
    places = [record.getMessage() for record in caplog.records if "tasks wait at" in record.getMessage()]
    assert len(places) == 1 and "stuck_work:" in places[0] and "Lifecycle._watch:" in places[0]
    assert sum("no progress for" in record.getMessage() for record in caplog.records) > 1
