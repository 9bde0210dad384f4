"""A unit that watches each change of a module, and completes or rolls it back if that is killed.

It waits for the module's lock, which the kernel releases however its holder ends (flock(2)). So it is
always notified, and never runs concurrently with the change. After a completed change it does nothing.
"""

import os

from helmd.model.layout import Layout
from helmd.systemd.bus import Manager, UnitProperty

_FLOCK = "/usr/bin/flock"
_WAIT = '"$1" "$2" /bin/true; exec "$3" modules recover "$4"'
_RETRY_SECONDS, _TRIES, _WITHIN_SECONDS = 15.0, 20, 3600.0
"""A recovery that fails, for example since PostgreSQL is unavailable, is repeated."""


def guard_unit(name: str) -> str:
    """Return a unique name for the unit that watches a change of the module NAME."""
    return f"helm-guard-{name}-{os.urandom(4).hex()}.service"


def guard_properties(layout: Layout, name: str) -> list[UnitProperty]:
    """Return the properties of that unit."""
    words = ["/bin/sh", "-c", _WAIT, "sh", _FLOCK, str(layout.module(name).lock), str(layout.helmctl), name]
    return [
        UnitProperty("Description", "s", f"HiveMatrix Helm: goes on with a change of {name} that is killed"),
        UnitProperty("Type", "s", "exec"),
        UnitProperty("CollectMode", "s", "inactive-or-failed"),
        UnitProperty("Restart", "s", "on-failure"),
        UnitProperty("RestartUSec", "t", int(_RETRY_SECONDS * 1e6)),
        UnitProperty("StartLimitIntervalUSec", "t", int(_WITHIN_SECONDS * 1e6)),
        UnitProperty("StartLimitBurst", "u", _TRIES),
        UnitProperty("MemoryMax", "t", 512 << 20),
        UnitProperty("TasksMax", "t", 64),
        UnitProperty("NoNewPrivileges", "b", True),
        UnitProperty("SyslogIdentifier", "s", "hivematrix-recover"),
        UnitProperty("ExecStart", "a(sasb)", [(words[0], words, False)]),
    ]


def watch_over(layout: Layout, manager: Manager, name: str) -> None:
    """Start the unit that recovers an interrupted change of a module once its lock is free. Raises BusError."""
    manager.start_transient(guard_unit(name), guard_properties(layout, name))
