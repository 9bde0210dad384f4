"""Installing a module, killed and failed at each step: it is part of the suite with its data, or nothing of it is."""

import itertools
import shutil
from dataclasses import replace
from typing import Any

import pytest

from helmd.model.errors import HelmError
from helmd.model.modules.source import git_source_of
from helmd.model.modules.transaction import INSTALL
from helmd.modules.intent_log import IntentLog
from helmd.modules.records import read_record, write_record
from helmd.operations.modules import install_steps, made
from helmd.operations.modules.engine import RolledBackError
from helmd.operations.modules.install import WantedModule, installed_already
from helmd.operations.modules.install_steps import InstallSteps
from helmd.operations.modules.planned import entry_file
from helmd.operations.modules.recover import interrupted, recover_at_boot
from tests.unit.test_module_update import DECLARED, Desk, Killed, desk, failing

__all__ = ["desk"]


@pytest.fixture
def gone(desk: Desk) -> Desk:
    """Return its repository alone."""
    shutil.rmtree(desk.places.root)
    shutil.rmtree(desk.places.state)
    entry_file(desk.layout, "desk").unlink()
    desk.machine.running = False
    desk.commit({"migrate.sh": "echo migrated >> instance/log\n"})
    return desk


def install(desk: Desk, start: bool = True) -> bool:
    return desk.updates().install(git_source_of(str(desk.repository), files=True), "", start).changed


def left(desk: Desk) -> list[str]:
    """Return what is there of the module that would make it part of the suite, or is data."""
    places = desk.places
    files = (entry_file(desk.layout, "desk"), places.declared, places.start_block, places.reserve)
    found = [str(each) for each in files if each.exists()]
    found += [str(each) for each in places.shared.rglob("*")] if places.shared.exists() else []
    found += [str(each) for each in (places.root / "snapshots").glob("*")]
    record = read_record(places)
    return found + ([record.active] if record is not None and record.active else []) + interrupted(desk.layout)


@pytest.mark.parametrize("start", [True, False])
def test_installed_it_serves(gone: Desk, start: bool) -> None:
    assert install(gone, start)
    assert gone.serves == gone.record.commit and gone.machine.running is start
    assert gone.state()["instance/log"] == "migrated\n" and not interrupted(gone.layout)
    (entry,) = gone.record.history
    assert (entry.action, entry.ok, entry.by) == ("install", True, "hive")
    assert not gone.places.start_block.exists() and not gone.places.reserve.exists()
    assert not install(gone, start)


WAYS = ("killed", "at boot", "failed", "cancelled")


# Each step in one way and the next, since each installation takes a second.
@pytest.mark.parametrize(("step", "how"), zip(INSTALL, itertools.cycle(WAYS), strict=False))
def test_it_ends_as_nothing_or_whole(gone: Desk, monkeypatch: pytest.MonkeyPatch, step: str, how: str) -> None:
    real = getattr(InstallSteps, f"_do_{step}")
    error = {"failed": HelmError("no"), "cancelled": KeyboardInterrupt()}.get(how, Killed())

    def dies(self: InstallSteps, intent: Any) -> Any:
        real(self, intent)
        raise error

    def nothing(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as broken:
        broken.setattr(InstallSteps, f"_do_{step}", dies)
        if isinstance(error, Killed):
            broken.setattr(IntentLog, "note", nothing)
        with pytest.raises(RolledBackError if how == "failed" else type(error)):
            install(gone)
    assert len(gone.machine.guards) == 1
    if how == "at boot":
        gone.machine.running = False
        assert recover_at_boot(gone.layout, gone.settings, gone.machine, gone.options) == []  # type: ignore[arg-type]
    gone.recovered()
    assert left(gone) == [] and not gone.machine.running
    if step != "preflight":
        assert "the install of desk was rolled back at" in gone.record.history[-1].sentence
    wanted = WantedModule("desk", git_source_of(str(gone.repository), files=True))
    assert installed_already(gone.layout, gone.settings, wanted) == ""
    assert install(gone) and gone.state()["instance/log"] == "migrated\n" and gone.machine.running


def test_interrupted_before_it_has_a_record_it_can_be_installed(gone: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: Any) -> None:
        raise Killed

    def nothing(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as broken:
        broken.setattr(InstallSteps, "_do_build", dies)
        broken.setattr(IntentLog, "note", nothing)
        with pytest.raises(Killed):
            install(gone)
    assert interrupted(gone.layout) == ["desk"] and read_record(gone.places) is None
    assert gone.recovered() and left(gone) == []
    assert install(gone) and gone.machine.running


def test_data_of_an_earlier_installation_is_restored(gone: Desk) -> None:
    (gone.places.shared / "instance").mkdir(parents=True)
    (gone.places.shared / "instance/uploads").write_text("a user's")
    gone.commit({"migrate.sh": "rm instance/uploads; exit 1\n"})
    with pytest.raises(RolledBackError, match=r"the install of desk was rolled back at its migration.*not part of the"):
        install(gone)
    assert (gone.places.shared / "instance/uploads").read_text() == "a user's"
    assert not entry_file(gone.layout, "desk").exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_role_that_was_there_before_stays(gone: Desk, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    gone.commit({"hivematrix.toml": DECLARED.replace("port = 5099", "port = 5099\ndatabase = true")})
    gone.layout.settings_file.write_text('[suite]\ndatabase = "postgresql://postgres@127.0.0.1:1/postgres"\n')
    dropped = []
    monkeypatch.setattr(made, "database_exists", lambda admin, name: False)
    monkeypatch.setattr(made, "role_exists", lambda admin, name: there)
    monkeypatch.setattr(made, "drop_database", lambda admin, name: dropped.append(f"database {name}"))
    monkeypatch.setattr(made, "drop_role", lambda admin, name: dropped.append(f"role {name}"))
    monkeypatch.setattr(install_steps, "migrate_module", failing("no server"))
    with pytest.raises(RolledBackError, match="rolled back at its migration: no server"):
        install(gone)
    assert dropped == ["database desk"] + ([] if there else ["role desk"])


def test_one_that_was_left_half_installed_by_a_set_up_is_installed(desk: Desk) -> None:
    """`helmctl setup --suite` makes several part of the suite before it starts them."""
    record = desk.record
    wanted = WantedModule("desk", git_source_of(str(desk.repository), files=True))
    assert "is installed" in installed_already(desk.layout, desk.settings, wanted)
    version = replace(record.versions[0], state="built")
    write_record(desk.places, replace(record.with_version(version), active="", commit=""))
    assert installed_already(desk.layout, desk.settings, wanted) == ""
