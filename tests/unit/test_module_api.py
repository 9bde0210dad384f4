"""Changes of modules over the API: each is the job of the command that does the same."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from helmd.model.errors import UsageError
from helmd.model.modules.check import UpdateCheck
from helmd.operations.modules.shown import module_body, plan_reply
from helmd.web.api.modules import Modules
from helmd.web.module_routes import module_routes
from helmd.web.server import application
from tests.unit.test_admin_pages import CATALOGUE, RECORD, Apps, job
from tests.unit.test_pages import ADMIN, EveryRole


class Engine:
    """Jobs that are not run."""

    def __init__(self) -> None:
        self.submitted: list[tuple[Any, ...]] = []

    async def submit(
        self, kind: str, targets: Any, words: Any, by: Any, reason: str, key: object = None
    ) -> SimpleNamespace:
        self.submitted.append((kind, targets, words, reason))
        return SimpleNamespace(reply=replace(job("running", ended_at=None, result=None), kind=kind))


@dataclass
class Records:
    """One module."""

    held: bool = False

    def hold(self, name: str, held: bool, reason: str, by: str) -> bool:
        if reason == "refused":
            raise UsageError("it can't be held")
        self.held = held
        return True


async def ask(engine: Engine, method: str, path: str, body: Any, records: Records | None = None) -> tuple[int, Any]:
    found = records or Records()
    handlers = Modules(
        engine,  # type: ignore[arg-type]
        Apps(),  # type: ignore[arg-type]
        lambda: (replace(module_body(RECORD), held=found.held),),
        lambda: CATALOGUE,
        found.hold,
        lambda name, ref: plan_reply(RECORD, UpdateCheck(0.0, ref) if ref else None),
    )
    async with TestClient(TestServer(application(module_routes(handlers), EveryRole()))) as client:
        answer = await client.request(method, path, json=body, headers={**ADMIN, "Accept": "application/json"})
        return answer.status, await answer.json()


@pytest.mark.parametrize(
    ("method", "path", "body", "kind", "words"),
    [
        ("POST", "/update", {}, "module-update", ("modules", "update", "--yes", "--json", "--", "codex")),
        (
            "POST",
            "/update",
            {"ref": "v2", "discard_changes": True, "dry_run": True, "reason": "why"},
            "module-update",
            ("modules", "update", "--ref", "v2", "--discard-changes", "--dry-run", "--", "codex"),
        ),
        (
            "POST",
            "/rollback",
            {"with_data": True},
            "module-rollback",
            ("modules", "rollback", "--with-data", "--yes", "--json", "--", "codex"),
        ),
        (
            "POST",
            "/rollback",
            {"with_data": False},
            "module-rollback",
            ("modules", "rollback", "--code-only", "--yes", "--json", "--", "codex"),
        ),
        ("POST", "/plan", {}, "module-plan", ("modules", "update", "--dry-run", "--", "codex")),
        (
            "POST",
            "/plan",
            {"ref": "v2"},
            "module-plan",
            ("modules", "update", "--ref", "v2", "--dry-run", "--", "codex"),
        ),
        (
            "POST",
            "/update",
            {"planned": "4" * 40},
            "module-update",
            ("modules", "update", "--planned", "4" * 40, "--yes", "--json", "--", "codex"),
        ),
        ("DELETE", "", {}, "module-remove", ("modules", "remove", "--yes", "--", "codex")),
        (
            "DELETE",
            "",
            {"keep_data": True},
            "module-remove",
            ("modules", "remove", "--keep-data", "--yes", "--", "codex"),
        ),
    ],
)
async def test_a_change_is_the_job_of_its_command(
    method: str, path: str, body: dict[str, Any], kind: str, words: tuple[str, ...]
) -> None:
    engine = Engine()
    status, reply = await ask(engine, method, f"/api/modules/codex{path}", body)
    assert status == 202 and reply["job"]["kind"] == kind
    assert engine.submitted == [(kind, ("codex",), words, body.get("reason", ""))]


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", "core/update", {}, 404),
        ("POST", "--help/rollback", {"with_data": True}, 404),
        ("DELETE", "..%2fcodex", {}, 404),
        ("POST", "codex/rollback", {}, 400),
        ("POST", "codex/update", {"ref": "--upload-pack=x"}, 400),
        ("POST", "codex/update", {"gate": 0}, 400),
        ("POST", "codex/update", {"planned": "--help"}, 400),
        ("POST", "codex/plan", {"ref": "--upload-pack=x"}, 400),
        ("POST", "core/plan", {}, 404),
        ("GET", "core/plan", None, 404),
        ("GET", "codex/plan?ref=--upload-pack%3Dx", None, 400),
        ("POST", "codex/hold", {"reason": "refused"}, 400),
    ],
)
async def test_what_can_not_be_done_begins_no_job(method: str, path: str, body: dict[str, Any], code: int) -> None:
    engine = Engine()
    status, reply = await ask(engine, method, f"/api/modules/{path}", body)
    assert (status, engine.submitted) == (code, []), reply


async def test_a_module_is_held_and_unheld() -> None:
    records = Records()
    assert await ask(Engine(), "POST", "/api/modules/codex/hold", {"reason": "the fair"}, records)
    assert records.held
    status, reply = await ask(Engine(), "POST", "/api/modules/codex/hold", {"held": False}, records)
    assert (status, reply["held"], records.held) == (200, False, False)


async def test_one_module() -> None:
    engine = Engine()
    status, reply = await ask(engine, "GET", "/api/modules/codex", None)
    assert (status, reply["name"], reply["commit"]) == (200, "codex", "4" * 40)
    status, reply = await ask(engine, "GET", "/api/modules/core", None)
    assert (status, reply["code"], engine.submitted) == (404, "unknown_service", [])


async def test_updates_are_looked_for_in_one_job() -> None:
    for body in ({}, {"modules": ["codex", "codex"]}):
        engine = Engine()
        status, _ = await ask(engine, "POST", "/api/module-checks", body)
        assert status == 202
        assert engine.submitted == [("module-plan", ("codex",), ("modules", "check", "--", "codex"), "")]
    engine = Engine()
    status, reply = await ask(engine, "POST", "/api/module-checks", {"modules": ["codex", "--help"]})
    assert (status, reply["code"], engine.submitted) == (404, "unknown_service", [])


async def test_the_plan_that_was_made_is_read() -> None:
    status, reply = await ask(Engine(), "GET", "/api/modules/codex/plan", None)
    assert (status, reply["name"], reply["plan"], reply["checked_at"]) == (200, "codex", None, None)
    status, reply = await ask(Engine(), "GET", "/api/modules/codex/plan?ref=v2", None)
    assert (status, reply["trouble"]) == (200, "v2"), "the plan of an update to another version is asked for"
