"""What is in force while files have faults: everything else as it says, and what has a fault as it was."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from helmd.model.config.toml_tables import ConfigSource
from helmd.model.errors import ConfigurationError
from helmd.model.layout import Layout, layout
from helmd.model.suite.effective import EffectiveSuite, read_effective
from helmd.model.suite.names import unit_of
from helmd.model.suite.registry import read_registry
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.configuration.apply import Change, apply, changes
from helmd.operations.configuration.current import Current
from helmd.operations.configuration.effective import load_effective, save_faultless
from helmd.operations.configuration.last_good import read_last_good
from helmd.systemd.bus import Manager
from tests.unit.hostile.cases import CASES, Case

TOP = Path(__file__).resolve().parents[2]


def table(name: str, port: int, more: str = "") -> str:
    return f'[services.{name}]\ntype = "command"\nstart_command = ["/bin/sleep", "9"]\nport = {port}\n{more}\n'


def sources(files: Mapping[str, str]) -> list[ConfigSource]:
    return [ConfigSource(file, text) for file, text in files.items()]


BEFORE = {"main": table("a", 7001) + table("b", 7002, 'depends_on = ["a"]'), "m/c": table("c", 7003)}


def effective(now: Mapping[str, str], before: Mapping[str, str] = BEFORE) -> EffectiveSuite:
    return read_effective(sources(now), (), sources(before), {5004: "helmd"})


def ports(found: EffectiveSuite) -> dict[str, int | None]:
    return {name: service.port for name, service in found.registry.services.items()}


def test_without_a_fault_the_files_count() -> None:
    found = effective({"main": table("a", 7009)})
    assert (ports(found), found.faults, dict(found.refused.faults)) == ({"a": 7009}, (), {})


def test_a_typo_in_one_service_leaves_the_others_their_changes() -> None:
    found = effective(BEFORE | {"main": table("a", 7009, "prot = 1") + table("b", 7008, 'depends_on = ["a"]')})
    assert ports(found) == {"a": 7001, "b": 7008, "c": 7003}
    assert found.registry["b"].depends_on == ("a",)
    assert [str(fault) for fault in found.faults] == [
        "main:5: services.a.prot: is not a known setting; did you mean 'port'?"
    ]
    assert list(found.refused.faults) == ["a"] and found.refused.complete


def test_a_file_that_is_no_toml_is_read_as_it_was() -> None:
    found = effective(BEFORE | {"main": BEFORE["main"] + "[services.d\n", "m/c": table("c", 7009)})
    assert ports(found) == {"a": 7001, "b": 7002, "c": 7009}
    assert list(found.refused.faults) == ["a", "b"] and found.refused.complete
    assert "is not valid TOML" in str(found.refused.faults["b"][0])


def test_a_file_that_cannot_be_read_is_taken_as_it_was_in_its_place() -> None:
    lost = effective({"m/c": table("c", 7009)}, BEFORE)
    assert ports(lost) == {"c": 7009}, "a removed file causes none"
    with pytest.raises(ConfigurationError) as caught:
        read_registry(sources({"main": "x"}), {})
    (fault,) = caught.value.faults
    now = sources({"m/c": table("c", 7009) + table("a", 7010)})
    found = read_effective(now, [fault], sources(BEFORE), {})
    assert ports(found) == {"a": 7001, "b": 7002, "c": 7009}, "a keeps what it was, b too, c is as it says"


def test_a_new_file_with_a_fault_concerns_nobody_else() -> None:
    found = effective(BEFORE | {"m/d": "[services.d\n"})
    assert ports(found) == {"a": 7001, "b": 7002, "c": 7003}
    assert not found.refused.complete, "what d is cannot be known: no unit may be taken for one of nobody"
    named = effective(BEFORE | {"m/d": table("d", 7004, "x = 1") + table("e", 7005, 'depends_on = ["d"]')})
    assert ports(named) == {"a": 7001, "b": 7002, "c": 7003}
    assert set(named.refused.faults) == {"d", "e"} and named.refused.complete
    assert "'d' can't be used" in named.refused.faults["e"][0].sentence


@pytest.mark.parametrize("changed", ["a", "c"])
def test_of_two_with_the_same_port_the_one_that_changed_is_refused(changed: str) -> None:
    """Whichever comes first in the files."""
    now = BEFORE | ({"main": BEFORE["main"].replace("7001", "7003")} if changed == "a" else {"m/c": table("c", 7001)})
    found = effective(now)
    if changed == "c":
        assert list(found.refused.faults) == ["c"]
    assert ports(found) == {"a": 7001, "b": 7002, "c": 7003}


def test_a_cycle_is_cut_where_it_was_made() -> None:
    found = effective(
        BEFORE | {"main": table("a", 7001, 'depends_on = ["b"]') + table("b", 7002, 'depends_on = ["a"]')}
    )
    assert not found.registry["a"].depends_on and found.registry["b"].depends_on == ("a",)
    assert list(found.refused.faults) == ["a"]


def test_a_port_that_helm_takes_leaves_the_service_out() -> None:
    before = {"main": table("a", 7001) + table("b", 7002)}
    found = read_effective(sources(before), (), sources(before), {7001: "helmd"})
    assert ports(found) == {"b": 7002}


def test_without_anything_known_from_before() -> None:
    found = effective(BEFORE | {"main": table("a", 7001, "x = 1") + table("z", 7005)}, {})
    assert ports(found) == {"z": 7005, "c": 7003}
    assert ports(effective(BEFORE | {"main": "["}, {"main": "also no TOML"})) == {"c": 7003}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_file_leaves_the_suite_as_it_is(case: Case, account: Layout) -> None:
    account.registry_file.write_text((TOP / "tests/suite/services.toml").read_text())
    save_faultless(account)
    before = load_effective(account)
    (account.registry_directory / "evil.toml").write_bytes(case.content)
    found = load_effective(account)
    assert len(found.faults) == len(case.expected)
    assert found.registry == before.registry


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Return one whose units systemd-analyze(1) can read, helmd's own included."""
    made = layout({}, tmp_path, os.getuid(), TOP)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    made.registry_directory.mkdir(parents=True)
    made.units.mkdir(parents=True)
    made.unit_file("helmd.service").write_text("[Service]\nExecStart=/bin/true\n")
    made.state.mkdir(parents=True)
    (made.state / "host.json").write_text(json.dumps({"systemd": 252, "user_namespaces": True}))
    return made


class Quiet:
    """A manager of which no unit runs: the tests look at files."""

    def facts(self, unit: str) -> UnitFacts:
        return UnitFacts(unit)

    def enable(self, units: list[str]) -> None: ...

    def disable(self, units: list[str]) -> None: ...

    def reset_failed(self, unit: str) -> None: ...

    def daemon_reload(self) -> None: ...

    def stop(self, unit: str) -> None: ...

    def restart(self, unit: str) -> None: ...


def applied(account: Layout) -> list[Change]:
    now = load_effective(account)
    for name in ("a", "b", "c"):
        (account.data / f"hivematrix-{name}").mkdir(parents=True, exist_ok=True)
    settings = now.settings
    found = changes(now.registry, account, settings, refused=now.refused)
    apply(found, now.registry, account, settings, cast(Manager, Quiet()))
    return found


@pytest.fixture
def external_store(account: Layout) -> None:
    """No cluster of this account is made: that takes PostgreSQL's programs."""
    account.settings_file.write_text('[store]\ndatabase = "postgresql://db.example/helm"\n')


@pytest.mark.usefixtures("external_store")
def test_applying_with_a_fault_in_one_service(account: Layout) -> None:
    account.registry_file.write_text(table("a", 7001) + table("b", 7002))
    (account.registry_directory / "c.toml").write_text(table("c", 7003))
    applied(account)
    assert read_last_good(account) is not None
    before = {name: account.unit_file(unit_of(name)).read_text() for name in ("a", "b", "c")}
    account.registry_file.write_text(table("a", 7001, "prot = 3") + table("b", 7012))
    (account.registry_directory / "c.toml").write_text("[services.c]\nnot TOML")
    kinds = {change.unit: change.kind for change in applied(account)}
    assert (kinds[unit_of("a")], kinds[unit_of("b")], kinds[unit_of("c")]) == ("refused", "changed", "refused")
    after = {name: account.unit_file(unit_of(name)).read_text() for name in ("a", "b", "c")}
    assert (after["a"], after["c"]) == (before["a"], before["c"])
    assert "7012" in after["b"]


@pytest.mark.usefixtures("external_store")
def test_what_was_applied_beside_a_fault_is_kept_as_well(account: Layout) -> None:
    account.registry_file.write_text(table("a", 7001))
    file = account.registry_directory / "c.toml"
    file.write_text(table("c", 7003))
    save_faultless(account)
    account.registry_file.write_text("[")
    file.write_text(table("c", 7013))
    save_faultless(account)
    file.write_text("[")
    found = load_effective(account)
    assert {name: service.port for name, service in found.registry.services.items()} == {"a": 7001, "c": 7013}


@pytest.mark.usefixtures("external_store")
def test_a_missing_directory_is_its_own_services_affair(account: Layout) -> None:
    account.registry_file.write_text(table("a", 7001) + table("b", 7002))
    applied(account)
    (account.data / "hivematrix-a").rmdir()
    now = load_effective(account)
    found = {change.unit: change for change in changes(now.registry, account, now.settings)}
    assert found[unit_of("a")].kind == "refused" and found[unit_of("b")].kind == "same"
    assert "hivematrix-a does not exist" in str(found[unit_of("a")].faults[0])


@pytest.mark.usefixtures("external_store")
def test_what_is_kept_already_is_not_read_once_more(account: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    account.registry_file.write_text(table("a", 7001))
    save_faultless(account)
    before = read_last_good(account)
    with monkeypatch.context() as patched:
        patched.delattr("helmd.operations.configuration.effective.load_suite")
        save_faultless(account)
        account.registry_file.write_text(table("a", 7002))
        with pytest.raises(NameError):
            save_faultless(account)
    assert read_last_good(account) == before
    save_faultless(account)
    assert read_last_good(account) != before


@pytest.mark.usefixtures("external_store")
def test_a_unit_that_systemd_does_not_accept_keeps_no_other_back(account: Layout) -> None:
    """Such a unit is a fault in Helm, so it takes a planted one to see it."""
    account.registry_file.write_text(table("a", 7001) + table("b", 7002))
    for name in ("a", "b"):
        (account.data / f"hivematrix-{name}").mkdir(parents=True)
    now = load_effective(account)
    found = [
        Change(each.unit, each.kind, each.before, each.after.replace("\nExecStart=", "\nExecStart=/nowhere/"))
        if each.unit == unit_of("a")
        else each
        for each in changes(now.registry, account, now.settings)
    ]
    result = apply(found, now.registry, account, now.settings, cast(Manager, Quiet()))
    assert [change.unit for change in result.refused] == [unit_of("a")]
    assert "systemd refuses its unit: " in str(result.refused[0].faults[0])
    assert unit_of("b") in [change.unit for change in result.done]
    assert account.unit_file(unit_of("b")).exists() and not account.unit_file(unit_of("a")).exists()


def test_helmd_reloads_what_has_no_fault(account: Layout) -> None:
    account.registry_file.write_text(table("a", 7001) + table("b", 7002))
    current = Current(account)
    current.load()
    account.registry_file.write_text(table("a", 7001, "prot = 3") + table("b", 7012))
    current.load()
    assert {name: service.port for name, service in current.registry.services.items()} == {"a": 7001, "b": 7012}
    assert len(current.faults) == 1
    account.registry_file.write_text(table("a", 7001) + table("b", 7012))
    current.load()
    assert not current.faults
    account.settings_file.write_text("[http\n")
    with pytest.raises(ConfigurationError):
        current.load()
    assert current.faults and current.registry["b"].port == 7012
