"""Changing settings of a service: the file keeps what it has besides, and nothing is written that has a fault."""

import os
import tomllib
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from helmd.cli.config import config_command
from helmd.cli.context import Context
from helmd.files.lock import locked
from helmd.health.listeners import holder_of
from helmd.model.api.service_config import ServiceConfigBody
from helmd.model.config.registry_edit import MASK, edited, masked, text_difference
from helmd.model.errors import LockedError, UnknownServiceError, UsageError
from helmd.model.layout import Layout, layout
from helmd.operations.configuration.service_config import (
    ChangedMeanwhileError,
    change_service_config,
    service_config,
)
from helmd.operations.jobs.engine import JobEngine
from helmd.systemd.bus import Manager
from helmd.web.api.config import ServiceConfigs
from helmd.web.routes import config_routes
from helmd.web.server import HttpServer, application
from tests.unit.test_jobs_api import BOOT, FakeManager

TOP = Path(__file__).resolve().parents[2]
TEXT = """# The suite.
[services.shop]  # the shop
type = "command"
start_command = ["./shop"]
port = 6000  # not 6001
health.path = "/up"

# Reports, every night.
[services.report]
type = "oneshot"
start_command = ["./report"]
[services.report.environment]
LANG = "C"
"""


@pytest.fixture
def account(tmp_path: Path) -> Layout:
    made = layout({}, tmp_path, os.getuid(), TOP)
    for directory in (made.config, made.units, made.registry_directory, made.state):
        directory.mkdir(parents=True)
    for name in ("shop", "report"):
        program = made.data / f"hivematrix-{name}" / name
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    (made.state / "host.json").write_text('{"systemd": 252, "user_namespaces": true}')
    made.registry_file.write_text(TEXT)
    made.registry_file.chmod(0o600)
    return made


def change(account: Layout, set: dict[str, Any], *unset: str, service: str = "shop", **more: Any) -> Any:
    return change_service_config(account, service, ServiceConfigBody(set, unset), None, **more)[0]


def lines(difference: str) -> list[str]:
    return [line for line in difference.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]


@pytest.mark.parametrize(
    ("service", "set", "unset", "changed"),
    [
        ("shop", {"port": 6001}, (), ["-port = 6000  # not 6001", "+port = 6001  # not 6001"]),
        ("shop", {"health.timeout": "5s"}, (), ['+health.timeout = "5s"']),
        ("shop", {"limits.tasks": 9, "limits.open_files": 64}, (), ["+limits = {tasks = 9, open_files = 64}"]),
        ("shop", {}, ("health.path",), ['-health.path = "/up"']),
        ("report", {"environment.LANG": "de"}, (), ['-LANG = "C"', '+LANG = "de"']),
        ("report", {"environment": {"TZ": "UTC"}}, (), ['-LANG = "C"', '+TZ = "UTC"']),
    ],
)
def test_only_the_setting_changes(
    service: str, set: dict[str, Any], unset: tuple[str, ...], changed: list[str]
) -> None:
    assert lines(text_difference(TEXT, edited(TEXT, service, set, unset), "services.toml")) == changed


@given(
    st.dictionaries(
        st.sampled_from(["port", "description", "health.path", "limits.tasks", "environment.A", "depends_on", "url"]),
        st.one_of(st.text(), st.integers(), st.booleans(), st.lists(st.text(max_size=5), max_size=3), st.floats(0, 9)),
        min_size=1,
    )
)
def test_whatever_the_values_are_the_file_says_them_and_all_else_as_before(set: dict[str, Any]) -> None:
    wanted = tomllib.loads(TEXT)
    for key, value in set.items():
        table, name = wanted["services"]["shop"], key
        if "." in key:
            group, _, name = key.partition(".")
            table = table.setdefault(group, {})
        table[name] = value
    changed = edited(TEXT, "shop", set, ())
    assert tomllib.loads(changed) == wanted
    kept = ("# The suite.", "# Reports, every night.", "[services.shop]  # the shop")
    assert all(comment in changed.splitlines() for comment in kept)


@pytest.mark.parametrize(
    ("text", "set", "unset", "reason"),
    [
        ("[services.shop", {"port": 1}, (), "is not valid TOML"),
        (TEXT, {}, ("url",), "url is not set in it"),
        (TEXT, {}, ("health.path.x",), "is not set in it"),
        (TEXT, {"description": "\ud800"}, (), "can't be written as TOML"),
        ("services = 3", {"port": 1}, (), ""),
    ],
)
def test_what_cannot_be_done_is_said(text: str, set: dict[str, Any], unset: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        edited(text, "shop", set, unset)


def test_settings_are_shown_with_their_place_and_without_secrets(account: Layout) -> None:
    (account.registry_directory / "shop.toml").write_text(
        '[services.shop]\nurl = "http://localhost:6000"\nenvironment = {API_KEY = "hunter2", A = "1"}\n'
    )
    found = service_config(account, "shop").reply
    by_key = {each.key: each for each in found.settings}
    assert (by_key["port"].value, by_key["port"].line, by_key["port"].editable) == (6000, 5, True)
    assert by_key["url"].file.endswith("services.d/shop.toml") and not by_key["url"].editable
    assert by_key["environment"].value == {"API_KEY": MASK, "A": "1"}
    later = service_config(account, "shop").later
    assert {name: place.rpartition("/")[2] for name, place in later.items()} == {
        "url": "shop.toml, line 2",
        "environment.API_KEY": "shop.toml, line 3",
        "environment.A": "shop.toml, line 3",
    }
    assert len(found.faults) == 1 and "API_KEY looks like a secret" in found.faults[0]
    assert "hunter2" not in repr(found)
    with pytest.raises(UnknownServiceError):
        service_config(account, "codex")


def test_secrets_are_masked_in_differences() -> None:
    secret = (
        'environment = {API_KEY = "hunter2"}\nstart_command = ["x", "postgresql://a:hunter2@b"]\nTOKEN_FILE = "/f"\n'
    )
    shown = text_difference("", secret, "services.toml")
    assert "hunter2" not in shown and "+environment = {API_KEY = ********" in shown and '+TOKEN_FILE = "/f"' in shown
    assert masked(["a", {"x": "password=hunter2"}]) == ["a", {"x": MASK}]


def test_a_change_is_written_and_shows_what_applying_it_does(account: Layout) -> None:
    planned = change(account, {"port": 6005}, dry_run=True)
    assert account.registry_file.read_text() == TEXT and planned.changed and planned.dry_run
    made = change(account, {"port": 6005})
    assert lines(made.diff) == ["-port = 6000  # not 6001", "+port = 6005  # not 6001"]
    assert account.registry_file.read_text() == TEXT.replace("port = 6000", "port = 6005")
    assert account.registry_file.stat().st_mode & 0o777 == 0o600
    units = {each.unit: each for each in made.units}
    shop = units["hivematrix-shop.service"]
    assert (shop.change, shop.applied) == ("new", True) and "6005" in shop.diff
    assert not units["hivematrix-report.service"].applied
    assert made.next == "helmctl restart shop"
    assert not change(account, {"port": 6005}).changed


def test_a_link_to_the_file_stays_one(account: Layout) -> None:
    kept = account.config.parent / "kept.toml"
    account.registry_file.rename(kept)
    account.registry_file.symlink_to(kept)
    assert change(account, {"port": 6005}).changed
    assert account.registry_file.is_symlink() and "port = 6005" in kept.read_text()


@pytest.mark.parametrize(
    ("set", "unset", "pointer", "detail"),
    [
        ({"port": 0}, (), "#/set/port", "from 1 to 65,535"),
        ({"colour": 1}, (), "#/set/colour", "is not a known setting"),
        ({"health.check": "realm"}, (), "#/set/health.check", "'realm' is for keycloak"),
        ({"environment.DB_PASSWORD": "x"}, (), "#/set/environment.DB_PASSWORD", "looks like a secret"),
        ({"depends_on": ["nosuch"]}, (), "#/set/depends_on", "is not part of the suite"),
        ({"path": "/nosuch"}, (), "#/set/path", "does not exist"),
        ({"port": None}, (), "#/set/port", "must not be null"),
        ({}, ("start_command",), "#/unset/0", "is needed"),
        ({"type": "external"}, ("port", "health.path"), "#", "is needed for a service of type external"),
        ({}, ("url",), "#", "is not set in it"),
        ({}, (), "#", "are both empty"),
        ({"a/b~c": 1}, (), "#/set/a~1b~0c", "is not a known setting"),
    ],
)
def test_a_fault_is_refused_at_its_place_and_nothing_written(
    account: Layout, set: dict[str, Any], unset: tuple[str, ...], pointer: str, detail: str
) -> None:
    with pytest.raises(UsageError) as refused:
        change(account, set, *unset)
    assert pointer in [each.pointer for each in refused.value.errors]
    assert any(detail in each.detail for each in refused.value.errors), refused.value.errors
    assert account.registry_file.read_text() == TEXT


def test_what_a_module_sets_is_not_changed_without_effect(account: Layout) -> None:
    (account.registry_directory / "shop.toml").write_text("[services.shop]\nport = 6007\n")
    with pytest.raises(UsageError, match="which is read after") as refused:
        change(account, {"port": 6008})
    assert [each.pointer for each in refused.value.errors] == ["#/set/port"]


def test_another_state_or_another_process_is_refused(account: Layout) -> None:
    etag = service_config(account, "shop").etag
    account.registry_file.write_text(TEXT + "\n")
    body = ServiceConfigBody({"port": 6009})
    with pytest.raises(ChangedMeanwhileError):
        change_service_config(account, "shop", body, {etag})
    fresh = service_config(account, "shop").etag
    with locked(account.apply_lock, "units are being applied"), pytest.raises(LockedError):
        change_service_config(account, "shop", body, {fresh})
    _, after = change_service_config(account, "shop", body, {fresh})
    assert after == service_config(account, "shop").etag != fresh


async def test_over_http_a_change_becomes_a_job(account: Layout, tmp_path: Path) -> None:
    manager = FakeManager(run=lambda job: None)
    engine = JobEngine(account, BOOT, lambda: cast(Manager, manager))
    server = HttpServer(application(config_routes(ServiceConfigs(account, engine))), tmp_path / "s", holder_of)
    await server.start("127.0.0.1", 0)

    async def ask(method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any, Any]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://helm/api/services/shop/config{path}"
        async with client.request(method, url, json=body, headers=given) as answer:
            return answer.status, await answer.json(content_type=None) if answer.status != 304 else None, answer.headers

    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "s"))) as client:
            status, shown, headers = await ask("GET", "")
            etag = headers["ETag"]
            assert (status, shown["service_name"]) == (200, "shop")
            assert (await ask("GET", "", If_None_Match=etag))[0] == 304
            body = {"set": {"health.timeout": "5s"}, "reason": "slow disk"}
            assert (await ask("PUT", "", body))[1]["code"] == "precondition_required"
            assert (await ask("PUT", "", body, If_Match='"other"'))[:2][0] == 412
            status, planned, headers = await ask("PUT", "?dry_run=true", body, If_Match=etag)
            assert (status, planned["dry_run"], planned["job"], headers["ETag"]) == (200, True, None, etag)
            assert '+health.timeout = "5s"' in planned["diff"] and account.registry_file.read_text() == TEXT
            status, refused, _ = await ask("PUT", "", {"set": {"port": 0}}, If_Match=etag)
            assert (status, refused["errors"][0]["pointer"]) == (400, "#/set/port")
            assert manager.words == []
            status, made, headers = await ask("PUT", "", body, If_Match=etag)
            assert (status, made["changed"], made["job"]["kind"]) == (202, True, "apply")
            assert headers["Location"] == f"/api/jobs/{made['job']['id']}" and made["job"]["reason"] == "slow disk"
            assert manager.words[0][3:] == ["apply", "shop"]
            assert (await ask("PUT", "", body, If_Match=etag))[0] == 412
            status, _, _ = await ask("PUT", "", {"unset": ["health.timeout"], "apply": False}, If_Match=headers["ETag"])
            assert status == 200 and account.registry_file.read_text() == TEXT and len(manager.words) == 1
    finally:
        await server.stop()


def test_helmctl_shows_and_changes_them(account: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("systemd._journal.sendv", lambda *fields: None)
    context = Context()
    context.layout = account

    def helmctl(*words: str) -> Result:
        return CliRunner().invoke(config_command, words, obj=context, standalone_mode=False)

    shown = helmctl("shop").output
    assert f"port = 6000  # {account.registry_file}:5" in shown and 'start_command = ["./shop"]' in shown
    assert 'environment = {LANG = "C"}' in helmctl("report").output
    assert "+port = 6004  # not 6001" in helmctl("shop", "port=6004", "--dry-run").output
    assert account.registry_file.read_text() == TEXT
    words = ("shop", "port=6004", "description=Two words", 'start_command=["./shop", "-q"]', "--unset", "health.path")
    assert "To take effect: helmctl apply shop, then: helmctl restart shop" in helmctl(*words).output
    found = tomllib.loads(account.registry_file.read_text())["services"]["shop"]
    assert (found["port"], found["description"], found["start_command"]) == (6004, "Two words", ["./shop", "-q"])
    assert "health" not in found
    account.registry_file.write_text(TEXT.replace('health.path = "/up"', 'health = { path = "/up" }'))
    assert f'health.path = "/up"  # {account.registry_file}:6' in helmctl("shop").output
    for wrong in (("shop", "port"), ("shop", "=1"), ("shop", "port=many"), ("nosuch",)):
        assert isinstance(helmctl(*wrong).exception, UsageError | UnknownServiceError)
