"""Finding and starting the suite's Keycloak. Secrets are only sent once its unit is verified to be the listener."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from helmd.health.address import EVERY
from helmd.health.listeners import holder_of, unit_listeners
from helmd.journal.lines import last_lines
from helmd.keycloak.admin.api import MASTER, NoAnswerFromKeycloakError, Server, answers
from helmd.model.errors import (
    KeycloakAwayError,
    KeycloakError,
    NotSetUpError,
    PortTakenError,
    StartFailedError,
    UsageError,
)
from helmd.model.identity.differences import Difference
from helmd.model.identity.realm import HOSTNAME, frontend_url
from helmd.model.layout import Layout
from helmd.model.suite.names import unit_of
from helmd.model.suite.service import Registry, Service
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.configuration.databases import keycloak_service
from helmd.systemd.bus import Manager
from helmd.systemd.installed import read_unit

Report = Callable[[str], None]

_PAUSE = 0.25
_PROGRESS = 10.0
"""Seconds after which a start that is still waited for is reported."""


@dataclass(frozen=True, slots=True)
class KeycloakUnit:
    """The suite's Keycloak and its unit."""

    service: Service
    unit: str
    server: Server


def keycloak_unit(registry: Registry) -> KeycloakUnit:
    """Return the Keycloak that the suite runs.

    Raises NotSetUpError if it runs none, UsageError for the realm master.
    """
    name = keycloak_service(registry)
    if name is None:
        raise NotSetUpError(
            "the suite has no Keycloak of its own", hint="Add [services.keycloak] to services.toml, then: helmctl setup"
        )
    service = registry[name]
    if service.realm == MASTER:
        raise UsageError(
            f"realm is set to {MASTER}, in which Keycloak keeps its own admins",
            hint=f'Set another one, such as realm = "hivematrix", in [services.{name}], then: helmctl apply',
        )
    host = service.environment.get("KC_HTTP_HOST", "127.0.0.1")
    # A service of this type has a port (helmd.model.suite.registry).
    server = Server(EVERY.get(host, host), service.port or 0, service.relative_path)
    return KeycloakUnit(service, unit_of(name), server)


def running_server(keycloak: KeycloakUnit, manager: Manager) -> Server:
    """Return the address of Keycloak, which responds. Raises KeycloakError, with what to do, while it does not."""
    server = listening_server(keycloak, manager)
    if answers(server):
        return server
    raise NoAnswerFromKeycloakError("Keycloak listens, but does not answer requests yet", hint=_AGAIN)


def listening_server(keycloak: KeycloakUnit, manager: Manager) -> Server:
    """Return the address of Keycloak. Raises KeycloakError, with what to do, while it is not listening."""
    facts = manager.facts(keycloak.unit)
    if _listens(keycloak, facts):
        return keycloak.server
    name = keycloak.service.name
    if not facts.exists:
        raise NotSetUpError(f"{name} has no unit yet", hint="Run: helmctl setup")
    if facts.active_state in ("inactive", "failed"):
        raise KeycloakAwayError(f"{name} is not running", hint=f"Start it: helmctl start {name}")
    # Its own socket may have been opened since the check above.
    if (holder := holder_of(keycloak.server.port)) and holder.unit != keycloak.unit:
        raise PortTakenError(
            f"port {keycloak.server.port} is taken by {holder}, not by {name}; no password was sent there",
            hint=f"Stop that process, then: helmctl restart {name}",
        )
    raise KeycloakAwayError(f"{name} is starting", hint=_AGAIN)


_AGAIN = "Try again in a few seconds."


def _listens(keycloak: KeycloakUnit, facts: UnitFacts) -> bool:
    """Return whether it is the unit that listens on Keycloak's port.

    Any service could do so while Keycloak is stopped.
    """
    if not facts.control_group or facts.active_state not in ("active", "activating", "reloading"):
        return False
    return any(socket.port == keycloak.server.port for socket in unit_listeners(facts.control_group))


def started_server(keycloak: KeycloakUnit, manager: Manager, notify: Report) -> Server:
    """Return the address of Keycloak, which is started if it is not running.

    Its health is not waited for, since that depends on the realm.
    """
    began, name = time.time(), keycloak.service.name
    facts = manager.facts(keycloak.unit)
    if facts.exists and facts.active_state in ("inactive", "failed"):
        manager.reset_failed(keycloak.unit)
        manager.start(keycloak.unit)
        notify(f"starting {name}")
    elif facts.active_state == "activating":
        notify(f"waiting for {name}, which is starting")
    deadline = time.monotonic() + keycloak.service.slowest_start
    said = waited = time.monotonic()
    while True:
        if time.monotonic() - said > _PROGRESS:
            said = time.monotonic()
            notify(f"waiting for {name}: {said - waited:.0f} s so far; its first start takes minutes on a busy machine")
        try:
            return running_server(keycloak, manager)
        except (PortTakenError, NotSetUpError):
            raise
        except KeycloakError as error:
            facts = manager.facts(keycloak.unit)
            gone = facts.active_state in ("inactive", "failed") and not facts.job
            if gone or time.monotonic() > deadline:
                lines = [line.message for line in last_lines(keycloak.unit, 10, began)]
                raise StartFailedError(error.sentence, hint=f"See: helmctl why {name}", lines=lines) from None
        time.sleep(_PAUSE)


def hostname_difference(keycloak: KeycloakUnit, registry: Registry, manager: Manager) -> Difference | None:
    """Return how the URL that the running Keycloak was started with differs from that of the suite, or None if it does
    not.
    """
    wanted = frontend_url(keycloak.service, registry)
    pid = manager.facts(keycloak.unit).main_pid
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if pid else []
    except OSError:
        # It has ended meanwhile; the next request will fail.
        return None
    found = next((os.fsdecode(each.partition(b"=")[2]) for each in variables if each.startswith(_HOSTNAME_IS)), None)
    if not variables or found in (wanted, keycloak.service.environment.get(HOSTNAME, wanted)):
        return None
    return Difference(f"service {keycloak.service.name}", HOSTNAME, found, wanted)


_HOSTNAME_IS = f"{HOSTNAME}=".encode()


def follow_public_url(
    keycloak: KeycloakUnit, registry: Registry, layout: Layout, manager: Manager, notify: Report
) -> None:
    """Restart a Keycloak that runs with another URL than that of the suite. Raises KeycloakError if its unit has that
    other URL as well.
    """
    difference = hostname_difference(keycloak, registry, manager)
    if difference is None:
        return
    name = keycloak.service.name
    given = keycloak.service.environment.get(HOSTNAME, difference.wanted)
    if f"{HOSTNAME}={given}" not in (read_unit(layout.unit_file(keycloak.unit)) or ""):
        raise KeycloakError(
            f"the unit of {name} has not got the URL {difference.wanted} yet", hint="Run: helmctl apply"
        )
    notify(str(difference))
    restart_server(keycloak, manager, notify)


def restart_server(keycloak: KeycloakUnit, manager: Manager, notify: Report) -> None:
    """Restart Keycloak; return once the process that ran has been replaced, before it listens."""
    before, name = manager.facts(keycloak.unit).main_pid, keycloak.service.name
    notify(f"restarting {name}")
    manager.restart(keycloak.unit)
    deadline = time.monotonic() + keycloak.service.slowest_start
    while manager.facts(keycloak.unit).main_pid == before:
        if time.monotonic() > deadline:
            raise StartFailedError(f"{name} did not stop", hint=f"See: helmctl why {name}")
        time.sleep(_PAUSE)


def stop_server(keycloak: KeycloakUnit, manager: Manager, notify: Report) -> None:
    """Stop Keycloak; return once it has ended."""
    name = keycloak.service.name
    notify(f"stopping {name}")
    manager.stop(keycloak.unit)
    deadline = time.monotonic() + keycloak.service.slowest_start
    while (facts := manager.facts(keycloak.unit)).active_state not in ("inactive", "failed") or facts.job:
        if time.monotonic() > deadline:
            raise StartFailedError(f"{name} did not stop", hint=f"See: helmctl why {name}")
        time.sleep(_PAUSE)
