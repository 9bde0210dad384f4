"""Creates a database and a role for each service that declares one, and for Keycloak.

Each role has a password, in the environment file with the secrets of its service. Roles of clusters that earlier
releases created had none: any process of the account could log in as any role. Such a cluster is migrated role by role,
since a running service keeps the DSN with which it was started: its role needs no password until that run has ended.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from helmd.files.environment_file import ensure_secrets, new_secret, put_secret, read_environment_file
from helmd.model.config.settings import Settings
from helmd.model.errors import ConfigurationError, Fault, HelmError
from helmd.model.layout import Layout
from helmd.model.suite.composition import uses_database
from helmd.model.suite.names import DATABASE_PASSWORD, KEYCLOAK_PASSWORD, SUITE_CLUSTER, SUITE_CLUSTER_UNIT, unit_of
from helmd.model.suite.service import Registry, Service
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.configuration.module_files import place_database_uri
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
from helmd.postgres.configuration import SUPERUSER, Cluster, Mappings, PasswordLogin
from helmd.postgres.external import server_of
from helmd.postgres.passfile import put_passwords
from helmd.postgres.uris import external_dsn, service_uri

_TO_BE_CHANGED = re.compile(r"[<{\[]?change[_ -]?(me|this)[>}\]]?", re.IGNORECASE)

FactsOf = Callable[[str], UnitFacts]
"""Returns the facts of the unit with this name, as `helmd.systemd.bus.Manager.facts`."""


def database_services(registry: Registry) -> tuple[str, ...]:
    """Return the names of the services that declare a database of their own."""
    return tuple(name for name, service in registry.services.items() if service.database and not service.external)


def affects_databases(units: Collection[str], registry: Registry) -> bool:
    """Return whether one of UNITS is that of a service with a database, or of PostgreSQL, which names all databases."""
    users = {unit_of(name) for name, service in registry.services.items() if uses_database(service)}
    return not users.isdisjoint(units) or SUITE_CLUSTER_UNIT in units


def keycloak_service(registry: Registry) -> str | None:
    """Return the name of the suite's service of type keycloak, or None."""
    return next((name for name, service in registry.services.items() if service.type == "keycloak"), None)


def embedded_cluster(registry: Registry, layout: Layout, settings: Settings) -> Cluster:
    """Return the suite's embedded cluster, with a role for every service that has a database."""
    return suite_cluster(
        layout.suite_cluster,
        layout.suite_socket,
        settings.suite_database_port,
        account_name(),
        layout.suite_passfile,
        [
            PasswordLogin(role, database, registry[role].database_connections)
            for role, database in databases_of(registry, layout, settings).items()
        ],
    )


def databases_of(registry: Registry, layout: Layout, settings: Settings) -> dict[str, str]:
    """Return the names of services' databases by their roles.

    One that was created with another name keeps it until `rename_databases`: running services have it in their
    environment.
    """
    names = {}
    earlier = _made_without_passwords(layout, settings)
    for name in database_services(registry):
        service = registry[name]
        try:
            present = read_environment_file(layout.secrets_file(name)).get(service.database_variable, "")
            used = urlsplit(present).path[1:] if _is_ours(present, name, layout, settings) else ""
        except HelmError:
            # Its secrets can't be read, which `put_uris` reports.
            used = ""
        names[name] = unquote(used) or (name if name in earlier else service.database_name)
    return names


def database_in_secrets(layout: Layout, name: str) -> str:
    """Return the database in the URI that Helm has written into the secrets of service NAME; empty if there is none."""
    known = read_environment_file(layout.secrets_file(name))
    password = known.get(DATABASE_PASSWORD)
    for value in known.values():
        with suppress(ValueError):
            parts = urlsplit(value)
            if password and unquote(parts.password or "") == password and unquote(parts.username or "") == name:
                return unquote(parts.path[1:])
    return ""


def _made_without_passwords(layout: Layout, settings: Settings) -> Mappings:
    """Return the roles of a cluster that an earlier release created; each has a database of its own name."""
    if not settings.suite_embedded:
        return {}
    known = current_mappings(Cluster(layout.suite_cluster, layout.suite_socket, 0, account_name()))
    return known if SUPERUSER in known else {}


def _is_ours(uri: str, role: str, layout: Layout, settings: Settings) -> bool:
    """Return whether Helm has written URI: it is for ROLE, and has its password or is on the suite's server."""
    try:
        parts = urlsplit(uri)
        user, password, host = unquote(parts.username or ""), unquote(parts.password or ""), parts.hostname
    except ValueError:
        return False
    if parts.scheme.partition("+")[0] not in ("postgresql", "postgres") or user != role:
        return False
    known = read_environment_file(layout.secrets_file(role)).get(DATABASE_PASSWORD)
    if password and password == known:
        return True
    if settings.suite_embedded:
        return parse_qs(parts.query).get("host") == [str(layout.suite_socket)]
    return host == server_of(settings.suite_database).host


def _is_replaced(uri: str, role: str, layout: Layout, settings: Settings) -> bool:
    """Return whether `_put_uri` may replace URI: it is Helm's own, or its password is an installer's placeholder."""
    if _is_ours(uri, role, layout, settings):
        return True
    try:
        return _TO_BE_CHANGED.fullmatch(unquote(urlsplit(uri).password or "")) is not None
    except ValueError:
        return False


def rename_databases(registry: Registry, layout: Layout, settings: Settings, facts_of: FactsOf) -> Iterator[str]:
    """Rename the databases of services that don't run to their configured names; yield sentences about the others."""
    for name, before in databases_of(registry, layout, settings).items():
        after = registry[name].database_name
        if before == after:
            continue
        if facts_of(unit_of(name)).active_state not in ("inactive", "failed"):
            yield (
                f"the database of {name} is still called {before}; to rename it to {after}: helmctl stop {name};"
                f" helmctl apply; helmctl start {name}"
            )
            continue
        # Imported here and below, since psycopg takes longer to import than all else of helmctl apply.
        from helmd.postgres.roles import rename_database

        try:
            rename_database(administration(registry, layout, settings), before, after)
        except HelmError as error:
            yield f"the database of {name} is still called {before}: {error.sentence}"
            continue
        _put_uri(registry[name], layout, settings, {name: after})


def administration(registry: Registry, layout: Layout, settings: Settings) -> str:
    """Return the connection string of the role that may change all databases of the suite."""
    if settings.suite_embedded:
        from helmd.postgres.roles import admin_conninfo

        return admin_conninfo(embedded_cluster(registry, layout, settings))
    return settings.suite_database


def _put_uri(service: Service, layout: Layout, settings: Settings, databases: Mapping[str, str]) -> Iterable[str]:
    """Write the URI of a service's database where the service reads it; return sentences about values that are kept."""
    role, file = service.name, layout.secrets_file(service.name)
    password = _password(file, DATABASE_PASSWORD)
    if settings.suite_embedded:
        cluster = Cluster(layout.suite_cluster, layout.suite_socket, settings.suite_database_port, account_name())
        uri = service_uri(cluster, role, databases[role], password)
    else:
        server = server_of(settings.suite_database)
        uri = external_dsn(server.host, server.port, role, password, databases[role]) + server.query
    reports = []
    present = read_environment_file(file).get(service.database_variable)
    if present and not _is_replaced(present, role, layout, settings):
        reports.append(
            f"{file} names another database in {service.database_variable}, which is kept; to use that of Helm, remove"
            " the line, then: helmctl apply"
        )
    else:
        put_secret(file, service.database_variable, uri)
    replaced = partial(_is_replaced, role=role, layout=layout, settings=settings)
    reports.append(place_database_uri(service, layout, uri, replaced))
    return [report for report in reports if report]


def put_uris(registry: Registry, layout: Layout, settings: Settings) -> list[str]:
    """Generate missing passwords, and write the URIs of databases where services read them; return problems."""
    databases = databases_of(registry, layout, settings)
    reports: list[str] = []
    for name in databases:
        try:
            reports += _put_uri(registry[name], layout, settings, databases)
        except HelmError as error:
            reports.append(f"{name} was not given the URI of its database: {_full_sentence(error)}")
    return reports


def _full_sentence(error: HelmError) -> str:
    return "; ".join(map(str, error.faults)) if isinstance(error, ConfigurationError) else error.sentence


def _passwords(names: Iterable[str], layout: Layout) -> dict[str, str]:
    """Return the passwords of services' roles, without those whose secrets can't be read."""
    found = {}
    for name in names:
        with suppress(HelmError):
            found[name] = _password(layout.secrets_file(name), DATABASE_PASSWORD)
    return found


def keycloak_database(layout: Layout, settings: Settings) -> str:
    """Return HOST:PORT/DATABASE?PARAMETERS for Keycloak, which needs TCP (JDBC has no unix sockets).

    Any service can listen on that port while PostgreSQL is stopped. So Keycloak verifies the cluster's certificate
    before it sends its password.
    """
    if settings.suite_embedded:
        certificate = urlencode({"sslrootcert": layout.suite_certificate}, safe="/", quote_via=quote)
        parameters = f"sslmode=verify-full&{certificate}&channelBinding=require"
        return f"127.0.0.1:{settings.suite_database_port}/{KEYCLOAK_ROLE}?{parameters}"
    server = server_of(settings.suite_database)
    return f"{server.jdbc}/{KEYCLOAK_ROLE}{server.query}"


def ensure_databases(registry: Registry, layout: Layout, settings: Settings, facts_of: FactsOf) -> tuple[str, ...]:
    """Create missing roles and databases on the suite's server; return the names of the roles.

    Passwords and DSNs are written to the environment files of the services before the server requires them. An embedded
    cluster is created if there is none; one that doesn't run creates the databases when it starts
    (`helmd.postgres.provision`). Raises ConfigurationError, and other kinds of HelmError.
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
        put_uris(registry, layout, settings)
        cluster = embedded_cluster(registry, layout, settings)
        passwords = _passwords(names, layout)
        if keycloak:
            passwords[KEYCLOAK_ROLE] = _password(layout.secrets_file(keycloak), KEYCLOAK_PASSWORD)
        # When it starts, it creates databases, but not its configuration, without which no new role may log in.
        create_cluster(cluster)
        superuser_password(cluster)
        put_passwords(layout.suite_passfile, passwords, databases_of(registry, layout, settings))
        configure(cluster, change=lambda known: remaining_mappings(known, names, facts_of))
        if running(cluster) is None:
            return ()
        from helmd.postgres.roles import ensure_local_databases

        ensure_local_databases(cluster, passwords)
        require_passwords(registry, layout, settings, facts_of)
        return tuple(passwords)
    from helmd.postgres.roles import ensure_role_and_database

    put_uris(registry, layout, settings)
    databases = databases_of(registry, layout, settings)
    for name, password in _passwords(names, layout).items():
        ensure_role_and_database(settings.suite_database, name, password, databases[name])
    if keycloak:
        password = _password(layout.secrets_file(keycloak), KEYCLOAK_PASSWORD)
        ensure_role_and_database(settings.suite_database, KEYCLOAK_ROLE, password)
    return (*names, KEYCLOAK_ROLE) if keycloak else names


def pending_logins(registry: Registry, layout: Layout, settings: Settings) -> Mappings:
    """Return the roles of the embedded cluster that have passwords, but can still log in without one."""
    if not settings.suite_embedded or SUITE_CLUSTER not in registry:
        return {}
    known = current_mappings(embedded_cluster(registry, layout, settings))
    # Before "helmctl apply" no role has a password, not even the superuser.
    return {} if SUPERUSER in known else known


def require_passwords(registry: Registry, layout: Layout, settings: Settings, facts_of: FactsOf) -> None:
    """Make the embedded cluster require the passwords of roles whose services no longer run with a DSN without one."""
    known, names = pending_logins(registry, layout, settings), database_services(registry)
    if known and remaining_mappings(known, names, facts_of) != known:
        cluster = embedded_cluster(registry, layout, settings)
        configure(cluster, change=lambda known: remaining_mappings(known, names, facts_of))


def remaining_mappings(known: Mappings, services: Iterable[str], facts_of: FactsOf) -> Mappings:
    """Return those of the KNOWN roles that may still log in without a password.

    As long as the superuser may, the server has no passwords yet, and all of SERVICES may. Then those whose service is
    still in the run (InvocationID) that was recorded when its password was written.
    """
    remaining: dict[str, str | None] = {}
    wanted = set(services)
    for role, run in known.items():
        if role == SUPERUSER:
            remaining[role] = None
        elif role in wanted:
            current = _invocation_of(facts_of(unit_of(role)))
            recorded = current if run is None else run
            if SUPERUSER in known or (recorded and recorded == current):
                remaining[role] = recorded
    return remaining


def _invocation_of(facts: UnitFacts) -> str:
    """Return the InvocationID of this run of a unit; empty when it is inactive."""
    return "" if facts.active_state in ("inactive", "failed") else facts.invocation


def _password(file: Path, variable: str) -> str:
    return ensure_secrets(file, {variable: new_secret})[variable]
