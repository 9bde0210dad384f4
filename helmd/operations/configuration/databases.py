"""A database and a role for each service that declares one, and for Keycloak."""

import secrets
from pathlib import Path

from helmd.files.environment_file import ensure_secrets, put_secret
from helmd.model.config.settings import Settings
from helmd.model.layout import Layout
from helmd.model.suite.names import SUITE_CLUSTER
from helmd.model.suite.service import Registry
from helmd.postgres.cluster import account_name, create_cluster, running, suite_cluster
from helmd.postgres.configuration import Cluster
from helmd.postgres.external import server_of
from helmd.postgres.roles import ensure_local_database, ensure_role_and_database, external_dsn


def database_services(registry: Registry) -> tuple[str, ...]:
    """The services that declare a database of their own."""
    return tuple(name for name, service in registry.services.items() if service.database)


def keycloak_service(registry: Registry) -> str | None:
    """The name of the Keycloak that the suite runs itself, if it does."""
    return next((name for name, service in registry.services.items() if service.type == "keycloak"), None)


def embedded_cluster(registry: Registry, layout: Layout, settings: Settings) -> Cluster:
    """The suite's own cluster, with a role for every service that has a database."""
    return suite_cluster(layout, account_name(), settings.suite_database_port, database_services(registry))


def keycloak_database(settings: Settings) -> str:
    """HOST:PORT/DATABASE?PARAMETERS for Keycloak, which can only speak TCP (JDBC has no unix sockets)."""
    if settings.suite_embedded:
        return f"127.0.0.1:{settings.suite_database_port}/keycloak"
    server = server_of(settings.suite_database)
    return f"{server.host}:{server.port}/keycloak{server.query}"


def ensure_databases(registry: Registry, layout: Layout, settings: Settings) -> tuple[str, ...]:
    """Makes what is missing, on the embedded cluster if it runs or on the external server. The names concerned.

    An embedded cluster is made when there is none; one that doesn't run makes databases when it starts (see
    `helmd.postgres.provision`).
    """
    names = database_services(registry)
    keycloak = keycloak_service(registry)
    if settings.suite_embedded:
        cluster = embedded_cluster(registry, layout, settings)
        if running(cluster) is None:
            if SUITE_CLUSTER in registry:
                # It makes databases by itself, but not its own configuration, without which no new role may log in.
                create_cluster(cluster)
            return ()
        for name in names:
            ensure_local_database(cluster, name)
        if keycloak:
            ensure_local_database(cluster, "keycloak", _password(layout.secrets_file(keycloak), "KC_DB_PASSWORD"))
        return (*names, "keycloak") if keycloak else names
    server = server_of(settings.suite_database)
    for name in names:
        service = registry[name]
        password = _password(layout.secrets_file(name), "HIVEMATRIX_DATABASE_PASSWORD")
        ensure_role_and_database(settings.suite_database, name, password)
        uri = external_dsn(server.host, server.port, name, password) + server.query
        put_secret(layout.secrets_file(name), service.database_variable, uri)
    if keycloak:
        password = _password(layout.secrets_file(keycloak), "KC_DB_PASSWORD")
        ensure_role_and_database(settings.suite_database, "keycloak", password)
    return (*names, "keycloak") if keycloak else names


def _password(file: Path, variable: str) -> str:
    return ensure_secrets(file, {variable: lambda: secrets.token_urlsafe(32)})[variable]
