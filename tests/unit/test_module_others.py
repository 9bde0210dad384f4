"""What a change of a module means for other services is done, or said with the command."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from helmd.cli import module_others
from helmd.cli.context import Context
from helmd.model.errors import LockedError
from helmd.model.layout import Layout, layout
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.configuration.apply import Applied, Change
from helmd.operations.configuration.module_files import place_flaskenv
from helmd.operations.modules import others
from helmd.operations.modules.others import apply_to_others, suite_before
from tests.catalogue import suite

TOP = Path(__file__).resolve().parents[2]
KEYCLOAK = "hivematrix-keycloak.service"


class Machine:
    """A user manager in which RUNNING units run."""

    def __init__(self, *running: str) -> None:
        self.running = running

    def facts(self, unit: str) -> UnitFacts:
        return UnitFacts(unit, "loaded", "active" if unit in self.running else "inactive")


class Account:
    """An account's files, with a fake of applying units: those in ``pending`` have changes."""

    def __init__(self, place: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = place
        self.pending: list[str] = []
        self.applied: list[str] = []
        self.said: list[str] = []
        monkeypatch.setattr(others, "changes", lambda *_, **__: [Change(u, "changed", "a", "b") for u in self.pending])
        monkeypatch.setattr(others, "apply", self._apply)

    def _apply(self, found: Sequence[Change], *_: Any) -> Applied:
        self.applied += [each.unit for each in found if each.unit in self.pending]
        return Applied(list(found), [], ["a notice"])

    def has(self, *names: str) -> None:
        self.layout.registry_file.write_text("".join(f"[services.{name}]\n" for name in names))

    def apply_to_others(self, before: others.SuiteBefore, *running: str) -> bool:
        return apply_to_others(before, self.layout, Machine(*running), self.said.append)  # type: ignore[arg-type]


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    place = layout({}, tmp_path, os.getuid(), TOP)
    place.config.mkdir(parents=True)
    return Account(place, monkeypatch)


def test_the_gateway_has_keycloak_follow(account: Account) -> None:
    account.has("keycloak", "core")
    account.pending = ["hivematrix-core.service"]
    before = suite_before(account.layout, "nexus")
    account.has("keycloak", "core", "nexus")
    account.pending += [KEYCLOAK, "hivematrix-nexus.service"]
    assert account.apply_to_others(before, KEYCLOAK, "hivematrix-nexus.service")
    assert account.applied == [KEYCLOAK], "what was not applied before is the admin's"
    assert account.said == ["warning: a notice", f"{KEYCLOAK} changed"], "it is restarted when its realm is set up"


def test_the_realm_is_left_alone_where_nothing_of_it_changes(account: Account) -> None:
    account.has("keycloak", "core", "nexus")
    before = suite_before(account.layout, "ledger")
    account.has("keycloak", "core", "nexus", "ledger")
    assert not account.apply_to_others(before)
    assert account.said == [] and account.applied == []
    assert not account.apply_to_others(suite_before(account.layout, "nexus"), "hivematrix-nexus.service")
    assert account.said == []


def test_a_running_gateway_must_be_restarted_to_know_of_a_module(account: Account) -> None:
    account.has("keycloak", "core", "nexus")
    before = suite_before(account.layout, "ledger")
    account.has("keycloak", "core", "nexus", "ledger")
    account.pending = ["hivematrix-postgres.service", "hivematrix-core.service"]
    account.apply_to_others(
        before, "hivematrix-nexus.service", "hivematrix-core.service", "hivematrix-postgres.service"
    )
    assert account.said[-1] == "core, nexus must be restarted to know of it: helmctl restart core nexus"


def test_a_module_that_wants_the_secret_of_the_client_gets_it(account: Account) -> None:
    account.has("keycloak")
    before = suite_before(account.layout, "core")
    account.has("keycloak", "core")
    assert account.apply_to_others(before)
    assert not account.apply_to_others(suite_before(account.layout, "core")), "an update changes nothing about that"


def test_a_failure_for_others_is_said(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.has("keycloak", "core")
    before = suite_before(account.layout, "nexus")
    account.has("keycloak", "core", "nexus")
    account.pending = [KEYCLOAK]

    def locked(*_: Any) -> None:
        raise LockedError("units are being applied")

    monkeypatch.setattr(others, "apply", locked)
    assert account.apply_to_others(before)
    assert account.said == ["warning: units are being applied. For what changes for other services: helmctl apply"]


@pytest.mark.parametrize(
    ("made", "runs", "says"),
    [
        (False, True, "Nobody can log in yet: the realm of keycloak is not set up. Run: helmctl keycloak setup"),
        (True, False, "keycloak is stopped, and its realm does not fit yet. Run: helmctl start keycloak; {}"),
        (True, True, "warning: it is away. Logins do not work before that is corrected; then: {}"),
    ],
)
def test_a_realm_that_can_not_follow_is_said(
    account: Account, monkeypatch: pytest.MonkeyPatch, made: bool, runs: bool, says: str
) -> None:
    account.has("keycloak")
    if made:
        account.layout.admin_client_secret.parent.mkdir(parents=True, exist_ok=True)
        account.layout.admin_client_secret.write_text("x")

    class Here(Context):
        layout = account.layout
        manager = Machine(*([KEYCLOAK] if runs else []))  # type: ignore[assignment]

    def away(*_: Any) -> None:
        raise LockedError("it is away")

    def change() -> str:
        account.has("keycloak", "core", "nexus")
        return "done"

    said: list[str] = []
    monkeypatch.setattr(module_others, "Context", Here)
    monkeypatch.setattr("helmd.cli.output.print_message", said.append)
    monkeypatch.setattr("helmd.cli.keycloak.set_up_and_print", away)
    assert module_others.with_others(Here(), "nexus", change) == "done"
    assert said == [says.format("helmctl keycloak setup")]


def test_a_service_that_runs_has_not_read_what_was_added(account: Account) -> None:
    registry = suite("[services.core]\n[services.keycloak]\n")
    account.layout.resolve(registry["core"].path).mkdir(parents=True)
    assert list(place_flaskenv(registry, account.layout)) == []
    grown = suite("[services.core]\n[services.keycloak]\n[services.nexus]\n")
    (said,) = place_flaskenv(grown, account.layout, lambda name: True)
    assert said == "NEXUS_SERVICE_URL in .flaskenv of core changed; to take effect: helmctl restart core"
    assert list(place_flaskenv(grown, account.layout, lambda name: True)) == []
