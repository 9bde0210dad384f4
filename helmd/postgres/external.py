"""A PostgreSQL server that Helm does not manage."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from helmd.postgres.cluster import ClusterError

_CONNECT_SECONDS = 5


_PASSED_ON = ("sslmode", "sslrootcert", "sslcrl", "sslcrldir", "sslsni", "ssl_min_protocol_version")
"""TLS parameters for verifying the server. The others identify the client."""


@dataclass(frozen=True, slots=True)
class ExternalServer:
    """The address of an external PostgreSQL server, and its TLS parameters.

    ``host`` is a name, an address, or the directory of a unix socket.
    """

    host: str
    port: int
    parameters: Mapping[str, str]

    @property
    def query(self) -> str:
        return f"?{urlencode(self.parameters)}" if self.parameters else ""

    @property
    def jdbc(self) -> str:
        """HOST:PORT, as JDBC's URLs have it. Raises ClusterError for a unix socket, which JDBC can't use."""
        if self.host.startswith(("/", "@")):
            raise ClusterError(
                f"suite.database names the unix socket in {self.host}, which Keycloak can't use",
                hint="Name the server by its host name or address, also when it is on this machine.",
            )
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def server_of(dsn: str) -> ExternalServer:
    """Return the server that DSN names, without the user."""
    # Imported here, since helmctl apply imports this module, and psycopg takes longer to import than all else of it.
    from psycopg.conninfo import conninfo_to_dict

    given = conninfo_to_dict(dsn)
    parameters = {key: str(given[key]) for key in _PASSED_ON if key in given}
    host = given.get("host") or given.get("hostaddr") or "localhost"
    return ExternalServer(str(host), int(given.get("port") or 5432), parameters)


OLDEST = 13
"""The oldest major version of PostgreSQL that the log store supports."""


def check_store(dsn: str) -> int:
    """Return the major version of the server, if it is suitable for the log store.

    The encoding must be UTF-8, in which services write text. A connection pooler in transaction mode is not suitable,
    since LISTEN, prepared statements and advisory locks belong to a session. Raises ClusterError with the reason.
    """
    import psycopg

    try:
        with (
            psycopg.connect(dsn, connect_timeout=_CONNECT_SECONDS, autocommit=True) as first,
            psycopg.connect(dsn, connect_timeout=_CONNECT_SECONDS, autocommit=True) as second,
        ):
            version = first.info.server_version // 10000
            encoding = first.info.parameter_status("server_encoding")
            servers = [each.execute("SELECT pg_backend_pid()").fetchone() for each in (first, second)]
    except psycopg.Error as error:
        raise ClusterError(_reason(error)) from error
    if version < OLDEST:
        raise ClusterError(
            f"PostgreSQL {version} is too old; {OLDEST} or newer is required", hint="Upgrade the server."
        )
    if encoding != "UTF8":
        raise ClusterError(
            f"its encoding is {encoding}; the log store needs UTF8",
            hint="Create another: createdb --encoding=UTF8 --template=template0 NAME; name it in store.database.",
        )
    if servers[0] == servers[1]:
        raise ClusterError(
            "a connection pooler in transaction mode is in between; the log store needs sessions of its own",
            hint="Name PostgreSQL itself in store.database, or a pool of sessions (PgBouncer: pool_mode = session).",
        )
    return version


def major_version(dsn: str) -> int:
    """Return the major version of the server that DSN reaches. Raises ClusterError with libpq's message."""
    import psycopg

    try:
        with psycopg.connect(dsn, connect_timeout=_CONNECT_SECONDS) as connection:
            return connection.info.server_version // 10000
    except psycopg.Error as error:
        raise ClusterError(_reason(error)) from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
