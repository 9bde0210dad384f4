"""Replies that describe one service: how it is configured, its unit, its probe, its processes, what happened to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from helmd.model.json_fields import described
from helmd.model.logs.filter import CURSOR_PATTERN
from helmd.model.suite.service import Service
from helmd.model.units.timeline import EventKind

_NAME = described("the service", example="core")


@dataclass(frozen=True, slots=True)
class ServiceDetails:
    """A service as the registry has it."""

    url: str | None = field(metadata=described("its URL", example="http://localhost:5000"))
    port: int | None = field(metadata=described("its port", example=5000))
    path: str | None = field(metadata=described("its directory", example="hivematrix-core"))
    type: str = field(metadata=described("its kind", example="python"))
    description: str = field(metadata=described("what it is for"))
    visible: bool = field(metadata=described("whether the gateway shows it", example=True))
    admin_only: bool = field(metadata=described("whether only admins see it there", example=False))
    billing_or_admin_only: bool = field(metadata=described("whether only admins and billing see it", example=False))
    depends_on: tuple[str, ...] = field(metadata=described("the services that it needs", example=["keycloak"]))
    python_bin: str | None = field(metadata=described("its interpreter, of python services"))
    run_script: str | None = field(metadata=described("its program, of python services", example="run.py"))


@dataclass(frozen=True, slots=True)
class ServicesReply:
    """The services of the suite."""

    services: tuple[str, ...] = field(metadata=described("their names, in the registry's order", example=["core"]))
    details: Mapping[str, ServiceDetails] = field(metadata=described("each by its name"))


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A file that a unit is made of."""

    path: str = field(metadata=described("where it is"))
    text: str | None = field(metadata=described("what it says; null where it can't be read"))


@dataclass(frozen=True, slots=True)
class UnitReply:
    """The systemd unit of a service, as systemctl cat shows it."""

    service_name: str = field(metadata=_NAME)
    unit: str = field(metadata=described("its name", example="hivematrix-core.service"))
    load_state: str = field(metadata=described("as systemd has it", example="loaded"))
    active_state: str = field(metadata=described("as systemd has it", example="active"))
    sub_state: str = field(metadata=described("as systemd has it", example="running"))
    file_state: str = field(metadata=described("as systemd has it", example="enabled"))
    result: str = field(metadata=described("of the last run", example="success"))
    need_daemon_reload: bool = field(metadata=described("whether systemd has not read the files yet", example=False))
    invocation_id: str | None = field(metadata=described("of the present or last run"))
    control_group: str | None = field(metadata=described("where its processes are"))
    files: tuple[UnitFile, ...] = field(metadata=described("the unit file, then its drop-ins"))


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """How the health of a service is found out, and what was found last."""

    service_name: str = field(metadata=_NAME)
    check: str | None = field(metadata=described("http, realm, port or process; null outside the registry"))
    path: str | None = field(metadata=described("the path that is requested", example="/health"))
    start_path: str | None = field(metadata=described("the same while the service starts", example="/health"))
    interval_seconds: float | None = field(metadata=described("how often", example=15))
    timeout_seconds: float | None = field(metadata=described("how long an answer may take", example=2))
    health: str = field(metadata=described("what was found last", enum=["healthy", "degraded", "unhealthy", "unknown"]))
    health_message: str = field(metadata=described("the same as a sentence"))
    response_ms: float | None = field(metadata=described("how long it took to answer", example=2.2))
    consecutive_failures: int = field(
        metadata=described("checks that failed since the last one that did not", minimum=0)
    )
    checked_seconds_ago: float | None = field(metadata=described("when that was; null before the first check"))


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """A process of a service."""

    pid: int = field(metadata=described("its id", example=812))
    parent_pid: int = field(metadata=described("its parent's id", example=1))
    program: str = field(
        metadata=described("its name; arguments, which may hold secrets, are left out", example="python3")
    )
    state: str = field(metadata=described("a letter as in ps(1)", example="S"))
    threads: int = field(metadata=described("its threads", example=4, minimum=0))
    memory_mb: float = field(metadata=described("MiB that it holds (resident set)", example=61.3, minimum=0))
    cpu_seconds: float = field(metadata=described("processor time since its start", example=1.5, minimum=0))
    started_at: datetime = field(metadata=described("when it started"))


@dataclass(frozen=True, slots=True)
class ProcessesReply:
    """The processes of a service."""

    service_name: str = field(metadata=_NAME)
    processes: tuple[ServiceProcess, ...] = field(metadata=described("by their ids; none while it does not run"))


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """Something that happened to a service."""

    id: int = field(metadata=described("of the log entry"))
    timestamp: datetime = field(metadata=described("when"))
    source: str = field(
        metadata=described("whoever says it; journal: a line of helmd's own", enum=["systemd", "helm", "journal"])
    )
    level: str = field(metadata=described("its level", example="INFO"))
    message: str = field(metadata=described("what happened", example="Started hivematrix-core.service."))
    kind: EventKind = field(metadata=described("the same in a word"))
    who: str | None = field(metadata=described("who did it, where Helm knows that", example="hive"))
    reason: str | None = field(metadata=described("why, where that was said"))


@dataclass(frozen=True, slots=True)
class TimelineReply:
    """What systemd and Helm say about a service: starts, stops, failures, restarts, changes of its health."""

    service_name: str = field(metadata=_NAME)
    events: tuple[TimelineEvent, ...] = field(metadata=described("the newest first"))
    next_cursor: str | None = field(metadata=described("cursor of the next page; null on the last one"))


@dataclass(frozen=True, slots=True)
class TimelineQuery:
    """Which page of a timeline."""

    limit: int = field(
        default=100, metadata=described("events per page; at most 1,000 are given", minimum=1, maximum=10**18 - 1)
    )
    cursor: str | None = field(
        default=None,
        metadata=described("next_cursor of another page", omitted=True, pattern=CURSOR_PATTERN),
    )


def service_details(service: Service) -> ServiceDetails:
    """Return a service of the registry, as the API gives it."""
    python = service.type == "python"
    return ServiceDetails(
        url=service.url or None,
        port=service.port,
        path=service.path or None,
        type=service.type,
        description=service.description,
        visible=service.visible,
        admin_only=service.admin_only,
        billing_or_admin_only=service.billing_or_admin_only,
        depends_on=service.depends_on,
        python_bin=service.python_bin if python else None,
        run_script=service.run_script if python else None,
    )
