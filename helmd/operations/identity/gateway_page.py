"""What the gateway adds to pages, determined with helmd's technical account, and cached while the gateway runs."""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from secrets import token_hex
from typing import NoReturn

from helmd.files.durable import write_atomically
from helmd.health.thread_pool import ThreadPool
from helmd.model.counted import counted
from helmd.model.errors import HelmError
from helmd.model.identity.injected import (
    NOTHING_INJECTED,
    PROBE_PATH,
    Injected,
    InjectedError,
    LearnedPage,
    learned,
    learned_in,
    learned_text,
)
from helmd.model.identity.realm import GATEWAY, PROBE_NAME, PROBE_USER
from helmd.model.layout import Layout
from helmd.model.suite.names import unit_of
from helmd.model.suite.service import Registry, Service
from helmd.model.urls import origin_of
from helmd.operations.identity.gateway_login import (
    Gateway,
    GatewayBrowser,
    GatewayPageError,
    LocatePeer,
    ProbeRefusedError,
)
from helmd.operations.identity.probe_account import probe_password

GATEWAY_LOOK_SECONDS = 2.0
"""Interval in seconds of checks whether the gateway has restarted."""
LEARN_AGAIN_SECONDS = 24 * 3600.0
"""Seconds after which it is determined again, since a gateway may load other code without a restart of its unit."""
PAUSES = (5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
"""Delays in seconds after failed attempts; the last one is repeated."""
REFUSED_SECONDS = 6 * 3600.0
"""Delay in seconds after a refused login, since Keycloak locks accounts after some of them."""
_SESSIONS = 2
"""Number of sessions to compare: hashes can't be used for content that differs between sessions."""
_AGAIN = "helmd tries again by itself. See: helmctl status nexus core keycloak"
_REFUSED = "Run: rm {file}; helmctl keycloak setup"

_log = logging.getLogger(__name__)


class GatewayPages:
    """Determines it when the gateway has restarted. SUITE returns the services; RUN_OF the invocation id of the
    gateway's unit while it is healthy, else an empty text; LOCATE names the peer of a connection.
    """

    def __init__(
        self,
        places: Layout,
        suite: Callable[[], Registry],
        run_of: Callable[[], str],
        locate: LocatePeer,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._places = places
        self._suite = suite
        self._run_of = run_of
        self._locate = locate
        self._now = now
        self._pool = ThreadPool(1)
        self._page = LearnedPage()
        self._failed = 0
        self._retry_at = 0.0
        self._stamp: tuple[int, int] | None = None
        self.marker = f"helm-page-probe-{token_hex(16)}"
        """The content of the probe page."""

    @property
    def injected(self) -> Injected:
        """What is to be allowed on pages behind the gateway; nothing while unknown.

        After a restart of the gateway, the previous result is used until the first attempt has ended.
        """
        return self._page.injected

    async def run(self) -> NoReturn:
        """Run until cancelled."""
        self._page = await self._pool.run(self._stored)
        while True:
            await self.look()
            await asyncio.sleep(GATEWAY_LOOK_SECONDS)

    async def look(self) -> None:
        """Determine it, if due. Never raises."""
        suite = self._suite()
        service, run = suite.services.get(GATEWAY), self._run_of()
        if service is None or service.external or service.port is None or not run:
            return
        stamp = self._stamp_of_password()
        if not self._is_due(run, stamp):
            return
        self._stamp = stamp
        page = await self._tried(run, service, suite)
        if not page.trouble:
            self._failed = 0
            _log.info("learned what the gateway adds to pages: %s", counted(len(page.injected.scripts), "script"))
        elif page.trouble != self._page.trouble:
            _log.warning("what the gateway adds to pages is not known: %s", page.trouble)
        self._page = page
        await self._pool.run(self._store)

    def _is_due(self, run: str, stamp: tuple[int, int] | None) -> bool:
        if run != self._page.run:
            self._failed = 0
            return True
        if self._page.learned:
            return self._now() - self._page.learned > LEARN_AGAIN_SECONDS
        return stamp != self._stamp or self._now() >= self._retry_at

    async def _tried(self, run: str, service: Service, suite: Registry) -> LearnedPage:
        pause = PAUSES[min(self._failed, len(PAUSES) - 1)]
        trouble, hint = "", _AGAIN
        try:
            found = await self._pool.run(partial(self._learn, service, suite))
            return LearnedPage(run, self._now(), self._now(), found)
        except ProbeRefusedError as error:
            pause, trouble, hint = REFUSED_SECONDS, error.sentence, _REFUSED.format(file=self._places.probe_password)
        except HelmError as error:
            trouble, hint = error.sentence, error.hint or _AGAIN
        except (InjectedError, OSError) as error:
            trouble = f"the gateway's answer can't be used: {error}"
        except Exception:  # noqa: BLE001 - errors in the gateway's response must not end helmd
            _log.exception("the gateway's pages can't be looked at")
            trouble = "the attempt failed; helmd's log says why"
        self._failed += 1
        self._retry_at = self._now() + pause
        return LearnedPage(run, self._now(), 0.0, NOTHING_INJECTED, trouble, hint)

    def _learn(self, service: Service, suite: Registry) -> Injected:
        """Log in _SESSIONS times and compare the pages. Blocks. Raises HelmError, InjectedError."""
        password = probe_password(self._places)
        if not password:
            raise GatewayPageError(
                "the account by which Helm looks at pages is not set up", hint="Run: helmctl keycloak setup"
            )
        gateway = Gateway(origin_of(service.url), service.port or 0, unit_of(GATEWAY))
        pages = []
        for _ in range(_SESSIONS):
            with GatewayBrowser(gateway, self._locate) as browser:
                pages.append(browser.see(PROBE_PATH, PROBE_USER, password))
                browser.leave()
        return learned(pages, self.marker, gateway.url + PROBE_PATH, (PROBE_USER, PROBE_NAME[1]), suite.names)

    def _stamp_of_password(self) -> tuple[int, int] | None:
        try:
            facts = self._places.probe_password.stat()
        except OSError:
            return None
        return facts.st_ino, facts.st_mtime_ns

    def _stored(self) -> LearnedPage:
        try:
            return learned_in(self._places.gateway_page.read_text())
        except FileNotFoundError:
            return LearnedPage()
        except (OSError, ValueError, RecursionError) as error:
            _log.warning("%s can't be used, and is replaced: %s", self._places.gateway_page, error)
            return LearnedPage()

    def _store(self) -> None:
        try:
            write_atomically(self._places.gateway_page, learned_text(self._page), 0o600)
        except OSError as error:
            _log.warning("what the gateway adds to pages can't be stored: %s", error)
