"""Files in checkouts: whatever links a service plants, nothing is written, read or made outside."""

import errno
import os
import stat
from pathlib import Path

import pytest

from helmd.files import beneath
from helmd.files.beneath import opened_directory, read_in, write_below

PARTS = ("suite", "module", "instance", "deep")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout with a directory in it, and a place outside that looks alike."""
    for place in ("home", "outside"):
        (tmp_path / place / "/".join(PARTS)).mkdir(parents=True)
    return tmp_path / "home/suite/module"


def everything(directory: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path): (path.lstat().st_ino, path.read_text() if path.is_file() else "") for path in directory.rglob("*")
    }


@pytest.mark.parametrize("depth", range(1, len(PARTS) + 1))
def test_a_link_at_any_component_is_not_followed(checkout: Path, tmp_path: Path, depth: int) -> None:
    place = tmp_path / "home" / "/".join(PARTS[:depth])
    place.rename(tmp_path / "away")
    place.symlink_to(tmp_path / "outside" / "/".join(PARTS[:depth]))
    before = everything(tmp_path / "outside")
    with pytest.raises(OSError, match="is a symbolic link") as caught:
        write_below(checkout, "instance/deep/module.conf", b"secret", 0o600)
    assert (caught.value.errno, caught.value.filename) == (errno.ELOOP, str(place))
    assert everything(tmp_path / "outside") == before


@pytest.mark.parametrize("target", ["victim", "/etc/passwd", "nowhere", "."])
def test_a_link_in_the_files_place_is_replaced(checkout: Path, tmp_path: Path, target: str) -> None:
    (checkout / "victim").write_text("victim")
    passwd = Path("/etc/passwd").read_text()
    (checkout / "services.json").symlink_to(target)
    assert write_below(checkout, "services.json", b"{}", 0o644)
    assert (checkout / "services.json").read_text() == "{}" and not (checkout / "services.json").is_symlink()
    assert (checkout / "victim").read_text() == "victim" and Path("/etc/passwd").read_text() == passwd
    assert sorted(path.name for path in checkout.iterdir()) == ["instance", "services.json", "victim"]


def test_another_name_of_a_file_keeps_its_content(checkout: Path) -> None:
    (checkout / "victim").write_text("victim")
    os.link(checkout / "victim", checkout / "services.json")
    assert write_below(checkout, "services.json", b"{}", 0o644)
    assert (checkout / "victim").read_text() == "victim"


def test_it_is_written_once_with_the_mode_that_was_asked_for(checkout: Path) -> None:
    assert write_below(checkout, "new/place/module.conf", b"x", 0o600)
    file = checkout / "new/place/module.conf"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    inode = file.stat().st_ino
    assert not write_below(checkout, "new/place/module.conf", b"x", 0o600)
    assert file.stat().st_ino == inode
    file.chmod(0o644)
    assert write_below(checkout, "new/place/module.conf", b"x", 0o600)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_checkout_that_is_missing_is_not_made(checkout: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_below(checkout.parent / "none", "a/b", b"", 0o600)
    assert not (checkout.parent / "none").exists()


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "hard link", "large"])
def test_what_is_not_read(checkout: Path, kind: str) -> None:
    place = checkout / "module.conf"
    if kind == "link":
        place.symlink_to("/etc/passwd")
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "directory":
        place.mkdir()
    elif kind == "hard link":
        (checkout / "other").write_text("x")
        os.link(checkout / "other", place)
    else:
        place.write_bytes(bytes(beneath.LARGEST + 1))
    with opened_directory(checkout) as folder, pytest.raises(OSError):
        read_in(folder, place.name)


def test_links_in_directories_of_root_are_followed_by_others(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as /home -> /data/home; whether they are root's is planted here, for tests that run as somebody else."""
    (tmp_path / "link").symlink_to("home")
    monkeypatch.setattr(beneath, "_only_root_writes", lambda directory: True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert write_below(tmp_path / "link/suite/module", "services.json", b"{}", 0o644)
    assert (checkout / "services.json").read_text() == "{}"
