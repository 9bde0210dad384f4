"""GET /health: its rules, and that it answers in time when nothing it asks does."""

import asyncio
import errno
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from helmd.health.listeners import holder_of
from helmd.health.thread_pool import ThreadPool
from helmd.journal.keys import JournalKeys
from helmd.model.suite.service import Registry, Service
from helmd.model.units.health import HEALTHY, HealthVerdict
from helmd.operations.logs.ingest import Account
from helmd.operations.monitoring import health_report
from helmd.operations.monitoring.health_report import HealthReport, disk_check, journal_check, listening_check, overall
from helmd.operations.monitoring.line_rates import LineRates
from helmd.operations.monitoring.monitor import Monitor
from helmd.operations.monitoring.recording import Recorder
from helmd.store.session import Pool
from helmd.systemd.usage import UsageMeter
from helmd.web.api.services import Api
from helmd.web.routes import routes
from helmd.web.server import HttpServer, application
from tests.fakes import unused_intake
from tests.free_ports import free_port
from tests.waiting import WITHIN

WELL: dict[str, Any] = {
    "database": {"status": "healthy"},
    "disk": {"status": "healthy"},
    "systemd": {"status": "healthy"},
    "journal": {"status": "healthy"},
    "dependencies": {"core": {"status": "healthy"}},
    "configuration": {"status": "healthy"},
    "retention": {"status": "healthy"},
}


def with_check(name: str, state: str) -> dict[str, Any]:
    return WELL | {name: {"status": state}}


def test_all_well() -> None:
    assert overall(WELL) == "healthy"
    assert overall(WELL | {"dependencies": {}}) == "healthy"


def test_a_core_that_is_degraded_for_ever_does_not_make_helm_so() -> None:
    assert overall(WELL | {"dependencies": {"core": {"status": "degraded"}}}) == "healthy"
    assert overall(WELL | {"dependencies": {"core": {"status": "unhealthy"}}}) == "degraded"
    assert overall(WELL | {"dependencies": {"core": {"status": "unknown"}}}) == "degraded"


@pytest.mark.parametrize("name", ["database", "disk", "journal", "configuration", "retention"])
def test_helm_works_without_its_store_and_says_degraded(name: str) -> None:
    assert overall(with_check(name, "unhealthy")) == "degraded"
    assert overall(with_check(name, "degraded")) == "degraded"


def test_without_systemd_it_is_unhealthy() -> None:
    assert overall(with_check("systemd", "unhealthy")) == "unhealthy"


def test_disk() -> None:
    gib = 1 << 30
    assert disk_check(100 * gib, 50 * gib) == {
        "status": "healthy",
        "free_gb": 50.0,
        "total_gb": 100.0,
        "usage_percent": 50.0,
    }
    assert [disk_check(1000, free)["status"] for free in (100, 99, 20, 19, 0)] == [
        "healthy",
        "degraded",
        "degraded",
        "unhealthy",
        "unhealthy",
    ]


def test_journal() -> None:
    assert journal_check("active", 0.2) == {"status": "healthy", "lag_seconds": 0.2}
    assert journal_check(None, 0.2)["status"] == "healthy"
    assert journal_check("active", 60.0)["status"] == "degraded"
    assert journal_check("active", None)["status"] == "degraded"
    assert journal_check("failed", 0.0)["status"] == "unhealthy"
    waits = journal_check("active", 0.0, "the disk is nearly full")
    assert (waits["status"], waits["message"]) == ("unhealthy", "the disk is nearly full")


class Stood:
    """A helmd whose PostgreSQL accepts connections and never answers, and that has no systemd."""

    def __init__(self, path: Path, port: int, monitor: Monitor) -> None:
        self.path = path
        self.port = port
        self.monitor = monitor


async def nothing_to_do() -> None:
    return None


@pytest.fixture
async def stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stood]:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/no-bus")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    threads = ThreadPool(2)
    account = Account(os.getuid(), "0" * 32, "0" * 32, "host")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = free_port()
        conninfo = f"host=127.0.0.1 port={mute.getsockname()[1]} dbname=helm user=helm sslmode=disable"
        async with Pool(conninfo, "test") as pool:
            recorder = Recorder(pool, nothing_to_do)
            monitor = Monitor(
                threads.probe,
                LineRates(pool).take,
                recorder,
                UsageMeter(),
                JournalKeys(tmp_path / "journal.keys"),
                on_change=lambda: None,
                beat=lambda: None,
            )
            report = HealthReport(
                monitor, pool, account, tmp_path / "state", lambda: 2, retention=lambda: ["the clock is behind"]
            )
            table = routes(Api(monitor, report), unused_intake())
            server = HttpServer(application(table), tmp_path / "helm.sock", holder_of)
            await server.start("127.0.0.1", port)
            try:
                yield Stood(tmp_path / "helm.sock", port, monitor)
            finally:
                await server.stop()
        # The pool gives up on workers that wait for the mute server; asyncio.run() would cancel them in a daemon.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def get(stood: Stood, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(stood.path))) as session:
        async with session.get(f"http://helm{path}") as answer:
            return answer.status, json.loads(await answer.read())


async def checks_once(
    stood: Stood, monkeypatch: pytest.MonkeyPatch, right: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Return the checks of the first report that is RIGHT. On a busy machine any check may be late in others."""
    monkeypatch.setattr(health_report, "REPORT_MAX_AGE", -1.0)
    checks: dict[str, Any] = {}
    async with asyncio.timeout(WITHIN):
        while not checks or not right(checks):
            checks = (await get(stood, "/health"))[1]["checks"]
    return checks


async def test_health_answers_within_a_second_when_nothing_that_it_asks_does(
    stood: Stood, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert health_report._CHECK_SECONDS < health_report._ALL_SECONDS < 1.0
    monkeypatch.setattr(health_report, "_CHECK_SECONDS", 10 * WITHIN)  # nothing but the limit for all ends them
    monkeypatch.setattr(health_report, "REPORT_MAX_AGE", WITHIN)
    stood.monitor.adopt(Registry({"core": Service("core", url="http://localhost:1", port=1)}), 15.0)
    async with asyncio.timeout(WITHIN):
        (code, body), *others = await asyncio.gather(*(get(stood, "/health") for _ in range(5)))
    assert all(other[1] == body for other in others), "one report answers all who ask at the same time"
    checks = body["checks"]
    assert (code, body["status"], body["service"]) == (503, "unhealthy", "helm")
    assert checks["database"] == {"status": "unhealthy", "type": "postgresql", "latency_ms": None}
    assert checks["systemd"]["status"] == "unhealthy"
    assert checks["journal"]["lag_seconds"] is None
    assert checks["dependencies"] == {"core": {"status": "unhealthy", "response_time_ms": None}}
    assert checks["configuration"] == {"status": "degraded", "faults": 2}
    assert checks["retention"] == {"status": "degraded", "message": "the clock is behind"}
    assert set(checks["disk"]) == {"status", "free_gb", "total_gb", "usage_percent"}
    assert 0 < checks["disk"]["free_gb"] <= checks["disk"]["total_gb"]


async def test_a_disk_that_hangs_is_late_and_takes_one_thread(stood: Stood, monkeypatch: pytest.MonkeyPatch) -> None:
    end, begun_calls = threading.Event(), 0

    def hang(path: Path) -> tuple[int, int]:
        nonlocal begun_calls
        begun_calls += 1
        end.wait(10 * WITHIN)
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(health_report, "space", hang)
    monkeypatch.setattr(health_report, "REPORT_MAX_AGE", -1.0)
    try:
        for _ in range(3):
            async with asyncio.timeout(WITHIN):
                body = (await get(stood, "/health"))[1]
            assert body["checks"]["disk"]["status"] == "unhealthy" and body["checks"]["disk"]["free_gb"] is None
            assert body["checks"]["configuration"]["faults"] == 2
        assert begun_calls == 1
    finally:
        end.set()


async def test_a_check_that_fails_is_that_checks_failure_alone(
    stood: Stood, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> Any:
        raise OSError(5, "Input/output error")

    def wrong(*_: object) -> Any:
        raise ValueError("nobody foresaw that")

    monkeypatch.setattr(health_report, "space", broken)
    monkeypatch.setattr(health_report, "ping", wrong)
    checks = await checks_once(stood, monkeypatch, lambda found: "message" in found["disk"])
    assert checks["disk"] == {
        "status": "unhealthy", "free_gb": None, "total_gb": None, "usage_percent": None,
        "message": "OSError: [Errno 5] Input/output error",
    }  # fmt: skip
    code, body = await get(stood, "/health")
    assert code == 503
    assert body["checks"]["systemd"] == {"status": "unhealthy", "message": "ValueError: nobody foresaw that"}
    assert body["checks"]["database"]["status"] == "unhealthy"
    assert body["checks"]["configuration"]["faults"] == 2
    assert "ValueError" in caplog.text, "what nobody foresaw is in the log"


async def test_a_check_that_hangs_is_begun_only_once(stood: Stood, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, begun = threading.Event(), []

    def hang(path: Path) -> tuple[int, int]:
        begun.append(path)
        hanging.wait(10 * WITHIN)
        return 50, 100

    monkeypatch.setattr(health_report, "space", hang)
    monkeypatch.setattr(health_report, "REPORT_MAX_AGE", -1.0)
    try:
        for _ in range(3):
            assert (await get(stood, "/health"))[1]["checks"]["disk"]["status"] == "unhealthy"
        assert len(begun) == 1
    finally:
        hanging.set()
    checks = await checks_once(stood, monkeypatch, lambda found: found["disk"]["status"] == "healthy")
    assert checks["disk"]["usage_percent"] == 50.0


async def test_an_address_that_cannot_be_had_is_said(stood: Stood) -> None:
    assert (await get(stood, "/health"))[1]["checks"]["http"] == {"status": "healthy"}
    assert listening_check("TCP: port 5004 is taken") == {"status": "degraded", "message": "TCP: port 5004 is taken"}


async def test_it_is_made_again_after_a_second(stood: Stood, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as long:
        long.setattr(health_report, "REPORT_MAX_AGE", WITHIN)
        first = (await get(stood, "/health"))[1]["timestamp"]
        assert (await get(stood, "/helm/health"))[1]["timestamp"] == first
    await asyncio.sleep(1.1)
    assert (await get(stood, "/health"))[1]["timestamp"] > first


async def test_statuses_of_services(stood: Stood) -> None:
    external = Service("idp", "external", url="https://idp.example")
    stood.monitor.adopt(Registry({"core": Service("core", port=5000), "idp": external}), 15.0)
    code, body = await get(stood, "/api/services/status")
    assert (code, list(body)) == (200, ["core", "idp"])
    assert (await get(stood, "/helm/api/services/core/status"))[1] == body["core"]
    assert (body["core"]["status"], body["core"]["configured_port"]) == ("unknown", 5000)
    assert (body["idp"]["status"], body["idp"]["unit"]) == ("unknown", None)
    code, body = await get(stood, "/api/services/nosuch/status")
    assert (code, body["code"], body["error"]) == (404, "unknown_service", "there is no service 'nosuch'")
    stood.monitor.adopt(Registry({"core": Service("core", port=5001)}), 15.0)
    body = (await get(stood, "/api/services/status"))[1]
    assert (list(body), body["core"]["configured_port"]) == (["core"], 5001)


def test_a_verdict_names_what_is_not_well() -> None:
    from datetime import UTC, datetime

    from helmd.operations.monitoring.health_report import HealthSummary

    report = HealthSummary("degraded", datetime.now(UTC), with_check("database", "unhealthy"))
    assert report.verdict == HealthVerdict("degraded", "database unhealthy")
    assert HealthSummary("healthy", datetime.now(UTC), WELL).verdict.state == HEALTHY


def test_a_verdict_names_the_service_because_of_which_helm_is_degraded() -> None:
    from datetime import UTC, datetime

    from helmd.operations.monitoring.health_report import HealthSummary

    checks = WELL | {"dependencies": {"core": {"status": "unhealthy"}}}
    report = HealthSummary(overall(checks), datetime.now(UTC), checks)
    assert report.verdict == HealthVerdict("degraded", "core unhealthy")
