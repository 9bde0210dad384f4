"""Checkouts as a backup reads and a restore writes them: nothing is followed, and git is asked without their say."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from helmd.files.tar import Member
from helmd.files.trees import ChangedFileError, entries, entry_of, put_member, size_below
from helmd.model.backup.manifest import EnvironmentRef, ServiceRef
from helmd.model.layout import Layout, layout
from helmd.model.suite.service import Service
from helmd.modules.sandbox import Ran
from helmd.operations.backup.checkouts import clone, make_environment, remote_fault, service_ref, skipped_in


def place(tmp_path: Path) -> Layout:
    return layout({}, tmp_path, os.getuid(), tmp_path / "share")


def found(directory: Path) -> dict[str, tuple[str, bytes, str]]:
    return {
        entry.member.name: (entry.member.kind, b"".join(entry.chunks), entry.left_out or entry.member.target)
        for entry in entries(directory)
    }


def test_a_tree_is_read_without_following_links(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("s")
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d/f").write_text("content")
    (tree / "link").symlink_to(secret)
    (tree / "d/inner").symlink_to("f")
    os.mkfifo(tree / "pipe")
    assert found(tree) == {
        "d": ("directory", b"", ""),
        "d/f": ("file", b"content", ""),
        "d/inner": ("link", b"", "f"),
        "link": ("link", b"", str(secret)),
        "pipe": ("file", b"", "it is neither a file, a directory nor a link"),
    }
    assert size_below(tree) == 7 and size_below(tmp_path / "missing") == 0
    with pytest.raises(OSError, match="symbolic link"):
        list(entries(tree / "link"))
    assert [entry.left_out for entry in entry_of(tree, "link/key")] == ["is a symbolic link"]
    assert [entry.member.name for entry in entry_of(tree, "d")] == ["d", "d/f", "d/inner"]
    assert list(entry_of(tree, "missing/x")) == []


def test_a_file_that_shrinks_meanwhile_is_not_taken_for_whole(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(3 << 20))
    found_there = entries(tmp_path)
    entry = next(found_there)
    with pytest.raises(ChangedFileError):
        for _ in entry.chunks:
            os.truncate(tmp_path / "f", 10)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("theirs")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "d").symlink_to(outside)
    (tree / "f").symlink_to(outside / "f")
    with pytest.raises(OSError, match="symbolic link"):
        put_member(tree, Member("d/f", "file", 0o600, 1), iter((b"x",)))
    put_member(tree, Member("f", "file", 0o4755 & 0o777, 4), iter((b"ours",)))
    assert (outside / "f").read_text() == "theirs" and (tree / "f").read_text() == "ours"
    put_member(tree, Member("new/deep/file", "file", 0o640, 1), iter((b"x",)))
    assert (tree / "new/deep/file").stat().st_mode & 0o7777 == 0o640
    put_member(tree, Member("new/link", "link", 0o777, 0, "deep/file"), iter(()))
    put_member(tree, Member("new/link", "link", 0o777, 0, "deep"), iter(()))
    assert os.readlink(tree / "new/link") == "deep"
    with pytest.raises(OSError, match="Not a directory"):
        put_member(tree, Member("d", "directory", 0o755, 0), iter(()))
    assert sorted(os.listdir(tree)) == ["d", "f", "new"], "nothing temporary is left"


def git(directory: Path, *words: str) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "GIT_CONFIG_NOSYSTEM": "1"}
    for name in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{name}_NAME": "a", f"GIT_{name}_EMAIL": "a@example.org"}
    subprocess.run(["git", "-C", str(directory), *words], check=True, capture_output=True, env=environment)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a clone of a repository, in the account's home."""
    upstream = tmp_path / "upstream"
    upstream.mkdir()
    git(upstream, "init", "--quiet", "-b", "main")
    (upstream / "run.py").write_text("print()\n")
    (upstream / ".gitignore").write_text("*.log\n")
    git(upstream, "add", "--all")
    git(upstream, "commit", "--quiet", "-m", "first")
    git(tmp_path, "clone", "--quiet", f"file://{upstream}", "codex")
    return tmp_path / "codex"


SERVICE = Service("codex", path="~/codex", port=5010, shared_paths=(".flaskenv", "instance"))


def test_of_an_unchanged_checkout_only_its_state_is_taken(checkout: Path, tmp_path: Path) -> None:
    (checkout / "instance").mkdir()
    for name in ("instance/codex.conf", ".flaskenv", "services.json", "a.log"):
        (checkout / name).write_text("x")
    (checkout / "pyenv/lib").mkdir(parents=True)
    (checkout / "pyenv/lib/x.py").write_text("x")
    ref = service_ref(SERVICE, place(tmp_path))
    assert (ref.saved, ref.changed, ref.remote) == ("shared", False, f"file://{tmp_path}/upstream")
    assert len(ref.commit) == 40 and remote_fault(ref) == ""
    clone(ref, tmp_path / "again")
    assert (tmp_path / "again/run.py").read_text() == "print()\n"
    clone(ref, tmp_path / "again")


def test_a_service_that_was_disabled_stays_so(checkout: Path, tmp_path: Path) -> None:
    own = place(tmp_path)
    assert checkout.is_dir() and not service_ref(SERVICE, own).disabled, "it has no unit yet"
    own.units.mkdir(parents=True)
    own.unit_file("hivematrix-codex.service").touch()
    assert service_ref(SERVICE, own).disabled
    wants = own.admin_units / "hivematrix.target.wants"
    wants.mkdir(parents=True)
    (wants / "hivematrix-codex.service").symlink_to(own.unit_file("hivematrix-codex.service"))
    assert not service_ref(SERVICE, own).disabled


def change_file(checkout: Path) -> None:
    (checkout / "run.py").write_text("changed\n")


def add_file(checkout: Path) -> None:
    (checkout / "own.py").write_text("x")


def commit_only_here(checkout: Path) -> None:
    change_file(checkout)
    git(checkout, "commit", "--quiet", "--all", "-m", "own")


def lose_remote(checkout: Path) -> None:
    git(checkout, "remote", "remove", "origin")


def lose_git(checkout: Path) -> None:
    (checkout / ".git").rename(checkout / "git")


def link_git(checkout: Path) -> None:
    (checkout / ".git").rename(checkout.parent / "elsewhere")
    (checkout / ".git").symlink_to(checkout.parent / "elsewhere")


@pytest.mark.parametrize("change", [change_file, add_file, commit_only_here, lose_remote, lose_git, link_git])
def test_what_git_cannot_bring_back_is_taken_whole(checkout: Path, tmp_path: Path, change: object) -> None:
    assert callable(change)
    change(checkout)
    assert service_ref(SERVICE, place(tmp_path)).saved == "whole"
    assert service_ref(replace(SERVICE, backup="shared"), place(tmp_path)).saved == "shared"


def test_no_program_of_a_checkout_is_run(checkout: Path, tmp_path: Path) -> None:
    """.git/config can name programs that git runs: for the status of files, and for filters."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\ncat\n")
    program.chmod(0o755)
    for key in ("core.fsmonitor", "filter.x.clean", "filter.x.smudge", "diff.external", "core.sshCommand"):
        git(checkout, "config", key, str(program))
    for hook in ("post-index-change", "post-checkout", "reference-transaction"):
        (checkout / ".git/hooks" / hook).write_bytes(program.read_bytes())
        (checkout / ".git/hooks" / hook).chmod(0o755)
    (checkout / ".gitattributes").write_text("* filter=x\n")
    (checkout / "run.py").write_text("changed\n")
    ref = service_ref(SERVICE, place(tmp_path))
    assert (ref.saved, ref.changed) == ("whole", True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("url", ["ext::sh -c touch% x", "--upload-pack=touch", "git://example.org/x"])
def test_remotes_that_run_programs_are_not_asked(tmp_path: Path, url: str) -> None:
    ref = ServiceRef("codex", "python", "~/codex", 5010, "shared", url, "a" * 40)
    assert "can't be read" in remote_fault(ref)
    assert not (tmp_path / "x").exists()


def test_directories_that_are_too_wide_are_not_taken_whole(tmp_path: Path) -> None:
    own = place(tmp_path)
    own.data.mkdir(parents=True)
    for path in ("/usr/share/missing", "~/", "~/.local", "~/.local/share/hivematrix"):
        assert service_ref(replace(SERVICE, path=path, backup="whole"), own).saved == "shared", path
    (own.data / "hivematrix-codex").mkdir()
    assert service_ref(replace(SERVICE, path="hivematrix-codex"), own).saved == "whole"


def run_here(words: Sequence[str], network: bool) -> Ran:
    """Without the sandbox, for which there is no user manager here; tests/system/test_backups.py has it."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return Ran("success" if done.returncode == 0 else "exit-code", done.returncode, tuple(done.stderr.splitlines()))


def test_what_of_an_environment_failed(tmp_path: Path) -> None:
    asked: list[tuple[str, bool]] = []

    def refuse_packages(words: Sequence[str], network: bool) -> Ran:
        asked.append((words[3], network))
        return Ran("exit-code", 1, ("no network", "")) if network else Ran("success", 0)

    wanted = EnvironmentRef("pyenv", "3.13", False, ("flask==3.1.0",))
    ref = ServiceRef("codex", "python", "~/codex", 5010, "whole", "", "", False, wanted)
    (said,) = make_environment(ref, tmp_path, refuse_packages)
    assert "of codex lacks its packages (no network); by hand: " in said
    assert asked == [("venv", False), ("pip", True)]


def test_a_virtual_environment_is_made_again(tmp_path: Path) -> None:
    directory = tmp_path / "codex"
    directory.mkdir()
    made = ["/usr/bin/python3", "-m", "venv", "--without-pip", "--system-site-packages", str(directory / "pyenv")]
    subprocess.run(made, check=True, env={"PATH": "/usr/bin:/bin"})
    packages = next((directory / "pyenv/lib").glob("python3*/site-packages"))
    (packages / "pip-23.0.dist-info").mkdir()
    ref = service_ref(SERVICE, place(tmp_path))
    environment = ref.environment
    assert environment is not None and environment.system_site_packages and environment.packages == ()
    assert skipped_in(ref, "pyenv") and skipped_in(ref, "a/__pycache__") and not skipped_in(ref, "a/pyenv")
    (packages / "Flask-3.0.0.dist-info").mkdir()
    again = service_ref(SERVICE, place(tmp_path)).environment
    assert again is not None and again.packages == ("Flask==3.0.0",)
    assert list(make_environment(ref, directory, run_here)) == [], "it is there"
    assert list(make_environment(ref, tmp_path / "new", run_here)) == ["made the virtual environment of codex"]
    assert subprocess.run([tmp_path / "new/pyenv/bin/python", "-c", ""], check=False).returncode == 0
