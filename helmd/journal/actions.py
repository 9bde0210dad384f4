"""Helm's own actions, written to the journal as structured entries; from there they reach the log store like any line.

``journalctl --user HIVEMATRIX_ACTION=restart`` finds them, ``journalctl --user-unit hivematrix-NAME`` shows them among
what systemd says about the unit. They are signed; `helmd.model.ingest.own_entries` verifies and reads them.
"""

import os
import time
from typing import TYPE_CHECKING, Literal

from helmd.journal.keys import JournalKeys
from helmd.model.identity.origin import Origin
from helmd.model.ingest.signature import REQUEST
from helmd.model.suite.names import unit_of

if TYPE_CHECKING:
    from helmd.model.identity.audit import AuditedChange

Actor = Literal["helmctl", "helmd"]

BEGAN = "HIVEMATRIX_BEGAN"
"""The start time of the command, in microseconds since 1970."""
_BAD_RESULTS = frozenset({"failed", "killed", "skipped", "timeout", "refused"})
_WARNING, _INFO = 4, 6


def sentence(action: str, service: str, result: str, reason: str, on_behalf_of: str) -> str:
    """Return the entry's message: ``restart core: done, for hive: its health check failed 4 times in a row``."""
    said = f"{action} {service}: {result}" if service else f"{action}: {result}"
    if on_behalf_of:
        said += f", for {on_behalf_of}"
    return f"{said}: {reason}" if reason else said


def record(
    keys: JournalKeys,
    action: str,
    service: str,
    result: str,
    reason: str = "",
    *,
    actor: Actor,
    on_behalf_of: str = "",
    detail: str = "",
    origin: Origin | None = None,
) -> None:
    """Record, signed with KEYS, that ACTOR did ACTION (start, stop, restart, ...) to SERVICE (empty for Helm itself).

    RESULT is one word (done, failed, ...), REASON why it was done, DETAIL the outcome. ON_BEHALF_OF is the person,
    ORIGIN from where they asked for it.
    Never raises: an action must not fail because the journal is unavailable.
    """
    # Not systemd.journal, whose import takes 24 ms: this runs at the end of every helmctl start and stop.
    from systemd._journal import sendv

    fields = {
        "MESSAGE": sentence(action, service, result, reason, on_behalf_of),
        "PRIORITY": str(_WARNING if result in _BAD_RESULTS else _INFO),
        "SYSLOG_IDENTIFIER": actor,
        REQUEST: os.urandom(16).hex(),
        "HIVEMATRIX_ACTION": action,
        "HIVEMATRIX_SERVICE": service,
        "HIVEMATRIX_RESULT": result,
        "HIVEMATRIX_REASON": reason,
        "HIVEMATRIX_ACTOR": on_behalf_of or actor,
        "HIVEMATRIX_DETAIL": detail,
        "USER_UNIT": unit_of(service) if service else "",
        BEGAN: str(_process_began()) if actor == "helmctl" else "",
    }
    if origin is not None:
        fields |= {f"HIVEMATRIX_{name.upper()}": value for name, value in origin._asdict().items()}
    try:
        sendv(*keys.sign(fields))
    except OSError:
        return


def record_change(keys: JournalKeys, change: "AuditedChange", actor: Actor) -> None:
    """Record CHANGE, made by ACTOR, as `record` does."""
    record(
        keys,
        change.action,
        change.service,
        change.result,
        change.reason,
        actor=actor,
        on_behalf_of=change.actor,
        detail=change.detail,
        origin=change.origin,
    )


def _process_began() -> int:
    """Return when this process was started, in microseconds since 1970 (proc(5), starttime)."""
    with open("/proc/self/stat") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return round((time.time() - age) * 1_000_000)
