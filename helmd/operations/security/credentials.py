"""Well-known passwords of PostgreSQL's roles and Keycloak's users, and logins without password.

The hashes are read from the suite's PostgreSQL and compared. No login is attempted, since failures would be logged and
could lock accounts.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache, partial

from helmd.model.security.findings import SecurityFinding, security_finding, shell_word
from helmd.model.security.passwords import (
    LIKELY_ADMINS,
    StoredPassword,
    judge_passwords,
    keycloak_matches,
    scram_matches,
)
from helmd.model.security.settings import judge_hba
from helmd.model.suite.names import STORE_CLUSTER_UNIT, SUITE_CLUSTER, SUITE_CLUSTER_UNIT
from helmd.operations.configuration.databases import embedded_cluster, keycloak_service
from helmd.operations.diagnostics.context import DoctorContext
from helmd.postgres.binaries import binaries_of
from helmd.postgres.cluster import KEYCLOAK_ROLE, server_environment, store_cluster
from helmd.postgres.configuration import SUPERUSER, Cluster

_SECONDS = 10.0
_HBA = "pg_hba.conf"
_ROLES = "SELECT json_build_array(rolname, rolpassword) FROM pg_authid WHERE rolcanlogin AND rolpassword IS NOT NULL"
_USERS = """
SELECT json_build_array(r.name, u.username, c.secret_data, c.credential_data)
FROM user_entity u JOIN realm r ON r.id = u.realm_id JOIN credential c ON c.user_id = u.id
WHERE c.type = 'password' AND u.enabled AND (u.username IN ({names}) OR r.name = 'master') LIMIT 200
"""
_TEMPORARY = """
SELECT json_build_array(u.username) FROM user_entity u JOIN user_attribute a ON a.user_id = u.id
JOIN realm r ON r.id = u.realm_id WHERE a.name = 'is_temporary_admin' AND a.value = 'true' AND u.enabled LIMIT 50
"""


def audit_logins(context: DoctorContext) -> Iterator[SecurityFinding]:
    """Yield who may log in to the private clusters without a password."""
    clusters = {}
    if context.settings.store_embedded:
        clusters[STORE_CLUSTER_UNIT] = store_cluster(context.layout, context.account).directory
    if SUITE_CLUSTER in context.suite:
        clusters[SUITE_CLUSTER] = context.layout.suite_cluster
    for name, directory in clusters.items():
        path = directory / _HBA
        if path.is_file():
            yield from judge_hba(name, str(path), path.read_text(errors="replace"))


def audit_passwords(context: DoctorContext) -> Iterator[SecurityFinding]:
    """Yield accounts with well-known passwords; none while PostgreSQL is stopped."""
    if SUITE_CLUSTER not in context.suite or not context.manager.facts(SUITE_CLUSTER_UNIT).active:
        return
    cluster = embedded_cluster(context.suite, context.layout, context.settings)
    stored = []
    for role, verifier in _asked(cluster, SUPERUSER, _ROLES):
        if verifier.startswith("md5"):
            yield security_finding(
                "weak-password-hash",
                f"{SUITE_CLUSTER} {role}",
                f"PostgreSQL keeps the password of {role} as an MD5 hash",
                [f"pg_authid: rolpassword of {role} begins with md5"],
                f"Set it again (helmctl apply does for roles of services): {_set_password(role)}",
            )
        fix = f"helmctl apply sets those of services; for another: {_set_password(role)}"
        stored.append(StoredPassword(role, "PostgreSQL", partial(scram_matches, verifier), fix))
    if keycloak_service(context.suite) is not None and _has_keycloak(cluster):
        stored += list(_keycloak_users(cluster))
        for (user,) in _asked(cluster, KEYCLOAK_ROLE, _TEMPORARY):
            yield security_finding(
                "temporary-admin",
                f"Keycloak {user}",
                f"Keycloak still has the temporary admin {user}",
                [f"Keycloak's database: {user} has the attribute is_temporary_admin"],
                "helmctl keycloak setup",
            )
    yield from judge_passwords(stored)


def _set_password(role: str) -> str:
    """Return the command that sets the password of ROLE."""
    return "psql -c " + shell_word('\\password "' + role.replace('"', '""') + '"')


def _has_keycloak(cluster: Cluster) -> bool:
    found = _asked(cluster, KEYCLOAK_ROLE, "SELECT json_build_array(to_regclass('public.credential')::text)")
    return any(row[0] for row in found)


def _keycloak_users(cluster: Cluster) -> Iterator[StoredPassword]:
    names = ", ".join(f"'{name}'" for name in LIKELY_ADMINS)
    for realm, user, secret, about in _asked(cluster, KEYCLOAK_ROLE, _USERS.format(names=names)):
        yield StoredPassword(
            user,
            f"Keycloak's realm {realm}",
            partial(_matches, secret, about),
            f"helmctl keycloak recover-admin {shell_word(user)}"
            if realm != "master"
            else "Set another in Keycloak's admin console",
        )


@cache
def _matches(secret: str, about: str, password: str) -> bool:
    return bool(keycloak_matches(secret, about, password, _argon2))


def _argon2(
    password: bytes, salt: bytes, iterations: int, memory: int, lanes: int, length: int, kind: str, version: int
) -> bytes:
    # Imported here, since most suites have no such password.
    from argon2.low_level import Type, hash_secret_raw

    types = {"id": Type.ID, "i": Type.I, "d": Type.D}
    if not (1 <= iterations <= 100 and 8 <= memory <= 1 << 20 and 1 <= lanes <= 64 and 4 <= length <= 1024):
        raise ValueError("parameters of a hash that no server would use")
    return bytes(hash_secret_raw(password, salt, iterations, memory, lanes, length, types[kind], version))


def _asked(cluster: Cluster, database: str, query: str) -> Sequence[list[str]]:
    """Return the rows of QUERY, which returns a JSON array for each, run as superuser.

    Raises CalledProcessError, OSError.
    """
    program = binaries_of(cluster.directory).program("psql")
    command = [str(program), "-XAtqw", "-v", "ON_ERROR_STOP=1", "-h", str(cluster.socket), "-p", str(cluster.port)]
    done = subprocess.run(
        [*command, "-U", SUPERUSER, "-d", database, "-c", query],
        env={**server_environment(cluster), "PGAPPNAME": "helm-audit", "PGOPTIONS": "-c statement_timeout=5s"},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        timeout=_SECONDS,
        check=True,
    )
    return [[value or "" for value in json.loads(line)] for line in done.stdout.splitlines() if line]
