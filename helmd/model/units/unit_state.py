"""What systemd says about a unit, and what that means to a person.

The words of ``UnitFacts`` are systemd's own (org.freedesktop.systemd1(5)). Times are seconds since the epoch, 0 for
never.
"""

import signal
from dataclasses import dataclass
from typing import Literal

Condition = Literal["running", "starting", "stopping", "stopped", "flapping", "failed", "unknown"]

CLD_EXITED = 1
CLD_KILLED = 2
CLD_DUMPED = 3

PROVING_SECONDS = (5.0, 30.0)
"""How long a service that systemd restarted must be up to count as running: after one restart, after several."""


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """One unit's properties, as they were when asked."""

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
    """Bytes; None where the host doesn't count them."""
    cpu_seconds: float | None = None
    start_exit: tuple[int, int] = (0, 0)
    """How the last command of ``ExecStartPre=`` that failed ended: code and status as in waitid(2)."""
    probe_exit: tuple[int, int] = (0, 0)
    """The same for ``ExecStartPost=``, the probe."""
    restart_delay: float = 0.0
    status_text: str = ""

    @property
    def exists(self) -> bool:
        return self.load_state not in ("not-found", "")

    @property
    def active(self) -> bool:
        return self.active_state in ("active", "reloading")


def condition(facts: UnitFacts, now: float) -> Condition:
    """One word for the unit's state. A service that systemd keeps restarting is never "running"."""
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
    """SIGKILL for 9, and so on."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _ended(code: int, status: int) -> str:
    if code == CLD_EXITED:
        return f"exited with code {status}"
    if code in (CLD_KILLED, CLD_DUMPED):
        core = " and dumped core" if code == CLD_DUMPED else ""
        return f"was killed by {signal_name(status)}{core}"
    return "ended"


def _bad(ended: tuple[int, int]) -> bool:
    return ended[0] != 0 and ended != (CLD_EXITED, 0)


def last_exit(facts: UnitFacts) -> str:
    """How its main process last ended; empty when it hasn't yet."""
    return _ended(facts.exit_code, facts.exit_status) if facts.exit_code else ""


def explain(facts: UnitFacts, service: str) -> str:
    """Why the unit is not running, as a sentence without its full stop: systemd's result in plain words."""
    result = facts.result
    if result == "start-limit-hit":
        return f"{service} failed too often and systemd gave up" + _last(facts)
    if result == "oom-kill":
        return f"{service} was killed for lack of memory"
    if result == "timeout" and facts.active_since < facts.started_at:
        return f"{service} was not ready in time and was killed"
    if result == "timeout":
        return f"{service} did not end in time and was killed"
    if result == "watchdog":
        return f"{service} gave no sign of life and was killed by its watchdog"
    if result == "resources":
        return f"systemd could not start {service}: a resource is missing (a directory, a limit, memory)"
    if _bad(facts.start_exit):
        return f"the preparation of {service} {_ended(*facts.start_exit)}"
    if _bad(facts.probe_exit) and facts.probe_exit[1] != 2:
        return f"{service} did not become healthy in time: its probe {_ended(*facts.probe_exit)}"
    if result in ("exit-code", "signal", "core-dump") and facts.exit_code:
        return f"{service} {_ended(facts.exit_code, facts.exit_status)}"
    if result == "success":
        return f"{service} is not running"
    return f"{service} failed ({result})"


def _last(facts: UnitFacts) -> str:
    return f"; last it {last_exit(facts)}" if facts.exit_code else ""


def retry(facts: UnitFacts) -> str:
    """What systemd will do next about a failure by itself, as a sentence; empty when nothing."""
    if facts.sub_state == "auto-restart":
        return f"systemd starts it again in {facts.restart_delay:g} s (restart {facts.restarts + 1})."
    return ""
