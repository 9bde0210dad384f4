"""What can be said about one service: its unit's files, its probe, its processes."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

from helmd.health.thread_pool import ThreadPool
from helmd.model.api.details import ProbeReply, ProcessesReply, ServiceProcess, UnitFile, UnitReply
from helmd.model.suite.names import unit_of
from helmd.model.units.status import Observed, health_of
from helmd.systemd.installed import read_unit
from helmd.systemd.usage import CGROUPS

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1 << 20


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
    """The unit of a service that has one."""
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
    """How a service's health is found out. NOW is seconds since the epoch, CLOCK time.monotonic()."""
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


def processes_reply(observed: Observed, root: Path = CGROUPS, proc: Path = Path("/proc")) -> ProcessesReply:
    """The processes in the control group of a service; those that end meanwhile are left out."""
    group = observed.facts.control_group
    pids = sorted(_pids(root / group.lstrip("/"))) if group else []
    found = (_process(pid, proc) for pid in pids)
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


def _process(pid: int, proc: Path) -> ServiceProcess | None:
    """From /proc/PID/stat (proc(5)); None for a process that has ended."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
        since_boot = float((proc / "uptime").read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name is in parentheses and may have some itself.
    before, _, after = text.rpartition(")")
    fields = after.split()
    age = since_boot - int(fields[19]) / _TICKS
    return ServiceProcess(
        pid=pid,
        parent_pid=int(fields[1]),
        program=before.partition("(")[2],
        state=fields[0],
        threads=int(fields[17]),
        memory_mb=round(int(fields[21]) * _PAGE / _MIB, 1),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
        started_at=datetime.fromtimestamp(time.time() - age, UTC),
    )
