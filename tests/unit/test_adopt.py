"""Taking over an installation that was made by hand: what belongs to it, what is planned, and giving it back."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from helmd.model.config.settings import Settings
from helmd.model.errors import LockedError
from helmd.model.layout import Layout, layout
from helmd.model.modules.adoption import (
    Adoption,
    AdoptionError,
    CheckoutFile,
    ProcessFacts,
    adoption_of,
    adoption_text,
    process_owner,
)
from helmd.operations.modules.adopt import (
    AdoptionPlan,
    adopt_installation,
    finish,
    older_database,
    plan_adoption,
    read_adoption,
)
from helmd.operations.modules.adopt import undo_adoption as really_give_back
from helmd.operations.modules.processes import end_processes, process_facts
from helmd.systemd.bus import Manager
from tests.free_ports import free_port
from tests.waiting import WITHIN

SHARE = Path(__file__).resolve().parents[2]
PLACES = {
    "core": "/srv/h/hivematrix-core",
    "keycloak": "/srv/h/keycloak-26.4.0",
    "hivematrix-helm": "/srv/h/hivematrix-helm",
}
PORTS = {"core": 5000, "keycloak": 8080}


@pytest.mark.parametrize(
    ("directory", "words", "ports", "owner"),
    [
        ("/srv/h/hivematrix-core", ("pyenv/bin/python", "run.py"), (), "core"),
        ("/", ("/srv/h/hivematrix-core/pyenv/bin/python", "run.py"), (), "core"),
        ("/srv/h/hivematrix-core", ("python3", "run.py"), (), "core"),
        ("/srv/h/hivematrix-core", ("python3", "-m", "flask", "run"), (5000,), "core"),
        ("/srv/h", ("java", "-Xmx1g", "-Dkc.home.dir=/srv/h/keycloak-26.4.0/bin/..", "-cp", "x"), (), "keycloak"),
        ("/srv/h/hivematrix-helm", ("bash", "./start.sh"), (), "hivematrix-helm"),
        ("/tmp", ("python3.11", "/srv/h/hivematrix-helm/cli.py", "start", "core"), (), "hivematrix-helm"),
        # Who only works there, or reads a file of it.
        ("/srv/h/hivematrix-core", ("bash",), (), ""),
        ("/srv/h/hivematrix-core", ("python3",), (), ""),
        ("/srv/h/hivematrix-core", ("vim", "run.py"), (), ""),
        ("/srv/h/hivematrix-core", ("bash", "-c", "sleep 100"), (), ""),
        ("/tmp", ("less", "/srv/h/hivematrix-core/run.py"), (), ""),
        ("/srv/h", ("python3", "hivematrix-corey/run.py"), (), ""),
        ("/srv/h/hivematrix-core", ("nc", "-l", "5001"), (5001,), ""),
        ("/elsewhere", ("nc", "-l", "5000"), (5000,), ""),
        ("/srv/h/hivematrix-core", (), (), ""),
    ],
)
def test_whose_process_it_is(directory: str, words: tuple[str, ...], ports: tuple[int, ...], owner: str) -> None:
    assert process_owner(ProcessFacts(1, 1, directory, words, frozenset(ports)), PLACES, PORTS) == owner


def test_the_record_is_read_as_it_was_written_and_nothing_else_is() -> None:
    kept = CheckoutFile("core", "/srv/h/hivematrix-core", ".flaskenv", 0o640, 17)
    adoption = Adoption(
        "/srv/h", ("core",), "written", (kept,), ("/srv/h/hivematrix-core/keys",), ("core",), ("a.service",)
    )
    assert adoption_of(adoption_text(adoption)) == adoption
    good = json.loads(adoption_text(adoption))
    for change in (
        {"directory": "relative"}, {"directory": "/a/../b"}, {"services": ["../x"]}, {"units": ["--now"]},
        {"stage": "x"},
        {"files": [{**good["files"][0], "name": "../../x"}]}, {"files": [{**good["files"][0], "name": "/etc/x"}]},
        {"files": 3}, {"at": "soon"}, {"absent": ["keys"]},
    ):  # fmt: skip
        with pytest.raises(AdoptionError):
            adoption_of(json.dumps({**good, **change}))
    for text in ("", "[]", "{", "[" * 100_000):
        with pytest.raises(AdoptionError):
            adoption_of(text)


class Hand:
    """An installation as the older Helm's instructions make it, of two modules and that Helm itself."""

    def __init__(self, place: Path) -> None:
        self.directory = place / "hivematrix"
        self.port = free_port()
        self.core, self.codex = self.directory / "hivematrix-core", self.directory / "hivematrix-codex"
        helm = self.directory / "hivematrix-helm"
        for directory in (self.core, self.codex, helm / "instance"):
            (directory / "pyenv/bin").mkdir(parents=True)
            (directory / "pyenv/bin/python").symlink_to("/usr/bin/python3")
            (directory / "run.py").write_text("import time\ntime.sleep(600)\n")
        self.services = {
            "core": {"path": "../hivematrix-core", "port": self.port, "url": f"http://localhost:{self.port}"},
            "codex": {"path": "../hivematrix-codex", "port": free_port()},
            "ledger": {"path": "../hivematrix-ledger", "port": free_port()},
            "helm": {"path": ".", "port": 5004},
        }
        self.write()
        (self.core / ".flaskenv").write_bytes(b"# mine \xff\nSECRET_KEY=abc\n")
        (self.core / ".flaskenv").chmod(0o640)
        os.utime(self.core / ".flaskenv", ns=(10**18 + 7, 10**18 + 7))
        (self.codex / "instance").mkdir()
        (self.codex / "instance/codex.conf").write_text(
            "[database]\nconnection_string = postgresql+psycopg2://codex:pa%40ss@db.example:5433/codex_db\n"
        )
        (helm / "instance/helm.conf").write_text(
            "[database]\nconnection_string = postgresql://h:geheim@localhost/helm_db\n"
        )

    def write(self) -> None:
        (self.directory / "hivematrix-helm/services.json").write_text(json.dumps(self.services))

    def tree(self) -> dict[str, tuple[int, bytes | None, int]]:
        """Return every file with its mode, content and, of files, time."""
        found = {}
        for path in sorted(self.directory.rglob("*")):
            facts = path.lstat()
            plain = path.is_file() and not path.is_symlink()
            found[str(path)] = (facts.st_mode, path.read_bytes() if plain else None, facts.st_mtime_ns if plain else 0)
        return found


@pytest.fixture
def hand(tmp_path: Path) -> Hand:
    return Hand(tmp_path)


@pytest.fixture
def places(tmp_path: Path) -> Layout:
    (tmp_path / "home").mkdir()
    return layout({}, tmp_path / "home", os.getuid(), SHARE)


def planned(hand: Hand, places: Layout) -> AdoptionPlan:
    return plan_adoption(hand.directory, places, Settings())


def no_manager() -> Manager:
    raise AssertionError("systemd is not needed for this")


@pytest.fixture
def running(hand: Hand) -> Iterator[subprocess.Popen[bytes]]:
    """Core, started by hand."""
    with subprocess.Popen(["pyenv/bin/python", "run.py"], cwd=hand.core, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_plan_names_services_processes_and_databases_but_no_password(
    hand: Hand, places: Layout, running: subprocess.Popen[bytes]
) -> None:
    before = hand.tree()
    plan = planned(hand, places)
    assert set(plan.places) == {"core", "codex"} and plan.faults == ()
    services = tomllib.loads(plan.imported.text)["services"]
    assert services["core"]["path"] == str(hand.core) and services["codex"]["database"] is False
    assert plan.databases == {"codex": "postgresql://db.example:5433/codex_db"}
    assert plan.logs == "postgresql://localhost/helm_db"
    assert [(each.owner, each.facts.pid) for each in plan.processes.own] == [("core", running.pid)]
    said = "\n".join((*plan.steps, *plan.remarks))
    assert "ledger is left out" in said and f"end pid {running.pid} (core)" in said
    assert "pa%40ss" not in said and "geheim" not in said
    assert older_database(plan.directory) == "postgresql://h:geheim@localhost/helm_db"
    assert hand.tree() == before and not places.state.exists() and not places.config.exists()
    assert planned(hand, places).places == plan_adoption(hand.directory / "hivematrix-helm", places, Settings()).places


def test_keycloak_goes_on_where_it_is(hand: Hand, places: Layout) -> None:
    (hand.directory / "keycloak-26.3.5").mkdir()
    hand.services["keycloak"] = {
        "path": "../keycloak-26.3.5", "port": 8080, "type": "keycloak", "start_command": "bin/kc.sh start-dev"
    }  # fmt: skip
    hand.write()
    plan = planned(hand, places)
    entry = tomllib.loads(plan.imported.text)["services"]["keycloak"]
    assert entry["path"] == str(hand.directory / "keycloak-26.3.5") and entry["start_command"] == [
        "bin/kc.sh",
        "start-dev",
    ]
    assert entry["type"] == "command" and entry["health"]["start_path"].startswith("/realms/hivematrix")
    assert any("users and the realm stay as they are" in remark for remark in plan.remarks)
    assert not any("helmctl setup installs Keycloak" in remark for remark in plan.remarks)


def test_what_is_no_such_installation_is_refused(tmp_path: Path, places: Layout) -> None:
    with pytest.raises(AdoptionError, match=r"has no hivematrix-helm/services\.json"):
        plan_adoption(tmp_path, places, Settings())


def test_a_port_that_another_program_has_keeps_it_from_being_taken_over(hand: Hand, places: Layout) -> None:
    command = [sys.executable, "-c", f"import socket; kept = socket.create_server(('', {hand.port})); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd="/") as other:
        while not (plan := planned(hand, places)).faults:
            time.sleep(0.05)
        assert other.stdin is not None
        other.stdin.close()
    assert plan.faults[0].startswith(f"the port of core is kept by another program: pid {other.pid}")
    with pytest.raises(AdoptionError, match="can't be taken over"):
        adopt_installation(plan, places, no_manager, lambda _: None)
    assert read_adoption(places) is None


def changed_by_helm(hand: Hand) -> None:
    """What apply and the starts of units write into checkouts."""
    for directory in (hand.core, hand.codex):
        (directory / "services.json").write_text("{}")
        (directory / ".flaskenv").write_text("SERVICE_NAME=x\n")
        (directory / ".flaskenv").chmod(0o600)
    (hand.core / "keys").mkdir()
    for name in ("jwt_private.pem", "jwt_public.pem"):
        (hand.core / "keys" / name).write_text("key")


def given_back(places: Layout, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return everything but what needs a user manager."""
    monkeypatch.setattr("helmd.operations.modules.adopt._leave_suite", lambda adoption, target, *_: target.unlink())
    said: list[str] = []
    really_give_back(places, None, said.append)  # type: ignore[arg-type]
    return said


def test_taken_over_and_given_back_byte_for_byte(
    hand: Hand, places: Layout, running: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hand.tree()
    adoption = adopt_installation(planned(hand, places), places, no_manager, lambda _: None)
    assert running.wait(WITHIN) == -signal.SIGTERM
    assert adoption.stage == "written" and (places.registry_directory / "adopted.toml").exists()
    assert places.adoption.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in places.adoption.rglob("*"))
    changed_by_helm(hand)
    places.secrets.mkdir()
    places.secrets_file("core").write_text("SECRET_KEY=x\n")
    finish(places)
    found = read_adoption(places)
    assert found is not None and found.stage == "done"
    with pytest.raises(AdoptionError, match="was taken over already"):
        adopt_installation(planned(hand, places), places, no_manager, lambda _: None)
    said = given_back(places, monkeypatch)
    assert hand.tree() == before
    assert read_adoption(places) is None and not places.adoption.exists()
    assert not (places.registry_directory / "adopted.toml").exists() and not places.secrets_file("core").exists()
    # What was in files meanwhile is not lost.
    (kept,) = places.state.glob("adoption-replaced-*")
    assert (kept / "core/.flaskenv").read_text() == "SERVICE_NAME=x\n" and any(str(kept) in line for line in said)
    with pytest.raises(AdoptionError, match="nothing was taken over"):
        given_back(places, monkeypatch)


def test_an_adoption_that_was_interrupted_goes_on_with_the_files_of_before(
    hand: Hand, places: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, plan = hand.tree(), planned(hand, places)
    with monkeypatch.context() as broken:
        broken.setattr("helmd.operations.modules.adopt.write_import", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            adopt_installation(plan, places, no_manager, lambda _: None)
    stopped = read_adoption(places)
    assert stopped is not None and stopped.stage == "stopped"
    changed_by_helm(hand)
    assert adopt_installation(planned(hand, places), places, no_manager, lambda _: None).stage == "written"
    given_back(places, monkeypatch)
    assert hand.tree() == before


def test_two_at_once(hand: Hand, places: Layout) -> None:
    from helmd.files.lock import locked

    with locked(places.state / "adoption.lock", "x"), pytest.raises(LockedError):
        adopt_installation(planned(hand, places), places, no_manager, lambda _: None)


def test_a_file_that_is_a_link_is_refused_before_anything_is_changed(hand: Hand, places: Layout) -> None:
    (hand.codex / ".flaskenv").symlink_to("/etc/passwd")
    with pytest.raises(AdoptionError, match=r"can't be kept: .*hivematrix-codex/\.flaskenv: is a symbolic link"):
        adopt_installation(planned(hand, places), places, no_manager, lambda _: None)
    assert read_adoption(places) is None and not (places.registry_directory / "adopted.toml").exists()


def test_a_process_that_does_not_end_is_killed_and_no_other_is_hit() -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        facts = process_facts(process.pid)
        assert facts is not None
        # Another one with this pid, later.
        assert end_processes([replace(facts, started=facts.started - 1)], 0.1) == [] and process.poll() is None
        assert end_processes([facts], 0.2) == [facts]
        assert process.wait(WITHIN) == -signal.SIGKILL
    assert process_facts(process.pid) is None and end_processes([facts], 0.1) == []
