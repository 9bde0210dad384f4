"""Renews the gateway's certificate, if Helm made it, some weeks before it expires."""

import asyncio
import logging
from collections.abc import Callable
from typing import NoReturn

from helmd.model.errors import HelmError
from helmd.model.identity.realm import GATEWAY
from helmd.model.layout import Layout
from helmd.model.suite.service import Registry
from helmd.operations.configuration.module_files import GATEWAY_CERTIFICATE, file_directory

_FIRST, _PERIOD = 60.0, 6 * 60 * 60.0
"""Seconds until the first look, and between two."""

_log = logging.getLogger(__name__)


async def watch_certificate(suite: Callable[[], tuple[Registry, Layout]]) -> NoReturn:
    """Goes on until cancelled. SUITE returns what is configured now."""
    delay = _FIRST
    while True:
        await asyncio.sleep(delay)
        delay = _PERIOD
        try:
            if said := await asyncio.to_thread(renewed, *suite()):
                _log.warning("%s", said)
        except (HelmError, OSError, ValueError) as error:
            _log.warning("the certificate of %s can't be renewed: %s", GATEWAY, error)


def renewed(registry: Registry, layout: Layout) -> str:
    """Renew the certificate if it is time; what was done, as a sentence. What is missing is made by set-up alone."""
    if GATEWAY not in registry or registry[GATEWAY].external:
        return ""
    directory = file_directory(registry[GATEWAY], layout, GATEWAY_CERTIFICATE[0])
    if not all((directory / name).exists() for name in GATEWAY_CERTIFICATE):
        return ""
    # Imported here: it loads cryptography.
    from helmd.operations.configuration.keys import make_keys

    return make_keys(GATEWAY, registry, layout)
