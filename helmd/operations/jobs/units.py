"""The transient unit of a job: its limits, how it is started and removed (org.freedesktop.systemd1(5))."""

from helmd.model.errors import BusError
from helmd.model.jobs.record import JobRequest, job_unit
from helmd.model.layout import Layout
from helmd.model.suite.names import identifier_of, service_of
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.jobs.process import job_words
from helmd.systemd.bus import Manager, UnitProperty

RUNTIME_SECONDS = 3600.0
"""After which a job is stopped, and has failed."""
STOP_SECONDS = 10.0
"""Between SIGTERM and SIGKILL."""
TAKE_BACK_SECONDS = 300.0
"""The same for a job that has to roll back a change of a module."""
_MEMORY, _TASKS = 512 << 20, 128


def stop_seconds(kind: str) -> float:
    """Return seconds that a job of KIND has to end in once it was cancelled."""
    return TAKE_BACK_SECONDS if kind.startswith("module-") else STOP_SECONDS


def unit_properties(layout: Layout, request: JobRequest) -> list[UnitProperty]:
    """Return the properties of a job's unit.

    It stays loaded when its process has ended, well or not, until its result was recorded. Its process runs in no
    sandbox: it does what the account's own helmctl does.
    """
    words = [str(layout.helmctl), *job_words(request.id, request.words)]
    unit = job_unit(request.id)
    return [
        UnitProperty("Description", "s", f"HiveMatrix job: {request.kind} {request.target}"[:200]),
        UnitProperty("Type", "s", "exec"),
        UnitProperty("RemainAfterExit", "b", True),
        UnitProperty("CollectMode", "s", "inactive"),
        UnitProperty("KillMode", "s", "mixed"),
        UnitProperty("RuntimeMaxUSec", "t", int(RUNTIME_SECONDS * 1e6)),
        UnitProperty("TimeoutStopUSec", "t", int(stop_seconds(request.kind) * 1e6)),
        UnitProperty("MemoryMax", "t", _MEMORY),
        UnitProperty("TasksMax", "t", _TASKS),
        UnitProperty("NoNewPrivileges", "b", True),
        UnitProperty("SyslogIdentifier", "s", identifier_of(service_of(unit) or unit)),
        UnitProperty("ExecStart", "a(sasb)", [(words[0], words, False)]),
    ]


def start_unit(manager: Manager, layout: Layout, request: JobRequest) -> None:
    """Start a job's unit. Raises BusError. May be repeated: a job's id is its own, and so is its unit."""
    try:
        manager.start_transient(job_unit(request.id), unit_properties(layout, request))
    except BusError as problem:
        if "already loaded" not in problem.sentence:
            raise


def has_ended(active_state: str, sub_state: str) -> bool:
    """Return whether a unit of a job that is loaded has run: before systemd starts it, it is inactive."""
    return active_state == "failed" or (active_state, sub_state) == ("active", "exited")


def remove_unit(manager: Manager, facts: UnitFacts) -> None:
    """Unload a unit that has ended; one that is running is not changed. Raises BusError."""
    if facts.active_state == "failed":
        manager.reset_failed(facts.unit)
    elif has_ended(facts.active_state, facts.sub_state):
        stop_unit(manager, facts.unit)


def stop_unit(manager: Manager, unit: str) -> None:
    """Stop a unit that may be gone already. Raises BusError."""
    try:
        manager.stop(unit)
    except BusError as problem:
        if "not loaded" not in problem.sentence:
            raise
