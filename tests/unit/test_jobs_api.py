"""Jobs over HTTP: what is requested, how it is answered, and what is left when systemd refuses.

The manager is a fake that runs no process: a test plays a job's process, through the files that it would write.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import aiohttp
import pytest

from helmd.health.listeners import holder_of
from helmd.model.errors import BusError
from helmd.model.jobs.record import JobEnd, JobRecord, JobRequest, Requester, job_unit
from helmd.model.layout import layout
from helmd.model.suite.service import Health, Registry, Service
from helmd.model.units.unit_state import CLD_EXITED, UnitFacts
from helmd.operations.jobs.engine import MAX_RUNNING, JobEngine
from helmd.operations.jobs.process import begin
from helmd.operations.lifecycle.steps import Step
from helmd.systemd.bus import Manager, UnitProperty
from helmd.web.api import control
from helmd.web.api.control import ControlHandlers
from helmd.web.api.jobs import JobHandlers
from helmd.web.routes import job_routes
from helmd.web.server import HttpServer, application
from tests.fakes import Statuses
from tests.waiting import eventually

BOOT = "b" * 32
SUITE = Registry(
    {name: Service(name, "command", health=Health(check="process")) for name in ("keycloak", "core", "codex")}
)
SUITE = Registry({**SUITE.services, "core": Service("core", "command", depends_on=("keycloak",))})
STARTED = Step("codex", "done", "started", seconds=0.2)


@dataclass
class FakeManager:
    """Knows units that were started; ``run`` plays the process of one, and returns its exit code, or None for none."""

    run: Callable[[str], int | None] = lambda job_id: 0
    refusals: list[str] = field(default_factory=list)
    """Errors of the next calls of StartTransientUnit."""
    units: dict[str, UnitFacts] = field(default_factory=dict)
    words: list[list[str]] = field(default_factory=list)
    changed: Callable[[], object] = lambda: None
    """Called as systemd's signals are; in any thread."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None

    def facts(self, unit: str) -> UnitFacts:
        return self.units.get(unit, UnitFacts(unit))

    def start_transient(self, unit: str, properties: Sequence[UnitProperty]) -> str:
        if self.refusals and (refusal := self.refusals.pop(0)):
            raise BusError(refusal)
        ((_, words, _),) = {each.name: each.value for each in properties}["ExecStart"]
        self.words.append(words)
        self.units[unit] = UnitFacts(unit, "loaded", "active", "running")
        code = self.run(words[2])
        if code is not None:
            self.end(unit, code)
        return "/job/1"

    def end(self, unit: str, code: int) -> None:
        state, result = ("active", "success") if code == 0 else ("failed", "exit-code")
        self.units[unit] = UnitFacts(
            unit, "loaded", state, "exited", result, exit_code=CLD_EXITED, exit_status=code, ended_at=time.time()
        )
        self.changed()

    def stop(self, unit: str) -> str:
        facts = self.units.pop(unit, None)
        if facts is None:
            raise BusError(f"systemd refused StopUnit: Unit {unit} not loaded")
        return "/job/2"

    def reset_failed(self, unit: str) -> None:
        self.units.pop(unit, None)

    def unit_states(self, pattern: str) -> dict[str, tuple[str, str]]:
        return {unit: (facts.active_state, facts.sub_state) for unit, facts in self.units.items()}


@dataclass
class Served:
    """A server with a job engine, and its manager."""

    engine: JobEngine
    manager: FakeManager
    client: aiohttp.ClientSession

    async def __call__(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any, Any]:
        data = None if body is None else json.dumps(body)
        if data is not None:
            headers["Content-Type"] = "application/json"
        async with self.client.request(method, f"http://helm{path}", data=data, headers=headers) as response:
            return response.status, await response.json(content_type=None), response.headers

    def play(self, *steps: Step, code: int | None = 0) -> None:
        """What the processes of jobs do from now on."""

        def run(job_id: str) -> int | None:
            process = begin(self.engine.directory, job_id)
            for step in steps:
                process.step(step)
                process.line(f"{step.service}: {step.sentence}")
            if code is not None:
                process.ended(code, False, None)
            return code

        self.manager.run = run


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    places = layout({}, tmp_path, 1000, tmp_path / "share")
    manager = FakeManager()
    engine = JobEngine(places, BOOT, lambda: cast(Manager, manager))
    monitor = Statuses(keycloak=True, core=True, codex=False, helm=True)
    handlers = ControlHandlers(engine, monitor, lambda: SUITE), JobHandlers(engine)
    server = HttpServer(application(job_routes(*handlers)), tmp_path / "helm.sock", holder_of)
    await server.start("127.0.0.1", 0)
    running = asyncio.create_task(engine.run())
    loop = asyncio.get_running_loop()
    manager.changed = lambda: loop.call_soon_threadsafe(engine.changed)
    connector = aiohttp.UnixConnector(str(tmp_path / "helm.sock"))
    async with aiohttp.ClientSession(connector=connector) as client:
        made = Served(engine, manager, client)
        made.play(STARTED)
        yield made
    running.cancel()
    await asyncio.wait({running})
    await server.stop()


async def test_a_start_is_a_job(served: Served) -> None:
    status, body, _ = await served("POST", "/api/services/codex/start", {"mode": "production", "reason": "a look"})
    assert (status, body["success"], body["message"]) == (200, True, "Service started successfully")
    words = served.manager.words[0]
    assert words[1:] == ["--job", body["job"], "start", "codex", "--json", "--mode", "production"]
    status, job, _ = await served("GET", f"/api/jobs/{body['job']}")
    assert (status, job["state"], job["reason"], job["via"]) == (200, "succeeded", "a look", "socket")
    assert [step["sentence"] for step in job["steps"]] == ["started"]
    assert (await served("GET", "/helm/api/jobs"))[1] == {"jobs": [job]}
    assert not served.manager.units, "its unit is removed once its end is recorded"


@pytest.mark.parametrize(
    ("verb", "body", "status", "code"),
    [
        ("start", {"mode": "turbo"}, 400, "usage"),
        ("start", ["codex"], 400, "usage"),
        ("stop", {"stop": True}, 400, "usage"),
    ],
)
async def test_a_faulty_request_starts_nothing(served: Served, verb: str, body: object, status: int, code: str) -> None:
    given, problem, _ = await served("POST", f"/api/services/codex/{verb}", body)
    assert (given, problem["code"]) == (status, code)
    assert not served.manager.words and not served.engine.directory.ids()


@pytest.mark.parametrize(
    ("name", "status", "code"), [("nothing", 404, "unknown_service"), ("helm", 400, "usage"), ("..", 404, "not_found")]
)
async def test_what_is_no_service(served: Served, name: str, status: int, code: str) -> None:
    given, problem, _ = await served("POST", f"/api/services/{name}/start")
    assert (given, problem["code"]) == (status, code)
    given, problem, _ = await served("POST", "/api/services/actions", {"action": "start", "services": [name, "core"]})
    assert given in (400, 404) and not served.manager.words


@pytest.mark.parametrize(
    ("steps", "status", "code"),
    [
        ([Step("codex", "failed", "was not healthy within 3 s", "not_healthy", lines=("boom",))], 504, "not_healthy"),
        ([Step("codex", "failed", "exited with code 3", "start_failed", lines=("boom",))], 500, "start_failed"),
        ([Step("codex", "failed", "port 5010 is in use", "port_taken", lines=("boom",))], 409, "port_taken"),
        (
            [
                Step("core", "failed", "exited with code 3", "start_failed", lines=("boom",)),
                Step("codex", "skipped", "not started, because core failed", "dependency_failed"),
            ],
            409,
            "dependency_failed",
        ),
    ],
)
async def test_a_failed_start(served: Served, steps: list[Step], status: int, code: str) -> None:
    served.play(*steps, code=1)
    given, problem, headers = await served("POST", "/api/services/codex/start")
    assert (given, problem["code"], headers["Content-Type"]) == (status, code, "application/problem+json")
    assert (problem["success"], problem["lines"]) == (False, ["boom"])
    assert problem["message"] == problem["detail"] == problem["error"]
    assert not served.manager.units


async def test_what_runs_already(served: Served) -> None:
    served.play(Step("codex", "already", "already running, healthy"))
    for verb, code in (("start", "already_running"), ("stop", "not_running")):
        status, problem, _ = await served("POST", f"/api/services/codex/{verb}")
        assert (status, problem["code"], problem["success"]) == (400, code, False)


async def test_without_waiting(served: Served) -> None:
    served.play(code=None)
    status, body, headers = await served("POST", "/api/services/codex/start", {"wait": False})
    assert (status, headers["Location"]) == (202, f"/api/jobs/{body['job']['id']}")
    headers = (await served("POST", "/helm/api/services/codex/start", {"wait": False}))[2]
    assert headers["Location"].startswith("/helm/api/jobs/")


async def test_through_a_proxy_it_does_not_wait_for_long(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "PROXY_SECONDS", 0.1)
    served.play(code=None)
    headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Prefix": "/helm"}
    status, body, answered = await served("POST", "/api/services/codex/start", **headers)
    assert (status, answered["Location"]) == (202, f"/helm/api/jobs/{body['job']['id']}")


async def test_a_client_that_goes_away_cancels_nothing(served: Served) -> None:
    served.play(code=None)
    client = asyncio.create_task(served("POST", "/api/services/codex/start"))
    (job_id,) = await eventually(served.engine.directory.ids)
    await eventually(lambda: served.manager.words)
    client.cancel()
    await asyncio.wait({client})
    assert (await served("GET", f"/api/jobs/{job_id}"))[1]["state"] == "running"
    served.manager.end(job_unit(job_id), 0)
    assert (await served("GET", f"/api/jobs/{job_id}"))[1]["state"] == "succeeded"


async def test_the_same_key_is_the_same_job(served: Served) -> None:
    replies = [await served("POST", "/api/services/codex/start", **{"Idempotency-Key": "k1"}) for _ in range(3)]
    assert [status for status, _, _ in replies] == [200] * 3
    assert len({body["job"] for _, body, _ in replies}) == len(served.manager.words) == 1
    given, problem, _ = await served(
        "POST", "/api/services/codex/start", {"mode": "production"}, **{"Idempotency-Key": "k1"}
    )
    assert (given, problem["code"]) == (422, "idempotency_key_reused")
    other = await served("POST", "/api/services/codex/stop", **{"Idempotency-Key": "k1"})
    assert other[0] == 200 and len(served.manager.words) == 2
    assert (await served("POST", "/api/services/codex/stop", **{"Idempotency-Key": "x" * 256}))[0] == 400


async def test_a_manager_that_refuses_leaves_no_job(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.manager.refusals = ["systemd refused StartTransientUnit: Connection timed out"] * 3
    status, problem, _ = await served("POST", "/api/services/codex/start", **{"Idempotency-Key": "k1"})
    assert (status, problem["code"]) == (503, "bus")
    assert served.engine.directory.ids() == []
    assert (await served("POST", "/api/services/codex/start", **{"Idempotency-Key": "k1"}))[0] == 200


@pytest.mark.parametrize(
    "refusals",
    [["timed out", "systemd refused StartTransientUnit: Unit x.service was already loaded"], ["timed out"] * 3],
    ids=["the unit is there when it is tried again", "the unit begins although systemd never said so"],
)
async def test_a_start_that_was_queued_although_the_call_failed(served: Served, refusals: list[str]) -> None:
    served.manager.refusals = refusals
    running = asyncio.create_task(served("POST", "/api/services/codex/start"))
    (job,) = await eventually(served.engine.directory.ids)
    served.manager.units[job_unit(job)] = UnitFacts(job_unit(job), "loaded", "active", "running")
    served.manager.run(job)
    served.manager.end(job_unit(job), 0)
    assert (await running)[0] == 200


async def test_a_job_that_begins_while_it_is_looked_at(served: Served) -> None:
    """Between the look at its unit, which was not there yet, and that at its files, which say that it has begun."""
    served.play(code=None)

    def facts(unit: str) -> UnitFacts:
        if unit not in served.manager.units:
            (job_id,) = served.engine.directory.ids()
            served.manager.units[unit] = UnitFacts(unit, "loaded", "active", "running")
            begin(served.engine.directory, job_id)
            return UnitFacts(unit)
        return served.manager.units[unit]

    request = JobRequest("late", "start", ("codex",), ("start", "codex"), Requester("a", "socket"), "", 0.0, BOOT)
    served.engine.directory.create(request)
    served.manager.facts = facts  # type: ignore[method-assign]
    assert (await served.engine.job("late")).verdict.state == "running"


async def test_no_more_jobs_than_may_run(served: Served) -> None:
    served.play(code=None)
    body = {"action": "restart", "services": ["codex"]}
    assert {(await served("POST", "/api/services/actions", body))[0] for _ in range(MAX_RUNNING)} == {202}
    status, problem, _ = await served("POST", "/api/services/actions", body)
    assert (status, problem["code"]) == (503, "busy")


async def test_a_plan_does_nothing(served: Served) -> None:
    body = {"action": "start", "services": ["core"], "dry_run": True}
    status, plan, _ = await served("POST", "/api/services/actions", body)
    assert status == 200 and [step["service"] for step in plan["plan"]] == ["keycloak", "core"]
    status, plan, _ = await served("POST", "/api/services/actions", {**body, "action": "stop", "services": ["all"]})
    assert status == 200 and {step["service"] for step in plan["plan"]} == set(SUITE.names)
    assert not served.manager.words


async def test_an_action_is_a_job(served: Served) -> None:
    body = {"action": "restart", "services": ["core", "codex"], "mode": "production"}
    status, accepted, headers = await served("POST", "/api/services/actions", body)
    assert (status, headers["Location"]) == (202, f"/api/jobs/{accepted['job']['id']}")
    assert served.manager.words[0][3:] == ["restart", "core", "codex", "--json", "--mode", "production"]
    assert (await served("POST", "/api/services/actions", {**body, "services": ["all"]}))[1]["job"]["target"] == "all"


async def test_a_late_reader_sees_all_of_a_log(served: Served) -> None:
    served.play(Step("core", "in_progress", "waiting"), STARTED)
    job_id = (await served("POST", "/api/services/codex/start"))[1]["job"]
    async with served.client.get(f"http://helm/api/jobs/{job_id}/log") as response:
        assert response.content_type == "text/event-stream"
        text = (await response.read()).decode()
    kinds = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert kinds == ["step", "log", "step", "log", "end"]
    numbers = [int(line.removeprefix("id: ")) for line in text.splitlines() if line.startswith("id: ")]
    assert numbers == [2, 3, 4, 5, 7]
    headers = {"Last-Event-ID": "4"}
    async with served.client.get(f"http://helm/api/jobs/{job_id}/log", headers=headers) as response:
        assert [line for line in (await response.text()).splitlines() if line.startswith("id: ")] == ["id: 5", "id: 7"]
    headers = {"Last-Event-ID": "7"}
    async with served.client.get(f"http://helm/api/jobs/{job_id}/log", headers=headers) as response:
        assert response.status == 204
    async with served.client.head(f"http://helm/api/jobs/{job_id}/log") as response:
        assert response.status == 200


async def test_a_log_is_followed_to_the_end_of_its_job(served: Served) -> None:
    served.play(code=None)
    job_id = (await served("POST", "/api/services/codex/start", {"wait": False}))[1]["job"]["id"]
    async with served.client.get(f"http://helm/api/jobs/{job_id}/log") as response:
        await response.content.readuntil(b"\n\n")
        served.manager.end(job_unit(job_id), 1)
        text = (await response.read()).decode()
    assert '"state": "failed"' in text


async def test_cancelling(served: Served) -> None:
    served.play(code=None)
    job_id = (await served("POST", "/api/services/codex/start", {"wait": False}))[1]["job"]["id"]
    status, job, _ = await served("POST", f"/api/jobs/{job_id}/cancel")
    assert (status, job["state"]) == (200, "cancelled")
    status, problem, _ = await served("POST", f"/api/jobs/{job_id}/cancel")
    assert (status, problem["code"]) == (409, "job_ended")
    for method, path in (
        ("POST", "/api/jobs/no-such/cancel"),
        ("GET", "/api/jobs/no-such"),
        ("GET", "/api/jobs/X/log"),
    ):
        status, problem, _ = await served(method, path)
        assert (status, problem["code"]) == (404, "unknown_job")


async def test_what_a_killed_helmd_left_is_recorded(tmp_path: Path, served: Served) -> None:
    """Another engine finds a job that ended meanwhile, one that runs, and units whose end is recorded."""
    served.play(code=None)
    ids = [(await served("POST", "/api/services/codex/start", {"wait": False}))[1]["job"]["id"] for _ in range(3)]
    units = [job_unit(job_id) for job_id in ids]
    places = layout({}, tmp_path, 1000, tmp_path / "share")
    served.manager.end(units[0], 0)
    served.manager.end(units[1], 1)
    served.engine.directory.record_end(ids[1], JobEnd(1.0, "failed"))
    fresh = JobEngine(places, BOOT, lambda: cast(Manager, served.manager))
    running = asyncio.create_task(fresh.run())
    try:
        await eventually(lambda: set(served.manager.units) == {units[2]})
    finally:
        running.cancel()
        await asyncio.wait({running})
    assert [(await fresh.job(job_id)).verdict.state for job_id in ids] == ["succeeded", "failed", "running"]


async def test_jobs_that_have_ended_are_read_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {(await served("POST", "/api/services/codex/start"))[1]["job"] for _ in range(3)}
    assert {job["id"] for job in (await served("GET", "/api/jobs"))[1]["jobs"]} == ids
    read: list[str] = []
    original = served.engine.directory.read

    def noted(job_id: str) -> JobRecord:
        read.append(job_id)
        return original(job_id)

    monkeypatch.setattr(served.engine.directory, "read", noted)
    assert {job["id"] for job in (await served("GET", "/api/jobs"))[1]["jobs"]} == ids
    assert read == []
    served.engine.directory.discard(gone := ids.pop())
    assert {job["id"] for job in (await served("GET", "/api/jobs"))[1]["jobs"]} == ids
    assert (await served("GET", f"/api/jobs/{gone}"))[0] == 404
