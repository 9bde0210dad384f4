"""The health of helmd itself, for ``GET /health``.

Helm is degraded without its store, without Core and with an invalid configuration, since it remains useful then. It is
unhealthy only if it can't reach systemd, without which it can do nothing.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helmd.health.thread_pool import ProbeResult, ThreadPool
from helmd.journal.lines import unreadable
from helmd.journal.tail import first_after
from helmd.model.errors import HelmError
from helmd.model.suite.names import JOURNAL_UNIT
from helmd.model.units.health import DEGRADED, HEALTHY, UNHEALTHY, UNKNOWN, HealthVerdict
from helmd.model.units.unit_state import waiting_for
from helmd.operations.logs.disk import space
from helmd.operations.logs.ingest import Account
from helmd.operations.monitoring.monitor import Monitor
from helmd.store.ingest.ingested import stored_up_to
from helmd.store.session import Pool
from helmd.systemd.watch import ping

REPORT_MAX_AGE = 1.0
"""Seconds for which a report is reused."""
_CHECK_SECONDS = 0.7
_ALL_SECONDS = 0.85
"""Time limit in seconds for all checks; a check without a result by then counts as failed."""
_LOW_DISK, _FULL_DISK = 10.0, 2.0
"""Percent of free space below which a disk is degraded or unhealthy; ingest pauses below the first."""
_MAX_LAG = 10.0
"""Lag of the store behind the journal, in seconds, at which the journal check is degraded."""
_GIB = 1 << 30
_DEPENDENCIES = ("core",)

CheckResult = dict[str, Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HealthSummary:
    """``status`` is healthy, degraded or unhealthy; ``checks`` are the checks of ``GET /health`` by name."""

    status: str
    timestamp: datetime
    checks: Mapping[str, CheckResult]

    @property
    def verdict(self) -> HealthVerdict:
        """The status, with a sentence that names the failed checks."""
        own = {name: check["status"] for name, check in self.checks.items() if name != "dependencies"}
        others = {name: check["status"] for name, check in self.checks["dependencies"].items()}
        bad = [f"{name} {status}" for name, status in own.items() if status != HEALTHY]
        bad += [f"{name} {status}" for name, status in others.items() if status not in (HEALTHY, DEGRADED)]
        return HealthVerdict(self.status, ", ".join(bad) or "all checks are healthy")


def overall(checks: Mapping[str, CheckResult]) -> str:
    """Return the overall status of CHECKS. A degraded dependency does not make Helm degraded."""
    if checks["systemd"]["status"] == UNHEALTHY:
        return UNHEALTHY
    own = [check["status"] for name, check in checks.items() if name != "dependencies"]
    others = [check["status"] for check in checks["dependencies"].values()]
    all_healthy = all(state == HEALTHY for state in own) and all(state in (HEALTHY, DEGRADED) for state in others)
    return HEALTHY if all_healthy else DEGRADED


def disk_check(total: int, free: int) -> CheckResult:
    """Return the check of a file system's free space. TOTAL and FREE are bytes."""
    percent = 100 * free / total if total else 0.0
    state = HEALTHY if percent >= _LOW_DISK else DEGRADED if percent >= _FULL_DISK else UNHEALTHY
    return {
        "status": state,
        "free_gb": round(free / _GIB, 2),
        "total_gb": round(total / _GIB, 2),
        "usage_percent": round(100 - percent, 2),
    }


def journal_check(active_state: str | None, lag: float | None, trouble: str = "") -> CheckResult:
    """Return the check of journal ingest. ACTIVE_STATE is that of helmd-journal, None if there is no such unit.

    LAG is how many seconds the store is behind the journal, None if unknown; TROUBLE why nothing is stored.
    """
    late = lag is None or lag >= _MAX_LAG
    check: CheckResult = {"status": DEGRADED if late else HEALTHY, "lag_seconds": lag}
    if active_state is not None and active_state not in ("active", "reloading"):
        check |= {"status": UNHEALTHY, "message": f"{JOURNAL_UNIT} is {active_state}"}
    elif trouble:
        check |= {"status": UNHEALTHY, "message": trouble}
    elif lag is None:
        check |= {"message": "the lag behind the journal could not be determined"}
    return check


def listening_check(trouble: str) -> CheckResult:
    """Return the check of the configured TCP address; TROUBLE says why the API is not served there."""
    return {"status": DEGRADED, "message": trouble} if trouble else {"status": HEALTHY}


class HealthReport:
    """Makes reports. ``faults`` returns the number of configuration errors; ``disk`` is a path on Helm's disk;
    ``listening`` returns why Helm does not listen on its TCP address, or an empty string.
    ``retention`` returns sentences about rows that are kept although they seem to have expired.
    """

    def __init__(
        self,
        monitor: Monitor,
        pool: Pool,
        account: Account,
        disk: Path,
        faults: Callable[[], int],
        listening: Callable[[], str] = str,
        retention: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._monitor = monitor
        self._pool = pool
        # One thread for each, so that a hanging file system does not affect other checks.
        self._disk_thread, self._journal_thread = ThreadPool(1), ThreadPool(1)
        self._account = account
        self._disk = disk
        self._faults = faults
        self._listening = listening
        self._unfinished: dict[str, asyncio.Task[CheckResult]] = {}
        self._retention = retention
        self._last: HealthSummary | None = None
        self._made_at = 0.0
        self._making = asyncio.Lock()

    async def report(self) -> HealthSummary:
        """Return a report at most REPORT_MAX_AGE old, within a second even if a check hangs."""
        async with self._making:
            if self._last is None or time.monotonic() - self._made_at > REPORT_MAX_AGE:
                self._last = await self._make()
                self._made_at = time.monotonic()
            return self._last

    async def answer(self) -> ProbeResult:
        """Return the report as the result of a health check of Helm."""
        started = time.perf_counter()
        report = await self.report()
        return ProbeResult(report.verdict, round((time.perf_counter() - started) * 1000, 2))

    async def _make(self) -> HealthSummary:
        makers: dict[str, Callable[[], Awaitable[CheckResult]]] = {
            "database": self._database,
            "disk": self._disk_check,
            "systemd": self._systemd,
            "journal": self._journal,
        }
        for name, make in makers.items():
            if name not in self._unfinished:
                self._unfinished[name] = asyncio.create_task(_isolated(name, make))
        # Not cancelled on timeout: each check has its own time limit, and releases its connection properly. A check
        # that hangs is not started a second time.
        await asyncio.wait(self._unfinished.values(), timeout=_ALL_SECONDS)
        checks: dict[str, CheckResult] = {}
        for name in makers:
            task = self._unfinished[name]
            checks[name] = task.result() if task.done() else dict(_TIMED_OUT[name])
            if task.done():
                del self._unfinished[name]
        checks["dependencies"] = self._dependencies()
        faults = self._faults()
        held = self._retention()
        checks["retention"] = {"status": DEGRADED, "message": "; ".join(held)} if held else {"status": HEALTHY}
        checks["configuration"] = {"status": DEGRADED if faults else HEALTHY, "faults": faults}
        checks["http"] = listening_check(self._listening())
        return HealthSummary(overall(checks), datetime.now(UTC), checks)

    async def _database(self) -> CheckResult:
        started = time.perf_counter()
        try:
            async with self._pool.connection("checking health", _CHECK_SECONDS) as connection:
                await connection.execute("SELECT 1")
        except HelmError:
            return dict(_TIMED_OUT["database"])
        return {
            "status": HEALTHY,
            "type": "postgresql",
            "latency_ms": round((time.perf_counter() - started) * 1000, 2),
        }

    async def _disk_check(self) -> CheckResult:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                free, total = await self._disk_thread.run(lambda: space(self._disk))
        except TimeoutError:
            return dict(_TIMED_OUT["disk"])
        return disk_check(total, free)

    async def _systemd(self) -> CheckResult:
        started = time.perf_counter()
        silent = await ping(_CHECK_SECONDS)
        if wrong := silent or self._monitor.trouble:
            return {"status": UNHEALTHY, "message": wrong}
        return {"status": HEALTHY, "latency_ms": round((time.perf_counter() - started) * 1000, 2)}

    async def _journal(self) -> CheckResult:
        facts = self._monitor.companion(JOURNAL_UNIT)
        state = facts.active_state if facts is not None and facts.exists else None
        waiting = waiting_for(facts) if facts is not None else ""
        try:
            async with self._pool.connection("checking health", _CHECK_SECONDS) as connection:
                stored = await stored_up_to(
                    connection, self._account.machine_id, self._account.uid, self._account.boot_id
                )
        except HelmError:
            return journal_check(state, None, waiting)
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                first = await self._journal_thread.run(
                    lambda: first_after(self._account.uid, self._account.boot_id, stored or 0)
                )
                hidden = (
                    stored is None
                    and first is None
                    and await self._journal_thread.run(lambda: unreadable(self._account.uid))
                )
        except OSError:  # TimeoutError among them
            return journal_check(state, None)
        lag = 0.0 if first is None else max(0.0, round(time.time() - first / 1e6, 3))
        return journal_check(
            state, lag, "this account can't read the journal; see helmctl doctor" if hidden else waiting
        )

    def _dependencies(self) -> CheckResult:
        found: CheckResult = {}
        for name in _DEPENDENCIES:
            observed = self._monitor.observed(name)
            if observed is None or observed.service is None:
                continue
            health = self._monitor.status(name).health
            found[name] = {
                "status": UNHEALTHY if health == UNKNOWN and not observed.has_health_check else health,
                "response_time_ms": observed.response_ms,
            }
        return found


async def _isolated(name: str, make: Callable[[], Awaitable[CheckResult]]) -> CheckResult:
    """Return the result of MAKE; an error becomes the failure of this check only."""
    try:
        return await make()
    except Exception as error:  # noqa: BLE001 - an error must not end the other checks or the daemon
        if not isinstance(error, OSError):
            _log.exception("the health check %s failed", name)
        return {**_TIMED_OUT[name], "status": UNHEALTHY, "message": f"{type(error).__name__}: {error}"}


_TIMED_OUT: Mapping[str, CheckResult] = {
    "database": {"status": UNHEALTHY, "type": "postgresql", "latency_ms": None},
    "disk": {"status": UNHEALTHY, "free_gb": None, "total_gb": None, "usage_percent": None},
    "systemd": {"status": UNHEALTHY, "message": "the systemd user manager did not respond in time"},
    "journal": {"status": DEGRADED, "lag_seconds": None},
}
"""Results of checks that timed out."""
