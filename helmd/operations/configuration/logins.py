"""Has the suite's PostgreSQL ask a role for its password as soon as its service has been restarted with it."""

import asyncio
import logging
from collections.abc import Callable
from typing import NoReturn

from helmd.model.config.settings import Settings
from helmd.model.errors import HelmError
from helmd.model.layout import Layout
from helmd.model.suite.service import Registry
from helmd.operations.configuration.databases import pending_logins, settle_logins
from helmd.systemd.bus import Manager

_PERIOD = 2.0
"""Seconds between two looks. Where all roles need their passwords, one look is the reading of a small file."""

_log = logging.getLogger(__name__)


async def watch_logins(suite: Callable[[], tuple[Registry, Layout, Settings]]) -> NoReturn:
    """Goes on until cancelled. SUITE returns what is configured now."""
    trouble = ""
    while True:
        await asyncio.sleep(_PERIOD)
        try:
            await asyncio.to_thread(_settle, *suite())
            trouble = ""
        except (HelmError, OSError) as error:
            if str(error) != trouble:
                _log.warning("whether PostgreSQL can ask services for their passwords is not known: %s", error)
            trouble = str(error)


def _settle(registry: Registry, layout: Layout, settings: Settings) -> None:
    if not pending_logins(registry, layout, settings):
        return
    with Manager() as manager:
        settle_logins(registry, layout, settings, manager.facts)
