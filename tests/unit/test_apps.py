"""What of a machine the suite depends on, as dpkg, apt and needrestart say it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from helmd.model.api.apps import AppBody, AppsReply
from helmd.model.api.host import HostUpdate, HostUpdates
from helmd.model.layout import Layout, layout
from helmd.model.modules.packages import alternatives_in, chosen, installed_packages, outdated_processes
from helmd.model.suite.service import Registry, Service
from helmd.operations.modules import apps as apps_module
from helmd.operations.modules.apps import InstalledApps

DEPENDS = """age, postgresql-15 | postgresql, python3 (>= 3.11), systemd (>= 252)
default-jre-headless | java17-runtime-headless, git
"""
PACKAGES = """age\t1.1.1-1+b3\tinstalled\t
openjdk-17-jre-headless\t17.0.15+6-1\tinstalled\tjava-runtime-headless, java17-runtime-headless (= 17.0.15)
postgresql-15\t15.13-0\tinstalled\t
python3.11-minimal\t3.11.2-6\tinstalled\t
removed\t1\tconfig-files\t
systemd\t252.39-1\tinstalled\t
"""
THEN = datetime(2026, 11, 28, tzinfo=UTC)
SUITE = Registry(
    {
        "keycloak": Service("keycloak", type="keycloak", path="keycloak-26.4.0"),
        "codex": Service("codex", database=True, depends_on=("keycloak",)),
        "tool": Service("tool", type="command"),
    }
)


class Machine:
    """Answers as dpkg and needrestart do."""

    def __init__(self, **said: str) -> None:
        self.said = {"packages": PACKAGES, "depends": DEPENDS, **said}
        self.asked: list[str] = []

    def __call__(self, command: Sequence[str], seconds: float) -> str | None:
        self.asked.append(" ".join(command))
        if "-b" in command:
            return self.said.get("needrestart")
        if "--search" in command:
            owner = "python3.11-minimal" if "python3" in command[-1] else "openjdk-17-jre-headless:amd64"
            return f"{owner}: {command[-1]}\n"
        return self.said["depends"] if command[-1] == "hivematrix-helm" else self.said["packages"]


def looked_at(place: Path, machine: Machine, *updates: HostUpdate) -> tuple[AppsReply, dict[str, AppBody]]:
    waiting = HostUpdates(len(updates), 0, THEN, updates)
    reply = InstalledApps(places(place), lambda: SUITE, run=machine).read(waiting)
    return reply, {app.name: app for app in reply.apps}


def places(place: Path) -> Layout:
    return layout({}, place, 1000, place)


@pytest.fixture(autouse=True)
def nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own Java, clusters, needrestart and reboots are not looked at."""
    monkeypatch.setattr(apps_module, "_REBOOT", tmp_path / "reboot-required")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/java").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("helmd.operations.modules.apps.installed", list)


def test_a_field_of_dependencies_has_names_and_alternatives() -> None:
    assert alternatives_in("aa (>= 1), bb | cc:any,\n dd [amd64], ${misc:Depends}") == (("aa",), ("bb", "cc"), ("dd",))
    assert alternatives_in("") == ()


def test_a_virtual_package_is_the_one_that_provides_it() -> None:
    there = installed_packages(PACKAGES)
    assert chosen(("default-jre-headless", "java17-runtime-headless"), there) == (
        "openjdk-17-jre-headless",
        "17.0.15+6-1",
    )
    assert chosen(("removed", "other"), there) == ("removed", None)


def test_what_needrestart_says_to_an_ordinary_account() -> None:
    assert outdated_processes("NEEDRESTART-VER: 3.6\nNEEDRESTART-PID: java=12\nNEEDRESTART-PID: a=b=34,56\n") == (
        12,
        34,
        56,
    )
    assert outdated_processes("NEEDRESTART-VER: 3.6\n") == ()
    assert outdated_processes("") is None


def test_what_is_installed_and_who_needs_it(tmp_path: Path) -> None:
    reply, apps = looked_at(tmp_path, Machine(), HostUpdate("age", "1.1.1-1+b3", "1.2.0-1", True))
    assert [app.name for app in reply.apps][:4] == ["postgresql", "java", "keycloak", "python"]
    assert (apps["java"].package, apps["java"].version) == ("openjdk-17-jre-headless", "17.0.15+6-1")
    assert apps["java"].needed_by == ("keycloak",) and apps["postgresql"].needed_by == ("helm", "keycloak", "codex")
    assert (apps["age"].update, apps["age"].security) == ("1.2.0-1", True)
    assert apps["age"].command == "sudo apt install --only-upgrade age"
    assert apps["systemd"].version == "252.39-1" and apps["systemd"].command == ""
    assert (apps["git"].version, apps["git"].required, apps["git"].command) == (None, False, "sudo apt install git")
    assert reply.listed_at == THEN and reply.outdated is None and not reply.reboot_required
    assert {name for name in apps if name.startswith(("default-jre", "openjdk", "postgresql-", "python3"))} == set()


def test_keycloak_is_known_by_its_directory(tmp_path: Path) -> None:
    machine = Machine()
    missing = looked_at(tmp_path, machine)[1]["keycloak"]
    assert (missing.version, missing.update, missing.command) == (None, None, "helmctl setup")
    home = places(tmp_path).resolve("keycloak-26.4.0")
    home.mkdir(parents=True)
    (home / "version.txt").write_text("Keycloak - Version 26.3.5\n")
    old = looked_at(tmp_path, machine)[1]["keycloak"]
    assert (old.version, old.update, old.command) == ("26.3.5", "26.4.0", "helmctl keycloak upgrade")
    (home / "version.txt").write_text("Keycloak - Version 26.4.0\n")
    current = looked_at(tmp_path, machine)[1]["keycloak"]
    assert (current.version, current.update, current.command) == ("26.4.0", None, "")
    assert current.needed_by == ("codex",)


def test_clusters_of_an_older_version_are_named(tmp_path: Path) -> None:
    cluster = places(tmp_path).store_cluster
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("15\n")
    assert looked_at(tmp_path, Machine())[1]["postgresql"].detail == "The cluster of the log store is of version 15"
    (cluster / "PG_VERSION").write_text("garbage\n")
    assert looked_at(tmp_path, Machine())[1]["postgresql"].detail == ""


def test_without_dpkg_nothing_is_called_missing_by_a_command(tmp_path: Path) -> None:
    _, apps = looked_at(tmp_path, Machine(packages="", depends=""))
    assert apps["systemd"].version is None and apps["systemd"].command == ""


def test_needrestart_is_asked_once_for_a_while(tmp_path: Path) -> None:
    (tmp_path / "bin/needrestart").touch(0o755)
    machine, now = Machine(needrestart="NEEDRESTART-VER: 3.6\n"), [0.0]
    apps = InstalledApps(places(tmp_path), lambda: SUITE, run=machine, clock=lambda: now[0])
    for at in (0.0, 299.0, 301.0):
        now[0] = at
        assert apps.read(None).outdated == ()
    assert sum(" -b -l " in asked for asked in machine.asked) == 2


def test_outdated_processes_are_shown_as_their_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin/needrestart").touch(0o755)
    groups = {
        7: "/user.slice/user-1000.slice/user@1000.service/app.slice/hivematrix-codex.service",
        8: "/user.slice/user-1000.slice/session-3.scope",
    }
    monkeypatch.setattr(apps_module, "control_group_of", groups.get)
    reply, _ = looked_at(tmp_path, Machine(needrestart="NEEDRESTART-VER: 3.6\nNEEDRESTART-PID: python3=7,8,9\n"))
    assert reply.outdated == ("codex",)
