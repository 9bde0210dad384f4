"""What can be said about one service: its unit's files, its probe, its processes."""

import os
from datetime import UTC, datetime
from pathlib import Path

import psutil

from helmd.health.thread_pool import ThreadPool
from helmd.model.api.details import ProbeReply, ProcessesReply, ServiceProcess, UnitFile, UnitReply
from helmd.model.suite.names import unit_of
from helmd.model.units.status import Observed, health_of
from helmd.systemd.installed import read_unit
from helmd.systemd.usage import CGROUPS

_MIB = 1 << 20
_STATES = {
    psutil.STATUS_RUNNING: "R",
    psutil.STATUS_SLEEPING: "S",
    psutil.STATUS_DISK_SLEEP: "D",
    psutil.STATUS_STOPPED: "T",
    psutil.STATUS_TRACING_STOP: "t",
    psutil.STATUS_ZOMBIE: "Z",
    psutil.STATUS_IDLE: "I",
}


class ServiceFiles:
    """What is read from files, in threads: a file system that hangs holds up nothing else."""

    def __init__(self) -> None:
        self._threads = ThreadPool(4)

    async def unit(self, observed: Observed) -> UnitReply:
        """As `unit_reply`."""
        return await self._threads.run(lambda: unit_reply(observed))

    async def processes(self, observed: Observed) -> ProcessesReply:
        """As `processes_reply`."""
        return await self._threads.run(lambda: processes_reply(observed))


def unit_reply(observed: Observed) -> UnitReply:
    """Return the unit of a service that has one."""
    facts = observed.facts
    paths = [path for path in (facts.fragment, *facts.drop_ins) if path]
    return UnitReply(
        service_name=observed.name,
        unit=facts.unit or unit_of(observed.name),
        load_state=facts.load_state,
        active_state=facts.active_state,
        sub_state=facts.sub_state,
        file_state=facts.file_state,
        result=facts.result,
        need_daemon_reload=facts.need_reload,
        invocation_id=facts.invocation or None,
        control_group=facts.control_group or None,
        files=tuple(UnitFile(path, _text(path)) for path in paths),
    )


def _text(path: str) -> str | None:
    try:
        return read_unit(Path(path))
    except OSError:
        return None


def probe_reply(observed: Observed, now: float, clock: float) -> ProbeReply:
    """Return how a service's health is found out. NOW is seconds since the epoch, CLOCK time.monotonic()."""
    health = None if observed.service is None else observed.service.health
    requests = health is not None and health.check == "http"
    verdict = health_of(observed, now)
    return ProbeReply(
        service_name=observed.name,
        check=health.check if health else None,
        path=health.path if health and requests else None,
        start_path=health.start_path if health and requests else None,
        interval_seconds=health.interval if health else None,
        timeout_seconds=health.timeout if health else None,
        health=verdict.state,
        health_message=verdict.sentence,
        response_ms=observed.response_ms,
        consecutive_failures=observed.failures,
        checked_seconds_ago=round(clock - observed.checked_at, 1) if observed.verdict is not None else None,
    )


def processes_reply(observed: Observed, root: Path = CGROUPS) -> ProcessesReply:
    """Return the processes in the control group of a service; those that end meanwhile are left out."""
    group = observed.facts.control_group
    pids = sorted(_pids(root / group.lstrip("/"))) if group else []
    found = (_process(pid) for pid in pids)
    return ProcessesReply(observed.name, tuple(each for each in found if each is not None))


def _pids(group: Path) -> set[int]:
    found: set[int] = set()
    for directory, _, files in os.walk(group):
        if "cgroup.procs" in files:
            try:
                found.update(map(int, Path(directory, "cgroup.procs").read_text().split()))
            except OSError:  # the group is gone
                continue
    return found


def _process(pid: int) -> ServiceProcess | None:
    """Return a process, or None if it has ended."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return ServiceProcess(
                pid=pid,
                parent_pid=process.ppid(),
                program=process.name(),
                state=_STATES.get(process.status(), "?"),
                threads=process.num_threads(),
                memory_mb=round(process.memory_info().rss / _MIB, 1),
                cpu_seconds=round(times.user + times.system, 2),
                started_at=datetime.fromtimestamp(process.create_time(), UTC),
            )
    except psutil.Error:
        return None
