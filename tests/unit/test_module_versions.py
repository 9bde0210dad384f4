"""Directories of versions: the module's state is linked into them, and what is in them leads nowhere else."""

from pathlib import Path

import pytest

from helmd.model.errors import ModuleError
from helmd.model.layout import ModulePlaces, layout
from helmd.model.suite.service import Install
from helmd.modules.environment import find_interpreter, python_number
from helmd.modules.versions import (
    keep_unlinked_state,
    link_shared,
    make_directories,
    make_version,
    remove_version,
    unlinked_state,
)
from helmd.operations.modules.migrate import service_properties

ID = "20261128T221502Z-0123456789ab"
SHARED = (".flaskenv", "instance", "data/uploads")


@pytest.fixture
def places(tmp_path: Path) -> ModulePlaces:
    found = layout({}, tmp_path, 1000, Path("/usr/share/hivematrix-helm")).module("desk")
    make_directories(found)
    make_version(found, ID)
    return found


def test_state_is_linked_into_a_version_and_begins_with_what_the_tree_has(places: ModulePlaces) -> None:
    version = places.version(ID)
    (version / "instance").mkdir()
    (version / "instance/desk.conf").write_text("first")
    link_shared(places, ID, SHARED)
    assert (version / "instance").is_symlink() and (version / "data/uploads").is_dir()
    assert (places.shared / "instance/desk.conf").read_text() == "first"
    (version / ".flaskenv").write_text("X=1\n")
    assert (places.shared / ".flaskenv").read_text() == "X=1\n"
    assert not unlinked_state(places, ID, SHARED)


def test_state_that_is_there_outlives_what_a_new_tree_has(places: ModulePlaces) -> None:
    (places.shared / "instance").mkdir()
    (places.shared / "instance/desk.conf").write_text("kept")
    (places.version(ID) / "instance").mkdir()
    (places.version(ID) / "instance/desk.conf").write_text("new")
    (places.version(ID) / ".flaskenv").write_text("sample")
    link_shared(places, ID, SHARED)
    assert (places.version(ID) / "instance/desk.conf").read_text() == "kept"
    assert (places.shared / ".flaskenv").read_text() == "sample"


def test_a_link_in_the_way_is_not_followed(places: ModulePlaces, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (places.version(ID) / "data").symlink_to(outside)
    with pytest.raises(ModuleError, match="data"):
        link_shared(places, ID, SHARED)
    assert not list(outside.iterdir())


def test_a_link_among_the_state_is_not_followed(places: ModulePlaces, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (places.shared / "data").symlink_to(outside)
    with pytest.raises(ModuleError, match="data"):
        link_shared(places, ID, SHARED)
    assert not list(outside.iterdir())


def test_state_that_a_program_wrote_over_its_link_is_kept(places: ModulePlaces) -> None:
    link_shared(places, ID, SHARED)
    place = places.version(ID) / ".flaskenv"
    place.unlink()
    place.write_text("X=2\n")
    assert unlinked_state(places, ID, SHARED) == [".flaskenv"]
    assert keep_unlinked_state(places, ID, SHARED) == [".flaskenv"]
    assert place.is_symlink() and (places.shared / ".flaskenv").read_text() == "X=2\n"


def test_a_version_is_removed_without_its_state(places: ModulePlaces, tmp_path: Path) -> None:
    link_shared(places, ID, SHARED)
    (places.shared / "instance/row").write_text("kept")
    (places.version(ID) / "away").symlink_to(tmp_path)
    (places.version(ID) / "closed").mkdir()
    (places.version(ID) / "closed/file").write_text("x")
    (places.version(ID) / "closed").chmod(0)
    places.declared_by(ID).write_text("")
    remove_version(places, ID)
    assert list(places.versions.iterdir()) == []
    assert (places.shared / "instance/row").read_text() == "kept" and tmp_path.is_dir()


def test_an_interpreter_that_is_too_old_is_said_with_the_choices() -> None:
    assert python_number("3.12") > python_number("3.9")
    assert find_interpreter("desk", Install(), needs_pip=False).path == "/usr/bin/python3"
    with pytest.raises(ModuleError) as refused:
        find_interpreter("codex", Install(python="3.99"), needs_pip=False)
    assert refused.value.sentence.startswith("codex needs Python 3.99 or later, and this machine has 3.")
    assert "install.interpreter" in refused.value.hint
    with pytest.raises(ModuleError, match="needs python3"):
        find_interpreter("codex", Install(interpreter="python3.77"), needs_pip=False)


def test_a_migration_sees_what_the_service_sees() -> None:
    unit = """\
[Unit]
Description=x
[Service]
Type=exec
WorkingDirectory=/home/hive/x
Environment="A=100%% b"
EnvironmentFile=-/home/hive/secrets
ExecStart=/bin/true
Restart=always
SystemCallFilter=~@privileged
BindPaths=/home/hive/x
[Install]
WantedBy=y
"""
    assert service_properties(unit) == [
        "WorkingDirectory=/home/hive/x",
        'Environment="A=100% b"',
        "EnvironmentFile=-/home/hive/secrets",
        "SystemCallFilter=~@privileged",
        "BindPaths=/home/hive/x",
    ]
