"""Names shared by several packages: units, reserved service names, modes.

Service NAME runs as the user unit ``hivematrix-NAME.service``; the names of Helm's own units start with ``helmd``.
"""

import re
from typing import Literal, get_args

SERVICE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,49}\Z")
RESERVED_NAMES = frozenset({"all", "helm", "postgres", "recover"})
RESERVED_PREFIX = "job-"

TARGET = "hivematrix.target"
HELMD_UNIT = "helmd.service"
JOURNAL_UNIT = "helmd-journal.service"
STORE_CLUSTER_UNIT = "helmd-postgres.service"
SUITE_CLUSTER_UNIT = "hivematrix-postgres.service"
SOCKET_UNIT = "helmd.socket"
HTTP_SOCKET_UNIT = "helmd-http.socket"
SOCKET_UNITS = (SOCKET_UNIT, HTTP_SOCKET_UNIT)
"""What listens for helmd, also while it is not running (systemd.socket(5)): the account's socket, and TCP."""
UNIX_SOCKET, HTTP_SOCKET = "unix", "http"
"""The names under which helmd gets them (FileDescriptorName=)."""
SOCKET_BACKLOG = 4096
"""Clients that may wait to be accepted, as all do while helmd restarts (net.core.somaxconn bounds it)."""
HELM_UNITS = (STORE_CLUSTER_UNIT, JOURNAL_UNIT, HELMD_UNIT)

BACKUP_UNIT, BACKUP_TIMER = "helmd-backup.service", "helmd-backup.timer"
"""What makes a backup, and what starts that by its schedule."""
RECOVER_UNIT = "hivematrix-recover.service"
"""The unit that completes or rolls back interrupted changes of modules, before a module starts."""
UNIT_CHECKS = ("audit", "doctor")
"""What `check_unit` can run: the security audit, and the checks of ``helmctl doctor``."""
NO_SCHEDULE = "never"
"""As a schedule: there is none."""

HELM_SERVICE = "helm"
"""Service name of Helm itself."""

HMAC_FIELD = "HIVEMATRIX_HMAC"
"""The journal field with the signature of what Helm itself wrote: HMAC (RFC 2104) with SHA-256, in hexadecimal."""

SUITE_CLUSTER = "postgres"
"""Service name of the suite's PostgreSQL cluster."""

DATABASE_PASSWORD = "HIVEMATRIX_DATABASE_PASSWORD"
"""The environment variable with the password of a service's role in the suite's PostgreSQL."""
KEYCLOAK_PASSWORD = "KC_DB_PASSWORD"
"""The same for Keycloak, under the name that it reads."""
HELM_URL_VARIABLE = "HELM_SERVICE_URL"
"""The environment variable in which HiveMatrix' modules look for Helm's URL; without it they take the default one."""
CLIENT_SECRET = "{keycloak.client_secret}"
"""In a service's settings, the value of a variable that gets the secret of Keycloak's client for Core."""
KEYCLOAK_START_SECONDS = 600
"""Default time limit of a start of Keycloak, the one of its own operator: the first one creates all tables."""
DATABASE_CONNECTIONS = 50
"""How many connections a service's role may hold there: four worker processes with ten each, and some to spare."""

Mode = Literal["development", "production"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""Modes of a suite; the first is the default."""

_UNIT = re.compile(r"hivematrix-([a-z][a-z0-9_-]{0,49})\.service\Z")
_TIMER = re.compile(r"hivematrix-([a-z][a-z0-9_-]{0,49})\.timer\Z")


STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH")
"""Signals by which programs are asked to end. Not SIGKILL, which asks for nothing."""


def default_path(service: str) -> str:
    """Return the directory of a service that has no path of its own, in Helm's data directory."""
    return f"hivematrix-{service}"


def unit_of(service: str) -> str:
    """Return the name of a service's unit."""
    return f"hivematrix-{service}.service"


def check_unit(check: str) -> str:
    """Return the name of the unit that makes a check (one of UNIT_CHECKS), whose result helmd shows."""
    return f"helmd-check@{check}.service"


def timer_of(service: str) -> str:
    """Return the name of the timer that starts a service with a schedule."""
    return f"hivematrix-{service}.timer"


def service_of_timer(unit: str) -> str | None:
    """Return the service that the timer UNIT starts, or None for another unit."""
    found = _TIMER.match(unit)
    return found.group(1) if found else None


def service_behind(unit: str) -> str | None:
    """Return the service that UNIT is a part of: its unit, or its timer."""
    return service_of(unit) or service_of_timer(unit)


def service_of(unit: str) -> str | None:
    """Return the service that a unit belongs to: ``helm`` for Helm's own units, None for units of others."""
    if unit in HELM_UNITS or unit == RECOVER_UNIT:
        return HELM_SERVICE
    found = _UNIT.match(unit)
    return found.group(1) if found else None


def identifier_of(service: str) -> str:
    """Return the SYSLOG_IDENTIFIER of a service's output (systemd-cat(1) ``-t``)."""
    return f"hivematrix-{service}"


def service_of_identifier(identifier: str) -> str | None:
    """Return the service with this SYSLOG_IDENTIFIER, or None."""
    return service_of(identifier + ".service")


def fault_in_name(name: str) -> str | None:
    """Return why NAME is not a valid service name, as a sentence, or None if it is valid."""
    if not SERVICE_NAME.match(name):
        return "a service name is a lower-case letter followed by up to 49 of a-z, 0-9, '_' and '-'"
    if name in RESERVED_NAMES or name.startswith(RESERVED_PREFIX):
        return f"the name '{name}' is reserved"
    return None
