"""The machine for the security audit: groups of the account, kernel settings, the SSH server, pending updates."""

import grp
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from helmd.model.security.findings import SecurityFinding
from helmd.model.security.settings import KERNEL_SETTINGS, judge_groups, judge_kernel, judge_sshd, judge_updates
from helmd.operations.diagnostics.context import DoctorContext

_CONTAINER = Path("/run/systemd/container")
"""Written by systemd in a container, whose kernel settings are the host's."""
_SSHD = Path("/etc/ssh/sshd_config")
_APT_SECONDS = 60.0
_LARGEST = 1 << 20
_MOST_FILES = 200


def audit_account(context: DoctorContext) -> Iterator[SecurityFinding]:
    """Check whether the account, or an attacker with its rights, can become root."""
    names = []
    for number in os.getgrouplist(context.account, os.getgid()):
        try:
            names.append(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    yield from judge_groups(context.account, context.uid, names)


def audit_kernel(_: DoctorContext) -> Iterator[SecurityFinding]:
    """Yield settings of the kernel; not in a container."""
    if _CONTAINER.exists():
        return
    values = {}
    for setting in KERNEL_SETTINGS:
        try:
            values[setting.name] = Path("/proc/sys", *setting.name.split(".")).read_text().strip()
        except OSError:
            continue
    yield from judge_kernel(values)


def audit_ssh(_: DoctorContext) -> Iterator[SecurityFinding]:
    """Yield the SSH server's settings, as far as they can be read."""
    if _SSHD.is_file():
        yield from judge_sshd(list(sshd_files(_SSHD)))


def sshd_files(path: Path, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the text of a file of sshd_config(5), with included files in their places. Raises OSError."""
    before: list[str] = []
    included = 0
    for line in path.read_text(errors="replace")[:_LARGEST].splitlines():
        words = line.split("#")[0].replace("=", " ").split()
        if not words or words[0].lower() != "include" or depth > 8:
            before.append(line)
            continue
        yield str(path), "\n".join(before)
        before = []
        for pattern in words[1:]:
            place = Path(pattern) if pattern.startswith("/") else Path("/etc/ssh", pattern)
            for file in sorted(place.parent.glob(place.name)):
                included += 1
                if included <= _MOST_FILES:
                    yield from sshd_files(file, depth + 1)
    yield str(path), "\n".join(before)


def audit_updates(_: DoctorContext) -> Iterator[SecurityFinding]:
    """Yield security updates that the package lists have and that are not installed. The lists are not fetched."""
    yield from judge_updates(_simulated_upgrade())


def _simulated_upgrade() -> str:
    command: Sequence[str] = ("apt-get", "--simulate", "-o", "Debug::NoLocking=1", "-qq", "upgrade")
    done = subprocess.run(
        command,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        timeout=_APT_SECONDS,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    return done.stdout
