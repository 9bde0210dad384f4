"""Monitoring of the suite: health checks, states of units, jobs, and their reports."""

from collections.abc import Callable
from functools import partial

from helmd.health.thread_pool import PROBES, ProbeResult, ThreadPool
from helmd.lifecycle import Lifecycle
from helmd.model.api.jobs import JobReply
from helmd.model.counted import counted
from helmd.model.identity.realm import GATEWAY
from helmd.model.logs.parsing.parsed import DISABLED
from helmd.model.suite.names import HELM_SERVICE, SUITE_CLUSTER
from helmd.model.suite.service import Service
from helmd.model.units.status import summary
from helmd.modules.start_block import why_blocked
from helmd.operations.jobs.engine import JobEngine
from helmd.operations.logs.pattern_watchdog import MessageReader
from helmd.operations.monitoring.database import check_suite_cluster
from helmd.operations.monitoring.health_report import HealthReport
from helmd.operations.monitoring.line_rates import LineRates
from helmd.operations.monitoring.monitor import Monitor
from helmd.operations.monitoring.recording import Recorder
from helmd.serving.resources import Resources
from helmd.systemd.usage import UsageMeter
from helmd.web.api.events import ChangeSignal


class WatchedSuite:
    """LISTENING returns why helmd does not listen on its TCP address, KEPT_ROWS sentences about rows that are kept
    although they seem to have expired.
    """

    def __init__(
        self,
        shared: Resources,
        lifecycle: Lifecycle,
        listening: Callable[[], str],
        kept_rows: Callable[[], tuple[str, ...]],
    ) -> None:
        places, current = shared.places, shared.current
        self._lifecycle = lifecycle
        self._shared = shared
        self._listening = listening
        self._probes = ThreadPool(PROBES)
        self.changes = ChangeSignal()
        self.messages = MessageReader(lambda: current.formats)
        self.engine = JobEngine(places, shared.account.boot_id)
        self.recorder = Recorder(shared.pool, shared.prepare)
        self.line_rates = LineRates(shared.pool, current.health_paths_of)
        self.monitor = Monitor(
            self._ask,
            self.line_rates.take,
            self.recorder,
            UsageMeter(),
            shared.keys,
            on_change=self._changed,
            beat=lifecycle.beat,
            on_job=self.engine.changed,
            blocked=partial(why_blocked, places),
        )
        self.report = HealthReport(
            self.monitor,
            shared.pool,
            shared.account,
            places.state,
            lambda: len(current.faults),
            listening,
            kept_rows,
        )

    def adopt(self) -> None:
        """Watch the current registry from now on, as often as the current settings say."""
        current = self._shared.current
        self.monitor.adopt(current.watched(), current.settings.monitor_interval)

    def say(self) -> None:
        """Set the status that `systemctl status` shows for helmd."""
        current = self._shared.current
        suite = [status for name, status in self.monitor.statuses().items() if name != HELM_SERVICE]
        parts = (
            summary(suite),
            self.monitor.trouble,
            self.engine.trouble,
            self.recorder.trouble,
            self._listening(),
            f"{counted(len(current.faults), 'fault')} in the configuration" if current.faults else "",
            f"formats {DISABLED}: {', '.join(self.messages.disabled)}" if self.messages.disabled else "",
        )
        self._lifecycle.status("; ".join(part for part in parts if part))

    async def jobs(self) -> tuple[JobReply, ...]:
        """Return all jobs as in the API."""
        return tuple(view.reply for view in await self.engine.jobs())

    def gateway_run(self) -> str:
        """Return the invocation id of the gateway's unit while it is up, else an empty string."""
        seen = self.monitor.observed(GATEWAY)
        if seen is None or seen.verdict is None or not (seen.facts.active and seen.verdict.started):
            return ""
        return seen.facts.invocation

    async def _ask(self, service: Service) -> ProbeResult:
        if service.name == HELM_SERVICE:
            return await self.report.answer()
        if service.name == SUITE_CLUSTER:
            return await self._probes.timed(partial(check_suite_cluster, service, self._shared.places))
        return await self._probes.probe(service)

    def _changed(self) -> None:
        self.say()
        self.changes.notify()
