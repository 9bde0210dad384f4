"""The facts about a unit, made of its properties as D-Bus has them (org.freedesktop.systemd1(5))."""

from collections.abc import Mapping
from typing import Any

from helmd.model.units.unit_state import CommandExit, UnitFacts

NO_MEMORY_FIGURE = (1 << 64) - 1
NEVER = (1 << 64) - 1
"""A time that will not come."""
UNIT_INTERFACE = b"org.freedesktop.systemd1.Unit"
_SERVICE_INTERFACE = b"org.freedesktop.systemd1.Service"
FACT_PROPERTIES = {
    UNIT_INTERFACE: (
        b"ActiveEnterTimestamp",
        b"ActiveState",
        b"CanReload",
        b"DropInPaths",
        b"FragmentPath",
        b"InvocationID",
        b"Job",
        b"LoadState",
        b"NeedDaemonReload",
        b"StateChangeTimestamp",
        b"SubState",
        b"TriggeredBy",
        b"UnitFileState",
    ),
    _SERVICE_INTERFACE: (
        b"CPUUsageNSec",
        b"ControlGroup",
        b"ExecMainCode",
        b"ExecMainExitTimestamp",
        b"ExecMainStartTimestamp",
        b"ExecMainStatus",
        b"ExecReload",
        b"ExecStartPost",
        b"ExecStartPre",
        b"MainPID",
        b"MemoryCurrent",
        b"NRestarts",
        b"ReloadResult",
        b"RestartUSec",
        b"Result",
        b"StatusText",
        b"Type",
    ),
}
"""The properties of a service that `facts_of` uses, by interface."""


def dbus_text(value: Any) -> str:
    """A D-Bus string as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _ended(commands: Any) -> CommandExit:
    """How the last of COMMANDS ended that ran and whose failure counts (the type of ``ExecStartPre`` and its like)."""
    for _, words, ignored, began, _, _, _, _, code, status in reversed(commands or ()):
        if code and not ignored:
            return CommandExit(code, status, tuple(map(dbus_text, words)), began / 1e6)
    return CommandExit()


def facts_of(unit: str, found: Mapping[bytes, Any], timer: Mapping[bytes, Any]) -> UnitFacts:
    """The facts that a unit's properties hold, and those of the timer that starts it, if it has one."""

    def text(name: bytes) -> str:
        return dbus_text(found.get(name, b""))

    def seconds(name: bytes) -> float:
        return float(found.get(name, 0)) / 1e6

    memory = found.get(b"MemoryCurrent", NO_MEMORY_FIGURE)
    cpu = found.get(b"CPUUsageNSec", NO_MEMORY_FIGURE)
    job = found.get(b"Job", (0, b"/"))
    start_commands = found.get(b"ExecStartPre") or ()
    due = int(timer.get(b"NextElapseUSecRealtime", 0))
    return UnitFacts(
        unit=unit,
        load_state=text(b"LoadState"),
        active_state=text(b"ActiveState"),
        sub_state=text(b"SubState"),
        result=text(b"Result") or "success",
        file_state=text(b"UnitFileState"),
        fragment=text(b"FragmentPath"),
        drop_ins=tuple(dbus_text(path) for path in found.get(b"DropInPaths", ())),
        need_reload=bool(found.get(b"NeedDaemonReload", False)),
        can_reload=bool(found.get(b"CanReload", False)),
        job=dbus_text(job[1]) if job[0] else "",
        main_pid=int(found.get(b"MainPID", 0)),
        exit_code=int(found.get(b"ExecMainCode", 0)),
        exit_status=int(found.get(b"ExecMainStatus", 0)),
        restarts=int(found.get(b"NRestarts", 0)),
        active_since=seconds(b"ActiveEnterTimestamp"),
        changed_at=seconds(b"StateChangeTimestamp"),
        started_at=seconds(b"ExecMainStartTimestamp"),
        # systemd forgets about the commands when it reloads its configuration.
        begun_at=(start_commands[0][3] / 1e6 if start_commands else 0.0) or seconds(b"ExecMainStartTimestamp"),
        ended_at=seconds(b"ExecMainExitTimestamp"),
        invocation=bytes(found.get(b"InvocationID", ())).hex(),
        control_group=text(b"ControlGroup"),
        memory=None if memory == NO_MEMORY_FIGURE else int(memory),
        cpu_seconds=None if cpu == NO_MEMORY_FIGURE else cpu / 1e9,
        start_exit=_ended(start_commands),
        probe_exit=_ended(found.get(b"ExecStartPost")),
        reload_exit=_ended(found.get(b"ExecReload")),
        reload_result=text(b"ReloadResult") or "success",
        restart_delay=seconds(b"RestartUSec"),
        status_text=text(b"StatusText"),
        oneshot=text(b"Type") == "oneshot",
        timer=dbus_text(timer.get(b"SubState", b"")),
        next_run=0.0 if due == NEVER else due / 1e6,
    )
