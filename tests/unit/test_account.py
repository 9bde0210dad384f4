"""Which user manager a command belongs to, names of accounts, locales, and what is kept of root's environment."""

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from helmd.cli import account, completion, pager
from helmd.cli.adopt import adopt_command
from helmd.cli.backup import backup_command, verify_command
from helmd.cli.caller import person
from helmd.cli.context import Context, home_directory, use_manager_locations
from helmd.cli.dashboard import dashboard_command, ssh_command
from helmd.cli.importing import import_command
from helmd.cli.jobs import jobs_command
from helmd.cli.main import helmctl
from helmd.cli.modules import modules_command
from helmd.cli.setup import setup_command
from helmd.cli.tokens import tokens_command
from helmd.model.errors import LockedError, NotSetUpError, UsageError
from helmd.model.layout import layout
from helmd.model.suite.names import BACKUP_TIMER
from helmd.operations.backup.kept import BackupKey, put_backup_key
from helmd.operations.configuration.apply import Change
from helmd.postgres.cluster import account_name
from helmd.systemd import user_manager
from helmd.systemd.bus import _start_manager

TOP = Path(__file__).resolve().parents[2]


def runtime(tmp_path: Path, name: str) -> Path:
    made = tmp_path / name
    made.mkdir()
    (made / "bus").touch()
    return made


@pytest.mark.parametrize("given", [None, "", "/run/user/99999999", "elsewhere"])
def test_the_user_manager_is_found_without_the_callers_help(given: str | None, tmp_path: Path) -> None:
    """cron sets nothing, runuser(1) leaves the variables of root, whose directory is of another account or gone."""
    own = runtime(tmp_path, str(os.getuid()))
    if given == "elsewhere":
        other = runtime(tmp_path, "5")
        os.chown(other, 5, 5) if os.getuid() == 0 else shutil.rmtree(other)
        given = str(other)
    elif given:
        given = str(tmp_path / "99999999")
    environment = (
        {} if given is None else {"XDG_RUNTIME_DIR": given, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={given}/bus"}
    )
    account.find_user_manager(environment, os.getuid(), tmp_path)
    assert environment == {"XDG_RUNTIME_DIR": str(own), "DBUS_SESSION_BUS_ADDRESS": f"unix:path={own}/bus"}


def test_a_runtime_directory_of_the_account_itself_is_kept(tmp_path: Path) -> None:
    runtime(tmp_path, str(os.getuid()))
    mine = tmp_path / "mine"
    mine.mkdir()
    environment = {"XDG_RUNTIME_DIR": str(mine), "DBUS_SESSION_BUS_ADDRESS": "unix:path=/x"}
    account.find_user_manager(environment, os.getuid(), tmp_path / "users")
    assert environment == {"XDG_RUNTIME_DIR": str(mine), "DBUS_SESSION_BUS_ADDRESS": "unix:path=/x"}


def test_the_environment_of_the_user_manager_says_where_files_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/shell")
    monkeypatch.setenv("XDG_STATE_HOME", "/shell")
    monkeypatch.setenv("HOME", "/shell")
    use_manager_locations({"HOME": "/home/u", "XDG_STATE_HOME": "/manager", "PATH": "/manager"})
    assert (os.environ["HOME"], os.environ["XDG_STATE_HOME"]) == ("/home/u", "/manager")
    assert "XDG_DATA_HOME" not in os.environ and os.environ["PATH"] != "/manager"


def test_a_home_directory_of_another_account_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_directory() == str(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    assert home_directory() == os.path.expanduser(f"~{pwd.getpwuid(os.getuid()).pw_name}")


@pytest.mark.parametrize(
    ("name", "file"), [("suite", "suite"), ("müller", r"m\303\274ller"), ("жук", r"\320\266\321\203\320\272")]
)
def test_lingering_accounts_of_any_name(name: str, file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """systemd-logind escapes the names of its files."""
    monkeypatch.setattr(user_manager, "_LINGER", tmp_path)
    assert not user_manager.lingers(name)
    (tmp_path / file).touch()
    assert user_manager.lingers(name)


@pytest.mark.parametrize("charset", ["ISO-8859-1", "C", "POSIX"])
def test_a_locale_without_the_symbols_gets_others(charset: str) -> None:
    """No traceback, and text that the locale has no character for is written out."""
    program = (
        "from helmd.cli import output\n"
        "import _locale\n"
        f"_locale.getencoding = lambda: {charset!r} if {charset!r}.startswith('ISO') else 'ANSI_X3.4-1968'\n"
        "output.use_locale_charset()\n"
        "output.print_line('└─✓ größer → …')\n"
        "output.print_line('日本')\n"
        "output.print_message(output.Painted('✗ ', 'red'), 'größer')\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", program], cwd=TOP, capture_output=True, check=True, env={"LC_ALL": "C"}
    )
    if charset == "ISO-8859-1":
        assert done.stdout == "`-+ größer -> ...\n\\u65e5\\u672c\n".encode("iso-8859-1")
        assert done.stderr == "x größer\n".encode("iso-8859-1")
    else:
        assert done.stdout.decode() == "`-+ größer -> ...\n日本\n"


def test_colours_survive_options_of_less_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    for given in (None, "less", "/usr/bin/less -S"):
        monkeypatch.delenv("PAGER", raising=False)
        if given:
            monkeypatch.setenv("PAGER", given)
        assert pager.pager_command()[1] == "-R"
    monkeypatch.setenv("PAGER", "most")
    assert pager.pager_command() == ["most"]


def test_root_keeps_its_pager_and_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, str] = {}
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("os.execve", lambda program, words, environment: taken.update(environment))
    for name, value in {"PAGER": "most", "EDITOR": "vi", "LC_ALL": "C.UTF-8", "LD_PRELOAD": "x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SUDO_USER", raising=False)
    account.become("daemon")
    assert taken["SUDO_USER"] == "root", "for the audit trail, and the command of ssh that dashboard prints"
    assert (taken["PAGER"], taken["EDITOR"], taken["LC_ALL"]) == ("most", "vi", "C.UTF-8")
    assert "LD_PRELOAD" not in taken and taken["LOGNAME"] == "daemon"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (tokens_command, "create probe --role admin"),
        (tokens_command, "list"),
        (backup_command, "key"),
        (backup_command, "list"),
        (modules_command, "key make desk"),
        (modules_command, "list"),
        (modules_command, "check"),
        (jobs_command, "list"),
        (dashboard_command, ""),
    ],
)
def test_an_account_without_a_suite_gets_an_error_and_no_files(
    command: click.Command, words: str, tmp_path: Path
) -> None:
    """It would get a token that is valid nowhere, for example."""
    context = Context()
    context.layout = layout({}, tmp_path, os.getuid(), TOP)
    error = CliRunner().invoke(command, words.split(), obj=context).exception
    assert isinstance(error, NotSetUpError) and "helmctl setup" in error.hint and "--account" in error.hint
    assert list(tmp_path.iterdir()) == []


def test_the_timer_of_backups_is_made_by_the_next_try(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After one that has made the key, and could not apply."""
    context, applied = Context(), list[str]()
    context.layout = layout({}, tmp_path, os.getuid(), TOP)
    context.layout.secrets.mkdir(parents=True)
    context.layout.registry_file.touch()
    context.__dict__["manager"] = None
    put_backup_key(context.layout, BackupKey("age1x", "k"), "AGE-SECRET-KEY-1")

    def apply(found: list[Change], *_: object) -> None:
        applied.extend(change.unit for change in found)
        if len(applied) == 1:
            raise LockedError("units are being applied")

    change = Change(BACKUP_TIMER, "new", "", "[Timer]")
    monkeypatch.setattr("helmd.operations.configuration.apply.changes", lambda *_: [change])
    monkeypatch.setattr("helmd.operations.configuration.apply.apply", apply)
    monkeypatch.setattr("systemd._journal.sendv", lambda *fields: None)
    assert isinstance(CliRunner().invoke(backup_command, ["key"], obj=context).exception, LockedError)
    assert "age1x" in CliRunner().invoke(backup_command, ["key"], obj=context).output
    assert applied == [BACKUP_TIMER] * 2


def _arguments(
    group: click.Group, parent: click.Context | None = None
) -> Iterator[tuple[click.Context, click.Argument]]:
    context = click.Context(group, parent, group.name)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _arguments(command, context)
        elif command is not None:
            inner = click.Context(command, context, name)
            yield from ((inner, each) for each in command.params if isinstance(each, click.Argument))


def test_completion_is_silent_when_the_account_of_the_suite_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of root, who acts for the account that /etc/hivematrix/account names."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(completion, "owner", lambda option: "no-such-account")
    completed = {ctx.command_path for ctx, each in _arguments(helmctl) if each.shell_complete(ctx, "") == []}
    assert {"helmctl start", "helmctl jobs show", "helmctl modules update"} <= completed


def test_an_account_without_an_entry_has_its_uid_for_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one of a directory service that is away."""

    def missing(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", missing)
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.delenv("HOME")
    uid = os.getuid()
    assert person() == account_name() == str(uid)
    assert ssh_command("http://localhost:1").startswith(f"ssh -N -L 1:localhost:1 {uid}@")
    assert f"user@{uid}.service" in _start_manager()
    with pytest.raises(NotSetUpError, match=f"uid {uid} has no account"):
        home_directory()


@pytest.mark.parametrize(
    ("command", "words", "hint"),
    [
        (verify_command, "PATH --identity -", "Copy it"),
        (adopt_command, "PATH", "the right to read it"),
        (modules_command, "key add desk PATH", "on standard input"),
        (modules_command, "install ssh://git@example.org/desk.git --deploy-key PATH", "on standard input"),
        (setup_command, "--registry PATH", "Copy it"),
        (import_command, "x --base PATH", "the right to read it"),
    ],
)
def test_what_may_not_be_read_is_not_said_to_be_missing(
    command: click.Command, words: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root's own files, when root's helmctl acts for the account of the suite."""
    path, stat = str(tmp_path / "given"), os.stat

    def denied(given: Any, *words: Any, **more: Any) -> os.stat_result:
        if str(given) == path:
            raise PermissionError(13, "Permission denied", path)
        return stat(given, *words, **more)

    monkeypatch.setattr("os.stat", denied)
    error = CliRunner().invoke(command, words.replace("PATH", path).split(), obj=Context()).exception
    assert isinstance(error, UsageError) and f"can't read {path}" in error.sentence and hint in error.hint


def test_root_gets_advice_where_to_verify_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to set up a suite, which verify does not need."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    error = CliRunner().invoke(verify_command, [__file__, "--identity", "-"], obj=account.Ownerless()).exception
    assert isinstance(error, UsageError) and "in another account, or with --quick" in error.hint


def test_journalctl_is_recommended_as_it_works_for_system_accounts() -> None:
    """Before systemd 254 --user reads only journals of accounts from uid 1000 on; --user-unit does not need that."""
    below = [path for name in ("helmd", "docs", "packaging") for path in (TOP / name).rglob("*")]
    files = [path for path in (*below, *TOP.glob("*.md")) if path.suffix in (".py", ".html", ".md", ".scd")]
    assert [str(file) for file in files if "journalctl --user -u" in file.read_text()] == []
