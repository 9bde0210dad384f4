"""Dumping databases for a backup, restoring them, and verifying the result: pg_dump(1), pg_restore(1), roles.

All databases of a cluster are dumped from snapshots taken immediately one after the other. Since a snapshot belongs to
one database, this is as close to a common point in time as is possible without stopping the server.
"""

import hashlib
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any, cast

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from helmd.model.errors import NotSetUpError
from helmd.postgres.binaries import Binaries
from helmd.postgres.cluster import ClusterError, server_environment
from helmd.postgres.configuration import SUPERUSER, Cluster
from helmd.postgres.roles import admin_conninfo

_Connection = psycopg.Connection[tuple[Any, ...]]
_CHUNK = 1 << 20
_VERIFIER = re.compile(r"SCRAM-SHA-256\$\d+:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+\Z|md5[0-9a-f]{32}\Z")
_NOT_COPIED = ("_before_upgrade", "_removed")
"""Suffixes of the databases that an upgrade of Keycloak keeps for a rollback."""
_OURS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_TABLES = (
    "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE OURS AND c.relkind IN ('r', 'm') ORDER BY 1, 2"
)
_SCHEMA_QUERIES = (
    "SELECT 'relation', n.nspname, c.relname, c.relkind, pg_get_userbyid(c.relowner) FROM pg_class c"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE OURS AND c.relkind <> 't'"
    # An invalid index, which pg_dump omits.
    " AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = c.oid AND c.relkind = 'i' AND NOT i.indisvalid)",
    "SELECT 'column', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,"
    " a.atthasdef, a.attidentity FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE OURS AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped",
    # Columns of an index keep the names that those of its table had when it was made.
    "SELECT 'index', n.nspname, c.relname, i.indisunique, i.indisprimary, ARRAY(SELECT coalesce(a.attname, '')::text"
    " FROM unnest(i.indkey) WITH ORDINALITY k (number, place) LEFT JOIN pg_attribute a"
    " ON a.attrelid = i.indrelid AND a.attnum = k.number ORDER BY k.place) FROM pg_index i"
    " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE OURS"
    " AND (i.indisvalid OR c.relkind = 'I')",
    "SELECT 'constraint', n.nspname, c.conrelid::regclass::text, c.conname, c.contype FROM pg_constraint c"
    " JOIN pg_namespace n ON n.oid = c.connamespace WHERE OURS AND c.contype <> 'n'",
    "SELECT 'trigger', t.tgrelid::regclass::text, t.tgname, t.tgenabled FROM pg_trigger t JOIN pg_class c"
    " ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE OURS AND NOT t.tgisinternal",
    "SELECT 'function', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid), md5(p.prosrc),"
    " pg_get_userbyid(p.proowner) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE OURS",
    "SELECT 'label', n.nspname, t.typname, e.enumsortorder, e.enumlabel FROM pg_enum e JOIN pg_type t"
    " ON t.oid = e.enumtypid JOIN pg_namespace n ON n.oid = t.typnamespace WHERE OURS",
    "SELECT 'extension', extname FROM pg_extension",
    "SELECT 'right', n.nspname, c.relname, a.grantee::regrole::text, a.privilege_type, a.is_grantable"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(coalesce(c.relacl, acldefault("
    "(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::\"char\", c.relowner))) a"
    " WHERE OURS AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')",
    "SELECT 'schema', n.nspname, pg_get_userbyid(n.nspowner) FROM pg_namespace n WHERE OURS AND n.nspname <> 'public'",
)
"""The parts of a schema to compare, without the text of expressions, which may change by dump and restore."""


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """A role other than the superuser. ``verifier`` is that of its password (pg_authid.rolpassword)."""

    name: str
    login: bool
    limit: int
    verifier: str
    member_of: tuple[str, ...]
    settings: tuple[str, ...]
    """Settings for all databases, such as ``search_path=app``."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An exported snapshot of a database, valid until the end of the transaction of ``connection``."""

    database: str
    id: str
    taken_at: float
    size: int
    connection: _Connection


def databases_in(cluster: Cluster) -> dict[str, int]:
    """Return the databases of a running cluster to back up, with their sizes in bytes. Raises ClusterError."""
    query = """
        SELECT datname, pg_database_size(oid) FROM pg_database
        WHERE datallowconn AND NOT datistemplate AND datname <> %s ORDER BY datname"""
    with _connected(cluster) as connection:
        found = connection.execute(query, (SUPERUSER,)).fetchall()
    return {str(name): int(size) for name, size in found if not str(name).endswith(_NOT_COPIED)}


@contextmanager
def snapshots(cluster: Cluster, databases: Iterable[str]) -> Iterator[list[Snapshot]]:
    """Yield snapshots of DATABASES. Raises ClusterError."""
    with ExitStack() as stack:
        made = []
        for name in databases:
            connection = stack.enter_context(_connected(cluster, name, autocommit=False))
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            row = connection.execute("SELECT pg_export_snapshot(), pg_database_size(current_database())").fetchone()
            assert row is not None
            made.append(Snapshot(name, str(row[0]), time.time(), int(row[1]), connection))
        yield made


def row_counts(connection: _Connection) -> dict[str, int]:
    """Return the number of rows by table, in the snapshot of CONNECTION."""
    found = {}
    for schema, table in connection.execute(_about_ours(_TABLES)).fetchall():
        row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, table))).fetchone()
        found[f"{schema}.{table}"] = int(row[0]) if row else 0
    return found


def schema_digest(connection: _Connection) -> str:
    """Return a hash of tables, columns, constraints, functions, owners and privileges."""
    digest = hashlib.sha256()
    connection.execute("SET search_path = ''")
    for query in _SCHEMA_QUERIES:
        for row in sorted(repr(row) for row in connection.execute(_about_ours(query)).fetchall()):
            digest.update(row.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def database_state(cluster: Cluster, database: str) -> tuple[Mapping[str, int], str]:
    """Return the number of rows by table, and the `schema_digest`, of a database. Raises ClusterError."""
    with _connected(cluster, database) as connection:
        return row_counts(connection), schema_digest(connection)


def has_realm(cluster: Cluster, database: str, realm: str) -> bool:
    """Return whether the REALM is in Keycloak's DATABASE. Raises ClusterError."""
    with _connected(cluster, database) as connection:
        if connection.execute("SELECT to_regclass('public.realm')").fetchone() == (None,):
            return False
        return connection.execute("SELECT 1 FROM public.realm WHERE name = %s", (realm,)).fetchone() is not None


def dump(binaries: Binaries, cluster: Cluster, snapshot: Snapshot, take: Callable[[bytes], None]) -> None:
    """Pass the output of pg_dump(1), in custom format without compression, to TAKE.

    Raises ClusterError.
    """
    words = [*_words(binaries, "pg_dump", cluster), "--format=custom", "--compress=0", f"--snapshot={snapshot.id}"]
    words += ["--create", f"--dbname={snapshot.database}"]
    with tempfile.TemporaryFile() as said:
        environment = dict(server_environment(cluster))
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, env=environment, cwd="/"
        )
        with cast(IO[bytes], process.stdout) as output:
            try:
                while data := output.read(_CHUNK):
                    take(data)
            except BaseException:
                process.kill()
                process.wait()
                raise
        process.wait()
        _check_ended(process, said, f"pg_dump of {snapshot.database}")


class Restoration:
    """Restores one database with pg_restore(1). An existing one is dropped, and its sessions are terminated.

    It is restored as superuser, and a dump may contain any statement, so it must be authenticated. Raises
    ClusterError.
    """

    def __init__(self, binaries: Binaries, cluster: Cluster, database: str) -> None:
        with _connected(cluster) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))
        words = [*_words(binaries, "pg_restore", cluster), "--create", "--exit-on-error", f"--dbname={SUPERUSER}"]
        self._what = f"pg_restore of {database}"
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end` and `abandon`
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            env=dict(server_environment(cluster)),
            cwd="/",
        )
        self._given = cast(IO[bytes], self._process.stdin)

    def give(self, data: bytes) -> None:
        """Write the next bytes of the dump to pg_restore(1)."""
        try:
            self._given.write(data)
        except BrokenPipeError:
            # It has failed; `end` reports why.
            self.end()

    def end(self) -> None:
        """Finish the dump, and wait until it is restored."""
        with suppress(BrokenPipeError):
            self._given.close()
        self._process.wait()
        with self._said as said:
            _check_ended(self._process, said, self._what)

    def abandon(self) -> None:
        """Cancel the restore."""
        self._process.kill()
        self._process.wait()
        with suppress(OSError):
            self._given.close()
        self._said.close()


def roles_of(cluster: Cluster) -> list[RoleFacts]:
    """Return the roles of a cluster except its superuser. Raises ClusterError."""
    query = """
        SELECT a.rolname, a.rolcanlogin, a.rolconnlimit, coalesce(a.rolpassword, ''),
            ARRAY(SELECT pg_get_userbyid(m.roleid)::text FROM pg_auth_members m WHERE m.member = a.oid ORDER BY 1),
            coalesce((SELECT s.setconfig FROM pg_db_role_setting s WHERE s.setrole = a.oid AND s.setdatabase = 0), '{}')
        FROM pg_authid a WHERE a.rolname !~ '^pg_' AND a.rolname <> %s ORDER BY a.rolname"""
    with _connected(cluster) as connection:
        rows = connection.execute(query, (SUPERUSER,)).fetchall()
    return [RoleFacts(row[0], row[1], row[2], row[3], tuple(row[4]), tuple(row[5])) for row in rows]


def put_roles(cluster: Cluster, roles: Sequence[RoleFacts]) -> None:
    """Create those ROLES that CLUSTER lacks, without SUPERUSER. Raises ClusterError."""
    with _connected(cluster) as connection:
        known = {str(row[0]) for row in connection.execute("SELECT rolname FROM pg_roles").fetchall()}
        made = [role for role in roles if role.name not in known]
        for role in made:
            name = sql.Identifier(role.name)
            rights = sql.SQL("LOGIN" if role.login else "NOLOGIN")
            connection.execute(
                sql.SQL("CREATE ROLE {} {} CONNECTION LIMIT {}").format(name, rights, sql.Literal(int(role.limit)))
            )
            if _VERIFIER.match(role.verifier):
                connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(role.verifier)))
            for setting in role.settings:
                key, _, value = setting.partition("=")
                if not re.fullmatch(r"[A-Za-z_][\w.]*", key):
                    continue
                # set_config() parses a list; ALTER ROLE would take it for one name.
                connection.execute("SELECT set_config(%s, %s, false)", (key, value))
                connection.execute(sql.SQL("ALTER ROLE {} SET {} FROM CURRENT").format(name, sql.SQL(key)))
                connection.execute(sql.SQL("RESET {}").format(sql.SQL(key)))
        everybody = known | {role.name for role in roles}
        for role in made:
            for group in role.member_of:
                if group in everybody and not group.startswith("pg_") and group != SUPERUSER:
                    words = (sql.Identifier(group), sql.Identifier(role.name))
                    connection.execute(sql.SQL("GRANT {} TO {}").format(*words))


def _about_ours(query: str) -> bytes:
    return query.replace("OURS", _OURS).encode()


def _words(binaries: Binaries, program: str, cluster: Cluster) -> list[str]:
    if not binaries.has(program):
        raise NotSetUpError(
            f"{binaries.program(program)} is not installed",
            hint=f"sudo apt install postgresql-client-{binaries.major}",
        )
    words = [str(binaries.program(program)), "--no-password", f"--username={SUPERUSER}"]
    return [*words, f"--host={cluster.socket}", f"--port={cluster.port}"]


def _check_ended(process: "subprocess.Popen[bytes]", said: IO[bytes], what: str) -> None:
    if process.returncode != 0:
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
        raise ClusterError(f"{what} failed with exit code {process.returncode}", lines=lines[-12:])


@contextmanager
def _connected(cluster: Cluster, database: str = SUPERUSER, autocommit: bool = True) -> Iterator[_Connection]:
    """Yield a session of the superuser. Raises ClusterError."""
    try:
        conninfo = make_conninfo(admin_conninfo(cluster), dbname=database)
        with psycopg.connect(conninfo, autocommit=autocommit, connect_timeout=10) as connection:
            yield connection
    except psycopg.OperationalError as error:
        raise ClusterError(
            f"PostgreSQL can't be reached: {_sentence(error)}", hint="To start it, run: helmctl start postgres"
        ) from error
    except psycopg.Error as error:
        raise ClusterError(f"PostgreSQL refused: {_sentence(error)}") from error


def _sentence(error: psycopg.Error) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
