"""As root: allowing the account to listen on ports below 1024, such as the gateway's usual port."""

import subprocess
from pathlib import Path

from helmd.files.durable import write_atomically
from helmd.model.errors import NotSetUpError

LOWEST_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
PORTS_FILE = Path("/etc/sysctl.d/50-hivematrix-ports.conf")


def lowest_port() -> int:
    """Return the lowest unprivileged port (ip(7), ip_unprivileged_port_start)."""
    return int(LOWEST_PORT.read_text())


def allow_port(port: int) -> None:
    """Allow PORT and those above to every account, now and at boot. Raises NotSetUpError."""
    setting = f"net.ipv4.ip_unprivileged_port_start={port}"
    write_atomically(PORTS_FILE, f"# Written by helmctl setup, for the gateway.\n{setting}\n")
    done = subprocess.run(["sysctl", "-q", "-w", setting], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        try:
            LOWEST_PORT.write_text(f"{port}\n")
        except OSError as problem:
            raise NotSetUpError(f"{setting} could not be set: {problem.strerror}") from None
