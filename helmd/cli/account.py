"""Whose suite a command is about: the caller's own, or for root the account that owns it."""

import os
import pwd
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from helmd.cli.context import Context
from helmd.model.errors import NotSetUpError, UsageError
from helmd.model.layout import Layout

ACCOUNT_FILE = Path("/etc/hivematrix/account")
"""Names the dedicated account, written by ``helmctl setup --account``."""


class Ownerless(Context):
    """Root's, on a machine where no account was set up for it to act for: whatever needs a suite says so."""

    @cached_property
    def layout(self) -> Layout:
        raise NotSetUpError(
            "root owns no suite, and no account was set up here that it acts for",
            hint="Make one: helmctl setup --account hivematrix\n"
            "For a suite of somebody's own account: helmctl --account NAME ..., or run it there without sudo.",
        )


def owner(option: str | None) -> str | None:
    """The account that root acts for: the one asked for, or the one set up on this machine; None for root's own."""
    if option:
        return option
    try:
        return ACCOUNT_FILE.read_text().strip() or None
    except OSError:
        return None


def remember(account: str) -> None:
    """Makes ACCOUNT the one that root acts for on this machine."""
    ACCOUNT_FILE.parent.mkdir(exist_ok=True)
    ACCOUNT_FILE.write_text(f"{account}\n")


def check_readable(account: str, files: Sequence[Path]) -> None:
    """As root: FILES are open to ACCOUNT, or UsageError says which isn't."""
    import subprocess

    for path in files:
        test = ["/usr/sbin/runuser", "-u", account, "--", "test", "-r", str(path.resolve())]
        if subprocess.run(test, check=False, cwd="/").returncode:
            raise UsageError(
                f"{account} can't read {path}", hint="Put it where that account may read it, such as /tmp."
            )


def become(account: str) -> None:
    """Runs this very command again as ACCOUNT on its user bus. Returns only when that is already so."""
    try:
        entry = pwd.getpwnam(account)
    except KeyError:
        raise UsageError(f"there is no account '{account}'", hint="Create one: helmctl setup --account NAME") from None
    if os.geteuid() == entry.pw_uid:
        return
    if os.geteuid() != 0:
        raise UsageError("only root can act for another account", hint=f"Use: sudo helmctl --account {account} ...")
    runtime = f"/run/user/{entry.pw_uid}"
    passed = ("TERM", "LANG", "NO_COLOR", "COLUMNS", "TZ", "SUDO_USER")
    kept = {name: os.environ[name] for name in passed if name in os.environ}
    environment = {
        **kept,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": entry.pw_dir,
        "USER": account,
        "LOGNAME": account,
        "XDG_RUNTIME_DIR": runtime,
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
    }
    sys.stdout.flush()
    os.execve(
        "/usr/sbin/runuser", ["runuser", "-u", account, "--", os.path.abspath(sys.argv[0]), *sys.argv[1:]], environment
    )
