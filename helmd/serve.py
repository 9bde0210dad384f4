"""helmd's part of the composition root: the watcher of the suite and its API, put together and run."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from helmd.health.listeners import holder_of
from helmd.health.peers import Peers
from helmd.health.thread_pool import PROBES, ProbeResult, ThreadPool
from helmd.journal.actions import record_change
from helmd.journal.keys import JournalKeys
from helmd.journal.posted import write
from helmd.lifecycle import Lifecycle
from helmd.model.api.audit import DEFAULT_ENTRIES
from helmd.model.api.jobs import JobReply
from helmd.model.api.modules import AvailableModule
from helmd.model.config.settings import Settings
from helmd.model.counted import counted
from helmd.model.errors import ConfigurationError
from helmd.model.identity.realm import GATEWAY
from helmd.model.identity.sessions import SessionLimits
from helmd.model.ingest.token_bucket import Rates
from helmd.model.layout import Layout
from helmd.model.logs.parsing.parsed import DISABLED
from helmd.model.suite.names import HELM_SERVICE, SUITE_CLUSTER
from helmd.model.suite.service import Service
from helmd.model.units.doctor_report import DoctorReport
from helmd.model.units.status import summary
from helmd.modules.start_block import why_blocked
from helmd.operations.backup.kept import backups_listed
from helmd.operations.configuration.current import Current
from helmd.operations.configuration.logins import watch_logins
from helmd.operations.configuration.renewal import watch_certificate
from helmd.operations.diagnostics.failures import FailureReader
from helmd.operations.diagnostics.latest import LatestCheck
from helmd.operations.diagnostics.services import certificates_now
from helmd.operations.identity.gateway_page import GatewayPages
from helmd.operations.identity.session_files import SessionFiles
from helmd.operations.identity.tokens import TokenStore
from helmd.operations.identity.user_access import UserAccess
from helmd.operations.identity.user_exchange import ImportFiles
from helmd.operations.jobs.engine import JobEngine
from helmd.operations.logs.audit import AuditQuery, JournalPart, audit_entries
from helmd.operations.logs.audit_live import follow_audit
from helmd.operations.logs.audit_store import AuditPages
from helmd.operations.logs.disk import LowDisk
from helmd.operations.logs.feed import Feed
from helmd.operations.logs.ingest import Account
from helmd.operations.logs.pattern_watchdog import MessageReader
from helmd.operations.logs.posted import PostedLogs
from helmd.operations.logs.reader import CONNECTIONS, KEPT, LogReader
from helmd.operations.logs.retention import Retain
from helmd.operations.logs.view_file import put_back
from helmd.operations.modules.apps import InstalledApps
from helmd.operations.modules.daily import DailyChecks
from helmd.operations.modules.hold import hold_module
from helmd.operations.modules.listing import available_modules
from helmd.operations.modules.shown import shown_modules, shown_plan
from helmd.operations.monitoring.code_versions import CodeVersions
from helmd.operations.monitoring.custom_metrics import PostedMetrics
from helmd.operations.monitoring.database import check_suite_cluster
from helmd.operations.monitoring.health_report import HealthReport
from helmd.operations.monitoring.history import MetricHistory
from helmd.operations.monitoring.host_state import HostState
from helmd.operations.monitoring.line_rates import LineRates
from helmd.operations.monitoring.monitor import Monitor
from helmd.operations.monitoring.prometheus import ServiceFigures
from helmd.operations.monitoring.recording import Recorder
from helmd.operations.monitoring.service_history import ServiceHistory
from helmd.operations.monitoring.updates import PendingUpdates
from helmd.operations.security.acceptances import AcceptanceStore
from helmd.operations.security.latest import LatestAudit
from helmd.store.ingest.requests import PostedStore, drop_old_requests
from helmd.store.logs.listen import Listener
from helmd.store.session import Pool
from helmd.systemd.usage import UsageMeter
from helmd.web.admin_pages import AdminPages
from helmd.web.api.audit import Audit
from helmd.web.api.backups import Backups
from helmd.web.api.config import ServiceConfigs
from helmd.web.api.control import ControlHandlers
from helmd.web.api.details import Details
from helmd.web.api.events import ChangeSignal, Events
from helmd.web.api.firewall import Firewall
from helmd.web.api.ingest import Intake
from helmd.web.api.jobs import JobHandlers
from helmd.web.api.logs import Logs
from helmd.web.api.modules import Modules
from helmd.web.api.security import Security
from helmd.web.api.services import Api
from helmd.web.api.stream import Streams
from helmd.web.api.tokens import Tokens
from helmd.web.api.users import UserHandlers
from helmd.web.auth.identity import Callers
from helmd.web.auth.logins import Logins
from helmd.web.auth.sessions import BrowserSessions
from helmd.web.pages.assets import Assets
from helmd.web.pages.audit import AuditTrailPage
from helmd.web.pages.jobs import JobPages
from helmd.web.pages.login import LoginPages
from helmd.web.pages.logs import LogsPage
from helmd.web.pages.metrics import MetricsPage
from helmd.web.pages.modules import ModulePages
from helmd.web.pages.overview import OverviewPage, OverviewSources, health_line
from helmd.web.pages.probe import ProbePage
from helmd.web.pages.rendering import Renderer
from helmd.web.pages.security import SecurityPage
from helmd.web.pages.service import ServicePage
from helmd.web.pages.users import UsersPage
from helmd.web.server import Activated, HttpServer, application
from helmd.web.table import Handlers, whole_table

USER_REQUESTS = 4
"""Requests about users that helmd has Keycloak work on at once."""

_log = logging.getLogger("helmd")


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
    _log_faults(current)
    settings = current.settings
    store, owner = settings.store_conninfo(places), settings.store_conninfo(places, owner=True)
    probes = ThreadPool(PROBES)
    keys = JournalKeys(places.journal_keys)
    # Now, so that what an older helmd wrote is older than the key.
    keys.create()
    tokens = TokenStore(places)
    async with (
        Pool(store, "helmd") as pool,
        Pool(store, "helmd-logs", CONNECTIONS, KEPT) as readers,
        Callers(Peers(places.uid).peer, tokens) as callers,
    ):
        recorder = Recorder(pool, prepare(store, owner))

        async def ask(service: Service) -> ProbeResult:
            if service.name == HELM_SERVICE:
                return await report.answer()
            if service.name == SUITE_CLUSTER:
                return await probes.timed(partial(check_suite_cluster, service, places))
            return await probes.probe(service)

        def say() -> None:
            suite = [status for name, status in monitor.statuses().items() if name != HELM_SERVICE]
            faults = f"{counted(len(current.faults), 'fault')} in the configuration" if current.faults else ""
            disabled = ", ".join(messages.disabled)
            formats = f"formats {DISABLED}: {disabled}" if disabled else ""
            parts = (summary(suite), monitor.trouble, engine.trouble, recorder.trouble, server.trouble, faults, formats)
            lifecycle.status("; ".join(part for part in parts if part))

        def changed() -> None:
            say()
            changes.notify()

        async def current_jobs() -> tuple[JobReply, ...]:
            return tuple(view.reply for view in await engine.jobs())

        changes = ChangeSignal()
        messages = MessageReader(lambda: current.formats)
        engine = JobEngine(places, account.boot_id)
        line_rates = LineRates(pool, current.health_paths_of)
        monitor = Monitor(
            ask,
            line_rates.take,
            recorder,
            UsageMeter(),
            keys,
            on_change=changed,
            beat=lifecycle.beat,
            on_job=engine.changed,
            blocked=partial(why_blocked, places),
        )
        report = HealthReport(
            monitor,
            pool,
            account,
            places.state,
            lambda: len(current.faults),
            lambda: server.trouble,
            lambda: retain.warnings,
        )
        low_disk = LowDisk(places.store_cluster, lambda total: current.settings.min_free(total))
        posted = PostedLogs(lambda: PostedStore.open(store, current.retention_of), partial(write, keys), low_disk)
        rates = Rates(settings.ingest_rate, settings.ingest_burst)
        kept, paths = current.retention_of, current.health_paths_of
        measured = PostedMetrics(pool)
        intake = Intake(posted, measured, rates, kept, messages.read, paths)
        feed = Feed(lambda: Listener.open(store, "helmd-feed"))
        reader = LogReader(readers, store, lambda: bool(feed.trouble))
        also = [drop_old_requests, put_back(places.restored_views)]
        retain = Retain(owner, prepare(store, owner), current.retentions, also, current.retention_of)
        sessions = BrowserSessions(SessionFiles(places.sessions), _session_limits(settings))
        logins = callers.logins = Logins(sessions)
        accepted = AcceptanceStore(places)
        audits = LatestAudit(places, accepted)

        def gateway_run() -> str:
            seen = monitor.observed(GATEWAY)
            if seen is None or seen.verdict is None or not (seen.facts.active and seen.verdict.started):
                return ""
            return seen.facts.invocation

        gateway_pages = GatewayPages(places, lambda: current.registry, gateway_run, Peers(places.uid).peer)
        renderer = Renderer(
            assets := Assets(),
            lambda: gateway_pages.injected,
            lambda identity: health_line(monitor.statuses(), current.watched(), identity),
        )
        login = LoginPages(logins, renderer, lambda: current.settings.url)
        user_access = UserAccess(places, lambda: (current.registry, current.settings))
        for_users = ThreadPool(USER_REQUESTS).run

        def url() -> str:
            return current.settings.url

        users = UserHandlers(
            user_access,
            for_users,
            url,
            engine,
            ImportFiles(places.user_imports),
        )
        metrics = MetricHistory(pool)
        summaries: dict[str, str] = {}
        failures = FailureReader(monitor.observed)

        def read_audit(wanted: AuditQuery, limit: int) -> JournalPart:
            return audit_entries(places, current.scheduled, wanted, limit)

        trail = AuditPages(read_audit, reader)

        # Shared: apt is asked once for both.
        updates = PendingUpdates()
        host = HostState(
            [places.store_cluster, places.state, places.data],
            lambda: certificates_now(current.registry, places),
            updates=updates,
        )
        checks = DailyChecks(places, engine, lambda: current.settings.module_check)
        apps = InstalledApps(places, lambda: current.registry, updates)
        modules, planned = partial(shown_modules, places), partial(shown_plan, places)

        def available() -> tuple[AvailableModule, ...]:
            return available_modules(places, current.registry)

        table = whole_table(
            Handlers(
                api=Api(monitor, report),
                intake=intake,
                logs=Logs(reader, monitor),
                streams=Streams(feed, reader),
                details=Details(
                    monitor,
                    current.watched,
                    reader,
                    metrics,
                    host,
                    lambda: ServiceFigures(log_lines=line_rates.totals, custom=measured.latest()),
                ),
                events=Events(
                    monitor, changes, feed, reader, current_jobs, lambda: follow_audit(places, DEFAULT_ENTRIES)
                ),
                tokens=Tokens(tokens),
                audit=Audit(trail),
                security=Security(audits, accepted),
                control=ControlHandlers(engine, monitor, lambda: current.registry),
                jobs=JobHandlers(engine),
                configs=ServiceConfigs(places, engine),
                firewall=Firewall(places.share, lambda: (current.registry, current.settings.port)),
                users=users,
                backups=Backups(engine, lambda: backups_listed(places, current.settings)),
                modules=Modules(engine, apps, modules, available, partial(hold_module, places), planned),
                login=login,
                overview=OverviewPage(
                    monitor,
                    current.watched,
                    logins,
                    renderer,
                    OverviewSources(
                        ServiceHistory(pool, reader),
                        host,
                        LatestCheck(places, "doctor", DoctorReport, "doctor", "helmctl doctor"),
                        CodeVersions(places),
                        lambda limit: read_audit(AuditQuery(), limit).entries,
                        failures,
                    ),
                ),
                service_page=ServicePage(
                    monitor, current.watched, places, reader, metrics, url, summaries, renderer, failures
                ),
                users_page=UsersPage(user_access, for_users, url, renderer),
                audit_page=AuditTrailPage(trail, lambda: current.watched().names, summaries, renderer),
                logs_page=LogsPage(current.watched, renderer),
                assets=assets,
                probe=ProbePage(gateway_pages.marker),
                admin=AdminPages(
                    metrics=MetricsPage(monitor, lambda: current.settings.monitor_interval, renderer),
                    security=SecurityPage(audits, lambda: current.settings.url, renderer),
                    modules=ModulePages(monitor, lambda: current.registry, modules, available, apps, planned, renderer),
                    jobs=JobPages(engine, lambda: backups_listed(places, current.settings), renderer),
                ),
            )
        )
        summaries.update({f"{route.method} {route.path}": route.summary for route in table})
        made = application(
            table,
            callers,
            lambda change: record_change(keys, change, "helmd"),
            sessions,
            renderer,
        )
        server = HttpServer(made, places.socket, holder_of, activated)

        async def reload() -> None:
            try:
                fresh = current.read()
            except ConfigurationError:
                _log_faults(current)
                raise
            # First what can fail, so that a reload is adopted whole or not at all.
            await server.listen(fresh.settings.listen, fresh.settings.port)
            current.adopt(fresh)
            monitor.adopt(current.watched(), current.settings.monitor_interval)
            callers.adopt(current.settings, current.registry)
            sessions.limits = _session_limits(current.settings)
            rates.adopt(current.settings.ingest_rate, current.settings.ingest_burst)
            if current.settings.store != settings.store:
                _log.warning("store.database has changed; restart helmd to apply it: systemctl --user restart helmd")
            # Once the lifecycle has said that the reload is over.
            asyncio.get_running_loop().call_soon(say)

        async def serve() -> None:
            try:
                await server.start(settings.listen, settings.port)
                lifecycle.ready("reading unit states")
                async with asyncio.TaskGroup() as group:
                    group.create_task(recorder.run())
                    group.create_task(posted.run())
                    group.create_task(measured.run())
                    group.create_task(feed.run())
                    group.create_task(retain.run())
                    group.create_task(reader.run())
                    group.create_task(monitor.run())
                    group.create_task(sessions.run())
                    group.create_task(engine.run())
                    group.create_task(checks.run())
                    group.create_task(gateway_pages.run())
                    group.create_task(watch_certificate(lambda: (current.registry, current.layout)))
                    group.create_task(watch_logins(lambda: (current.registry, current.layout, current.settings)))
                    try:
                        await server.run(say)
                    finally:
                        # The others still run: requests that are under way need them.
                        await server.drain()
            finally:
                await server.stop()

        monitor.adopt(current.watched(), settings.monitor_interval)
        callers.adopt(settings, current.registry)
        await lifecycle.run(serve(), reload)


def _session_limits(settings: Settings) -> SessionLimits:
    return SessionLimits(settings.session_read_only, settings.session_idle, settings.session_longest)


def _log_faults(current: Current) -> None:
    for fault in current.faults:
        _log.error("%s", fault)
