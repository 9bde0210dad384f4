"""What is read about one service for its page: commit, environment, limits, response times, settings."""

import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from helmd.model.api.details import ProcessesReply, ServiceProcess
from helmd.model.api.service_config import ServiceConfigReply, ServiceSetting
from helmd.model.layout import layout
from helmd.model.suite.service import Limits, Registry, Service
from helmd.model.units.status import Observed, Usage
from helmd.model.units.unit_state import UnitFacts
from helmd.modules.records import write_check, write_record
from helmd.operations.configuration.service_config import ServiceConfig
from helmd.operations.diagnostics.service_facts import limits_of, shown_environment
from helmd.operations.monitoring.code_versions import CodeVersion, CodeVersions, code_version, commit_of
from helmd.web.pages.fresh_login import FreshLogin
from helmd.web.pages.service import actions_of, responses_of
from helmd.web.pages.service_settings import form_of
from tests.unit.test_module_check import CHECK, OLD, RECORD
from tests.unit.test_module_plan import PLAN
from tests.waiting import WITHIN

NOW = datetime(2026, 11, 28, 15, 0, tzinfo=UTC)
UNIT_STATE = UnitFacts(
    "hivematrix-codex.service", "loaded", "active", "running", main_pid=7, started_at=NOW.timestamp()
)
CODEX = Service(
    "codex",
    port=5010,
    environment={"COLOUR": "blue", "API_KEY": "secret-value", "DSN": "postgresql://a:b@localhost/x"},
    limits=Limits(memory_max=512 << 20, cpu_percent=150, tasks=200),
)
SEEN = Observed("codex", CODEX, UNIT_STATE, "production", usage=Usage(75.0, 256.0))


def git(directory: Path, *words: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    done = subprocess.run(["git", *identity, *words], cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_of_a_checkout(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == "" and commit_of(tmp_path / "nowhere") == ""
    git(tmp_path, "init", "-q")
    assert commit_of(tmp_path) == "", "nothing is committed yet"
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    head = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert commit_of(tmp_path) == head
    git(tmp_path, "pack-refs", "--all")
    assert commit_of(tmp_path) == head
    other = tmp_path.parent / f"{tmp_path.name}-tree"
    git(tmp_path, "worktree", "add", "-q", str(other))
    assert commit_of(other) == head
    git(tmp_path, "checkout", "-q", "--detach")
    assert commit_of(tmp_path) == head
    (tmp_path / ".git" / "HEAD").write_text("ref: ../../../etc/passwd\n")
    assert commit_of(tmp_path) == ""


def test_nothing_is_believed_of_a_checkout(tmp_path: Path) -> None:
    pointer = tmp_path / "pointer"
    pointer.mkdir()
    for text in ("gitdir: a\0b\n", "gitdir: /dev\n", "\udcff", "gitdir: " + "x" * 5000):
        (pointer / ".git").write_text(text, errors="surrogateescape")
        assert commit_of(pointer) == ""
    git = tmp_path / "checkout" / ".git"
    git.mkdir(parents=True)
    (tmp_path / "secret").write_text("a password that is none of the reader's business\n")
    for target in ("/dev/zero", str(tmp_path / "secret"), str(tmp_path)):
        (git / "HEAD").symlink_to(target)
        assert commit_of(git.parent) == ""
        (git / "HEAD").unlink()
    os.mkfifo(git / "HEAD")
    assert commit_of(git.parent) == "", "nobody writes to it"
    (git / "HEAD").unlink()
    for text in ("ref: a\0b\n", "ref: refs/heads/main\n"):
        (git / "HEAD").write_text(text)
        (git / "packed-refs").write_text("not-a-commit refs/heads/main\n")
        assert commit_of(git.parent) == ""


async def test_the_version_of_a_module_is_that_of_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = layout({}, tmp_path, 1000, tmp_path)
    desk = Service("desk", path=f"modules/desk/versions/{OLD}")
    assert code_version(places, desk) is None, "there is no record"
    write_record(places.module("desk"), replace(RECORD, ref="main"))
    assert code_version(places, desk) == CodeVersion("module", PLAN.before[:12], "main", None)
    write_check(places.module("desk"), replace(CHECK, plan=replace(PLAN, ref="main", behind=3)))
    assert code_version(places, desk) == CodeVersion("module", PLAN.before[:12], "main", 3)
    places.module("core").root.mkdir()
    places.module("core").record.write_text("{")
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    suite = {
        "desk": desk,
        "core": Service("core", path=f"modules/core/versions/{OLD}"),
        "codex": Service("codex", path=str(tmp_path)),
        "away": Service("away", type="external", path=str(tmp_path)),
        "helm": Service("helm"),
    }
    monkeypatch.setattr("helmd.operations.monitoring.code_versions._WAIT_SECONDS", WITHIN)
    found = await CodeVersions(places).of(Registry(suite))
    assert sorted(found) == ["codex", "desk", "helm"]
    assert found["codex"] == CodeVersion("checkout", commit_of(tmp_path)) and found["helm"].kind == "package"


def test_secrets_are_masked_wherever_they_come_from(tmp_path: Path) -> None:
    places = layout({}, tmp_path, 1000, tmp_path)
    places.secrets.mkdir(parents=True)
    places.secrets_file("codex").write_text("TOKEN=abc\nDATABASE_URL=postgresql://codex:abc@/codex\n")
    found = {each.name: (each.value, each.source) for each in shown_environment(CODEX, "production", places)}
    assert found["COLOUR"] == ("blue", "services.toml") and found["API_KEY"] == ("********", "services.toml")
    assert found["DSN"][0] == "********" and found["HIVEMATRIX_MODE"] == ("production", "Helm")
    assert found["TOKEN"] == ("********", "secrets/codex.env") and found["DATABASE_URL"][0] == "********"
    assert "abc" not in repr(found) and "secret-value" not in repr(found)


def test_limits_against_use() -> None:
    process = ServiceProcess(7, 1, "python3", "S", 12, 256.0, 1.5, NOW)
    found = {each.setting: each for each in limits_of(CODEX, SEEN, ProcessesReply("codex", (process,)))}
    assert (found["limits.memory_max"].used, found["limits.memory_max"].limit) == (256.0, 512.0)
    assert (found["limits.tasks"].used, found["limits.tasks"].limit) == (12.0, 200)
    assert "limits.memory_high" not in found and found["limits.cpu_percent"].used == 75.0
    throttled = replace(CODEX, limits=CODEX.limits._replace(memory_high=128 << 20))
    named = {each.name: each.limit for each in limits_of(throttled, SEEN, ProcessesReply("codex", (process,)))}
    assert (named["Memory before it is throttled"], named["Memory"]) == (128.0, 512.0)
    idle = {each.setting: each.used for each in limits_of(CODEX, SEEN, ProcessesReply("codex", ()))}
    assert idle["limits.tasks"] is None


def test_response_times_are_broken_where_nothing_was_measured() -> None:
    assert responses_of([], NOW).path == ""
    times = [NOW - timedelta(minutes=minute) for minute in (50, 49, 20)]
    found = responses_of([(at, 4.0, 3.0, 9.0) for at in times], NOW)
    assert found.path.count("M") == 2 and found.path.count("L") == 1
    assert (found.least, found.mean, found.most) == (3.0, 4.0, 9.0)


@pytest.mark.parametrize(
    ("facts", "offered"),
    [
        ({}, {"restart": "", "stop": "", "reload": "It has no reload_command in services.toml."}),
        ({"can_reload": True}, {"restart": "", "stop": "", "reload": ""}),
        ({"active_state": "failed"}, {"start": "", "restart": ""}),
        ({"active_state": "deactivating"}, {"start": "It is stopping.", "restart": "It is stopping."}),
    ],
)
def test_what_can_be_done_now(facts: dict[str, object], offered: dict[str, str]) -> None:
    seen = replace(SEEN, facts=replace(UNIT_STATE, **facts))  # type: ignore[arg-type]
    assert {each.action: each.refusal for each in actions_of(seen, NOW.timestamp())} == offered


def test_helm_and_what_is_external_are_not_controlled() -> None:
    assert not list(actions_of(replace(SEEN, name="helm"), NOW.timestamp()))
    outside = replace(SEEN, service=replace(CODEX, type="external"))
    assert not list(actions_of(outside, NOW.timestamp()))


def test_the_form_has_what_the_file_has() -> None:
    file, other = "/c/services.toml", "/c/services.d/codex.toml"
    settings = (
        ServiceSetting("limits.memory_max", "512M", file, 12, True),
        ServiceSetting("limits.tasks", 200, other, 3, False),
        ServiceSetting("environment", {"COLOUR": "blue", "API_KEY": "********"}, file, 4, True),
        ServiceSetting("start_command", ["bin/codex", "-v"], file, 0, True),
        ServiceSetting("visible", False, file, 2, True),
        ServiceSetting("path", "~/codex", other, 3, False),
    )
    later = {"limits.tasks": f"{other}, line 3", "environment.API_KEY": f"{other}, line 5"}
    form = form_of(ServiceConfig(ServiceConfigReply("codex", file, settings, ()), '"tag"', later), FreshLogin())
    limits = {each.key: (each.value, each.editable, each.place) for each in form.limits}
    assert limits["limits.memory_max"] == ("512M", True, "")
    assert limits["limits.tasks"] == ("200", False, f"{other}, line 3") and limits["limits.open_files"][0] == ""
    assert [(each.label, each.masked, each.place) for each in form.environment] == [
        ("COLOUR", False, ""),
        ("API_KEY", True, f"{other}, line 5"),
    ]
    assert [(each.key, each.value, each.place) for each in form.others] == [
        ("start_command", '["bin/codex", "-v"]', file),
        ("visible", "false", f"{file}:2"),
        ("path", "~/codex", f"{other}:3"),
    ]
    assert form.etag == '"tag"'
