"""What Helm writes into a cluster's configuration files: settings, who may connect, and as which role.

``postgresql.conf`` includes ``hivematrix.conf``, which is Helm's and rewritten, and then ``postgresql.local.conf``,
which is the admin's and wins. PostgreSQL 15 manual, chapters 20 and 21.
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
"""Per connection. A search over a year of days in four classes locks 5,400 tables and indexes, and several run at once;
with PostgreSQL's 64 they end in "out of shared memory"."""

SUPERUSER_RESERVED = 3
"""Connections that only the superuser gets (superuser_reserved_connections, PostgreSQL's default)."""
AUTHENTICATION_SECONDS = 10
"""After which PostgreSQL closes a connection that has not logged in. Such connections belong to no role yet, so no
CONNECTION LIMIT bounds them, and with PostgreSQL's 60 s few processes could hold all there are."""
CERTIFICATE, PRIVATE_KEY = "server.crt", "server.key"
"""In the directory of a cluster with TCP access, by PostgreSQL's default names."""

_SPARE = 7
"""Connections that are the share of no service: Helm's own, maintenance, parallel checks."""
_MIB = 1024 * 1024
_SOCKET_PATH_LIMIT = 107
_QUOTED = r'"((?:[^"]|"")*)"'
_IDENT_LINE = re.compile(rf"{MAP}\s+{_QUOTED}\s+{_QUOTED}\s*(?:# until run (\S+) ends\s*)?\Z")
_NO_RUN = "none"

Mappings = Mapping[str, str | None]
"""Roles as which the account may log in without a password, by peer authentication, as ``pg_ident.conf`` lists them.

In a cluster whose roles have passwords these are left from before: each with the run (systemd's invocation id) of its
service that was started before the service's password was in its environment, empty when it did not run then, and None
while the service has not been given a password.
"""


@dataclass(frozen=True, slots=True)
class PasswordLogin:
    """A role that may log in to one database, by password, and holds at most so many connections at once."""

    role: str
    database: str
    connections: int = DATABASE_CONNECTIONS


@dataclass(frozen=True, slots=True)
class Cluster:
    """A private cluster: where it is, and who may log in to what."""

    directory: Path
    socket: Path
    """The directory of its socket, mode 0700."""
    port: int
    """The number in the socket's name; also the TCP port when there is a role with TCP access."""
    account: str
    """The operating system's user that owns it."""
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
        """What clients over TCP recognize the server by. Any process can listen on its port while it is stopped."""
        return self.directory / CERTIFICATE

    @property
    def socket_file(self) -> Path:
        return self.socket / f".s.PGSQL.{self.port}"

    def fault(self) -> str | None:
        """Return why this can't be a cluster, as a sentence, or None when it can."""
        paths = (str(self.directory), str(self.socket), self.account)
        if any(sign in path for path in paths for sign in "\n\r\0"):
            return "a path or account name with a line break in it"
        if len(str(self.socket_file).encode()) > _SOCKET_PATH_LIMIT:
            return f"{self.socket_file} is longer than a unix socket's name may be ({_SOCKET_PATH_LIMIT} bytes)"
        return None


def connections_needed(logins: Iterable[PasswordLogin]) -> int:
    """Return the max_connections with which all LOGINS get their connections, whatever the others hold; 100 at
    least.
    """
    return max(100, sum(access.connections for access in logins) + SUPERUSER_RESERVED + _SPARE)


def main_file() -> str:
    """``postgresql.conf``: nothing but the two files it includes, the later one winning."""
    return (
        "# Written by Helm; changes here are lost.\n"
        f"# Put your own settings into {ADMIN_FILE} beside this file: they win over Helm's.\n"
        f"include '{HELM_FILE}'\n"
        f"include_if_exists '{ADMIN_FILE}'\n"
    )


def helm_file(cluster: Cluster, memory: int) -> str:
    """``hivematrix.conf`` for a machine with MEMORY bytes, on which the cluster is one guest among several."""
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
        # journald stamps time, so a line begins with the process; sessions add who they are.
        "log_line_prefix": "'[%p] %q%u@%d '",
        "log_checkpoints": "off",
        "log_lock_waits": "on",
        "log_min_duration_statement": "2s",
        # Otherwise the messages, and so their levels, come in the language of whoever started it.
        "lc_messages": "'C'",
    }
    body = "".join(f"{name} = {value}\n" for name, value in settings.items())
    return f"# Written by Helm; changes here are lost. Yours go into {ADMIN_FILE}.\n{body}"


def hba_file(cluster: Cluster, mappings: Mappings) -> str:
    """``pg_hba.conf``: each role to its own database and by password, unless MAPPINGS has it; nobody else."""

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
    """``pg_ident.conf``: the account may be any of these roles. PostgreSQL 15 has no word for "all" here (16 has)."""
    lines = ["# Written by Helm; changes here are lost."]
    for role, run in sorted(mappings.items()):
        comment = "" if run is None else f" # until run {run or _NO_RUN} ends"
        lines.append(f"{MAP} {_name(account)} {_name(role)}{comment}")
    return "\n".join(lines) + "\n"


def mappings_in(ident: str) -> dict[str, str | None]:
    """Return what an `ident_file` says."""
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
