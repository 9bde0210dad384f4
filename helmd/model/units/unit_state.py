"""Properties of a systemd unit, and sentences that explain them.

The values in ``UnitFacts`` are systemd's own (org.freedesktop.systemd1(5)). Times are seconds since the epoch, 0 for
never.
"""

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from helmd.model.counted import counted
from helmd.model.suite.names import STOP_SIGNALS
from helmd.model.units.health import HEALTHY, UNKNOWN, HealthVerdict

if TYPE_CHECKING:
    # helmctl reads lines of the journal without it.
    from helmd.model.suite.service import Service

Condition = Literal[
    "running", "starting", "stopping", "stopped", "flapping", "failed", "succeeded", "scheduled", "unknown"
]

CLD_EXITED = 1
CLD_KILLED = 2
CLD_DUMPED = 3

WAITING = "waiting: "
"""How the status of helmd-journal begins while it stores nothing."""

BEGAN_SLACK = 0.5
"""Seconds by which a line of a run may be older than ``UnitFacts.begun_at``, which systemd takes after the fork.

Lines of earlier runs are recognized by the invocation's id, as far as journald knows that.
"""

PROVING_SECONDS = (5.0, 30.0)
"""Seconds for which a restarted service must be active to count as running: after one restart, after several."""


class CommandExit(NamedTuple):
    """How a command of a unit ended, such as one of ``ExecStartPre=``; ``code`` is 0 if none has.

    Code and status are those of waitid(2), ``words`` is its command line.
    """

    code: int = 0
    status: int = 0
    words: tuple[str, ...] = ()
    began: float = 0.0

    @property
    def failed(self) -> bool:
        return self.code != 0 and (self.code, self.status) != (CLD_EXITED, 0)

    @property
    def asked_to_end(self) -> bool:
        """Whether it ended by a signal as a stop sends it (``stop_signal``) to the commands of a unit that starts."""
        return self.code in (CLD_KILLED, CLD_DUMPED) and signal_name(self.status) in STOP_SIGNALS


_NOT_ENDED = CommandExit()


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
    """When the main process last started."""
    begun_at: float = 0.0
    """When the last start began, with the first of its ``ExecStartPre=`` commands."""
    ended_at: float = 0.0
    """When the main process last ended."""
    invocation: str = ""
    control_group: str = ""
    memory: int | None = None
    """Bytes; None if the host has no memory accounting."""
    cpu_seconds: float | None = None
    start_exit: CommandExit = _NOT_ENDED
    """The last ``ExecStartPre=`` command that ran."""
    probe_exit: CommandExit = _NOT_ENDED
    """The same for ``ExecStartPost=``, which is the probe."""
    reload_exit: CommandExit = _NOT_ENDED
    """The same for ``ExecReload=``."""
    reload_result: str = "success"
    restart_delay: float = 0.0
    status_text: str = ""
    oneshot: bool = False
    """Whether it is of ``Type=oneshot``: it is activating while it runs, and then succeeds or fails."""
    timer: str = ""
    """The sub-state of the timer that starts it: waiting, running, elapsed, dead or failed; empty without one."""
    next_run: float = 0.0
    """When that timer starts it next."""

    @property
    def exists(self) -> bool:
        return self.load_state not in ("not-found", "")

    @property
    def active(self) -> bool:
        return self.active_state in ("active", "reloading")

    @property
    def scheduled(self) -> bool:
        """Whether a timer that starts it is on."""
        return self.timer in ("waiting", "running", "elapsed")

    @property
    def runs(self) -> bool:
        """Whether its processes run, and have started where it is one that stays."""
        if self.oneshot:
            return _oneshot_condition(self) == "running"
        return self.active and self.sub_state != "exited"

    @property
    def stopped_at_start(self) -> bool:
        """Whether a stop ended its start, which is a failure for systemd."""
        ended = self.start_exit if self.start_exit.failed else self.probe_exit
        return self.active_state == "failed" and self.result in ("signal", "core-dump") and ended.asked_to_end

    @property
    def awaits_restart(self) -> bool:
        """Whether systemd is to restart it: after RestartSec, or when its queued job can run (since systemd 254)."""
        return self.sub_state in ("auto-restart", "auto-restart-queued")

    @property
    def running_since(self) -> float:
        """Since when it `runs`; 0 if it doesn't."""
        return (self.started_at if self.oneshot else self.active_since) if self.runs else 0.0


def condition(facts: UnitFacts, now: float) -> Condition:
    """Return the unit's condition. A service that systemd keeps restarting is "flapping", never "running"."""
    if facts.oneshot and (word := _oneshot_condition(facts)):
        return word
    if facts.active_state in ("active", "reloading"):
        proving = PROVING_SECONDS[min(facts.restarts, len(PROVING_SECONDS)) - 1]
        return "flapping" if facts.restarts and now - facts.active_since < proving else "running"
    if facts.active_state == "activating":
        return "flapping" if facts.restarts or facts.awaits_restart else "starting"
    if facts.active_state == "deactivating":
        return "stopping"
    if facts.active_state == "failed":
        return "failed"
    return "stopped" if facts.active_state == "inactive" else "unknown"


def _oneshot_condition(facts: UnitFacts) -> Condition | None:
    """Return what a oneshot does where that differs from a service that stays; else None."""
    if facts.active:
        return "succeeded" if facts.sub_state == "exited" else "running"
    if facts.active_state == "activating" and not facts.awaits_restart:
        return "running"
    return "scheduled" if facts.active_state == "inactive" and facts.scheduled else None


def oneshot_sentence(facts: UnitFacts) -> str:
    """Return what a oneshot that works does, or did, as a sentence without full stop; empty if it does not work."""
    word = _oneshot_condition(facts)
    if word == "running":
        return f"running since {sentence_time(facts.started_at)}" if facts.started_at else "running"
    if word == "succeeded":
        return f"succeeded at {sentence_time(facts.ended_at)}"
    if word == "scheduled":
        return "; ".join(part for part in (next_run(facts), _last_run(facts)) if part)
    return ""


def oneshot_verdict(facts: UnitFacts) -> HealthVerdict | None:
    """Return the verdict on a oneshot that runs, has succeeded or waits for its schedule; else None."""
    sentence = oneshot_sentence(facts) if facts.oneshot else ""
    return HealthVerdict(HEALTHY, sentence) if sentence else None


def sum_up(external: bool, facts: UnitFacts, verdict: HealthVerdict, now: float) -> str:
    """Return a service's state in one word, from its unit and its health check. NOW is seconds since the epoch."""
    if external:
        return verdict.state
    word = condition(facts, now)
    if word == "running" and not facts.oneshot and verdict.state != UNKNOWN:
        return verdict.state
    return word


def next_run(facts: UnitFacts) -> str:
    """Return when the unit's timer starts it next, as a sentence without full stop; empty if that is off."""
    if facts.timer == "elapsed":
        return "its schedule has no further time"
    if facts.scheduled and facts.next_run:
        return f"next run at {sentence_time(facts.next_run)}"
    return "it runs now" if facts.timer == "running" else ""


def _last_run(facts: UnitFacts) -> str:
    if not facts.ended_at:
        return ""
    how = "succeeded" if (facts.exit_code, facts.exit_status) == (CLD_EXITED, 0) else last_exit(facts)
    return f"the last {how} at {sentence_time(facts.ended_at)}"


def shown_time(seconds: float) -> str:
    """Return a time (seconds since the epoch) as commands show it: in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def sentence_time(seconds: float) -> str:
    """Return a time for a sentence that is read elsewhere as well, by clients of the API: in UTC, which it says."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


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


def last_exit(facts: UnitFacts) -> str:
    """Return how the main process last ended, such as "exited with code 1"; empty if it has not ended yet."""
    return _describe_exit(facts.exit_code, facts.exit_status) if facts.exit_code else ""


def _start_command(facts: UnitFacts, service: str, pre_start: Sequence[str]) -> str:
    """Return what to call the ``ExecStartPre=`` command that failed: the service's own by its setting."""
    words = facts.start_exit.words
    if pre_start and words and words[0].rpartition("/")[2] == pre_start[0].rpartition("/")[2]:
        return f"the pre_start command of {service} ({pre_start[0]})"
    return f"a start-up command of {service}"


def explain(facts: UnitFacts, service: str, pre_start: Sequence[str] = ()) -> str:
    """Return why the unit is not running, as a sentence without full stop, by systemd's Result.

    PRE_START is that setting of the service.
    """
    result, start = facts.result, facts.start_exit
    command = _start_command(facts, service, pre_start)
    if result == "start-limit-hit":
        ended = f"; {command} last {_describe_exit(start.code, start.status)}" if start.failed else ""
        return f"{service} failed too often and systemd gave up{ended or _last_exit_suffix(facts)}"
    if result == "timeout" and start.failed:
        return f"{command} did not end in time and was killed"
    if result == "oom-kill":
        return f"{service} was killed by the OOM killer"
    if result == "timeout" and facts.oneshot:
        return f"{service} did not end in time and was killed"
    if result == "timeout" and facts.active_since < facts.begun_at:
        return f"{service} was not ready in time and was killed"
    if result == "timeout":
        return f"{service} did not stop in time and was killed"
    if result == "watchdog":
        return f"{service} did not respond and was killed by its watchdog"
    if result == "resources":
        return f"systemd could not start {service}: a resource is missing (a directory, a limit, memory)"
    if start.failed:
        return f"{command} {_describe_exit(start.code, start.status)}"
    if (probe := facts.probe_exit).failed and probe.status != 2 and not probe.asked_to_end:
        return f"{service} did not become healthy in time: its probe {_describe_exit(probe.code, probe.status)}"
    if result in ("exit-code", "signal", "core-dump") and facts.exit_code:
        return f"{service} {_describe_exit(facts.exit_code, facts.exit_status)}"
    if facts.active_state == "activating" and not facts.awaits_restart:
        return f"{service} is starting again"
    if result == "success":
        return f"{service} is not running"
    return f"{service} failed ({result})"


def foreground_hint(facts: UnitFacts) -> str:
    """Return what to check, as a sentence, if the main process of a service ended with code 0; else an empty string."""
    stopped = facts.result == "timeout" or (facts.probe_exit.failed and facts.probe_exit.status != 2)
    ended = (facts.exit_code, facts.exit_status) == (CLD_EXITED, 0) and not stopped
    if facts.oneshot or facts.start_exit.failed or not ended:
        return ""
    return (
        "A program must stay in the foreground: leave out what sends it to the background, such as --daemon;"
        ' one that runs to its end needs type = "oneshot".'
    )


def _last_exit_suffix(facts: UnitFacts) -> str:
    return f"; it last {last_exit(facts)}" if facts.exit_code else ""


def reload_failure(facts: UnitFacts, reload_command: Sequence[str]) -> str:
    """Return why a reload failed, as a sentence without full stop; empty if systemd does not say.

    RELOAD_COMMAND is that setting of the service.
    """
    command = f"its reload_command ({reload_command[0]})" if reload_command else "its reload command"
    if facts.reload_result == "timeout":
        return f"{command} did not end in time and was killed"
    ended = facts.reload_exit
    return f"{command} {_describe_exit(ended.code, ended.status)}" if ended.failed else ""


def daemon_trouble(facts: UnitFacts, now: float) -> str:
    """Return what is wrong with a unit of Helm's own that should run, as a sentence; empty if nothing is."""
    word = condition(facts, now)
    if word == "running" or not facts.exists:
        return ""
    if word == "flapping":
        times = f"systemd has restarted it {counted(facts.restarts, 'time')}" if facts.restarts else "it ended at once"
        return f"{facts.unit} is flapping: {times}{_last_exit_suffix(facts)}"
    return f"{facts.unit} has failed: {explain(facts, facts.unit)}" if word == "failed" else f"{facts.unit} is {word}"


def waiting_for(facts: UnitFacts) -> str:
    """Return why helmd-journal stores nothing at present, from its status; empty if it does."""
    return facts.status_text.removeprefix(WAITING).partition("; ")[0] if facts.status_text.startswith(WAITING) else ""


def retry(facts: UnitFacts, service: "Service | None" = None) -> str:
    """Return what systemd will do next after a failure, as a sentence; empty if nothing.

    With SERVICE it says so if systemd would never give up on starts that take as long as the last one.
    """
    if not facts.awaits_restart:
        return ""
    sentence = f"systemd restarts it in {facts.restart_delay:g} s (restart {facts.restarts + 1})"
    took = max(0.0, facts.changed_at - facts.begun_at)
    if service is not None and not service.gives_up(took):
        limit = f"restart.burst = {service.restart.burst} starts in restart.within = {service.start_interval:g} s"
        sentence += f", and again without end: starts that fail after {took:.0f} s never reach {limit}"
    return f"{sentence}."
