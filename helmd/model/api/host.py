"""Reply of ``GET /api/host``."""

from dataclasses import dataclass, field
from datetime import datetime

from helmd.model.json_fields import described


@dataclass(frozen=True, slots=True)
class PressureStall:
    """Share of time in which tasks waited for a resource, in percent (the kernel's pressure stall information)."""

    some_10s: float = field(metadata=described("some tasks waited, last 10 seconds", example=0.0))
    some_60s: float = field(metadata=described("some tasks waited, last minute", example=0.0))
    full_60s: float | None = field(metadata=described("all tasks waited, last minute; null where it is not counted"))


@dataclass(frozen=True, slots=True)
class HostPressure:
    """Pressure by resource; null where the kernel does not say."""

    cpu: PressureStall | None = field(metadata=described("processors"))
    memory: PressureStall | None = field(metadata=described("memory"))
    io: PressureStall | None = field(metadata=described("disks"))


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Memory in MiB (proc(5), meminfo)."""

    total_mb: float = field(metadata=described("all of it", example=24064))
    available_mb: float = field(metadata=described("what programs can still get", example=12000))
    swap_total_mb: float = field(metadata=described("swap space", example=0))
    swap_free_mb: float = field(metadata=described("free swap space", example=0))


@dataclass(frozen=True, slots=True)
class HostDisk:
    """A file system with files of Helm or the suite. Sizes are GiB."""

    path: str = field(metadata=described("a directory on it", example="/home/hive/.local/state/hivematrix"))
    total_gb: float = field(metadata=described("its size", example=98.1))
    free_gb: float = field(metadata=described("what this account can still use", example=61.2))
    usage_percent: float = field(metadata=described("how full it is", example=37.61))
    inodes_free: int | None = field(metadata=described("files that can still be made; null where there is no limit"))
    days_left: float | None = field(
        metadata=described(
            "until it is full, at the rate since it was first asked for; null within an hour, or while it does not fill"
        )
    )


@dataclass(frozen=True, slots=True)
class HostCertificate:
    """A certificate that a service shows to those who connect."""

    service: str = field(metadata=described("which service", example="nexus"))
    valid_from: datetime = field(metadata=described("from when it is valid"))
    valid_until: datetime = field(metadata=described("until when it is valid"))
    self_signed: bool = field(metadata=described("whether it is its own issuer"))
    replaced: bool = field(
        metadata=described("whether the gateway has another one by now, which it shows after a restart")
    )


@dataclass(frozen=True, slots=True)
class HostUpdate:
    """A package with an update that waits to be installed."""

    package: str = field(metadata=described("its name", example="openssl"))
    installed: str | None = field(metadata=described("the version that is installed; null for a new package"))
    available: str = field(metadata=described("the version that would be installed"))
    security: bool = field(metadata=described("whether it comes from a security archive"))


@dataclass(frozen=True, slots=True)
class HostUpdates:
    """What "apt-get upgrade" would install by the lists that it has."""

    total: int = field(metadata=described("how many packages", example=3, minimum=0))
    security: int = field(metadata=described("how many of them from a security archive", example=1, minimum=0))
    listed_at: datetime = field(metadata=described("when the lists were last fetched"))
    packages: tuple[HostUpdate, ...] = field(metadata=described("security updates first; at most 200"))


@dataclass(frozen=True, slots=True)
class HostReply:
    """The machine that the suite runs on."""

    hostname: str = field(metadata=described("its name"))
    timestamp: datetime = field(metadata=described("when this was read"))
    booted_at: datetime = field(metadata=described("when it started"))
    processors: int = field(metadata=described("processors that can be used", example=2, minimum=1))
    load: tuple[float, ...] = field(
        metadata=described("tasks that run or wait, over 1, 5 and 15 minutes", example=[0.1, 0.2, 0.1])
    )
    pressure: HostPressure = field(metadata=described("how long tasks wait for resources"))
    memory: HostMemory = field(metadata=described("memory and swap space"))
    disks: tuple[HostDisk, ...] = field(metadata=described("file systems that the suite needs"))
    clock_synchronized: bool = field(
        metadata=described("whether the clock is synchronized; false also where that can't be known")
    )
    reboot_required: bool = field(metadata=described("whether an update waits for a reboot (/run/reboot-required)"))
    reboot_packages: tuple[str, ...] = field(
        metadata=described(
            "the packages that want the reboot (/run/reboot-required.pkgs)", example=["linux-image-amd64"]
        )
    )
    updates: HostUpdates | None = field(
        metadata=described("updates that wait to be installed; null where apt does not say, or not yet")
    )
    certificates: tuple[HostCertificate, ...] | None = field(
        metadata=described("what running services show, of those with https; null where systemd can't be asked")
    )
