"""Running commands in a sandbox, as root or as an account with its user bus.

`execute` implements `scripts/sandbox exec`. For speed, it joins the namespaces of the sandbox's PID 1 itself instead of
starting nsenter, setpriv and env. It remains outside as the parent process, to forward signals and the exit status.
"""

import ctypes
import os
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from . import cgroup
from .place import Place, SandboxError

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24
CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
# Unknown to systemd inside: commands started from outside belong to no unit.
EXEC_GROUP = "sandbox-exec.scope"
USER_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CANNOT_RUN, NOT_FOUND = 126, 127

_libc = ctypes.CDLL(None, use_errno=True)


class Target(NamedTuple):
    """A command to run inside, and its account."""

    account: str
    command: list[str]
    settings: dict[str, str]
    login: bool = False


class Entry(NamedTuple):
    """Descriptors of a sandbox, opened before its namespaces are entered."""

    pid: int
    root: int
    groups: tuple[int, ...]
    """The cgroup.procs files to join, of each hierarchy."""
    capabilities: int
    """The bounding set of PID 1, as a mask: nothing inside has others (CAP_SYS_TIME would set the host's clock)."""


def open_entry(place: Place) -> Entry | None:
    """Open descriptors of the running sandbox; return None if it has no PID 1."""
    pid = cgroup.leader(place)
    if pid is None:
        return None
    group = cgroup.top(place) / "box" / "payload" / EXEC_GROUP
    group.mkdir(exist_ok=True)
    try:
        return Entry(
            os.pidfd_open(pid),
            os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC),
            tuple(
                os.open(path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for path in (group, *cgroup.v1_groups(place))
            ),
            _bounding_set(pid),
        )
    except (ProcessLookupError, FileNotFoundError):
        return None


def _bounding_set(pid: int) -> int:
    """Return the capability bounding set of a process as a mask, see proc(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapBnd:"))


def setns(descriptor: int, kinds: int) -> None:
    if _libc.setns(descriptor, kinds) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def execute(entry: Entry, target: Target) -> int:
    """Run the command with this process's stdin, stdout and stderr; return its exit status, or 128+n for signal n."""
    watched = {signal.SIGCHLD, *FORWARDED}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    setns(entry.pid, CLONE_NEWPID)  # takes effect for children only
    child = os.fork()
    if child == 0:
        become(entry, target, stay_with_parent=True)
    while True:
        arrived = signal.sigwaitinfo(watched)
        if arrived.si_signo == signal.SIGCHLD:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif arrived.si_code <= 0:  # sent by a process; the child receives the terminal's signals itself
            with suppress(ProcessLookupError):
                os.kill(child, arrived.si_signo)


def become(entry: Entry, target: Target, stay_with_parent: bool) -> NoReturn:
    """In a child: enter the remaining namespaces, switch to the account and execute the command."""
    status = CANNOT_RUN
    try:
        for group in entry.groups:
            os.write(group, b"0")
        setns(entry.pid, CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP)
        os.fchdir(entry.root)
        os.chroot(".")
        _keep_capabilities(entry.capabilities)
        environment = _switch_account(target)
        if stay_with_parent:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        default_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        program = target.command[0]
        arguments = [f"-{Path(program).name}", *target.command[1:]] if target.login else target.command
        os.execvpe(program, arguments, environment)
    except FileNotFoundError:
        status = NOT_FOUND
        print(f"sandbox: {target.command[0]}: not found in the sandbox", file=sys.stderr)
    except (OSError, SandboxError) as error:
        print(f"sandbox: {target.command[0]}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)


def _keep_capabilities(mask: int) -> None:
    """Drop all other capabilities of this process, for good."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for number in range(last + 1):
        if not mask >> number & 1 and _libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"could not drop capability {number}")
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    sets = struct.pack("6I", low, low, 0, high, high, 0)  # effective, permitted, inheritable; once more for the rest
    if _libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "could not drop capabilities")


def default_signals() -> None:
    """The default disposition for every signal: exec(3) keeps ignored ones ignored.

    Python ignores SIGPIPE and SIGXFSZ; a shell without job control has its background jobs ignore SIGINT and SIGQUIT,
    nohup(1) SIGHUP. As after a login, none of it applies inside.
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)


def _switch_account(target: Target) -> dict[str, str]:
    """Switch to the account by the sandbox's passwd(5) and group(5); return its environment."""
    rows = (line.split(":") for line in Path("/etc/passwd").read_text().splitlines())
    row = next((row for row in rows if row[0] == target.account and len(row) == 7), None)
    if row is None:
        raise SandboxError(f"the sandbox has no account {target.account!r}")
    uid, gid, home, shell = int(row[2]), int(row[3]), row[5], row[6]
    groups = {gid}
    for line in Path("/etc/group").read_text().splitlines():
        _, _, number, members = (line.split(":") + [""] * 4)[:4]
        if target.account in members.split(","):
            groups.add(int(number))
    os.setgroups(sorted(groups))
    os.setgid(gid)
    os.setuid(uid)
    try:
        os.chdir(home)
    except OSError:
        os.chdir("/")
    environment = {
        "HOME": home,
        "USER": target.account,
        "LOGNAME": target.account,
        "SHELL": shell,
        "LANG": "C.UTF-8",
        "PATH": USER_PATH if uid else ROOT_PATH,
        **target.settings,
    }
    if uid:
        runtime = f"/run/user/{uid}"
        environment |= {"XDG_RUNTIME_DIR": runtime, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus"}
    return environment
