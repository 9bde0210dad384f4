"""Daily checks for updates of modules, in a job started by helmd, so that git does not run in helmd itself."""

import asyncio
import logging
import random
import time
from collections.abc import Callable

from helmd.model.errors import HelmError
from helmd.model.jobs.record import Requester
from helmd.model.layout import Layout
from helmd.modules.records import installed_names, read_check, read_record
from helmd.operations.jobs.engine import JobEngine

DAY = 86_400.0
_PAUSE = 1800.0
"""Maximum delay between checks, in seconds; it is random, so that machines do not query a server simultaneously."""
_log = logging.getLogger(__name__)


def due_modules(layout: Layout, now: float) -> tuple[str, ...]:
    """Return the modules that were installed, and not checked for updates, for a day. Blocks."""
    found = []
    for name in installed_names(layout):
        places = layout.module(name)
        try:
            record = read_record(places)
        except HelmError:
            continue
        version = record.active_version if record is not None else None
        check = read_check(places)
        if version is not None and now - max(version.made_at, check.checked_at if check else 0.0) >= DAY:
            found.append(name)
    return tuple(found)


class DailyChecks:
    """Starts the checks. WANTED says whether they are enabled."""

    def __init__(self, layout: Layout, engine: JobEngine, wanted: Callable[[], bool]) -> None:
        self._layout, self._engine, self._wanted = layout, engine, wanted

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            await asyncio.sleep(random.uniform(_PAUSE / 2, _PAUSE))  # noqa: S311 - no secret
            await self.look()

    async def look(self) -> None:
        """Start a job for the modules that are due."""
        try:
            names = await asyncio.to_thread(due_modules, self._layout, time.time()) if self._wanted() else ()
            if names:
                words = ("modules", "check", "--", *names)
                await self._engine.submit("module-plan", names, words, Requester("helmd", "helmd"), "once a day")
        except (HelmError, OSError) as error:
            _log.warning("looking for updates of modules: %s", error)
