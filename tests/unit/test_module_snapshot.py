"""Copies of a module's shared files: equal, also in modes, links, times and holes; restored after any interruption."""

import hashlib
import os
import stat
from pathlib import Path

import pytest

from helmd.modules.snapshot import SnapshotError, copy_tree, exchange_tree, remove_tree, tree_stamp


def made(place: Path) -> Path:
    (place / "uploads/deep/er").mkdir(parents=True)
    (place / "uploads/a name\nwith a line").write_bytes(b"x" * 100_000)
    (place / "uploads/deep/er/file").write_text("y")
    (place / "keys").mkdir(mode=0o700)
    (place / "keys/jwt.pem").write_text("secret")
    (place / "keys/jwt.pem").chmod(0o400)
    (place / "empty").mkdir(mode=0o755)
    (place / "link").symlink_to("keys/jwt.pem")
    (place / "outside").symlink_to("/etc/shadow")
    (place / "dangling").symlink_to("nothing")
    os.utime(place / "keys/jwt.pem", (1, 1_600_000_000))
    with (place / "sparse").open("wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
        file.seek(8 << 20)
        file.write(b"middle")
    (place / "uploads/deep").chmod(0o2750)
    return place


def described(place: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(place.rglob("*")):
        facts, name = path.lstat(), str(path.relative_to(place))
        if stat.S_ISLNK(facts.st_mode):
            found[name] = ("link", os.readlink(path))
        elif stat.S_ISDIR(facts.st_mode):
            found[name] = ("directory", stat.S_IMODE(facts.st_mode))
        else:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = ("file", stat.S_IMODE(facts.st_mode), facts.st_mtime_ns, digest)
    return found


def test_a_copy_is_equal(tmp_path: Path) -> None:
    source = made(tmp_path / "shared")
    source.chmod(0o750)
    copied = copy_tree(source, tmp_path / "snapshots/one")
    assert described(tmp_path / "snapshots/one") == described(source)
    assert stat.S_IMODE((tmp_path / "snapshots/one").stat().st_mode) == 0o750
    assert (copied.files, copied.left_out) == (4, ())
    assert tree_stamp(tmp_path / "snapshots/one") == tree_stamp(source)


def test_holes_stay_holes(tmp_path: Path) -> None:
    source = made(tmp_path / "shared")
    if source.joinpath("sparse").stat().st_blocks * 512 > 1 << 20:
        pytest.fail("this file system makes no holes; the test says nothing here")
    copy_tree(source, tmp_path / "copy")
    assert (tmp_path / "copy/sparse").stat().st_blocks * 512 < 1 << 20


def test_what_is_no_file_is_left_out_and_said(tmp_path: Path) -> None:
    source = made(tmp_path / "shared")
    os.mkfifo(source / "uploads/pipe")
    assert copy_tree(source, tmp_path / "copy").left_out == ("uploads/pipe",)


def test_an_older_copy_and_an_unfinished_one_are_replaced(tmp_path: Path) -> None:
    source, copy = made(tmp_path / "shared"), tmp_path / "copy"
    for place in (copy, tmp_path / ".copy.partial"):
        place.mkdir()
        (place / "stale").write_text("x")
        place.chmod(0o500)
    copy_tree(source, copy)
    assert described(copy) == described(source) and not (tmp_path / ".copy.partial").exists()


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = made(tmp_path / "shared")

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("helmd.modules.snapshot._copy_data", full)
    monkeypatch.setattr("helmd.modules.snapshot._cloned", lambda *given: False)
    with pytest.raises(SnapshotError, match="No space left on device") as raised:
        copy_tree(source, tmp_path / "copy")
    assert raised.value.hint == "Free space on its disk."
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]


def test_a_directory_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    made(tmp_path / "elsewhere")
    (tmp_path / "shared").symlink_to("elsewhere")
    with pytest.raises(SnapshotError, match="symbolic link"):
        copy_tree(tmp_path / "shared", tmp_path / "copy")


@pytest.mark.parametrize("stop", ["before", "after the first rename", "after"])
def test_it_is_restored_after_an_interruption(tmp_path: Path, stop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, copy, aside = made(tmp_path / "shared"), tmp_path / "snapshots/one", tmp_path / "failed/one"
    before = described(shared)
    copy_tree(shared, copy)
    remove_tree(shared / "uploads")
    (shared / "written by a user").write_text("z")
    if stop == "after the first rename":
        aside.parent.mkdir()
        os.rename(shared, aside)
    elif stop == "after":
        exchange_tree(shared, copy, aside)
    assert exchange_tree(shared, copy, aside) is (stop != "after")
    assert described(shared) == before and (aside / "written by a user").read_text() == "z"


def test_a_missing_copy_is_said_and_nothing_is_moved(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"the copy of .* is missing"):
        exchange_tree(tmp_path / "shared", tmp_path / "copy", tmp_path / "aside")


@pytest.mark.parametrize(
    "change",
    [
        lambda place: (place / "uploads/new").write_text("x"),
        lambda place: (place / "uploads/deep/er/file").write_text("z"),
        lambda place: (place / "empty").rmdir(),
        lambda place: (place / "link").unlink(),
        lambda place: (place / "keys").chmod(0o755),
    ],
)
def test_a_change_is_noticed(tmp_path: Path, change: object) -> None:
    place = made(tmp_path / "shared")
    before = tree_stamp(place)
    assert tree_stamp(place) == before
    assert callable(change)
    change(place)
    assert tree_stamp(place) != before
    assert tree_stamp(tmp_path / "nothing") == hashlib.sha256().hexdigest()
