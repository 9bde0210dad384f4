"""Whether roles use their databases: sessions and tables."""

from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import make_conninfo

from helmd.postgres.cluster import ClusterError

_SECONDS = 5


class DatabaseUse(NamedTuple):
    """The open sessions of a role, and whether its database has tables other than PostgreSQL's own."""

    sessions: int
    tables: bool


def database_use(admin: str, role: str, database: str) -> DatabaseUse:
    """Return how ROLE uses DATABASE, as seen by the role of the conninfo string ADMIN. Raises ClusterError."""
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND datname = %s"
    tables = """
        SELECT EXISTS (
            SELECT FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
            WHERE relkind IN ('r', 'p') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
        )"""
    found = _one(admin, sessions, (role, database))
    return DatabaseUse(int(found), bool(_one(make_conninfo(admin, dbname=database), tables, ())))


def _one(conninfo: str, query: str, parameters: tuple[str, ...]) -> Any:
    try:
        with psycopg.connect(conninfo, connect_timeout=_SECONDS) as connection:
            row = connection.execute(query.encode(), parameters).fetchone()
    except psycopg.Error as error:
        raise ClusterError((str(error).strip().splitlines() or [type(error).__name__])[0]) from error
    assert row is not None
    return row[0]
