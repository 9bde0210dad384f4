"""A service as configured in the registry, and the registry of all services."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Literal, NamedTuple

from helmd.model.suite.names import DATABASE_CONNECTIONS, MODES, Mode, timer_of, unit_of

START_MARGIN = 5.0
"""Seconds that systemd gives a start beyond the probe's own limit."""
SHORTEST_INTERVAL = 60.0

ServiceType = Literal["python", "keycloak", "postgres", "command", "oneshot", "external"]
HealthCheck = Literal["http", "realm", "port", "process"]


class Health(NamedTuple):
    """Health check of a service. Times are seconds."""

    check: HealthCheck = "http"
    path: str = "/health"
    start_path: str = "/health"
    """Path requested while the service starts; often the same as ``path``."""
    expect: tuple[int, ...] = ()
    """HTTP codes that count as healthy; empty for any 2xx."""
    requires: tuple[str, ...] = ()
    """Names of checks without which a health document means degraded."""
    verify_tls: bool = False
    timeout: float = 2.0
    start_timeout: float = 60.0
    interval: float = 15.0


class Limits(NamedTuple):
    """Resource limits (systemd.resource-control(5), systemd.exec(5)), in bytes or percent; None for no limit."""

    memory_high: int | None = None
    memory_max: int | None = None
    cpu_percent: int | None = None
    tasks: int | None = None
    open_files: int | None = None


class Restart(NamedTuple):
    """Restart policy when the service ends by itself (systemd.service(5)). Times are seconds."""

    policy: Literal["no", "on-failure", "always"] = "on-failure"
    delay: float = 1.0
    burst: int = 5
    within: float | None = None
    """None for as long as ``burst`` starts take that fail as late as a start can."""
    stop_timeout: float = 10.0


class Install(NamedTuple):
    """How a module is fetched from its git repository and built."""

    source: str = ""
    ref: str = ""
    interpreter: str = ""
    """The interpreter that its virtual environment is made with, such as ``python3.12``; empty for any."""
    python: str = ""
    """The oldest version of Python that it runs on, such as ``3.12``; empty for any."""
    requirements: str = "requirements.txt"
    """The file in its tree that says what pip installs; nothing is installed where there is none."""
    constraints: tuple[str, ...] = ()
    """What pip may install of packages that its requirements leave open (pip's constraints files)."""
    system_packages: bool = False
    """Whether it also sees the packages of the distribution (``--system-site-packages``)."""
    submodules: bool = False
    migrate: tuple[str, ...] = ()
    """The command that brings its database to the version's state, in its directory and environment; it also makes the
    tables the first time."""
    after_update: tuple[str, ...] = ()
    """The command that runs once a new version serves."""


class DatabaseConfig(NamedTuple):
    """Where in a configuration file below its directory a service reads the URI of its database."""

    file: str = ""
    format: str = ""
    section: str = ""
    key: str = ""
    scheme: str = "postgresql"


@dataclass(frozen=True, slots=True)
class Override:
    """Settings that differ in one mode."""

    start_command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Service:
    """One service with defaults filled in. Paths are as configured, not resolved against the account's directories."""

    name: str
    type: ServiceType = "python"
    description: str = ""
    url: str = ""
    port: int | None = None
    path: str = ""
    python_bin: str = "pyenv/bin/python"
    run_script: str = "run.py"
    start_command: tuple[str, ...] = ()
    pre_start: tuple[str, ...] = ()
    reload_command: tuple[str, ...] = ()
    stop_signal: str = "SIGTERM"
    """The signal that asks its main process to end."""
    schedule: str = ""
    """When a oneshot runs, a calendar event expression (systemd.time(7)); empty if it starts with the suite."""
    run_timeout: float | None = None
    """Seconds that a run of a oneshot may take; None for no limit."""
    visible: bool = True
    admin_only: bool = False
    billing_or_admin_only: bool = False
    depends_on: tuple[str, ...] = ()
    database: bool = False
    database_variable: str = "DATABASE_URL"
    database_name: str = ""
    database_config: DatabaseConfig = field(default_factory=DatabaseConfig)
    services_json: bool = False
    secrets: tuple[str, ...] = ()
    """Variables that get a random value."""
    flaskenv: Mapping[str, str] = field(default_factory=dict)
    database_connections: int = DATABASE_CONNECTIONS
    port_variable: str = "PORT"
    realm: str = "hivematrix"
    streams: Literal["split", "merged"] = "split"
    on_unhealthy: Literal["show", "restart"] = "show"
    unhealthy_after: int = 4
    retention: int | None = None
    """Days for which its log entries are kept; None for Helm's default."""
    success_exit_status: tuple[int, ...] = ()
    hardening: Literal["default", "strict", "basic", "off"] = "default"
    """The profile of its sandbox (``helmd/model/units/hardening.py``)."""
    writable_paths: tuple[str, ...] = ()
    readable_paths: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    health: Health = field(default_factory=Health)
    limits: Limits = field(default_factory=Limits)
    restart: Restart = field(default_factory=Restart)
    shared_paths: tuple[str, ...] = ()
    """What of its directory is state and not code, relative to ``path``."""
    backup: Literal["auto", "whole", "shared", "nothing"] = "auto"
    install: Install = field(default_factory=Install)
    modes: Mapping[Mode, Override] = field(default_factory=dict)
    file: str = ""
    """The configuration file that made it part of the suite."""
    line: int = 0

    def environment_in(self, mode: Mode) -> dict[str, str]:
        """Return the variables that its configuration sets in MODE."""
        return {**self.environment, **(self.modes[mode].environment if mode in self.modes else {})}

    @property
    def relative_path(self) -> str:
        """For Keycloak, the path below which it serves everything (its option http-relative-path); empty for none."""
        given = self.environment_in(MODES[0]).get("KC_HTTP_RELATIVE_PATH", "") if self.type == "keycloak" else ""
        return given.rstrip("/")

    @property
    def start_interval(self) -> float:
        """Seconds in which ``restart.burst`` starts are allowed (StartLimitIntervalSec=)."""
        if self.oneshot:
            # systemd restarts it never, and a limit would end a frequent schedule.
            return 0.0
        if self.restart.within is not None:
            return self.restart.within
        every = self.slowest_start + self.restart.delay
        return max(SHORTEST_INTERVAL, float(ceil(self.restart.burst * every)) + 1)

    @property
    def slowest_start(self) -> float:
        """Seconds after which a start has failed at the latest, and the process is gone."""
        return self.health.start_timeout + START_MARGIN + self.restart.stop_timeout

    def gives_up(self, seconds: float) -> bool:
        """Return whether systemd ends restarting a service whose starts each fail after SECONDS."""
        return self.restart.burst * (seconds + self.restart.delay) < self.start_interval

    @property
    def external(self) -> bool:
        """Whether it is only probed and shown, never started or stopped by Helm."""
        return self.type == "external"

    @property
    def oneshot(self) -> bool:
        """Whether it is a oneshot, which ends by itself."""
        return self.type == "oneshot"

    @property
    def enabled_unit(self) -> str:
        """The unit that the suite starts: its timer where it has a schedule."""
        return timer_of(self.name) if self.schedule else unit_of(self.name)


@dataclass(frozen=True, slots=True)
class Registry:
    """The suite's services by name. Every dependency is in the registry, and there is no cycle."""

    services: Mapping[str, Service]

    def __contains__(self, name: object) -> bool:
        return name in self.services

    def __getitem__(self, name: str) -> Service:
        return self.services[name]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.services)


def with_unregistered(registry: Registry, names: Iterable[str]) -> Registry:
    """Return REGISTRY with those of NAMES that it lacks, of which only the unit is known."""
    lacking = [name for name in names if name not in registry]
    alone = {name: Service(name=name, type="command", health=Health(check="process")) for name in lacking}
    return Registry({**registry.services, **alone}) if alone else registry
