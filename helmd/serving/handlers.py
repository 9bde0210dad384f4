"""The request handlers of helmd's routes, for the API and for pages."""

from collections.abc import Mapping
from functools import partial

from helmd.model.api.audit import DEFAULT_ENTRIES
from helmd.model.api.backups import BackupList
from helmd.model.api.modules import AvailableModule
from helmd.model.suite.service import Registry
from helmd.model.units.doctor_report import DoctorReport
from helmd.operations.backup.kept import backups_listed
from helmd.operations.diagnostics.failures import FailureReader
from helmd.operations.diagnostics.latest import LatestCheck
from helmd.operations.diagnostics.services import certificates_now
from helmd.operations.identity.user_exchange import ImportFiles
from helmd.operations.logs.audit import AuditQuery
from helmd.operations.logs.audit_live import follow_audit
from helmd.operations.modules.apps import InstalledApps
from helmd.operations.modules.hold import hold_module
from helmd.operations.modules.listing import available_modules
from helmd.operations.modules.shown import shown_modules, shown_plan
from helmd.operations.monitoring.code_versions import CodeVersions
from helmd.operations.monitoring.host_state import HostState
from helmd.operations.monitoring.service_figures import ServiceFigures
from helmd.operations.monitoring.service_history import ServiceHistory
from helmd.operations.monitoring.updates import PendingUpdates
from helmd.operations.security.acceptances import AcceptanceStore
from helmd.operations.security.latest import LatestAudit
from helmd.serving.browsers import Browsers
from helmd.serving.log_store import LogStore
from helmd.serving.resources import Resources
from helmd.serving.suite import WatchedSuite
from helmd.web.admin_pages import AdminPages
from helmd.web.api.audit import Audit
from helmd.web.api.backups import Backups
from helmd.web.api.config import ServiceConfigs
from helmd.web.api.control import ControlHandlers
from helmd.web.api.details import Details
from helmd.web.api.events import Events
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
from helmd.web.pages.audit import AuditTrailPage
from helmd.web.pages.jobs import JobPages
from helmd.web.pages.logs import LogsPage
from helmd.web.pages.metrics import MetricsPage
from helmd.web.pages.modules import ModulePages
from helmd.web.pages.overview import OverviewPage, OverviewSources
from helmd.web.pages.probe import ProbePage
from helmd.web.pages.security import SecurityPage
from helmd.web.pages.service import ServicePage
from helmd.web.pages.users import UsersPage
from helmd.web.table import Handlers


class HandlerFactory:
    """Creates the handlers. SUMMARIES describe the routes, by method and path; they are read when a page is shown."""

    def __init__(
        self,
        shared: Resources,
        suite: WatchedSuite,
        logs: LogStore,
        browsers: Browsers,
        summaries: Mapping[str, str],
    ) -> None:
        places, current = shared.places, shared.current
        self._shared, self._suite, self._logs, self._browsers = shared, suite, logs, browsers
        self._summaries = summaries
        self._failures = FailureReader(suite.monitor.observed)
        # apt is asked once for both.
        updates = PendingUpdates()
        self._host = HostState(
            [places.store_cluster, places.state, places.data],
            lambda: certificates_now(current.registry, places),
            updates=updates,
        )
        self._apps = InstalledApps(places, self._registry, updates)
        self._modules, self._planned = partial(shown_modules, places), partial(shown_plan, places)
        accepted = AcceptanceStore(places)
        self._accepted, self._audits = accepted, LatestAudit(places, accepted)

    def handlers(self) -> Handlers:
        """Return one of each, for `helmd.web.table.whole_table`."""
        shared, suite, logs, browsers = self._shared, self._suite, self._logs, self._browsers
        places, current = shared.places, shared.current
        monitor, engine, reader, renderer = suite.monitor, suite.engine, logs.reader, browsers.renderer
        return Handlers(
            api=Api(monitor, suite.report),
            intake=Intake(
                logs.posted,
                logs.measured,
                logs.rates,
                current.retention_of,
                suite.messages.read,
                current.health_paths_of,
            ),
            logs=Logs(reader, monitor),
            streams=Streams(logs.feed, reader),
            details=Details(monitor, current.watched, reader, logs.metrics, self._host, self._figures),
            events=Events(
                monitor,
                suite.changes,
                logs.feed,
                reader,
                suite.jobs,
                lambda: follow_audit(places, DEFAULT_ENTRIES),
            ),
            tokens=Tokens(shared.tokens),
            audit=Audit(logs.trail),
            security=Security(self._audits, self._accepted),
            control=ControlHandlers(engine, monitor, self._registry),
            jobs=JobHandlers(engine),
            configs=ServiceConfigs(places, engine),
            firewall=Firewall(places.share, lambda: (current.registry, current.settings.port)),
            users=UserHandlers(
                browsers.user_access,
                browsers.for_users,
                browsers.url,
                engine,
                ImportFiles(places.user_imports),
            ),
            backups=Backups(engine, self._backups),
            modules=Modules(
                engine, self._apps, self._modules, self._available, partial(hold_module, places), self._planned
            ),
            login=browsers.login_pages,
            overview=self._overview(),
            service_page=ServicePage(
                monitor,
                current.watched,
                places,
                reader,
                logs.metrics,
                browsers.url,
                self._summaries,
                renderer,
                self._failures,
            ),
            users_page=UsersPage(browsers.user_access, browsers.for_users, browsers.url, renderer),
            audit_page=AuditTrailPage(logs.trail, lambda: current.watched().names, self._summaries, renderer),
            logs_page=LogsPage(current.watched, renderer),
            assets=browsers.assets,
            probe=ProbePage(browsers.gateway_pages.marker),
            admin=AdminPages(
                metrics=MetricsPage(monitor, lambda: current.settings.monitor_interval, renderer),
                security=SecurityPage(self._audits, browsers.url, renderer),
                modules=ModulePages(
                    monitor, self._registry, self._modules, self._available, self._apps, self._planned, renderer
                ),
                jobs=JobPages(engine, self._backups, renderer),
            ),
        )

    def _overview(self) -> OverviewPage:
        shared, suite, logs, browsers = self._shared, self._suite, self._logs, self._browsers
        sources = OverviewSources(
            ServiceHistory(shared.pool, logs.reader),
            self._host,
            LatestCheck(shared.places, "doctor", DoctorReport, "doctor", "helmctl doctor"),
            CodeVersions(shared.places),
            lambda limit: logs.audit(AuditQuery(), limit).entries,
            self._failures,
            self._summaries,
        )
        return OverviewPage(suite.monitor, shared.current.watched, browsers.logins, browsers.renderer, sources)

    def _registry(self) -> Registry:
        return self._shared.current.registry

    def _available(self) -> tuple[AvailableModule, ...]:
        return available_modules(self._shared.places, self._registry())

    def _backups(self) -> BackupList:
        return backups_listed(self._shared.places, self._shared.current.settings)

    def _figures(self) -> ServiceFigures:
        return ServiceFigures(log_lines=self._suite.line_rates.totals, custom=self._logs.measured.latest())
