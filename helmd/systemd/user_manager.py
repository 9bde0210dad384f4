"""An account's user manager as the system sees it: lingering, groups, and what journald lets through from it."""

import os
import subprocess
from pathlib import Path

from helmd.model.logs.timestamps import timespan
from helmd.model.units.diagnostics import RateLimit

JOURNAL_GROUP = "systemd-journal"
"""Members may read the whole journal (systemd-journald.service(8))."""

_LINGER = Path("/var/lib/systemd/linger")
_EXPORTED = Path("/run/systemd/units")
SYSTEM_UNITS = Path("/etc/systemd/system")
"""Where the machine's administrator puts units and drop-ins (systemd.unit(5))."""
_DROP_INS = (SYSTEM_UNITS, Path("/run/systemd/system"), Path("/usr/lib/systemd/system"))
_JOURNALD_INTERVAL, _JOURNALD_BURST = 30.0, 10_000
"""journald's own defaults; it allows more while the disk has much free space (journald.conf(5))."""


def _output(*command: str) -> str:
    """Return what COMMAND prints. Raises OSError or CalledProcessError."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=15, check=True)
    return done.stdout


def _assignments(text: str) -> dict[str, str]:
    """``KEY=value`` lines; the last of a key counts."""
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith(("#", ";", "[")))
    return {key.strip(): value.strip() for key, equals, value in lines if equals}


def unit_name(uid: int) -> str:
    """Return the system unit in which an account's manager runs."""
    return f"user@{uid}.service"


def lingers(account: str) -> bool:
    """Return whether the account's manager runs without a login, and from boot (loginctl(1))."""
    return any((_LINGER / name).exists() for name in (account, _escaped(account)))


def _escaped(name: str) -> str:
    """Return NAME as systemd-logind names its file (systemd's cescape()): bytes outside printable ASCII in octal."""
    special = {ord("\\"): r"\\", ord('"'): r"\"", ord("'"): r"\'"}
    return "".join(
        special.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03o}") for byte in os.fsencode(name)
    )


def manager_properties(uid: int) -> dict[str, str]:
    """Return properties of user@UID.service that say how it was started and how it would be now."""
    names = ("MainPID", "LogRateLimitIntervalUSec", "LogRateLimitBurst")
    return _assignments(_output("systemctl", "show", unit_name(uid), *(f"--property={name}" for name in names)))


def configured_limit(properties: dict[str, str]) -> RateLimit | None:
    """Return the limit that user@UID.service is loaded with. There, 0 means that journald's own counts."""
    seconds = timespan(properties.get("LogRateLimitIntervalUSec") or "0")
    burst = int(properties.get("LogRateLimitBurst") or 0)
    return RateLimit(seconds, burst) if seconds and burst else None


def effective_limit(uid: int) -> RateLimit | None:
    """Return what journald uses: links that systemd creates when it starts the unit, not when it reloads files."""
    try:
        interval = os.readlink(_EXPORTED / f"log-rate-limit-interval:{unit_name(uid)}")
        burst = os.readlink(_EXPORTED / f"log-rate-limit-burst:{unit_name(uid)}")
    except FileNotFoundError:
        return None
    return RateLimit(int(interval) / 1e6, int(burst))


def drop_in_present(uid: int) -> bool:
    """Return whether a drop-in sets a limit for an account's user manager, or for every user manager of this
    machine.
    """
    directories = (f"{unit_name(uid)}.d", "user@.service.d")
    files = (file for place in _DROP_INS for name in directories for file in place.joinpath(name).glob("*.conf"))
    return any("LogRateLimitBurst" in file.read_text(errors="replace") for file in files)


def journald_settings() -> dict[str, str]:
    """journald.conf(5) with all its drop-ins, as far as something is set."""
    return _assignments(_output("systemd-analyze", "cat-config", "systemd/journald.conf"))


def journald_limit(settings: dict[str, str]) -> RateLimit:
    """Return the machine's limit for a service; without either number there is none."""
    interval = settings.get("RateLimitIntervalSec")
    burst = settings.get("RateLimitBurst")
    return RateLimit(timespan(interval) if interval else _JOURNALD_INTERVAL, int(burst) if burst else _JOURNALD_BURST)


def groups_of(pid: int) -> frozenset[int]:
    """Return the groups that a process has (proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("Groups:"):
            return frozenset(map(int, line.split()[1:]))
    return frozenset()
