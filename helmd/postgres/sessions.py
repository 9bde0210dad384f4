"""The connections of a private cluster, and whether more are possible, found out by logging in.

This uses psql(1), since importing psycopg takes longer, which would slow down ``helmctl status``.
"""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from helmd.model.errors import HelmError
from helmd.model.units.health import DEGRADED, HEALTHY, UNHEALTHY, HealthVerdict
from helmd.postgres.binaries import INSTALLED, binaries_of
from helmd.postgres.cluster import ClusterError, running, server_environment
from helmd.postgres.configuration import AUTHENTICATION_SECONDS, SUPERUSER, SUPERUSER_RESERVED, Cluster

_QUERY = """
SELECT r.rolname, r.rolconnlimit, count(*) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid() GROUP BY 1, 2
UNION ALL SELECT '', current_setting('max_connections')::int, (SELECT count(*) FROM pg_stat_activity)
"""


@dataclass(frozen=True, slots=True)
class RoleConnections:
    """The connections of one role. ``limit`` is -1 for none."""

    role: str
    limit: int
    count: int


@dataclass(frozen=True, slots=True)
class Sessions:
    """The connections of a server. ``waiting`` is the number of those that have not logged in (yet)."""

    roles: tuple[RoleConnections, ...]
    max_connections: int
    waiting: int

    @property
    def places(self) -> int:
        """The number of connections available to services."""
        return self.max_connections - SUPERUSER_RESERVED

    @property
    def holders(self) -> str:
        """The roles with their numbers of connections, "ROLE COUNT, ...", in descending order."""
        shown = sorted(self.roles, key=lambda held: -held.count)
        parts = [f"{held.role} {held.count}" for held in shown]
        return ", ".join([*parts, *([f"not logged in {self.waiting}"] if self.waiting else [])]) or "nobody"


def sessions(cluster: Cluster, seconds: float, root: Path = INSTALLED) -> Sessions:
    """Return the connections of a running CLUSTER. Raises ClusterError if no login succeeds within SECONDS."""
    command = [str(binaries_of(cluster.directory, root).program("psql")), "-XAtqw", "-v", "ON_ERROR_STOP=1"]
    command += ["-h", str(cluster.socket), "-p", str(cluster.port), "-U", SUPERUSER, "-d", SUPERUSER, "-c", _QUERY]
    try:
        done = subprocess.run(
            command,
            env={**server_environment(cluster), "PGAPPNAME": "helm-health"},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except OSError as error:
        raise ClusterError(f"{command[0]} can't be run: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise ClusterError(f"it let nobody log in within {seconds:g} s") from None
    if done.returncode != 0:
        said = next(iter(done.stderr.strip().splitlines()), f"psql ended with exit code {done.returncode}")
        raise ClusterError(said.partition("failed: ")[2] or said)
    rows = [row for line in done.stdout.splitlines() if len(row := line.rsplit("|", 2)) == 3]
    (most, known) = next((int(limit), int(count)) for role, limit, count in rows if not role)
    roles = tuple(RoleConnections(role, int(limit), int(count)) for role, limit, count in rows if role)
    return Sessions(roles, most, max(0, len(_children(cluster)) - known))


def _children(cluster: Cluster) -> list[str]:
    """Return the processes of a running server; empty if they are not visible."""
    pid = running(cluster)
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []


def login_verdict(cluster: Cluster, seconds: float, root: Path = INSTALLED) -> HealthVerdict:
    """Check whether services can connect to a running CLUSTER; if not, name the roles that hold the connections."""
    try:
        found = sessions(cluster, seconds, root)
    except HelmError as error:
        return HealthVerdict(UNHEALTHY, f"no login: {error.sentence}")
    trouble = trouble_of(found)
    if trouble is None:
        return HealthVerdict(HEALTHY, "a login succeeded")
    return HealthVerdict(UNHEALTHY if trouble.full else DEGRADED, trouble.sentence)


class Trouble(NamedTuple):
    """Why services can't connect. ``full`` says that none of them can."""

    sentence: str
    full: bool


def trouble_of(found: Sessions) -> Trouble | None:
    """Return why a service can't connect at present or soon, or None."""
    if sum(held.count for held in found.roles if held.role != SUPERUSER) >= found.places:
        return Trouble(f"all {found.places} connections for services are in use: {found.holders}", full=True)
    reasons = "; ".join(_warnings(found))
    return Trouble(reasons, full=False) if reasons else None


def _warnings(found: Sessions) -> Iterator[str]:
    for held in found.roles:
        if 0 <= held.limit <= held.count:
            yield f"{held.role} holds all of its {held.limit} connections"
    if found.waiting > found.max_connections // 4:
        yield f"{found.waiting} connections have not logged in (each is closed after {AUTHENTICATION_SECONDS} s)"
