"""The reply of ``GET /health``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from helmd.model.json_fields import described

_STATE = described("how it is", enum=["healthy", "degraded", "unhealthy"])
_MESSAGE = described("why it is not healthy", omitted=True)


@dataclass(frozen=True, slots=True)
class DatabaseCheck:
    """Whether Helm's store answers."""

    status: str = field(metadata=_STATE)
    type: str = field(metadata=described("the kind of database", example="postgresql"))
    latency_ms: float | None = field(metadata=described("how long it took to answer", example=0.41))
    message: str | None = field(default=None, metadata=_MESSAGE)


@dataclass(frozen=True, slots=True)
class DiskCheck:
    """Free space of the file system with Helm's state; sizes are GiB."""

    status: str = field(metadata=_STATE)
    free_gb: float | None = field(metadata=described("what this account can still use", example=61.2))
    total_gb: float | None = field(metadata=described("the size of the file system", example=98.1))
    usage_percent: float | None = field(metadata=described("how full it is", example=37.61))
    message: str | None = field(default=None, metadata=_MESSAGE)


@dataclass(frozen=True, slots=True)
class ManagerCheck:
    """Whether the account's systemd manager answers."""

    status: str = field(metadata=_STATE)
    latency_ms: float | None = field(
        default=None, metadata=described("how long it took to answer", example=1.93, omitted=True)
    )
    message: str | None = field(default=None, metadata=_MESSAGE)


@dataclass(frozen=True, slots=True)
class JournalCheck:
    """How far the store is behind the journal."""

    status: str = field(metadata=_STATE)
    lag_seconds: float | None = field(metadata=described("seconds; null where it is unknown", example=0.0))
    message: str | None = field(default=None, metadata=_MESSAGE)


@dataclass(frozen=True, slots=True)
class DependencyCheck:
    """Health of a service that Helm itself needs."""

    status: str = field(
        metadata=described("the service's health", enum=["healthy", "degraded", "unhealthy", "unknown"])
    )
    response_time_ms: float | None = field(metadata=described("how long it took to answer", example=2.2))


@dataclass(frozen=True, slots=True)
class ConfigurationCheck:
    """Whether the configuration files have faults."""

    status: str = field(metadata=_STATE)
    faults: int = field(metadata=described("how many; helmctl doctor lists them", example=0, minimum=0))
    message: str | None = field(default=None, metadata=_MESSAGE)


@dataclass(frozen=True, slots=True)
class PlainCheck:
    """A check without figures."""

    status: str = field(metadata=_STATE)
    message: str | None = field(default=None, metadata=_MESSAGE)


@dataclass(frozen=True, slots=True)
class HealthChecks:
    """What Helm's health is made of."""

    database: DatabaseCheck = field(metadata=described("Helm's store"))
    disk: DiskCheck = field(metadata=described("free space"))
    systemd: ManagerCheck = field(metadata=described("the account's manager"))
    journal: JournalCheck = field(metadata=described("from the journal into the store"))
    dependencies: Mapping[str, DependencyCheck] = field(metadata=described("services by name"))
    retention: PlainCheck = field(metadata=described("degraded when entries are kept that seem to have expired"))
    configuration: ConfigurationCheck = field(metadata=described("the configuration files"))
    http: PlainCheck = field(metadata=described("degraded when helmd does not listen where it should"))


@dataclass(frozen=True, slots=True)
class HealthReply:
    """Helm's own health. It is unhealthy only without systemd."""

    status: str = field(metadata=_STATE)
    service: str = field(metadata=described("always helm", example="helm"))
    timestamp: datetime = field(metadata=described("when the checks were made"))
    checks: HealthChecks = field(metadata=described("each by itself"))
