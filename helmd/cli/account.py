"""The account whose suite a command is about: the caller, or for root the account that owns it."""

import os
import pwd
import sys
from collections.abc import MutableMapping, Sequence
from functools import cached_property
from pathlib import Path

from helmd.cli.context import Context
from helmd.model.errors import DeniedError, NotSetUpError, UsageError
from helmd.model.layout import Layout

ACCOUNT_FILE = Path("/etc/hivematrix/account")
"""Names the dedicated account, written by ``helmctl setup --account``."""
_PASSED = ("TERM", "COLORTERM", "NO_COLOR", "COLUMNS", "LINES", "TZ", "LANG", "LANGUAGE")
_PREFERENCES = ("PAGER", "LESS", "EDITOR", "VISUAL", "SYSTEMD_EDITOR")
"""What root has chosen for its own terminal."""


class Ownerless(Context):
    """For root on a machine without a dedicated account: everything that needs a suite raises NotSetUpError."""

    @cached_property
    def layout(self) -> Layout:
        raise NotSetUpError(
            "root has no suite, and no dedicated account is set up on this machine",
            hint="To create one, run: helmctl setup --account hivematrix\n"
            "For the suite of another account, run: helmctl --account NAME ..., or helmctl as that account.",
        )


def owner(option: str | None) -> str | None:
    """Return the account that root acts for: the one asked for, or the one set up on this machine, or None for root's
    own.
    """
    if option:
        return option
    try:
        return ACCOUNT_FILE.read_text().strip() or None
    except OSError:
        return None


def remember(account: str) -> None:
    """Make ACCOUNT the one that root acts for on this machine."""
    ACCOUNT_FILE.parent.mkdir(exist_ok=True)
    ACCOUNT_FILE.write_text(f"{account}\n")


def check_readable(account: str, files: Sequence[Path]) -> None:
    """As root: check that ACCOUNT can read FILES. Raises UsageError."""
    for path in files:
        if not _readable(account, path):
            raise UsageError(
                f"{account} can't read {path}", hint="Copy it to a place that the account can read, such as /tmp."
            )


def hand_over(account: str, files: Sequence[Path]) -> None:
    """As root: have the command that `become` runs get those of FILES that ACCOUNT can't read, such as a private key or
    what is in a home directory: copies in memory that it inherits, named in the command line instead.
    """
    for path in files:
        if _readable(account, path):
            continue
        descriptor = os.memfd_create(path.name, 0)
        with path.open("rb") as given:
            while block := given.read(1 << 20):
                os.write(descriptor, block)
        os.fchmod(descriptor, 0o400)
        os.fchown(descriptor, pwd.getpwnam(account).pw_uid, -1)
        place = f"/proc/self/fd/{descriptor}"
        sys.argv[1:] = [_with_place(word, str(path), place) for word in sys.argv[1:]]


def _with_place(word: str, path: str, place: str) -> str:
    option, equals, value = word.partition("=")
    return place if word == path else f"{option}={place}" if equals and value == path else word


def _readable(account: str, path: Path) -> bool:
    import subprocess

    test = ["/usr/sbin/runuser", "-u", account, "--", "test", "-r", str(path.resolve())]
    return not subprocess.run(test, check=False, cwd="/").returncode


def find_user_manager(environment: MutableMapping[str, str], uid: int, runtimes: Path = Path("/run/user")) -> None:
    """Set in ENVIRONMENT where the user manager of UID is, unless that is said already.

    pam_systemd(8) sets these variables for a login. They are missing in a job of cron(8), and still name the caller's
    after sudo(8), su(1) and runuser(1).
    """
    own = runtimes / str(uid)
    given = environment.get("XDG_RUNTIME_DIR", "")
    if not given or (Path(given) != own and not _belongs_to(Path(given), uid, runtimes)):
        environment["XDG_RUNTIME_DIR"] = given = str(own)
    bus = Path(given, "bus")
    if _owner(bus) == uid:
        environment["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={bus}"


def _belongs_to(directory: Path, uid: int, runtimes: Path) -> bool:
    """Return whether DIRECTORY is of UID; one that is missing is another account's if it is where login managers put
    them.
    """
    owner = _owner(directory)
    return directory.parent != runtimes if owner is None else owner == uid


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None


def become(account: str) -> None:
    """Run this very command again as ACCOUNT on its user bus. Returns only when that is already so."""
    try:
        entry = pwd.getpwnam(account)
    except KeyError:
        raise UsageError(
            f"unknown account '{account}'", hint="To create one, run: helmctl setup --account NAME"
        ) from None
    if os.geteuid() == entry.pw_uid:
        return
    if os.geteuid() != 0:
        raise DeniedError("only root can act for another account", hint=f"Run: sudo helmctl --account {account} ...")
    command, environment = command_as(account, sys.argv[1:])
    sys.stdout.flush()
    os.execve(command[0], ["runuser", *command[1:]], environment)


def context_of_root(account_name: str | None) -> Context:
    """For root, who acts for the account named, or for that of this machine: returns only for a suite of root's own."""
    chosen = owner(account_name)
    if chosen and chosen != "root":
        become(chosen)
    find_user_manager(os.environ, os.getuid())
    return Context() if chosen else Ownerless()


def command_as(account: str, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """For root: the command line that runs helmctl with WORDS as ACCOUNT on its user bus, and its environment.

    Raises UsageError.
    """
    try:
        entry = pwd.getpwnam(account)
    except KeyError:
        raise UsageError(f"unknown account '{account}'") from None
    runtime = f"/run/user/{entry.pw_uid}"
    kept = {
        name: value for name, value in os.environ.items() if name in (*_PASSED, *_PREFERENCES) or name.startswith("LC_")
    }
    environment = {
        **kept,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": entry.pw_dir,
        "USER": account,
        "LOGNAME": account,
        # As sudo(8) has it: who asked for it, and as whom a login is possible.
        "SUDO_USER": os.environ.get("SUDO_USER") or "root",
        "XDG_RUNTIME_DIR": runtime,
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
    }
    return ["/usr/sbin/runuser", "-u", account, "--", os.path.abspath(sys.argv[0]), *words], environment
