"""What this host's systemd can do."""

from dataclasses import dataclass
from pathlib import Path

from helmd.health.control_group import ROOTS
from helmd.model.units.hardening import DIRECTIVES

TRIED = tuple(f"{directive.name}={directive.value}" for directive in DIRECTIVES if directive.namespaces)
"""What a host may refuse: namespaces, mounts, devices, proc."""


@dataclass(frozen=True, slots=True)
class Host:
    """``user_namespaces``: whether PrivateUsers= works in user units, on which most hardening rests."""

    systemd: int
    user_namespaces: bool


def delegated_controllers(manager_group: str) -> frozenset[str]:
    """Return the cgroup controllers that a user manager can use for its units (systemd.resource-control(5), Delegate=).

    MANAGER_GROUP is its control group, as the ControlGroup= of its init.scope has it, without that name.
    """
    for root in ROOTS:
        try:
            return frozenset(Path(root, manager_group.strip("/"), "cgroup.controllers").read_text().split())
        except OSError:
            continue
    return frozenset()


def systemd_version() -> int:
    """Return the number in the first line of ``systemctl --version``."""
    import subprocess

    shown = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, timeout=10, check=True)
    return int(shown.stdout.split()[1])


def probe_host() -> Host:
    """Ask the running user manager to start a unit in a user namespace, which takes some tens of milliseconds."""
    # Imported here, since the result is saved: most commands read only that.
    import subprocess

    properties = [word for directive in TRIED for word in ("-p", directive)]
    tried = subprocess.run(
        ["systemd-run", "--user", "--wait", "--quiet", "--collect", *properties, "true"],
        capture_output=True,
        timeout=30,
        check=False,
    )
    return Host(systemd_version(), tried.returncode == 0)
