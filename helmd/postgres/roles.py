"""Roles and databases for services: on a private cluster over its socket, or on an external server.

Every service has a role of its own that may log in and nothing else, and owns the database of its own name, which no
other role may connect to.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from helmd.postgres.cluster import STORE_ROLES, ClusterError, configure
from helmd.postgres.configuration import SUPERUSER, Cluster

_Connection = psycopg.Connection[tuple[Any, ...]]
_MAPPED_WITHIN = 5.0


def admin_conninfo(cluster: Cluster) -> str:
    """How the owning account reaches its cluster as superuser. No secret in it."""
    return make_conninfo(host=str(cluster.socket), port=cluster.port, dbname=SUPERUSER, user=SUPERUSER)


def service_uri(cluster: Cluster, role: str, database: str | None = None) -> str:
    """The URI by which a service reaches its database over the socket. No secret in it."""
    place = quote(str(cluster.socket), safe="/")
    return f"postgresql://{quote(role, safe='')}@/{quote(database or role, safe='')}?host={place}&port={cluster.port}"


def external_dsn(host: str, port: int, role: str, password: str, database: str | None = None) -> str:
    """The URI of a service's database on an external server. Holds the password: never print it."""
    who = f"{quote(role, safe='')}:{quote(password, safe='')}"
    place = f"[{host}]" if ":" in host else quote(host, safe="")
    return f"postgresql://{who}@{place}:{port}/{quote(database or role, safe='')}"


def ensure_role_and_database(admin: str, name: str, password: str | None = None) -> None:
    """Role NAME with a database of that name, on the server that ADMIN reaches; safe to run again.

    A given password is set each time, so that server and secrets file agree; it leaves this process only as its SCRAM
    verifier. ADMIN needs CREATEROLE and CREATEDB. Raises ClusterError.
    """
    with _connection(admin) as connection:
        _ensure_role(connection, name, password)
        _ensure_database(connection, name, owner=name)


def ensure_local_database(cluster: Cluster, name: str, password: str | None = None) -> str:
    """As `ensure_role_and_database` on a private, running cluster; returns the DSN when the role can really log in."""
    if name == SUPERUSER:
        raise ClusterError(f"'{name}' is the cluster's own administrator and no service's role")
    configure(replace(cluster, roles=(*cluster.roles, name)))
    ensure_role_and_database(admin_conninfo(cluster), name, password)
    _await_login(service_uri(cluster, name))
    return service_uri(cluster, name)


def ensure_store(cluster: Cluster) -> None:
    """Helm's own database: ``helm_owner`` owns and migrates it, ``helm`` may connect, with what migrations grant."""
    configure(cluster)
    ensure_store_roles(admin_conninfo(cluster))
    owner, login = STORE_ROLES
    for role in (owner, login):
        _await_login(service_uri(cluster, role, "helm"))


def ensure_store_roles(admin: str, owner_password: str | None = None, password: str | None = None) -> None:
    """As `ensure_store`, on any server that ADMIN reaches. Raises ClusterError."""
    owner, login = STORE_ROLES
    with _connection(admin) as connection:
        _ensure_role(connection, owner, owner_password)
        _ensure_role(connection, login, password)
        _ensure_database(connection, "helm", owner=owner)
        connection.execute(sql.SQL("GRANT CONNECT ON DATABASE helm TO {}").format(sql.Identifier(login)))


def _ensure_role(connection: _Connection, name: str, password: str | None) -> None:
    role = sql.Identifier(name)
    if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone() is None:
        # Two set-ups at once: the second finds the role made by the first, which is as good.
        with suppress(errors.DuplicateObject, errors.DuplicateDatabase, errors.UniqueViolation):
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
    if password is not None:
        # The verifier, so that no log of failed or slow statements can hold the password (RFC 5803).
        verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256")
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(verifier.decode())))


def _ensure_database(connection: _Connection, name: str, owner: str) -> None:
    database = sql.Identifier(name)
    query = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s"
    found = connection.execute(query, (name,)).fetchone()
    if found is None:
        _join(connection, owner)
        with suppress(errors.DuplicateObject, errors.DuplicateDatabase, errors.UniqueViolation):
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'").format(
                    database, sql.Identifier(owner)
                )
            )
    elif found[0] != owner:
        raise ClusterError(
            f"the database '{name}' is there already and belongs to the role '{found[0]}'",
            hint=f'Give it away with: ALTER DATABASE "{name}" OWNER TO "{owner}"; or rename it.',
        )
    connection.execute(sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC").format(database))


def _join(connection: _Connection, owner: str) -> None:
    """Only a member of a role may give it a database, unless it is a superuser."""
    query = "SELECT rolsuper OR pg_has_role(current_user, %s, 'USAGE') FROM pg_roles WHERE rolname = current_user"
    row = connection.execute(query, (owner,)).fetchone()
    if row is None or not row[0]:
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(owner)))


@contextmanager
def _connection(admin: str) -> Iterator[_Connection]:
    """A session in autocommit, as CREATE DATABASE wants it."""
    try:
        with psycopg.connect(admin, autocommit=True, connect_timeout=10) as connection:
            yield connection
    except psycopg.OperationalError as fault:
        raise ClusterError(
            f"PostgreSQL can't be reached: {_first_line(fault)}",
            hint="Is its unit running? helmctl doctor tells.",
        ) from fault
    except psycopg.Error as fault:
        raise ClusterError(f"PostgreSQL refused: {_first_line(fault)}") from fault


def _await_login(uri: str) -> None:
    """A running server reads a new mapping a moment after its signal; so ask until the role gets in."""
    deadline = time.monotonic() + _MAPPED_WITHIN
    while True:
        try:
            psycopg.connect(uri, connect_timeout=10).close()
            return
        except psycopg.OperationalError as fault:
            if time.monotonic() > deadline:
                raise ClusterError(f"a new role can't log in: {_first_line(fault)}") from fault
        time.sleep(0.02)


def _first_line(fault: psycopg.Error) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0]
