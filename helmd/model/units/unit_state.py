"""Properties of a systemd unit, and sentences that explain them.

The values in ``UnitFacts`` are systemd's own (org.freedesktop.systemd1(5)). Times are seconds since the epoch, 0 for
never.
"""

import signal
from dataclasses import dataclass
from typing import Literal

from helmd.model.suite.service import Service

Condition = Literal["running", "starting", "stopping", "stopped", "flapping", "failed", "unknown"]

CLD_EXITED = 1
CLD_KILLED = 2
CLD_DUMPED = 3

WAITING = "waiting: "
"""How the status of helmd-journal begins while it stores nothing."""

PROVING_SECONDS = (5.0, 30.0)
"""Seconds for which a restarted service must be active to count as running: after one restart, after several."""


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """A snapshot of one unit's properties."""

    unit: str
    load_state: str = "not-found"
    active_state: str = "inactive"
    sub_state: str = "dead"
    result: str = "success"
    file_state: str = ""
    fragment: str = ""
    drop_ins: tuple[str, ...] = ()
    need_reload: bool = False
    can_reload: bool = False
    job: str = ""
    main_pid: int = 0
    exit_code: int = 0
    exit_status: int = 0
    restarts: int = 0
    active_since: float = 0.0
    changed_at: float = 0.0
    started_at: float = 0.0
    invocation: str = ""
    control_group: str = ""
    memory: int | None = None
    """Bytes; None if the host has no memory accounting."""
    cpu_seconds: float | None = None
    start_exit: tuple[int, int] = (0, 0)
    """Code and status, as in waitid(2), of the last failed ``ExecStartPre=`` command."""
    probe_exit: tuple[int, int] = (0, 0)
    """The same for ``ExecStartPost=``, which is the probe."""
    restart_delay: float = 0.0
    status_text: str = ""

    @property
    def exists(self) -> bool:
        return self.load_state not in ("not-found", "")

    @property
    def active(self) -> bool:
        return self.active_state in ("active", "reloading")


def condition(facts: UnitFacts, now: float) -> Condition:
    """Return the unit's condition. A service that systemd keeps restarting is "flapping", never "running"."""
    if facts.active_state in ("active", "reloading"):
        proving = PROVING_SECONDS[min(facts.restarts, len(PROVING_SECONDS)) - 1]
        return "flapping" if facts.restarts and now - facts.active_since < proving else "running"
    if facts.active_state == "activating":
        return "flapping" if facts.restarts or facts.sub_state == "auto-restart" else "starting"
    if facts.active_state == "deactivating":
        return "stopping"
    if facts.active_state == "failed":
        return "failed"
    return "stopped" if facts.active_state == "inactive" else "unknown"


def signal_name(number: int) -> str:
    """Return the name of a signal, such as SIGKILL for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _describe_exit(code: int, status: int) -> str:
    if code == CLD_EXITED:
        return f"exited with code {status}"
    if code in (CLD_KILLED, CLD_DUMPED):
        core = " and dumped core" if code == CLD_DUMPED else ""
        return f"was killed by {signal_name(status)}{core}"
    return "ended"


def _failed(exit_state: tuple[int, int]) -> bool:
    return exit_state[0] != 0 and exit_state != (CLD_EXITED, 0)


def last_exit(facts: UnitFacts) -> str:
    """Return how the main process last ended, such as "exited with code 1"; empty if it has not ended yet."""
    return _describe_exit(facts.exit_code, facts.exit_status) if facts.exit_code else ""


def explain(facts: UnitFacts, service: str) -> str:
    """Return why the unit is not running, as a sentence without full stop, by systemd's Result."""
    result = facts.result
    if result == "start-limit-hit":
        return f"{service} failed too often and systemd gave up" + _last_exit_suffix(facts)
    if result == "oom-kill":
        return f"{service} was killed by the OOM killer"
    if result == "timeout" and facts.active_since < facts.started_at:
        return f"{service} was not ready in time and was killed"
    if result == "timeout":
        return f"{service} did not stop in time and was killed"
    if result == "watchdog":
        return f"{service} did not respond and was killed by its watchdog"
    if result == "resources":
        return f"systemd could not start {service}: a resource is missing (a directory, a limit, memory)"
    if _failed(facts.start_exit):
        return f"a start-up command of {service} {_describe_exit(*facts.start_exit)}"
    if _failed(facts.probe_exit) and facts.probe_exit[1] != 2:
        return f"{service} did not become healthy in time: its probe {_describe_exit(*facts.probe_exit)}"
    if result in ("exit-code", "signal", "core-dump") and facts.exit_code:
        return f"{service} {_describe_exit(facts.exit_code, facts.exit_status)}"
    if result == "success":
        return f"{service} is not running"
    return f"{service} failed ({result})"


def _last_exit_suffix(facts: UnitFacts) -> str:
    return f"; it last {last_exit(facts)}" if facts.exit_code else ""


def waiting_for(facts: UnitFacts) -> str:
    """Return why helmd-journal stores nothing at present, from its status; empty if it does."""
    return facts.status_text.removeprefix(WAITING).partition("; ")[0] if facts.status_text.startswith(WAITING) else ""


def retry(facts: UnitFacts, service: Service | None = None) -> str:
    """Return what systemd will do next after a failure, as a sentence; empty if nothing.

    With SERVICE it says so if systemd would never give up on starts that take as long as the last one.
    """
    if facts.sub_state != "auto-restart":
        return ""
    sentence = f"systemd restarts it in {facts.restart_delay:g} s (restart {facts.restarts + 1})"
    took = max(0.0, facts.changed_at - facts.started_at)
    if service is not None and not service.gives_up(took):
        limit = f"restart.burst = {service.restart.burst} starts in restart.within = {service.start_interval:g} s"
        sentence += f", and again without end: starts that fail after {took:.0f} s never reach {limit}"
    return f"{sentence}."
