"""A service of the suite as its registry entry says, and the suite as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from helmd.model.suite.names import Mode

ServiceType = Literal["python", "keycloak", "postgres", "command", "external"]
HealthCheck = Literal["http", "realm", "port", "process"]


@dataclass(frozen=True, slots=True)
class Health:
    """How a service is asked whether it is well. Times are seconds."""

    check: HealthCheck = "http"
    path: str = "/health"
    start_path: str = "/health"
    """What is asked while it starts; often the same as ``path``."""
    expect: tuple[int, ...] = ()
    """HTTP codes that count as healthy; empty for any 2xx."""
    verify_tls: bool = False
    timeout: float = 2.0
    start_timeout: float = 60.0
    interval: float = 15.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits (systemd.resource-control(5), systemd.exec(5)). Bytes and percent; None for no limit."""

    memory_high: int | None = None
    memory_max: int | None = None
    cpu_percent: int | None = None
    tasks: int | None = None
    open_files: int | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """What systemd does when the service ends by itself. Times are seconds."""

    policy: Literal["no", "on-failure", "always"] = "on-failure"
    delay: float = 1.0
    burst: int = 5
    within: float = 60.0
    stop_timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class Install:
    """Where a module's code comes from."""

    source: str = ""
    ref: str = ""


@dataclass(frozen=True, slots=True)
class Override:
    """What one mode changes."""

    start_command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Service:
    """One service, all defaults filled in. Paths are as written, not yet resolved against an account."""

    name: str
    type: ServiceType = "python"
    description: str = ""
    url: str = ""
    port: int | None = None
    path: str = ""
    python_bin: str = "pyenv/bin/python"
    run_script: str = "run.py"
    start_command: tuple[str, ...] = ()
    visible: bool = True
    admin_only: bool = False
    billing_or_admin_only: bool = False
    depends_on: tuple[str, ...] = ()
    database: bool = False
    database_variable: str = "DATABASE_URL"
    realm: str = "hivematrix"
    streams: Literal["split", "merged"] = "split"
    on_unhealthy: Literal["show", "restart"] = "show"
    unhealthy_after: int = 4
    retention: int | None = None
    """Days for which its log entries are kept; None for what Helm's settings say."""
    success_exit_status: tuple[int, ...] = ()
    hardening: Literal["strict", "basic", "off"] = "strict"
    writable_paths: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    health: Health = field(default_factory=Health)
    limits: Limits = field(default_factory=Limits)
    restart: Restart = field(default_factory=Restart)
    install: Install = field(default_factory=Install)
    modes: Mapping[Mode, Override] = field(default_factory=dict)
    file: str = ""
    """The configuration file that brought it into the suite."""
    line: int = 0

    @property
    def external(self) -> bool:
        """Probed and shown, but never controlled."""
        return self.type == "external"


@dataclass(frozen=True, slots=True)
class Registry:
    """The suite: services by name, each one's dependencies among them, without a cycle."""

    services: Mapping[str, Service]

    def __contains__(self, name: object) -> bool:
        return name in self.services

    def __getitem__(self, name: str) -> Service:
        return self.services[name]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.services)
