"""Copying a service's database while nobody is connected to it, and replacing it by a copy.

A copy has the owner, privileges, settings and connection limit of the original, since it may replace that. It allows no
connections. Databases are renamed in one transaction, so that one with the service's name always exists, and each
function can be repeated after an interruption.
"""

import calendar
import re
import time
from typing import Any

import psycopg
from psycopg import sql

from helmd.postgres.cluster import ClusterError
from helmd.postgres.roles import administrator

_Connection = psycopg.Connection[tuple[Any, ...]]
_ENDED_WITHIN = 10.0
"""Time limit in seconds for terminated sessions to end."""
_LONGEST_NAME = 63
_COPY = re.compile(r".*_([a-z]+)_([0-9]{8}t[0-9]{6}z)")
_LISTS = frozenset(
    {"local_preload_libraries", "search_path", "session_preload_libraries", "temp_tablespaces",
     "unix_socket_directories"}
)  # fmt: skip
"""Settings whose value is a list of quoted names (GUC_LIST_QUOTE): as a literal it would become one name."""


def copy_name(database: str, purpose: str, stamp: str) -> str:
    """Return the name of a copy of DATABASE, within PostgreSQL's limit of length; STAMP makes it unique."""
    end = f"_{purpose}_{stamp.lower()}"
    return database.encode()[: _LONGEST_NAME - len(end)].decode(errors="ignore") + end


def close_database(admin: str, name: str) -> None:
    """Disallow connections to the database NAME and terminate its sessions. Raises ClusterError."""
    with administrator(admin) as connection:
        _allow(connection, name, False)
        _end_sessions(connection, name)


def open_database(admin: str, name: str) -> None:
    """Allow connections to the database NAME again. Raises ClusterError."""
    with administrator(admin) as connection:
        if _exists(connection, name):
            _allow(connection, name, True)


def clone_database(admin: str, name: str, copy: str) -> int:
    """Copy the closed database NAME to COPY, which is replaced if it exists; return the size in bytes.

    Raises ClusterError.
    """
    with administrator(admin) as connection:
        _end_sessions(connection, name)
        owner = _text(connection, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", name)
        if owner is None:
            raise ClusterError(f"there is no database '{name}'")
        if prepared := _text(connection, "SELECT gid FROM pg_prepared_xacts WHERE database = %s LIMIT 1", name):
            raise ClusterError(
                f"the database '{name}' has a prepared transaction: {prepared}",
                hint="Commit it or roll it back (COMMIT PREPARED, ROLLBACK PREPARED), and try again.",
            )
        _drop(connection, copy)
        words = {"copy": sql.Identifier(copy), "name": sql.Identifier(name), "owner": sql.Identifier(owner)}
        connection.execute(
            sql.SQL("CREATE DATABASE {copy} TEMPLATE {name} OWNER {owner} ALLOW_CONNECTIONS false").format(**words)
        )
        _copy_privileges(connection, name, copy, owner)
        _copy_settings(connection, name, copy)
        size = connection.execute("SELECT pg_database_size(%s)", (copy,)).fetchone()
        return int(size[0]) if size else 0


def put_in_place(admin: str, name: str, copy: str, aside: str) -> bool:
    """Rename COPY to NAME, and the database NAME to ASIDE; return False if that was done already.

    The database NAME is closed afterwards. Raises ClusterError, also if neither the copy nor ASIDE exists.
    """
    with administrator(admin) as connection:
        if not _exists(connection, copy):
            if _exists(connection, name) and _exists(connection, aside):
                return False
            raise ClusterError(f"the copy of the database '{name}' is missing: {copy}")
        _drop(connection, aside)
        present = _exists(connection, name)
        if present:
            _allow(connection, name, False)
            _end_sessions(connection, name)
        _end_sessions(connection, copy)
        with connection.transaction():
            pairs = [(name, aside)] if present else []
            for before, after in (*pairs, (copy, name)):
                words = (sql.Identifier(before), sql.Identifier(after))
                connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*words))
        return True


def drop_database(admin: str, name: str) -> None:
    """Drop the database NAME, if it exists, and terminate its sessions. Raises ClusterError."""
    with administrator(admin) as connection:
        _drop(connection, name)


def drop_role(admin: str, name: str) -> None:
    """Drop the role NAME, if it exists, with its shared objects. Raises ClusterError."""
    with administrator(admin) as connection:
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone():
            connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def copies_of(admin: str, database: str) -> list[str]:
    """Return the names of all copies of DATABASE, as `copy_name` gives them. Raises ClusterError."""
    with administrator(admin) as connection:
        names = [str(row[0]) for row in connection.execute("SELECT datname FROM pg_database ORDER BY 1").fetchall()]
    found = []
    for name in names:
        parts = _COPY.fullmatch(name)
        if parts and name == copy_name(database, parts[1], parts[2]):
            found.append(name)
    return found


def copy_time(copy: str, purpose: str) -> float | None:
    """Return the time of a COPY for PURPOSE from its name, in seconds since the epoch, or None for other names."""
    parts = _COPY.fullmatch(copy)
    if parts is None or parts[1] != purpose:
        return None
    try:
        return float(calendar.timegm(time.strptime(parts[2], "%Y%m%dt%H%M%Sz")))
    except ValueError:
        return None


def role_exists(admin: str, name: str) -> bool:
    """Return whether the role NAME exists. Raises ClusterError."""
    with administrator(admin) as connection:
        return connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone() is not None


def database_exists(admin: str, name: str) -> bool:
    """Return whether the database NAME exists. Raises ClusterError."""
    with administrator(admin) as connection:
        return _exists(connection, name)


def database_size(admin: str, name: str) -> int:
    """Return the size of the database NAME in bytes; 0 if it does not exist. Raises ClusterError."""
    with administrator(admin) as connection:
        query = "SELECT pg_database_size(oid) FROM pg_database WHERE datname = %s"
        found = connection.execute(query, (name,)).fetchone()
        return int(found[0]) if found else 0


def rows_changed(admin: str, name: str) -> int | None:
    """Return the number of rows inserted, updated and deleted since the statistics of the database NAME began.

    None if there are no statistics. Raises ClusterError.
    """
    with administrator(admin) as connection:
        query = "SELECT tup_inserted + tup_updated + tup_deleted FROM pg_stat_database WHERE datname = %s"
        found = connection.execute(query, (name,)).fetchone()
        return int(found[0]) if found and found[0] is not None else None


def _exists(connection: _Connection, name: str) -> bool:
    return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is not None


def _text(connection: _Connection, query: str, *values: object) -> str | None:
    found = connection.execute(query.encode(), values).fetchone()
    return None if found is None or found[0] is None else str(found[0])


def _allow(connection: _Connection, name: str, allowed: bool) -> None:
    words = (sql.Identifier(name), sql.SQL("true" if allowed else "false"))
    connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(*words))


def _end_sessions(connection: _Connection, name: str) -> None:
    deadline = time.monotonic() + _ENDED_WITHIN
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    while connection.execute(ended, (name,)).fetchall():
        if time.monotonic() > deadline:
            raise ClusterError(
                f"sessions of the database '{name}' do not end",
                hint="pg_stat_activity says who they are. End what they belong to, and try again.",
            )
        time.sleep(0.05)


def _drop(connection: _Connection, name: str) -> None:
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _copy_privileges(connection: _Connection, name: str, copy: str, owner: str) -> None:
    """Copy the privileges, comment and connection limit of the database NAME to COPY."""
    query = "SELECT datconnlimit, datacl IS NULL, shobj_description(oid, 'pg_database'), oid FROM pg_database"
    found = connection.execute(f"{query} WHERE datname = %s".encode(), (name,)).fetchone()
    if found is None:
        return
    limit, default, comment, oid = found
    target = sql.Identifier(copy)
    connection.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(target, sql.Literal(limit)))
    if comment is not None:
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(target, sql.Literal(comment)))
    if default:
        return
    for role in (sql.SQL("PUBLIC"), sql.Identifier(owner)):
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(target, role))
    granted = """
        SELECT CASE WHEN grantee = 0 THEN NULL ELSE pg_get_userbyid(grantee) END, privilege_type, is_grantable
        FROM pg_database, aclexplode(datacl) WHERE pg_database.oid = %s"""
    for grantee, privilege, grantable in connection.execute(granted, (oid,)).fetchall():
        role = sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee)
        option = sql.SQL(" WITH GRANT OPTION" if grantable else "")
        words = (sql.SQL(privilege), target, role, option)
        connection.execute(sql.SQL("GRANT {} ON DATABASE {} TO {}{}").format(*words))


def _copy_settings(connection: _Connection, name: str, copy: str) -> None:
    """Copy the settings of the database NAME to COPY, including those of single roles (ALTER ROLE ... IN DATABASE)."""
    query = """
        SELECT CASE WHEN setrole = 0 THEN NULL ELSE pg_get_userbyid(setrole) END, unnest(setconfig)
        FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname = %s"""
    for role, entry in connection.execute(query, (name,)).fetchall():
        variable, _, value = str(entry).partition("=")
        whose: sql.Composable
        if role is None:
            whose = sql.SQL("DATABASE {}").format(sql.Identifier(copy))
        else:
            whose = sql.SQL("ROLE {} IN DATABASE {}").format(sql.Identifier(role), sql.Identifier(copy))
        setting = sql.SQL(".").join(map(sql.Identifier, variable.split(".")))
        with connection.transaction():
            if variable.lower() in _LISTS:
                connection.execute("SELECT set_config(%s, %s, true)", (variable, value))
                how: sql.Composable = sql.SQL("FROM CURRENT")
            else:
                how = sql.SQL("TO {}").format(sql.Literal(value))
            connection.execute(sql.SQL("ALTER {} SET {} {}").format(whose, setting, how))
