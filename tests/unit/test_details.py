"""What the API shows about one service, the machine and the caller."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import aiohttp
import pytest

from helmd.health.listeners import holder_of
from helmd.model.api.host import HostCertificate
from helmd.model.errors import BusError, UnknownServiceError
from helmd.model.suite.service import Registry, Service
from helmd.model.units.health import HealthVerdict
from helmd.model.units.status import Observed, Status, Usage, service_status
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.monitoring.details import probe_reply, processes_reply, unit_reply
from helmd.operations.monitoring.host_state import HostState, days_left
from helmd.operations.monitoring.prometheus import prometheus_text
from helmd.operations.monitoring.service_figures import ServiceFigures
from helmd.operations.monitoring.updates import PendingUpdates
from helmd.store.metrics.metrics import MetricSample
from helmd.web.api.details import Details
from helmd.web.documents import with_documents
from helmd.web.routes import detail_routes
from helmd.web.server import HttpServer, application

CORE = Service("core", url="http://localhost:5000", port=5000, depends_on=("keycloak",))
UNIT_STATE = UnitFacts(
    "hivematrix-core.service", "loaded", "active", "running", invocation="ab", control_group="/core.service"
)
RUNNING = Observed(
    "core", CORE, UNIT_STATE, verdict=HealthVerdict("healthy", "HTTP 200"), response_ms=2.0, checked_at=5.0
)
IDP = Observed("idp", Service("idp", "external", url="https://idp.example"), UnitFacts(""))


class Known:
    """Services that are known."""

    def __init__(self, *observed: Observed) -> None:
        self._observed = {each.name: each for each in observed}

    def observed(self, name: str) -> Observed | None:
        return self._observed.get(name)

    def status(self, name: str) -> Status:
        if name not in self._observed:
            raise UnknownServiceError(name)
        return service_status(self._observed[name], 0.0)

    def statuses(self) -> dict[str, Status]:
        return {name: self.status(name) for name in self._observed}


@pytest.fixture
async def helmd(tmp_path: Path) -> AsyncIterator[Path]:
    anything = cast(Any, Mock())
    registry = Registry({"core": CORE})
    details = Details(
        Known(RUNNING, IDP),
        lambda: registry,
        anything,
        anything,
        HostState([tmp_path], updates=PendingUpdates(tmp_path)),
    )
    path = tmp_path / "helm.sock"
    server = HttpServer(application(with_documents(detail_routes(details))), path, holder_of)
    await server.start("127.0.0.1", 0)
    try:
        yield path
    finally:
        await server.stop()


async def get(path: Path, url: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
        async with session.get(f"http://helm{url}") as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if answer.content_type.endswith("json") else body.decode()


async def test_services(helmd: Path) -> None:
    code, body = await get(helmd, "/api/services")
    assert (code, body["services"]) == (200, ["core"])
    core = body["details"]["core"]
    assert (core["url"], core["port"], core["depends_on"]) == ("http://localhost:5000", 5000, ["keycloak"])
    assert (core["visible"], core["admin_only"], core["run_script"]) == (True, False, "run.py")


async def test_who_the_caller_is(helmd: Path) -> None:
    code, body = await get(helmd, "/helm/api/me")
    assert (code, body["role"], body["via"], body["expires_at"]) == (200, "admin", "socket", None)


async def test_one_service(helmd: Path) -> None:
    assert (await get(helmd, "/api/services/core/unit"))[1]["active_state"] == "active"
    probe = (await get(helmd, "/api/services/core/probes"))[1]
    assert (probe["check"], probe["path"], probe["health"]) == ("http", "/health", "healthy")
    assert (await get(helmd, "/api/services/core/processes"))[1]["processes"] == []
    for part in ("unit", "probes", "processes", "timeline"):
        code, body = await get(helmd, f"/api/services/nosuch/{part}")
        assert (code, body["code"]) == (404, "unknown_service")
    assert (await get(helmd, "/api/services/idp/unit"))[0] == 404
    assert (await get(helmd, "/api/metrics/nosuch"))[0] == 404


async def test_the_machine(helmd: Path) -> None:
    code, body = await get(helmd, "/api/host")
    assert (code, body["hostname"], len(body["load"])) == (200, socket.gethostname(), 3)
    assert body["memory"]["total_mb"] >= body["memory"]["available_mb"] > 0
    (disk,) = body["disks"]
    assert 0 < disk["free_gb"] <= disk["total_gb"] and disk["days_left"] is None
    booted = datetime.fromisoformat(body["booted_at"])
    up = float(Path("/proc/uptime").read_text().split()[0])
    assert abs((datetime.now(UTC) - booted).total_seconds() - up) < 60


async def test_prometheus(helmd: Path) -> None:
    code, text = await get(helmd, "/metrics/prometheus")
    assert code == 200
    assert 'helm_service_up{service="core"} 1.0' in text and 'helm_service_healthy{service="core"} 1.0' in text
    assert 'helm_service_up{service="idp"} 0.0' in text
    started = replace(
        RUNNING, facts=replace(UNIT_STATE, main_pid=7, started_at=100.0, restarts=2), usage=Usage(1.5, 2.0)
    )
    text = prometheus_text(Known(started).statuses()).decode()
    assert 'helm_service_restarts_total{service="core"} 2.0' in text
    assert 'helm_service_memory_bytes{service="core"} 2.097152e+06' in text
    assert 'helm_service_start_time_seconds{service="core"} 100.0' in text


def test_prometheus_has_what_was_measured_and_what_services_post() -> None:
    hostile = {"a b": 'x"\n{', "a-b": "y", "service": "other"}
    figures = ServiceFigures(
        {"core": 0.0125},
        {"core": 30, "gone": 5},
        [
            MetricSample("core", datetime.now(UTC), "queue.length", 3.0),
            MetricSample("core", datetime.now(UTC), "queue.length", 4.0, hostile),
            MetricSample("core", datetime.now(UTC), "long", 5.0, {"k" * 100: "v" * 1000}),
            MetricSample("core", datetime.now(UTC), "long", 6.0, {"k" * 100: "v" * 999}),
        ],
    )
    text = prometheus_text(Known(RUNNING, IDP).statuses(), figures).decode()
    assert 'helm_service_response_seconds{service="core"} 0.0125' in text
    assert 'helm_service_response_seconds{service="idp"}' not in text, "it was not checked"
    assert 'helm_service_log_lines_total{service="core"} 30.0' in text and "gone" not in text
    assert 'helm_custom_metric{metric="queue.length",service="core"} 3.0' in text
    assert 'helm_custom_metric{metric="queue.length",service="core",tag_a_b="y",tag_service="other"} 4.0' in text
    long = f'tag_{"k" * 100}="{"v" * 128}"'
    assert f'helm_custom_metric{{metric="long",service="core",{long}}} 6.0' in text
    series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))


def test_pressure_is_read_as_the_kernel_has_it(tmp_path: Path) -> None:
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure/cpu").write_text("some avg10=1.25 avg60=0.50 avg300=0.10 total=5\n")
    (tmp_path / "pressure/io").write_text(
        "some avg10=3.00 avg60=2.00 avg300=0.10 total=5\nfull avg10=0.00 avg60=1.00 avg300=0.00 total=1\n"
    )
    (tmp_path / "stat").write_text("cpu  1 2\nbtime 1700000000\n")
    (tmp_path / "meminfo").write_text("MemTotal:       2048 kB\nMemAvailable:   1024 kB\nSwapTotal: 0 kB\n")
    found = HostState([], proc=tmp_path).read()
    assert found.pressure.cpu is not None and (found.pressure.cpu.some_10s, found.pressure.cpu.full_60s) == (1.25, None)
    assert found.pressure.io is not None and (found.pressure.io.some_60s, found.pressure.io.full_60s) == (2.0, 1.0)
    assert found.pressure.memory is None
    assert (found.memory.total_mb, found.memory.available_mb, found.memory.swap_free_mb) == (2.0, 1.0, 0.0)
    assert found.booted_at == datetime.fromtimestamp(1_700_000_000, UTC)


def test_certificates_are_unknown_where_systemd_is_not_asked(tmp_path: Path) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    shown = HostCertificate("nexus", noon, noon, self_signed=True, replaced=False)
    assert HostState([], lambda: [shown]).read().certificates == (shown,)
    assert HostState([], Mock(side_effect=BusError("no bus"))).read().certificates is None


def test_how_long_a_disk_lasts() -> None:
    assert days_left(200, 100, 86400.0) == 1.0
    assert days_left(200, 100, 60.0) is None, "too early to say"
    assert days_left(100, 100, 86400.0) is None and days_left(100, 200, 86400.0) is None
    assert days_left(100, 0, 86400.0) == 0.0


def test_the_files_of_a_unit(tmp_path: Path) -> None:
    unit, more = tmp_path / "hivematrix-core.service", tmp_path / "10-more.conf"
    unit.write_text("[Service]\n")
    facts = replace(UNIT_STATE, fragment=str(unit), drop_ins=(str(more),), need_reload=True)
    found = unit_reply(replace(RUNNING, facts=facts))
    assert [(each.path, each.text) for each in found.files] == [(str(unit), "[Service]\n"), (str(more), None)]
    assert found.need_daemon_reload and found.invocation_id == "ab"


def test_a_probe_before_the_first_check_and_outside_the_registry() -> None:
    found = probe_reply(replace(RUNNING, verdict=None), 0.0, 8.0)
    assert (found.checked_seconds_ago, found.health) == (None, "unknown")
    assert probe_reply(RUNNING, 0.0, 8.0).checked_seconds_ago == 3.0
    found = probe_reply(Observed("orphan", None, UNIT_STATE), 0.0, 8.0)
    assert (found.check, found.path, found.health) == (None, None, "unknown")


@contextmanager
def child() -> Iterator[int]:
    program = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", "--password=secret"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid


def test_processes(tmp_path: Path) -> None:
    group = tmp_path / "core.service"
    (group / "below").mkdir(parents=True)
    with child() as pid:
        (group / "cgroup.procs").write_text(f"{pid}\n")
        (group / "below/cgroup.procs").write_text("4194305\n")  # more than there can be: it has ended
        before = datetime.now(UTC)
        (found,) = processes_reply(RUNNING, tmp_path).processes
    assert (found.pid, found.parent_pid, found.threads) == (pid, os.getpid(), 1)
    assert found.program.startswith("python") and "secret" not in str(found)
    assert found.memory_mb > 1
    assert timedelta(0) <= before - found.started_at + timedelta(seconds=1) < timedelta(seconds=60)
    assert processes_reply(replace(RUNNING, facts=replace(UNIT_STATE, control_group=""))).processes == ()


async def test_files_of_several_services_are_read_at_once(helmd: Path) -> None:
    found = await asyncio.gather(*(get(helmd, "/api/services/core/unit") for _ in range(8)))
    assert {status for status, _ in found} == {200}
