"""Repositories that mean harm, or are only unusual: what git makes of them, and what is said. Git and Python are real,
and run unconfined here; `tests/system/test_modules_install.py` has what the sandbox keeps from others.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from helmd.model.errors import ModuleError, UsageError
from helmd.model.layout import ModulePlaces, layout
from helmd.model.modules.plan import Commit
from helmd.model.modules.source import git_source_of, ref_of
from helmd.model.modules.tree import tree_faults
from helmd.model.suite.service import Install
from helmd.modules import environment, git, sandbox
from helmd.modules.environment import EnvironmentBuild, Interpreter
from helmd.modules.sandbox import BuildSandbox, Ran
from helmd.modules.versions import make_directories
from tests.unit.test_module_update import run_in

TOP = Path(__file__).resolve().parents[2]
AUTHOR = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
ID = "a <a@example.org>"


class Forge:
    """A repository, and its mirror."""

    def __init__(self, place: Path) -> None:
        self.account = layout({}, place, os.getuid(), TOP)
        self.places: ModulePlaces = self.account.module("desk")
        make_directories(self.places)
        self.source = place / "source"
        self.source.mkdir()
        self("init", "--quiet", "--initial-branch=main")

    def __call__(self, *words: str, given: str = "") -> str:
        done = subprocess.run(
            ["git", *AUTHOR, *words], cwd=self.source, check=True, capture_output=True, text=True, input=given
        )
        return done.stdout.strip()

    def commit(self, files: dict[str, str]) -> str:
        for name, text in files.items():
            (self.source / name).parent.mkdir(parents=True, exist_ok=True)
            (self.source / name).write_text(text)
        self("add", "--all")
        self("commit", "--quiet", "--allow-empty", "--message=one")
        return self("rev-parse", "HEAD")

    def put(self, kind: str, content: bytes) -> str:
        """Return an object as it is, whether it is a valid one or not."""
        words = ["git", "hash-object", "-t", kind, "-w", "--stdin", "--literally"]
        done = subprocess.run(words, cwd=self.source, check=True, capture_output=True, input=content)
        return done.stdout.decode().strip()

    def tree_of(self, *entries: tuple[str, str, str]) -> str:
        """Return a tree of modes, names and objects."""
        lines = [f"{mode} {name}".encode() + b"\0" + bytes.fromhex(item) for mode, name, item in entries]
        return self.put("tree", b"".join(lines))

    def commit_of(self, tree: str, when: str = "1700000000 +0000") -> str:
        """Return a commit of a tree, at the branch main."""
        commit = self.put("commit", f"tree {tree}\nauthor {ID} {when}\ncommitter {ID} {when}\n\nodd\n".encode())
        self("update-ref", "refs/heads/main", commit)
        return commit

    @property
    def repository(self) -> git.Repository:
        found = BuildSandbox(self.account, "desk", True, self.places.mirror)
        return git.Repository(
            self.places, git_source_of(str(self.source), files=True), found, 1 << 30, lambda text: None
        )

    def fetched(self) -> git.Repository:
        repository = self.repository
        repository.fetch()
        return repository

    def checked_out(self, ref: str = "main") -> Path:
        """Return a version of what REF means."""
        repository = self.fetched()
        commit = repository.resolve(ref)
        directory = self.places.version(f"{ref}-{time.monotonic_ns()}")
        directory.mkdir()
        repository.check_out(commit, directory)
        assert repository.changed_files(commit, directory) == []
        return directory


@pytest.fixture
def forge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Forge:
    for module in (git, environment):
        monkeypatch.setattr(module, "run_in", run_in)
    return Forge(tmp_path)


def test_refs_that_look_like_options(forge: Forge, tmp_path: Path) -> None:
    commit = forge.commit({"run.py": "1"})
    for name in ("--upload-pack=touch owned", "-x", "--output=owned", "HEAD", "refs/helm/default", "é\u202e"):
        place = name.replace(" ", "$IFS")
        file = forge.source / ".git/refs/heads" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(commit + "\n")
    later = forge.commit({"run.py": "2"})
    assert forge.fetched().resolve("main") == forge.repository.resolve("") == later
    assert forge.repository.resolve("HEAD") == commit, "a branch of that name is a branch"
    for ref in ("--upload-pack=x", "-x", "main:x", "main^{tree}", "../x", "main..x", "@{-1}"):
        with pytest.raises(UsageError):
            ref_of(ref)
    assert not list(tmp_path.rglob("owned"))


def test_a_branch_comes_before_a_tag_of_the_same_name(forge: Forge) -> None:
    forge.commit({"run.py": "the tag"})
    forge("tag", "release")
    forge("checkout", "--quiet", "-b", "release")
    branch = forge.commit({"run.py": "the branch"})
    assert forge.fetched().resolve("release") == branch


def test_a_commit_is_that_one_also_where_a_branch_is_called_so(forge: Forge) -> None:
    pinned = forge.commit({"run.py": "looked at"})
    other = forge.commit({"run.py": "not looked at"})
    for name in (pinned, pinned[:10]):
        forge("update-ref", f"refs/heads/{name}", other)
        forge("update-ref", f"refs/tags/{name}", other)
    repository = forge.fetched()
    assert repository.resolve(pinned) == pinned
    assert repository.resolve(pinned[:10]) == other, "names may look like the beginning of an id"
    assert repository.resolve(pinned[:9]) == pinned
    with pytest.raises(ModuleError, match="has no branch, tag or commit"):
        repository.resolve("0" * 40)


def test_a_repository_without_a_default_branch(forge: Forge) -> None:
    commit = forge.commit({"run.py": "1"})
    assert forge.fetched().resolve("") == commit
    forge("symbolic-ref", "HEAD", "refs/heads/gone")
    repository = forge.fetched()
    assert repository.resolve("main") == commit
    with pytest.raises(ModuleError, match="has no default branch") as refused:
        repository.resolve("")
    assert refused.value.hint == "Name one that it has: --ref main"


def test_a_branch_becomes_a_directory_of_branches_and_back(forge: Forge) -> None:
    first = forge.commit({"run.py": "1"})
    forge("branch", "next")
    assert forge.fetched().resolve("next") == first
    forge("branch", "-D", "next")
    forge("branch", "next/two")
    repository = forge.fetched()
    assert repository.resolve("next/two") == first
    with pytest.raises(ModuleError):
        repository.resolve("next")
    forge("branch", "-D", "next/two")
    forge("branch", "next")
    assert forge.fetched().resolve("next") == first


def test_many_refs(forge: Forge) -> None:
    commit = forge.commit({"run.py": "1"})
    lines = "".join(f"create refs/{kind}/n{number} {commit}\n" for kind in ("heads", "tags") for number in range(3000))
    forge("update-ref", "--stdin", given=lines)
    repository = forge.fetched()
    assert repository.resolve("n2999") == repository.resolve("") == commit


def test_what_replaces_objects_is_not_followed(forge: Forge) -> None:
    commit = forge.commit({"run.py": "original"})
    forge("checkout", "--quiet", "--orphan", "other")
    other = forge.commit({"run.py": "replaced"})
    forge("checkout", "--quiet", "-f", "main")
    forge("replace", commit, other)
    (forge.source / ".git/info").mkdir(exist_ok=True)
    (forge.source / ".git/info/grafts").write_text(f"{commit} {other}\n")
    assert (forge.checked_out() / "run.py").read_text() == "original"


def test_attributes_run_no_program(forge: Forge, tmp_path: Path) -> None:
    owned = tmp_path / "owned"
    forge.commit({"odd.txt": "a\nb\n$Id$\n", "wide.txt": "x", "run.py": "1"})
    attributes = (
        "* filter=evil diff=evil merge=evil ident\nodd.txt text eol=crlf\nwide.txt working-tree-encoding=UTF-16\n"
        "run.py export-subst text=auto\n"
    )
    (forge.source / "wide.txt").write_bytes("x".encode("utf-16"))
    forge.commit({".gitattributes": attributes, ".git-blame-ignore-revs": "x", ".mailmap": "b <b@example.org> a"})
    for key in ("filter.evil.smudge", "filter.evil.clean", "filter.evil.process", "diff.evil.textconv"):
        forge("config", key, f"touch {owned}")
    forge("config", "uploadpack.packObjectsHook", f"touch {owned}; exec")
    forge("config", "core.fsmonitor", f"touch {owned}")
    owned.unlink(missing_ok=True)
    directory = forge.checked_out()
    assert not owned.exists()
    assert (directory / "odd.txt").read_bytes().startswith(b"a\r\nb\r\n$Id: ")
    assert (directory / "run.py").read_text() == "1"


def test_pointers_of_git_lfs_are_known(forge: Forge) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    forge.commit({".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "data.bin": pointer})
    repository = forge.fetched()
    tree = repository.tree(repository.resolve("main"))
    assert repository.has_large_files(tree)
    assert (forge.checked_out() / "data.bin").read_text() == pointer
    forge.commit({".gitattributes": "*.bin -text\n# no filter=lfs2\n"})
    repository = forge.fetched()
    assert not repository.has_large_files(repository.tree(repository.resolve("main")))


@pytest.mark.parametrize(
    ("when", "at"),
    [
        ("-2208988800 +0000", None),
        ("0 +0000", 0.0),
        ("32472144000 +1400", 32472144000.0),
        ("32535216000 +0000", 0.0),
        ("99999999999 +0000", 0.0),
        ("99999999999999999999999 +0000", None),
        ("1700000000 +9999", 1700000000.0),
        ("1700000000", None),
        ("never", None),
    ],
)
def test_times_of_commits(forge: Forge, when: str, at: float | None) -> None:
    old = forge.commit({"run.py": "1"})
    forge.fetched()
    tree = forge("rev-parse", "HEAD^{tree}")
    new = forge.commit_of(tree, when)
    if at is None:
        with pytest.raises(ModuleError, match="could not be fetched") as refused:
            forge.fetched()
        assert "damaged or hostile objects" in refused.value.hint
        return
    (found,), count = forge.fetched().log_between(old, new)
    assert isinstance(found, Commit) and (found.at, count) == (at, 1)


def odd_tree(forge: Forge, *entries: tuple[str, str]) -> None:
    blob = forge.put("blob", b"[submodule]")
    forge.commit_of(forge.tree_of(*((mode, name, blob) for mode, name in entries)))


@pytest.mark.parametrize(
    "entries",
    [
        [("100644", ".git")],
        [("100644", ".GIT")],
        [("100644", "git~1")],
        [("100644", "..")],
        [("100644", ".")],
        [("100644", "")],
        [("100644", "a/b")],
        [("100644", "a"), ("100644", "a")],
        [("120000", ".gitmodules")],
        [("100644", ".g\u200cit")],
        [("100644", "b"), ("100644", "a")],
    ],
    ids=str,
)
def test_trees_that_git_would_not_make_are_not_even_fetched(forge: Forge, entries: list[tuple[str, str]]) -> None:
    odd_tree(forge, *entries)
    with pytest.raises(ModuleError, match="could not be fetched") as refused:
        forge.fetched()
    assert "damaged or hostile objects" in refused.value.hint


@pytest.mark.parametrize("url", ["-u./payload", "ext::sh -c touch% owned", "../../../other", "file:///etc"])
def test_urls_of_submodules_are_not_asked(forge: Forge, url: str) -> None:
    commit = forge.commit({"run.py": "1", ".gitmodules": f'[submodule "x"]\n\tpath = x\n\turl = {url}\n'})
    forge("update-index", "--add", "--cacheinfo", f"160000,{commit},x")
    forge("commit", "--quiet", "--message=two")
    if url.startswith("-"):
        with pytest.raises(ModuleError, match="could not be fetched"):
            forge.fetched()
        return
    repository = forge.fetched()
    tree = repository.tree(repository.resolve("main"))
    assert tree_faults(tree, (), (), 1 << 30, submodules=False)
    assert tree_faults(tree, (), (), 1 << 30, submodules=True) == []
    directory = forge.checked_out()
    assert list((directory / "x").iterdir()) == []


def test_names_that_differ_in_case_and_names_that_read_otherwise(forge: Forge) -> None:
    files = {
        "README": "a",
        "readme": "b",
        "Instance/x": "c",
        "instance.py": "d",
        "e\u202efdp.py": "",
        "\u0065\u0301": "e",
    }
    forge.commit({**files, "\u00e9": "f", "a:b": "g", "aux.py": "h", "x ": "i", " ": "j", "-rf": "k", "*": "l"})
    directory = forge.checked_out()
    assert (directory / "README").read_text() + (directory / "readme").read_text() == "ab"
    assert (directory / "e\u0301").read_text() + (directory / "\u00e9").read_text() == "ef"
    assert (directory / "-rf").read_text() + (directory / "*").read_text() == "kl"


def test_a_clone_that_is_not_whole_is_refused(forge: Forge, tmp_path: Path) -> None:
    for number in range(3):
        forge.commit({"run.py": str(number)})
    whole = forge.source
    forge.source = tmp_path / "shallow"
    subprocess.run(
        ["git", "clone", "--quiet", "--depth=1", f"file://{whole}", str(forge.source)], check=True, capture_output=True
    )
    with pytest.raises(ModuleError, match=f"{forge.source} is a clone without its history") as refused:
        forge.fetched()
    assert refused.value.hint == f"Complete it: git -C {forge.source} fetch --unshallow"


def test_a_tree_of_the_same_trees_is_given_up(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = forge.tree_of(("100644", "f", forge.put("blob", b"x")))
    for _ in range(12):
        tree = forge.tree_of(*(("40000", f"d{number}", tree) for number in range(10)))
    forge.commit_of(tree)
    monkeypatch.setattr(git, "MAX_LISTING", 1 << 20)

    def bounded(box: Any, words: Sequence[str], line: Callable[[str], None], **how: Any) -> Ran:
        if "ls-tree" not in words:
            return run_in(box, words, line, **how)
        environ = {**os.environ, **box.environment}
        process = subprocess.Popen(
            list(words), env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        reading = sandbox._Reading(process, line, (), how["keep"])
        stopped = reading.follow(b"", lambda: "")
        process.kill()
        process.wait()
        reading.close()
        return Ran("stopped" if stopped else "success", 0, (), bytes(reading.kept), stopped)

    repository = forge.fetched()
    monkeypatch.setattr(git, "run_in", bounded)
    with pytest.raises(ModuleError, match="can't be read: it printed too much"):
        repository.tree(repository.resolve("main"))


def test_a_program_that_prints_too_much_is_not_waited_for() -> None:
    process = subprocess.Popen(["yes"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # Without the limit, it never ends.
    late = threading.Timer(60, process.kill)
    late.start()
    reading = sandbox._Reading(process, lambda text: None, (), 100_000)
    assert reading.follow(b"", lambda: "") == "it printed too much"
    assert process.poll() is None and len(reading.kept) < 1 << 20
    late.cancel()
    process.kill()
    process.wait()
    reading.close()


def test_programs_of_the_tree_are_not_those_that_build_it(forge: Forge, tmp_path: Path) -> None:
    """Python takes modules from the directory that it runs in, pip its configuration from several places."""
    owned = tmp_path / "owned"
    code = f"open({str(owned)!r}, 'a').write(__name__)\n"
    names = (
        "sitecustomize",
        "usercustomize",
        "venv",
        "compileall",
        "ensurepip",
        "pip",
        "encodings",
        "json",
        "py_compile",
    )
    files = {f"{name}.py": code for name in names}
    files |= {
        "pip.conf": "[global]\nindex-url = http://127.0.0.1:9\n",
        "setup.cfg": "[global]\n",
        ".pydistutils.cfg": "x",
    }
    files |= {"pyvenv.cfg": "home = /nowhere\n", "python3": "#!/bin/false\n", "evil.pth": f"import os; {code}"}
    # As deep as a tree may be; more is refused before.
    files["/".join(["d"] * 59 + ["deep.py"])] = "x = 1\n"
    forge.commit(files)
    directory = forge.checked_out()
    left = forge.places.cache / "tmp/.config/pip"
    left.mkdir(parents=True)
    (left / "pip.conf").write_text("[global]\nno-such = x\n")
    left.chmod(0o000)
    python = Interpreter(sys.executable, sys.version_info[:2], False)
    box = BuildSandbox(forge.account, "desk", True, forge.places.mirror)
    EnvironmentBuild(forge.places, directory.name, Install(), python, box, lambda text: None).build()
    assert not owned.exists()
    assert list((directory / "/".join(["d"] * 59) / "__pycache__").iterdir())
    assert not (forge.places.cache / "tmp").exists()
