"""Whose suite a command is about: the caller's own, or for root the account that owns it."""

import os
import pwd
import sys
from collections.abc import Sequence
from pathlib import Path

from helmd.model.errors import UsageError

ACCOUNT_FILE = Path("/etc/hivematrix/account")
"""Names the dedicated account, written by ``helmctl setup --account``."""


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


def become(account: str, readable: Sequence[Path] = ()) -> None:
    """Runs this very command again as ACCOUNT on its user bus. Returns only when that is already so.

    Files in READABLE must be open to the account; UsageError says which isn't.
    """
    try:
        entry = pwd.getpwnam(account)
    except KeyError:
        raise UsageError(f"there is no account '{account}'", hint="Create one: helmctl setup --account NAME") from None
    if os.geteuid() == entry.pw_uid:
        return
    if os.geteuid() != 0:
        raise UsageError("only root can act for another account", hint=f"Use: sudo helmctl --account {account} ...")
    runtime = f"/run/user/{entry.pw_uid}"
    kept = {name: os.environ[name] for name in ("TERM", "LANG", "NO_COLOR", "COLUMNS", "TZ") if name in os.environ}
    environment = {
        **kept,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": entry.pw_dir,
        "USER": account,
        "LOGNAME": account,
        "XDG_RUNTIME_DIR": runtime,
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
    }
    import subprocess

    for path in readable:
        test = ["/usr/sbin/runuser", "-u", account, "--", "test", "-r", str(path.resolve())]
        if subprocess.run(test, check=False, cwd="/").returncode:
            raise UsageError(
                f"{account} can't read {path}", hint="Put it where that account may read it, such as /tmp."
            )
    sys.stdout.flush()
    os.execve(
        "/usr/sbin/runuser", ["runuser", "-u", account, "--", os.path.abspath(sys.argv[0]), *sys.argv[1:]], environment
    )
