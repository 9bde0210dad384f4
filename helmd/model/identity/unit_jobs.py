"""Jobs of systemd that were not queued by Helm, but with systemctl(1) or another program.

systemd writes to the journal that a job began and ended, but not who asked for it. Left out is what happens without
anybody: automatic restarts, what the user manager starts when it starts itself and stops when it ends, and runs of
services with a schedule.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STARTUP_FINISHED = "eed00a68ffd84e31882105fd973abdd1"
RESTART_SCHEDULED = "5eb03494b6584870a536b337290809b3"
"""Message ids (sd-messages.h)."""
_END_UNITS = frozenset({"exit.target", "shutdown.target"})
_EARLY, _LATE = 1_000_000, 3_000_000
"""Microseconds by which a job may precede the command that caused it, and follow the record of that."""
_ENDING = 120_000_000
"""Microseconds before its end in which the user manager stops units."""
MESSAGE_IDS = (
    STARTUP_FINISHED,
    RESTART_SCHEDULED,
    "7d4958e842da4a758f6c1cdc7b36dcc5",
    "39f53479d3a045ac8e11786248231fbf",
    "be02cf6855d2428ba40df7e9d022f03d",
    "de5b426a63be47a7b6ac3eaac82e2f6f",
    "9d1aaa27d60140bd96365438aad20286",
)
"""Those of all lines that matter here; the others say that a job begins to start or stop a unit, or has ended."""
_ACTIONS = ("restart", "stop", "start")
"""Types of jobs that change whether a unit runs; the first that a line of a job has is what the job was to do."""


@dataclass(frozen=True, slots=True)
class ManagerLine:
    """A line of a user manager. MANAGER identifies it by boot and pid; times are microseconds since 1970."""

    manager: str
    time: int
    unit: str
    job: str = ""
    kind: str = ""
    """What the job is to do (JOB_TYPE=)."""
    result: str = ""
    """How it ended (JOB_RESULT=); empty before."""
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class OwnOperation:
    """What Helm recorded about a unit: a command that began and was recorded at these times."""

    unit: str
    """Empty for a command that may concern all, such as ``helmctl apply``."""
    began: int
    written: int

    def explains(self, job: "UnitJob") -> bool:
        if not self.unit:
            return self.began <= job.began <= self.written
        return self.unit == job.unit and self.began - _EARLY <= job.began <= self.written + _LATE


@dataclass(frozen=True, slots=True)
class UnitJob:
    """A job that has ended. RESULT is systemd's: ``done``, ``failed``, ``timeout``, ..."""

    unit: str
    action: str
    result: str
    began: int
    ended: int


def jobs_outside_helm(lines: Sequence[ManagerLine], own: Iterable[OwnOperation]) -> list[UnitJob]:
    """Return the jobs in LINES (the oldest first) that none of Helm's OWN operations explains, in the order of their
    ends.
    """
    operations = list(own)
    finished = {line.manager: line.time for line in lines if line.message_id == STARTUP_FINISHED}
    ends = {line.manager: line.time for line in lines if line.unit in _END_UNITS and line.kind == "start"}
    restarting: set[tuple[str, str]] = set()
    open_jobs: dict[tuple[str, str], list[ManagerLine]] = {}
    found = []
    for line in lines:
        if line.message_id == RESTART_SCHEDULED:
            restarting.add((line.manager, line.unit))
        if not line.job or not line.unit.endswith(".service"):
            continue
        key = (line.manager, line.job)
        open_jobs.setdefault(key, []).append(line)
        # The end of a restart's first half has the type restart, and the job continues as a start.
        if not line.result or (line.kind == "restart" and line.result == "done"):
            continue
        of_job = open_jobs.pop(key)
        automatic = (line.manager, line.unit) in restarting
        restarting.discard((line.manager, line.unit))
        job = _job(of_job)
        starting = job is not None and job.began <= finished.get(line.manager, 0)
        ending = job is not None and job.action == "stop" and job.began + _ENDING >= ends.get(line.manager, 1 << 62)
        if job is None or automatic or starting or ending or any(each.explains(job) for each in operations):
            continue
        found.append(job)
    return found


def _job(lines: Sequence[ManagerLine]) -> UnitJob | None:
    """Return the job that LINES are about, or None for a kind that changes nothing by itself, such as a reload."""
    kinds = {line.kind for line in lines}
    action = next((each for each in _ACTIONS if each in kinds), None)
    if action is None:
        return None
    last = lines[-1]
    return UnitJob(last.unit, action, last.result, lines[0].time, last.time)
