"""Renews the gateway's certificate before it expires, if Helm has issued it."""

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
"""Seconds until the first check, and between two."""

_log = logging.getLogger(__name__)


async def watch_certificate(suite: Callable[[], tuple[Registry, Layout]]) -> NoReturn:
    """Run until cancelled. SUITE returns the present configuration."""
    delay = _FIRST
    while True:
        await asyncio.sleep(delay)
        delay = _PERIOD
        try:
            if said := await asyncio.to_thread(renew_if_due, *suite()):
                _log.warning("%s", said)
        except (HelmError, OSError, ValueError) as error:
            _log.warning("the certificate of %s can't be renewed: %s", GATEWAY, error)


def renew_if_due(registry: Registry, layout: Layout) -> str:
    """Renew the gateway's certificate if that is due; return what was done, as a sentence.

    Missing files are only created by set-up and apply. Raises KeyFileError.
    """
    if GATEWAY not in registry or registry[GATEWAY].external:
        return ""
    directory = file_directory(registry[GATEWAY], layout, GATEWAY_CERTIFICATE[0])
    if not all((directory / name).exists() for name in GATEWAY_CERTIFICATE):
        return ""
    # Imported here: it loads cryptography.
    from helmd.operations.configuration.keys import make_keys

    return make_keys(GATEWAY, registry, layout)
