"""The limit of log lines that journald sets an account, and the drop-in that raises it (root only)."""

import subprocess
import sys
from pathlib import Path

from helmd.files.durable import write_atomically
from helmd.model.units.diagnostics import Finding, judge_rate_limit
from helmd.systemd import user_manager

DROP_IN = """\
# Written by HiveMatrix Helm. journald counts the lines of all units of an account in one bucket, that of its user
# manager; LogRateLimit settings of the user units themselves have no effect. A burst of 0 ("no limit") is ignored here.
# Takes effect when the user manager is restarted. To set another limit, add a file whose name sorts after this one.

[Service]
LogRateLimitIntervalSec=1s
LogRateLimitBurst=10000000
"""
_RUNS_SYSTEMD = Path("/run/systemd/system")
"""Exists when PID 1 is systemd (sd_booted(3))."""


def drop_in_file(uid: int, directory: Path = user_manager.SYSTEM_UNITS) -> Path:
    """Return the drop-in for one account's user manager."""
    return directory / f"{user_manager.unit_name(uid)}.d/50-hivematrix-helm.conf"


def raise_limit(uid: int, directory: Path = user_manager.SYSTEM_UNITS) -> None:
    """As root: write the drop-in for an account; the caller reloads systemd. Raises OSError."""
    file = drop_in_file(uid, directory)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Whatever root's umask: systemctl and doctor read it as the account.
    file.parent.chmod(0o755)
    write_atomically(file, DROP_IN, 0o644)


def reload_systemd() -> None:
    """As root: make systemd load changed drop-ins. Raises CalledProcessError, TimeoutExpired."""
    if _RUNS_SYSTEMD.is_dir():
        subprocess.run(["systemctl", "daemon-reload"], timeout=60, check=True)


def check_limit(uid: int, libexec: Path) -> Finding:
    """Check the limit that is in force for an account. Raises OSError, CalledProcessError, TimeoutExpired."""
    properties = user_manager.manager_properties(uid)
    return judge_rate_limit(
        user_manager.journald_limit(user_manager.journald_settings()),
        user_manager.configured_limit(properties),
        user_manager.effective_limit(uid),
        user_manager.drop_in_present(uid),
        uid,
        f"sudo {libexec / 'raise-log-limit'} {uid}",
    )


def main(arguments: list[str]) -> int:
    """Raise the limit for the accounts whose uids are given; 2 is a usage error, 1 any other."""
    if not arguments or not all(argument.isascii() and argument.isdigit() for argument in arguments):
        print("usage: raise-log-limit UID...", file=sys.stderr)
        return 2
    try:
        for uid in map(int, arguments):
            raise_limit(uid)
        reload_systemd()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"raise-log-limit: {error}", file=sys.stderr)
        return 1
    return 0
