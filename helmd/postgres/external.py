"""A PostgreSQL server that Helm does not run: where it is, and whether it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from helmd.postgres.cluster import ClusterError

_CONNECT_SECONDS = 5


_PASSED_ON = ("sslmode", "sslrootcert", "sslcrl", "sslcrldir", "sslsni", "ssl_min_protocol_version")
"""TLS parameters that say how the server is checked. The others are the identity of whoever the DSN is of."""


@dataclass(frozen=True, slots=True)
class ExternalServer:
    """Where an external PostgreSQL is, and how its connections are secured.

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
    """The server that DSN names, without who logs in there."""
    given = conninfo_to_dict(dsn)
    parameters = {key: str(given[key]) for key in _PASSED_ON if key in given}
    host = given.get("host") or given.get("hostaddr") or "localhost"
    return ExternalServer(str(host), int(given.get("port") or 5432), parameters)


def major_version(dsn: str) -> int:
    """The major version of the server that DSN reaches. Raises ClusterError with libpq's reason on one line."""
    try:
        with psycopg.connect(dsn, connect_timeout=_CONNECT_SECONDS) as connection:
            return connection.info.server_version // 10000
    except psycopg.Error as error:
        lines = str(error).strip().splitlines()
        raise ClusterError(lines[0] if lines else type(error).__name__) from error
