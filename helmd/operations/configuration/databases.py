"""A database and a role for each service that declares one, and for Keycloak.

Each role has a password, in the environment file with the secrets of its service. Clusters that earlier releases made
had none: whoever ran as the account could be any role. Such a cluster is moved step by step, since a running service
goes on with the DSN that it was started with: its role needs no password until that run of the service has ended.
"""

import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

from helmd.files.environment_file import ensure_secrets, put_secret
from helmd.model.config.settings import Settings
from helmd.model.errors import ConfigurationError, Fault
from helmd.model.layout import Layout
from helmd.model.suite.names import DATABASE_PASSWORD, KEYCLOAK_PASSWORD, SUITE_CLUSTER, unit_of
from helmd.model.suite.service import Registry
from helmd.model.units.unit_state import UnitFacts
from helmd.postgres.cluster import (
    KEYCLOAK_ROLE,
    account_name,
    configure,
    create_cluster,
    current_mappings,
    running,
    suite_cluster,
    superuser_password,
)
from helmd.postgres.configuration import SUPERUSER, Cluster, Mappings
from helmd.postgres.external import server_of
from helmd.postgres.passfile import put_passwords
from helmd.postgres.roles import (
    ensure_local_databases,
    ensure_role_and_database,
    external_dsn,
    service_uri,
)

FactsOf = Callable[[str], UnitFacts]
"""The facts of a unit by its name, as `helmd.systemd.bus.Manager` has them."""


def database_services(registry: Registry) -> tuple[str, ...]:
    """The services that declare a database of their own."""
    return tuple(name for name, service in registry.services.items() if service.database and not service.external)


def keycloak_service(registry: Registry) -> str | None:
    """The name of the Keycloak that the suite runs itself, if it does."""
    return next((name for name, service in registry.services.items() if service.type == "keycloak"), None)


def embedded_cluster(registry: Registry, layout: Layout, settings: Settings) -> Cluster:
    """The suite's own cluster, with a role for every service that has a database."""
    return suite_cluster(
        layout.suite_cluster,
        layout.suite_socket,
        settings.suite_database_port,
        account_name(),
        layout.suite_passfile,
        database_services(registry),
    )


def keycloak_database(settings: Settings) -> str:
    """HOST:PORT/DATABASE?PARAMETERS for Keycloak, which can only speak TCP (JDBC has no unix sockets)."""
    if settings.suite_embedded:
        return f"127.0.0.1:{settings.suite_database_port}/{KEYCLOAK_ROLE}"
    server = server_of(settings.suite_database)
    return f"{server.jdbc}/{KEYCLOAK_ROLE}{server.query}"


def ensure_databases(registry: Registry, layout: Layout, settings: Settings, facts_of: FactsOf) -> tuple[str, ...]:
    """Makes what is missing, on the embedded cluster if it runs or on the external server. The names concerned.

    Passwords and DSNs are in the environment files of the services before a server asks for them. An embedded cluster
    is made when there is none; one that doesn't run makes databases when it starts (see `helmd.postgres.provision`).
    """
    names = database_services(registry)
    keycloak = keycloak_service(registry)
    if keycloak not in (None, KEYCLOAK_ROLE) and KEYCLOAK_ROLE in names:
        service = registry[KEYCLOAK_ROLE]
        sentence = f"its role and database are those of {keycloak}, which is of type keycloak; rename the service"
        raise ConfigurationError([Fault(service.file, service.line, f"services.{KEYCLOAK_ROLE}.database", sentence)])
    if settings.suite_embedded:
        if SUITE_CLUSTER not in registry:
            return ()
        cluster = embedded_cluster(registry, layout, settings)
        passwords = {name: _password(layout.secrets_file(name), DATABASE_PASSWORD) for name in names}
        for name, password in passwords.items():
            uri = service_uri(cluster, name, password=password)
            put_secret(layout.secrets_file(name), registry[name].database_variable, uri)
        if keycloak:
            passwords[KEYCLOAK_ROLE] = _password(layout.secrets_file(keycloak), KEYCLOAK_PASSWORD)
        # It makes databases by itself, but not its own configuration, without which no new role may log in.
        create_cluster(cluster)
        superuser_password(cluster)
        put_passwords(layout.suite_passfile, passwords)
        configure(cluster, change=lambda known: remaining_mappings(known, names, facts_of))
        if running(cluster) is None:
            return ()
        ensure_local_databases(cluster, passwords)
        settle_logins(registry, layout, settings, facts_of)
        return tuple(passwords)
    server = server_of(settings.suite_database)
    for name in names:
        password = _password(layout.secrets_file(name), DATABASE_PASSWORD)
        ensure_role_and_database(settings.suite_database, name, password)
        uri = external_dsn(server.host, server.port, name, password) + server.query
        put_secret(layout.secrets_file(name), registry[name].database_variable, uri)
    if keycloak:
        password = _password(layout.secrets_file(keycloak), KEYCLOAK_PASSWORD)
        ensure_role_and_database(settings.suite_database, KEYCLOAK_ROLE, password)
    return (*names, KEYCLOAK_ROLE) if keycloak else names


def pending_logins(registry: Registry, layout: Layout, settings: Settings) -> Mappings:
    """Roles of the embedded cluster that have passwords, and for which it does not ask yet."""
    if not settings.suite_embedded or SUITE_CLUSTER not in registry:
        return {}
    known = current_mappings(embedded_cluster(registry, layout, settings))
    # Before "helmctl apply" no role has a password, not even the superuser.
    return {} if SUPERUSER in known else known


def settle_logins(registry: Registry, layout: Layout, settings: Settings, facts_of: FactsOf) -> None:
    """Has the embedded cluster ask every role for its password whose service no longer runs with a DSN without one."""
    known, names = pending_logins(registry, layout, settings), database_services(registry)
    if known and remaining_mappings(known, names, facts_of) != known:
        cluster = embedded_cluster(registry, layout, settings)
        configure(cluster, change=lambda known: remaining_mappings(known, names, facts_of))


def remaining_mappings(known: Mappings, services: Iterable[str], facts_of: FactsOf) -> Mappings:
    """Those of the KNOWN roles that may still log in without a password.

    All of SERVICES while the superuser may, since the server has no passwords yet. Then those whose service is in the
    run that was recorded here, when it had been given its password, for the run that would end first.
    """
    remaining: dict[str, str | None] = {}
    wanted = set(services)
    for role, run in known.items():
        if role == SUPERUSER:
            remaining[role] = None
        elif role in wanted:
            current = _run(facts_of(unit_of(role)))
            recorded = current if run is None else run
            if SUPERUSER in known or (recorded and recorded == current):
                remaining[role] = recorded
    return remaining


def _run(facts: UnitFacts) -> str:
    """What identifies this run of a unit; empty when it has no processes."""
    return "" if facts.active_state in ("inactive", "failed") else facts.invocation


def _password(file: Path, variable: str) -> str:
    return ensure_secrets(file, {variable: lambda: secrets.token_urlsafe(32)})[variable]
