"""Deploy keys of modules, and what is said when git or ssh could not read a repository."""

import errno
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from helmd.cli import module_install
from helmd.cli.account import hand_over
from helmd.cli.context import Context
from helmd.model.config.settings import Settings
from helmd.model.errors import ModuleError, UsageError
from helmd.model.layout import Layout, ModulePlaces, layout
from helmd.model.modules.access import access_fault, is_redirected, redirect_target
from helmd.model.modules.source import git_source_of
from helmd.modules import git
from helmd.modules.known_hosts import known_hosts
from helmd.modules.sandbox import BuildSandbox, Ran
from helmd.operations.modules.deploy_key import add_key, deploy_key, forget_hosts, make_key, public_line, remove_key
from helmd.operations.modules.install import Installation, WantedModule

HOST = "git.example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH2G8D7bGbbkV0rQ7H1fW3nI2pXzZ3oQGm0pB0E9WzQk\n"


@pytest.fixture
def account(tmp_path: Path) -> Layout:
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path / "run")}
    return layout(runtime, tmp_path, os.getuid(), Path("/usr/share/hivematrix-helm"))


def keygen(*words: str) -> str:
    done = subprocess.run(["ssh-keygen", *words], capture_output=True, text=True, check=True)
    return done.stdout


def test_a_key_is_made_shown_and_removed(account: Layout) -> None:
    made = make_key(account, "desk")
    places = account.module("desk")
    assert places.deploy_key.stat().st_mode & 0o777 == 0o600
    assert places.deploy_key.parent.stat().st_mode & 0o777 == 0o700
    assert deploy_key(account, "desk") == made
    # ssh itself reads the same out of it.
    assert keygen("-y", "-f", str(places.deploy_key)).split() == made.public_key.split()[:2]
    assert made.fingerprint in keygen("-l", "-f", str(places.deploy_key))
    with pytest.raises(ModuleError, match="has a deploy key already"):
        make_key(account, "desk")
    assert remove_key(account, "desk") and not remove_key(account, "desk")
    with pytest.raises(ModuleError, match="has no deploy key"):
        deploy_key(account, "desk")


@pytest.mark.parametrize("name", ["..", "../core", "a/b", ""])
def test_a_key_of_what_is_no_module(account: Layout, name: str) -> None:
    for use in (make_key, deploy_key, remove_key, forget_hosts):
        with pytest.raises(UsageError):
            use(account, name)


@pytest.mark.parametrize("words", [("-t", "ed25519"), ("-t", "rsa"), ("-t", "rsa", "-m", "PEM"), ("-t", "ecdsa")])
def test_keys_of_others_are_taken_over(account: Layout, tmp_path: Path, words: tuple[str, ...]) -> None:
    keygen("-q", "-N", "", *words, "-f", str(tmp_path / "key"))
    text = (tmp_path / "key").read_text()
    added = add_key(account, "desk", text.replace("\n", "\r\n") + "\n\n")
    assert added.public_key.split()[:2] == (tmp_path / "key.pub").read_text().split()[:2]
    assert account.module("desk").deploy_key.read_text() == text


def test_what_is_no_usable_key_is_refused(account: Layout, tmp_path: Path) -> None:
    keygen("-q", "-N", "secret", "-t", "ed25519", "-f", str(tmp_path / "key"))
    with pytest.raises(ModuleError, match="has a passphrase"):
        add_key(account, "desk", (tmp_path / "key").read_text())
    for text in ((tmp_path / "key.pub").read_text(), "", "-----BEGIN OPENSSH PRIVATE KEY-----\nAA\n", "\x00"):
        with pytest.raises(ModuleError, match="not a private key of ssh"):
            add_key(account, "desk", text)
    assert not account.module("desk").deploy_key.exists()


def test_the_keys_of_hosts_are_shown_and_forgotten(account: Layout, tmp_path: Path) -> None:
    places = account.module("desk")
    places.root.mkdir(parents=True)
    places.known_hosts.write_text(f"# comment\nbroken\nx y !!!\n{HOST}")
    (known,) = known_hosts(places)
    (tmp_path / "host.pub").write_text(HOST.partition(" ")[2])
    assert known.fingerprint in keygen("-l", "-f", str(tmp_path / "host.pub"))
    assert forget_hosts(account, "desk") and not forget_hosts(account, "desk")
    assert known_hosts(places) == ()


class Server:
    """Stands for a server over ssh, in place of git: takes one of the keys, and is known by HOST from then on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, account: Layout) -> None:
        self.taken, self.tried = "", list[str]()
        self.places: ModulePlaces = account.module("desk")
        monkeypatch.setattr(git, "run_in", self.run)

    def run(self, sandbox: BuildSandbox, words: Sequence[str], line: Any, **how: Any) -> Ran:
        command = sandbox.environment["GIT_SSH_COMMAND"]
        (key,) = [each for each in sandbox.readable if each.name != "gitconfig"] or [Path("none")]
        assert f"IdentityFile={key}" in command.split() or f"-o IdentityFile={key}" in command
        text = key.read_text() if key.exists() else ""
        assert not any(part in " ".join((*words, command)) for part in text.splitlines()[1:-1])
        self.tried.append(text)
        self.places.known_hosts.write_text(HOST)
        if text and public_line(text, "desk") == self.taken:
            return Ran("success", 0)
        return Ran("exit-code", 128, ("git@git.example.org: Permission denied (publickey).", "fatal: Could not read"))

    def fetch(
        self, account: Layout, url: str = "ssh://git@git.example.org/desk.git", key: Path | None = None
    ) -> list[str]:
        source = git_source_of(url)
        sandbox = BuildSandbox(account, "desk", True, self.places.mirror)
        return git.Repository(self.places, source, sandbox, 1 << 30, lambda line: None, key).fetch()


def test_a_new_key_replaces_the_old_one_once_it_is_accepted(account: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("ssh") and shutil.which("git")
    server = Server(monkeypatch, account)
    with pytest.raises(ModuleError, match="wants a key, and desk has none") as refused:
        server.fetch(account)
    assert "helmctl modules key make desk" in refused.value.hint
    assert "git.example.org was not known: its ssh-ed25519 key SHA256:" in refused.value.lines[0]
    old = make_key(account, "desk")
    server.places.known_hosts.unlink()
    server.taken = old.public_key
    (said,) = server.fetch(account)
    assert "git.example.org was not known: its ssh-ed25519 key SHA256:" in said
    assert server.fetch(account) == []
    server.taken = ""
    with pytest.raises(ModuleError, match="does not accept the deploy key of desk") as refused:
        server.fetch(account)
    assert "helmctl modules key show desk" in refused.value.hint
    server.taken = old.public_key
    new = make_key(account, "desk", replace=True)
    assert new.replacing and new.public_key != old.public_key
    assert server.fetch(account) == ["its new deploy key is not accepted yet, so the one before is used"]
    # One that was never used is not worth keeping.
    newest = make_key(account, "desk", replace=True)
    assert server.fetch(account) == ["its new deploy key is not accepted yet, so the one before is used"]
    server.taken = newest.public_key
    assert server.fetch(account) == ["its new deploy key is accepted; the one before is removed"]
    assert not deploy_key(account, "desk").replacing and server.fetch(account) == []
    # A fetch without a key does not show that the new one is accepted.
    server.taken = ""
    make_key(account, "desk", replace=True)
    with pytest.raises(ModuleError):
        server.fetch(account)
    monkeypatch.setattr(git, "run_in", lambda *_, **__: Ran("success", 0))
    server.fetch(account, "https://git.example.org/desk.git")
    assert deploy_key(account, "desk").replacing
    server.places.deploy_key.unlink()
    server.fetch(account)
    assert server.places.deploy_key_before.exists()


def test_a_key_that_can_not_be_written_leaves_the_one_before(account: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make_key(account, "desk")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr("helmd.operations.modules.deploy_key.write_atomically", full)
        with pytest.raises(OSError, match="No space left"):
            make_key(account, "desk", replace=True)
    assert deploy_key(account, "desk").public_key == old.public_key
    assert make_key(account, "desk", replace=True).public_key != old.public_key
    before = account.module("desk").deploy_key_before.read_text()
    assert public_line(before, "desk") == old.public_key


def test_a_dry_run_reads_with_a_key_that_is_not_kept(
    account: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, given = Server(monkeypatch, account), tmp_path / "given"
    keygen("-q", "-N", "", "-t", "ed25519", "-f", str(given))
    server.taken = public_line(given.read_text(), "desk")
    old = make_key(account, "desk")
    wanted = WantedModule("desk", git_source_of("ssh://git@git.example.org/desk.git"))
    context = Context()
    monkeypatch.setattr(Context, "layout", account)
    with module_install._key_taken(context, wanted, given, dry_run=True) as trial:
        assert trial is not None and trial.stat().st_mode & 0o777 == 0o600
        assert "SHA256:" in server.fetch(account, key=trial)[0]
    assert not trial.exists() and list(account.runtime.iterdir()) == []
    assert deploy_key(account, "desk").public_key == old.public_key and not deploy_key(account, "desk").replacing
    with module_install._key_taken(context, wanted, given, dry_run=False) as trial:
        assert trial is None
    assert deploy_key(account, "desk").public_key == server.taken and deploy_key(account, "desk").replacing


def test_the_key_of_a_dry_run_is_what_git_gets(account: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def preflight(self: Installation, wanted: WantedModule) -> None:
        asked.append(self.options.trial_key)
        raise ModuleError("enough")

    monkeypatch.setattr(Installation, "preflight", preflight)
    for name, value in (("layout", account), ("settings", Settings()), ("manager", None)):
        monkeypatch.setattr(Context, name, value)
    wanted = WantedModule("desk", git_source_of("ssh://git@git.example.org/desk.git"))
    with pytest.raises(ModuleError, match="enough"):
        module_install.install_modules(Context(), (wanted,), dry_run=True, key=Path("/given"))
    assert asked == [Path("/given")]


CHANGED = "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @"
NO_TRUST = "fatal: unable to access 'https://g.example/d/': server certificate verification failed. CAfile: none"
MOVED = "fatal: unable to access 'https://g.example/d/': The requested URL returned error: 301"


@pytest.mark.parametrize(
    ("url", "lines", "why", "hint"),
    [
        ("ssh://git@g.example/d", [CHANGED, "Host key verification failed."], "another host key", "key forget-host d"),
        ("ssh://git@g.example/d", ["Permission denied (publickey)."], "has none", "key make d"),
        ("ssh://git@g.example/d", ["ssh: Could not resolve hostname g.example"], "", "reach it"),
        ("ssh://git@g.example/d", ["fatal: '/d' does not appear to be a git repository"], "", "deploy key given"),
        ("https://g.example/d", [NO_TRUST], "certificate that this machine trusts", "update-ca-certificates"),
        ("https://g.example/d", ["fatal: could not read Username for 'https://g.example'"], "login", "key make d"),
        ("https://g.example/d", ["error: object 12: hasDotgit", "fatal: fsck error"], "", "hostile objects"),
        ("https://g.example/d", ["SSL: certificate subject name (a) does not match target"], "of another host", "name"),
        ("https://g.example/d", [MOVED], "leads elsewhere", "where the repository is"),
        ("https://g.example/d", [], "", "reach it"),
    ],
)
def test_why_a_repository_could_not_be_read(url: str, lines: list[str], why: str, hint: str) -> None:
    said = access_fault(git_source_of(url), "d", lines)
    assert (why in said[0] if why else said[0] == "") and hint in said[1], said


def test_where_a_server_leads_is_said_and_not_followed() -> None:
    source = git_source_of("https://g.example/d")
    assert is_redirected([MOVED]) and not is_redirected([NO_TRUST])

    def target(location: str) -> str:
        return redirect_target([f"10:00 http.c:1: <= Recv header: location: {location}/info/refs?service=x"])

    moved, other = target("https://g.example/new/d"), target("https://other.example/d")
    assert moved == "https://g.example/new/d"
    assert access_fault(source, "d", [MOVED], moved)[1] == "Give that URL, if it was moved there."
    assert "trust that host" in access_fault(source, "d", [MOVED], other)[1]
    for hostile in ("http://g.example/d", "ext::sh -c x", "https://u:p@g.example/d", "https://g.example/$(id)", "/d"):
        assert target(hostile) == "", hostile
    assert redirect_target([]) == ""


@pytest.mark.parametrize("url", ["https://ghp_token@example.org/d", "https://u:pass@example.org/d"])
def test_a_secret_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        git_source_of(url)
    text = refused.value.sentence + refused.value.hint
    assert "deploy key" in text and "ghp_token" not in text and "pass@" not in text


def test_root_hands_over_files_that_the_account_cannot_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of runuser, `test -r` by nobody: what is read is what the file had, by the path in the command line."""
    secret, readable = tmp_path / "key.pem", tmp_path / "suite.toml"
    for path in (secret, readable):
        path.write_text(f"content of {path.name}")
    words = ["helmctl", "setup", "--registry", str(readable), f"--certificate={secret}", str(secret), "--yes"]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr("helmd.cli.account._readable", lambda account, path: path == readable)
    hand_over(pwd.getpwuid(os.getuid()).pw_name, [secret, readable])
    assert sys.argv[:4] == words[:4] and sys.argv[-1] == "--yes"
    place = Path(sys.argv[5])
    assert sys.argv[4] == f"--certificate={place}"
    assert place.read_text() == "content of key.pem" == place.read_text()
    assert place.stat().st_mode & 0o777 == 0o400 and place.stat().st_uid == os.getuid()
    os.close(int(place.name))
