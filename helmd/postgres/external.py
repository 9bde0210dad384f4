"""A PostgreSQL server that Helm does not run: where it is, and whether it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from helmd.postgres.cluster import ClusterError

_CONNECT_SECONDS = 5


@dataclass(frozen=True, slots=True)
class ExternalServer:
    """Where an external PostgreSQL is, and the TLS parameters (``sslmode`` and the like) of connections to it."""

    host: str
    port: int
    parameters: Mapping[str, str]

    @property
    def query(self) -> str:
        return f"?{urlencode(self.parameters)}" if self.parameters else ""


def server_of(dsn: str) -> ExternalServer:
    """The server that DSN names, without who logs in there."""
    given = conninfo_to_dict(dsn)
    parameters = {key: str(value) for key, value in given.items() if key.startswith("ssl")}
    return ExternalServer(str(given.get("host", "localhost")), int(given.get("port", 5432)), parameters)


def major_version(dsn: str) -> int:
    """The major version of the server that DSN reaches. Raises ClusterError with libpq's reason on one line."""
    try:
        with psycopg.connect(dsn, connect_timeout=_CONNECT_SECONDS) as connection:
            return connection.info.server_version // 10000
    except psycopg.Error as error:
        lines = str(error).strip().splitlines()
        raise ClusterError(lines[0] if lines else type(error).__name__) from error
