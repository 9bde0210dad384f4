"""The contents of a cluster's configuration files: settings, client authentication, and user name maps.

``postgresql.conf`` includes ``hivematrix.conf``, which Helm writes, and then ``postgresql.local.conf``, which is the
admin's and takes precedence. PostgreSQL 15 manual, chapters 20 and 21.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from helmd.model.suite.names import DATABASE_CONNECTIONS

SUPERUSER = "postgres"
"""The bootstrap role of every cluster; pg_upgrade(1) wants the same name in the old and the new one."""

MAP = "hivematrix"
HELM_FILE = "hivematrix.conf"
ADMIN_FILE = "postgresql.local.conf"
LOCKS = 256
"""max_locks_per_transaction. A search over a year of days in four classes locks 5,400 tables and indexes, and several
run concurrently; with the default of 64 they fail with "out of shared memory"."""

SUPERUSER_RESERVED = 3
"""Connections that only the superuser gets (superuser_reserved_connections, PostgreSQL's default)."""
AUTHENTICATION_SECONDS = 10
"""authentication_timeout. Unauthenticated connections have no role yet, so no CONNECTION LIMIT applies, and with the
default of 60 s few processes could occupy all connections."""
CERTIFICATE, PRIVATE_KEY = "server.crt", "server.key"
"""PostgreSQL's default names, in the data directory of a cluster with TCP access."""

_SPARE = 7
"""Connections besides those of services: Helm's own, maintenance, parallel checks."""
_MIB = 1024 * 1024
_SOCKET_PATH_LIMIT = 107
_QUOTED = r'"((?:[^"]|"")*)"'
_IDENT_LINE = re.compile(rf"{MAP}\s+{_QUOTED}\s+{_QUOTED}\s*(?:# until run (\S+) ends\s*)?\Z")
_NO_RUN = "none"

Mappings = Mapping[str, str | None]
"""Roles as which the account may log in without a password, by peer authentication, as ``pg_ident.conf`` lists them.

In a cluster whose roles have passwords these are remaining from earlier versions: each with the invocation id of its
service that was started before the password was in its environment, empty if it was not running then, and None while
the service has no password.
"""


@dataclass(frozen=True, slots=True)
class PasswordLogin:
    """A role that may log in to one database by password, with a maximum number of connections."""

    role: str
    database: str
    connections: int = DATABASE_CONNECTIONS


@dataclass(frozen=True, slots=True)
class Cluster:
    """A private cluster: its location, and who may log in."""

    directory: Path
    socket: Path
    """The directory of its socket, mode 0700."""
    port: int
    """The port in the socket's name; also the TCP port if there is a role with TCP access."""
    account: str
    """The name of the operating system user that owns it."""
    peers: tuple[str, ...] = ()
    """Without a ``passfile``: the roles besides the superuser as which the account may log in without a password."""
    logins: tuple[PasswordLogin, ...] = ()
    """Over the socket, by password."""
    tcp: tuple[PasswordLogin, ...] = ()
    """Over TCP on 127.0.0.1, by password and TLS (JDBC has no unix sockets)."""
    passfile: Path | None = None
    """The password file (libpq, "The Password File") that has the superuser's password; None for a cluster in which
    the account may log in as the superuser and as ``peers`` without one."""
    max_connections: int = 100

    @property
    def certificate(self) -> Path:
        """The certificate by which TCP clients verify the server: any process can listen on the port while it is
        stopped.
        """
        return self.directory / CERTIFICATE

    @property
    def socket_file(self) -> Path:
        return self.socket / f".s.PGSQL.{self.port}"

    def fault(self) -> str | None:
        """Return what is wrong with this definition, as a sentence, or None."""
        paths = (str(self.directory), str(self.socket), self.account)
        if any(sign in path for path in paths for sign in "\n\r\0"):
            return "a path or account name with a line break in it"
        if len(str(self.socket_file).encode()) > _SOCKET_PATH_LIMIT:
            return f"{self.socket_file} is longer than a unix socket's name may be ({_SOCKET_PATH_LIMIT} bytes)"
        return None


def connections_needed(logins: Iterable[PasswordLogin]) -> int:
    """Return max_connections: enough for all LOGINS to use their limits at once, at least 100."""
    return max(100, sum(access.connections for access in logins) + SUPERUSER_RESERVED + _SPARE)


def main_file() -> str:
    """Return ``postgresql.conf``, which only includes two files; the last setting takes effect."""
    return (
        "# Written by Helm; changes here are lost.\n"
        f"# Put your own settings into {ADMIN_FILE} beside this file: they win over Helm's.\n"
        f"include '{HELM_FILE}'\n"
        f"include_if_exists '{ADMIN_FILE}'\n"
    )


def helm_file(cluster: Cluster, memory: int) -> str:
    """Return ``hivematrix.conf`` for a machine with MEMORY bytes, which the cluster shares with other services."""
    buffers = min(max(memory // 32, 64 * _MIB), 512 * _MIB) // _MIB
    cache = max(memory // 4, 256 * _MIB) // _MIB
    maintenance = min(max(memory // 64, 64 * _MIB), 256 * _MIB) // _MIB
    settings = {
        "listen_addresses": _quoted("127.0.0.1" if cluster.tcp else ""),
        "port": str(cluster.port),
        "unix_socket_directories": _quoted('"' + str(cluster.socket).replace('"', '""') + '"'),
        "unix_socket_permissions": "0700",
        "max_connections": str(cluster.max_connections),
        "superuser_reserved_connections": str(SUPERUSER_RESERVED),
        "authentication_timeout": f"{AUTHENTICATION_SECONDS}s",
        "ssl": "on" if cluster.tcp else "off",
        "max_locks_per_transaction": str(LOCKS),
        "password_encryption": "scram-sha-256",
        "shared_buffers": f"{buffers}MB",
        "effective_cache_size": f"{cache}MB",
        "maintenance_work_mem": f"{maintenance}MB",
        "work_mem": "8MB",
        "wal_compression": "on",
        "max_wal_size": "2GB",
        "checkpoint_timeout": "15min",
        "random_page_cost": "1.1",
        "jit": "off",
        "timezone": "'UTC'",
        "log_timezone": "'UTC'",
        "log_destination": "'stderr'",
        "logging_collector": "off",
        # journald records the time, so a line begins with the process; sessions add user and database.
        "log_line_prefix": "'[%p] %q%u@%d '",
        "log_checkpoints": "off",
        "log_lock_waits": "on",
        "log_min_duration_statement": "2s",
        # Otherwise messages, and so their levels, are in the language of the environment.
        "lc_messages": "'C'",
    }
    body = "".join(f"{name} = {value}\n" for name, value in settings.items())
    return f"# Written by Helm; changes here are lost. Yours go into {ADMIN_FILE}.\n{body}"


def hba_file(cluster: Cluster, mappings: Mappings) -> str:
    """Return ``pg_hba.conf``: only LOGINS, each to its own database, by password unless the role is in MAPPINGS."""

    def method(role: str) -> str:
        return f"peer map={MAP}" if role in mappings else "scram-sha-256"

    if cluster.passfile is None:
        lines = [f"local all all peer map={MAP}"]
    else:
        lines = [f"local all {_name(SUPERUSER)} {method(SUPERUSER)}"]
        lines += [
            f"local {_name(access.database)} {_name(access.role)} {method(access.role)}" for access in cluster.logins
        ]
        lines += ["local all all reject"]
    lines += [
        f"hostssl {_name(access.database)} {_name(access.role)} 127.0.0.1/32 scram-sha-256" for access in cluster.tcp
    ]
    lines += ["host all all all reject"]
    return "# Written by Helm; changes here are lost.\n" + "".join(f"{line}\n" for line in lines)


def ident_file(account: str, mappings: Mappings) -> str:
    """Return ``pg_ident.conf``: the account may log in as these roles. The keyword "all" needs PostgreSQL 16."""
    lines = ["# Written by Helm; changes here are lost."]
    for role, run in sorted(mappings.items()):
        comment = "" if run is None else f" # until run {run or _NO_RUN} ends"
        lines.append(f"{MAP} {_name(account)} {_name(role)}{comment}")
    return "\n".join(lines) + "\n"


def mappings_in(ident: str) -> dict[str, str | None]:
    """Parse the content of an `ident_file`."""
    found: dict[str, str | None] = {}
    for line in ident.splitlines():
        if match := _IDENT_LINE.match(line):
            run: str | None = match.group(3)
            found[match.group(2).replace('""', '"')] = "" if run == _NO_RUN else run
    return found


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'
