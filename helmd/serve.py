"""helmd's part of the composition root: the watcher of the suite and its API, put together and run."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from helmd.health.listeners import holder_of
from helmd.health.peers import Peers
from helmd.journal.actions import record_change
from helmd.journal.keys import JournalKeys
from helmd.lifecycle import Lifecycle
from helmd.model.layout import Layout
from helmd.operations.configuration.current import Current
from helmd.operations.configuration.logins import watch_logins
from helmd.operations.configuration.renewal import watch_certificate
from helmd.operations.identity.tokens import TokenStore
from helmd.operations.logs.ingest import Account
from helmd.operations.logs.reader import CONNECTIONS, KEPT
from helmd.operations.modules.daily import DailyChecks
from helmd.serving.browsers import Browsers
from helmd.serving.handlers import HandlerFactory
from helmd.serving.log_store import LogStore
from helmd.serving.resources import Resources
from helmd.serving.suite import WatchedSuite
from helmd.store.session import Pool
from helmd.web.auth.identity import Callers
from helmd.web.server import Activated, HttpServer, application
from helmd.web.table import whole_table

_log = logging.getLogger("helmd")


class Helmd:
    """The daemon: what it serves, and the loops that run meanwhile. ACTIVATED are systemd's sockets."""

    def __init__(self, shared: Resources, lifecycle: Lifecycle, activated: Activated) -> None:
        self._shared = shared
        self._current = shared.current
        self._started_with = shared.current.settings
        self._lifecycle = lifecycle
        self._logs = LogStore(shared)
        self._suite = WatchedSuite(
            shared, lifecycle, lambda: self._server.trouble, lambda: self._logs.maintenance.warnings
        )
        self._browsers = Browsers(shared, self._suite)
        summaries: dict[str, str] = {}
        table = whole_table(HandlerFactory(shared, self._suite, self._logs, self._browsers, summaries).handlers())
        summaries.update({f"{route.method} {route.path}": route.summary for route in table})
        app = application(
            table,
            shared.callers,
            lambda change: record_change(shared.keys, change, "helmd"),
            self._browsers.sessions,
            self._browsers.renderer,
        )
        self._server = HttpServer(app, shared.places.socket, holder_of, activated)
        self._suite.adopt()
        self._browsers.adopt()

    async def reload(self) -> None:
        """Read the configuration again. Raises HelmError; then everything is as before."""
        try:
            fresh = self._current.read()
        finally:
            self._current.log_faults()
        # First what can fail, so that a reload is adopted whole or not at all.
        await self._server.listen(fresh.settings.listen, fresh.settings.port)
        self._current.adopt(fresh)
        self._suite.adopt()
        self._browsers.adopt()
        settings = self._current.settings
        self._logs.rates.adopt(settings.ingest_rate, settings.ingest_burst)
        if settings.store != self._started_with.store:
            _log.warning("store.database has changed; restart helmd to apply it: systemctl --user restart helmd")
        # Once the lifecycle has said that the reload is over.
        asyncio.get_running_loop().call_soon(self._suite.say)

    async def serve(self) -> None:
        """Serve and run the loops until cancelled."""
        current, logs, suite, browsers = self._current, self._logs, self._suite, self._browsers
        checks = DailyChecks(self._shared.places, suite.engine, lambda: current.settings.module_check)
        loops = (
            suite.recorder.run,
            logs.posted.run,
            logs.measured.run,
            logs.feed.run,
            logs.maintenance.run,
            suite.monitor.run,
            browsers.sessions.run,
            suite.engine.run,
            checks.run,
            browsers.gateway_pages.run,
            partial(watch_certificate, lambda: (current.registry, current.layout)),
            partial(watch_logins, lambda: (current.registry, current.layout, current.settings)),
        )
        try:
            await self._server.start(self._started_with.listen, self._started_with.port)
            self._lifecycle.ready("reading unit states")
            async with asyncio.TaskGroup() as group:
                for loop in loops:
                    group.create_task(loop())
                try:
                    await self._server.run(suite.say)
                finally:
                    # The others still run: requests that are under way need them.
                    await self._server.drain()
        finally:
            await self._server.stop()


async def run_helmd(
    lifecycle: Lifecycle,
    places: Layout,
    account: Account,
    prepare: Callable[[str, str], Callable[[], Awaitable[None]]],
    activated: Activated,
) -> None:
    """Run helmd until it is stopped. PREPARE returns what brings a store's schema up to date, from its two conninfos;
    ACTIVATED are the sockets that systemd handed over.

    It is ready once its sockets listen. Without PostgreSQL, with a faulty configuration or with a manager that does not
    answer it still serves, and reports that in its status and its health.
    """
    current = Current(places)
    current.load_at_start()
    current.log_faults()
    settings = current.settings
    store, owner = settings.store_conninfo(places), settings.store_conninfo(places, owner=True)
    keys = JournalKeys(places.journal_keys)
    # Now, so that what an older helmd wrote is older than the key.
    keys.create()
    tokens = TokenStore(places)
    async with (
        Pool(store, "helmd") as pool,
        Pool(store, "helmd-logs", CONNECTIONS, KEPT) as readers,
        Callers(Peers(places.uid).peer, tokens) as callers,
    ):
        shared = Resources(
            places, account, current, store, owner, prepare(store, owner), pool, readers, keys, tokens, callers
        )
        helmd = Helmd(shared, lifecycle, activated)
        await lifecycle.run(helmd.serve(), helmd.reload)
