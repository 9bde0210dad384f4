"""Makes the suite's PostgreSQL require the password of a role once its service has been restarted with it."""

import asyncio
import logging
from collections.abc import Callable
from typing import NoReturn

from helmd.model.config.settings import Settings
from helmd.model.errors import HelmError
from helmd.model.layout import Layout
from helmd.model.suite.service import Registry
from helmd.operations.configuration.databases import pending_logins, require_passwords
from helmd.systemd.bus import Manager

_PERIOD = 2.0
"""Interval in seconds. Once all roles need their passwords, only a small file is read."""

_log = logging.getLogger(__name__)


async def watch_logins(suite: Callable[[], tuple[Registry, Layout, Settings]]) -> NoReturn:
    """Run until cancelled. SUITE returns the present configuration."""
    trouble = ""
    while True:
        await asyncio.sleep(_PERIOD)
        try:
            await asyncio.to_thread(_settle, *suite())
            trouble = ""
        except (HelmError, OSError) as error:
            if str(error) != trouble:
                _log.warning("PostgreSQL can't be made to require the passwords of services: %s", error)
            trouble = str(error)


def _settle(registry: Registry, layout: Layout, settings: Settings) -> None:
    if not pending_logins(registry, layout, settings):
        return
    with Manager() as manager:
        require_passwords(registry, layout, settings, manager.facts)
