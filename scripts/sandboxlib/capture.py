"""Short commands in a sandbox whose output this program reads."""

import subprocess

from .enter import ROOT_PATH
from .place import ACCOUNT


def capture(
    pid: int, command: list[str], account: bool = False, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a short command in the sandbox whose PID 1 is `pid`, as root or as the account, and capture its output."""
    settings = [f"PATH={ROOT_PATH}", "LANG=C.UTF-8"]
    prefix = ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--", "env", "-i", *settings]
    if account:
        prefix += [
            "setpriv",
            f"--reuid={ACCOUNT}",
            f"--regid={ACCOUNT}",
            "--init-groups",
            "sh",
            "-c",
            "export XDG_RUNTIME_DIR=/run/user/$(id -u); "
            'export DBUS_SESSION_BUS_ADDRESS=unix:path=$XDG_RUNTIME_DIR/bus; exec "$@"',
            "sh",
        ]
    try:
        return subprocess.run(
            prefix + command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", "timed out")
