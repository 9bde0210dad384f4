"""Roles and databases for services: on a private cluster over its socket, or on an external server.

Every service has its own role, which may only log in, by password. It owns the database of its name, to which no other
role may connect.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from helmd.model.suite.names import DATABASE_CONNECTIONS
from helmd.postgres.cluster import (
    STORE_ROLES,
    ClusterError,
    PasswordNeededError,
    configure,
    superuser_password,
)
from helmd.postgres.configuration import SUPERUSER, Cluster, PasswordLogin
from helmd.postgres.uris import external_dsn, service_uri

_Connection = psycopg.Connection[tuple[Any, ...]]
_RELOADED_WITHIN = 5.0
_RIGHTS = ("SUPERUSER", "CREATEDB", "CREATEROLE", "REPLICATION", "BYPASSRLS")
"""Role attributes that no service has (CREATE ROLE, "Parameters")."""


def admin_conninfo(cluster: Cluster) -> str:
    """Return the conninfo string with which the owning account connects as superuser.

    It contains no secret: libpq reads the password file.
    """
    passfile = {"passfile": str(cluster.passfile)} if cluster.passfile else {}
    return make_conninfo(host=str(cluster.socket), port=cluster.port, dbname=SUPERUSER, user=SUPERUSER, **passfile)


def ensure_role_and_database(admin: str, name: str, password: str | None = None, database: str | None = None) -> None:
    """Create the role NAME with a DATABASE (by default of its name), if missing, on the server of ADMIN.

    A given password is always set, so that server and secrets file agree; only its SCRAM verifier is sent. ADMIN needs
    CREATEROLE and CREATEDB. Raises ClusterError.
    """
    with administrator(admin) as connection:
        _ensure_service(connection, name, password, database or name)


def ensure_local_databases(cluster: Cluster, passwords: Mapping[str, str | None]) -> None:
    """As `ensure_role_and_database`, for all roles in PASSWORDS, on a private, running cluster.

    The password of the superuser is set and required as well, and no other role may connect to any database. Returns
    once the roles can log in.
    """
    if SUPERUSER in passwords:
        raise ClusterError(f"'{SUPERUSER}' is the cluster's own administrator and no service's role")
    password = superuser_password(cluster)
    with administrator(admin_conninfo(cluster)) as connection:
        _set_password(connection, SUPERUSER, password)
        databases = {access.role: access.database for access in (*cluster.tcp, *cluster.logins)}
        limits = {access.role: access.connections for access in (*cluster.logins, *cluster.tcp)}
        for name, secret in passwords.items():
            _ensure_service(connection, name, secret, databases.get(name, name))
            _leave_all_roles(connection, name)
            _limit_connections(connection, name, limits.get(name, DATABASE_CONNECTIONS))
        _close_databases(connection)
    configure(cluster, change=lambda known: {role: run for role, run in known.items() if role != SUPERUSER})
    for access in (*cluster.logins, *cluster.tcp):
        if secret := passwords.get(access.role):
            _await_login(_login(cluster, access, secret))


def _login(cluster: Cluster, access: PasswordLogin, password: str) -> str:
    if access in cluster.tcp:
        uri = external_dsn("127.0.0.1", cluster.port, access.role, password, access.database)
        # channel_binding=require: the password is never sent, whatever method the server requests.
        given = {"sslmode": "verify-full", "sslrootcert": str(cluster.certificate), "channel_binding": "require"}
        return f"{uri}?{urlencode(given, safe='/', quote_via=quote)}"
    return service_uri(cluster, access.role, access.database, password)


def ensure_store(cluster: Cluster) -> None:
    """Create Helm's own database: ``helm_owner`` owns and migrates it, ``helm`` has the privileges granted by
    migrations.
    """
    configure(cluster)
    ensure_store_roles(admin_conninfo(cluster))
    owner, login = STORE_ROLES
    for role in (owner, login):
        _await_login(service_uri(cluster, role, "helm"))


def ensure_store_roles(admin: str, owner_password: str | None = None, password: str | None = None) -> None:
    """As `ensure_store`, on the server of ADMIN. Raises ClusterError."""
    owner, login = STORE_ROLES
    with administrator(admin) as connection:
        _ensure_role(connection, owner, owner_password)
        _ensure_role(connection, login, password)
        _ensure_database(connection, "helm", owner=owner)
        connection.execute(sql.SQL("GRANT CONNECT ON DATABASE helm TO {}").format(sql.Identifier(login)))


def _ensure_service(connection: _Connection, name: str, password: str | None, database: str) -> None:
    _ensure_role(connection, name, password)
    _revoke_privileges(connection, name)
    _ensure_database(connection, database, owner=name)


def rename_database(admin: str, before: str, after: str) -> None:
    """Rename the database BEFORE to AFTER, if it exists; nobody may be connected to it. Raises ClusterError."""
    with administrator(admin) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (before,)).fetchone():
            connection.execute(
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(before), sql.Identifier(after))
            )


def copy_database(admin: str, name: str, copy: str) -> None:
    """Copy the database NAME to COPY, which is replaced if it exists; nobody may be connected to NAME.

    ADMIN needs CREATEDB. Raises ClusterError.
    """
    with administrator(admin) as connection:
        owner = _owner(connection, name)
        if owner is None:
            raise ClusterError(f"there is no database '{name}'")
        _join(connection, owner)
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(copy)))
        words = (sql.Identifier(copy), sql.Identifier(name), sql.Identifier(owner))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(*words))
        connection.execute(sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC").format(words[0]))


def restore_copy(admin: str, name: str, copy: str) -> None:
    """Replace the database NAME by COPY, if that exists. Raises ClusterError.

    They are renamed in one transaction, so that a database NAME always exists.
    """
    removed = f"{copy}_removed"
    with administrator(admin) as connection:
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(removed))
        if _owner(connection, copy) is not None:
            connection.execute(drop)
            with connection.transaction():
                for before, after in ((name, removed), (copy, name)):
                    words = (sql.Identifier(before), sql.Identifier(after))
                    connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*words))
        connection.execute(drop)


def _owner(connection: _Connection, database: str) -> str | None:
    query = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s"
    found = connection.execute(query, (database,)).fetchone()
    return str(found[0]) if found else None


def _ensure_role(connection: _Connection, name: str, password: str | None) -> None:
    if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone() is None:
        # A concurrent set-up has created the role meanwhile.
        with suppress(errors.DuplicateObject, errors.DuplicateDatabase, errors.UniqueViolation):
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    if password is not None:
        _set_password(connection, name, password)


def _set_password(connection: _Connection, role: str, password: str) -> None:
    """Set a password by its verifier (RFC 5803), so that it can't be in logs of failed or slow statements."""
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier)))


def _revoke_privileges(connection: _Connection, name: str) -> None:
    """Revoke all attributes of a service's role except LOGIN."""
    query = "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = %s"
    row = connection.execute(query, (name,)).fetchone()
    if row and any(row):
        denied = sql.SQL(" ".join(f"NO{right}" for right, held in zip(_RIGHTS, row, strict=True) if held))
        connection.execute(sql.SQL("ALTER ROLE {} {}").format(sql.Identifier(name), denied))


def _leave_all_roles(connection: _Connection, name: str) -> None:
    """Revoke the memberships of a service's role, which would give it privileges of other roles."""
    query = """
        SELECT pg_get_userbyid(roleid), pg_get_userbyid(grantor)
        FROM pg_auth_members WHERE pg_get_userbyid(member) = %s"""
    for role, grantor in connection.execute(query, (name,)).fetchall():
        connection.execute(
            sql.SQL("REVOKE {} FROM {} GRANTED BY {} CASCADE").format(*map(sql.Identifier, (role, name, grantor)))
        )


def _limit_connections(connection: _Connection, name: str, limit: int) -> None:
    """Set the connection limit of a role, so that one service leaves enough connections for all others."""
    if connection.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = %s", (name,)).fetchone() != (limit,):
        connection.execute(
            sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}").format(sql.Identifier(name), sql.Literal(limit))
        )


def _close_databases(connection: _Connection) -> None:
    """Revoke CONNECT from PUBLIC on all databases, so that only the owner may connect."""
    query = """
        SELECT datname FROM pg_database
        WHERE EXISTS (SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0)"""
    for (database,) in connection.execute(query).fetchall():
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)))


def _ensure_database(connection: _Connection, name: str, owner: str) -> None:
    database = sql.Identifier(name)
    found = _owner(connection, name)
    if found is None:
        _join(connection, owner)
        with suppress(errors.DuplicateObject, errors.DuplicateDatabase, errors.UniqueViolation):
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'").format(
                    database, sql.Identifier(owner)
                )
            )
    elif found != owner:
        raise ClusterError(
            f"the database '{name}' is there already and belongs to the role '{found}'",
            hint=f'Give it away with: ALTER DATABASE "{name}" OWNER TO "{owner}"; or rename it.',
        )
    connection.execute(sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC").format(database))


def _join(connection: _Connection, owner: str) -> None:
    """Become a member of OWNER, which creating a database for it requires, unless superuser."""
    query = "SELECT rolsuper OR pg_has_role(current_user, %s, 'USAGE') FROM pg_roles WHERE rolname = current_user"
    row = connection.execute(query, (owner,)).fetchone()
    if row is None or not row[0]:
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(owner)))


@contextmanager
def administrator(admin: str) -> Iterator[_Connection]:
    """Yield a connection of ADMIN in autocommit mode, which CREATE DATABASE requires. Raises ClusterError."""
    try:
        with psycopg.connect(admin, autocommit=True, connect_timeout=10) as connection:
            yield connection
    except psycopg.OperationalError as error:
        kind = PasswordNeededError if error.pgconn and error.pgconn.needs_password else ClusterError
        raise kind(
            f"PostgreSQL can't be reached: {_first_line(error)}",
            hint="Is its unit running? See: helmctl doctor",
        ) from error
    except psycopg.Error as error:
        raise ClusterError(f"PostgreSQL refused: {_first_line(error)}") from error


def _await_login(uri: str) -> None:
    """Wait until the role can log in: a running server reloads its files some time after the signal."""
    deadline = time.monotonic() + _RELOADED_WITHIN
    while True:
        try:
            psycopg.connect(uri, connect_timeout=10).close()
            return
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise ClusterError(f"a new role can't log in: {_first_line(error)}") from error
        time.sleep(0.02)


def _first_line(error: psycopg.Error) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
