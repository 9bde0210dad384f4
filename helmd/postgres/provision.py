"""``ExecStartPost=`` of the suite's PostgreSQL: creates missing roles and databases.

Runs as ``/usr/libexec/hivematrix-helm/provision-cluster KEY=VALUE... SERVICE...`` in the unit's sandbox; a SERVICE
whose database has another name than itself, or another limit of connections than `DATABASE_CONNECTIONS`, is given as
``SERVICE:DATABASE:CONNECTIONS``, where the last may be missing.
``passfile=FILE`` names the password file of the cluster, which has the superuser's password, those of the services and
Keycloak's.

Units that an earlier release installed give no ``passfile=``, but ``keycloak=FILE``, the environment file with
Keycloak's password. Until they are replaced by ``helmctl apply``, services log in without a password.
"""

import sys
from pathlib import Path

from helmd.files.environment_file import read_environment_file
from helmd.model.errors import HelmError
from helmd.model.suite.names import DATABASE_CONNECTIONS, KEYCLOAK_PASSWORD
from helmd.postgres.cluster import KEYCLOAK_ROLE, PasswordNeededError, suite_cluster
from helmd.postgres.configuration import Cluster, PasswordLogin
from helmd.postgres.passfile import passwords_in
from helmd.postgres.roles import admin_conninfo, ensure_local_databases, ensure_role_and_database


def main(words: list[str]) -> int:
    """Return the exit code: 0, or 1 with the reason on stderr."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    services = [_service(word) for word in words if "=" not in word]
    try:
        if "passfile" in given:
            _provision(given, services)
        else:
            _provision_without_passwords(given, [access.role for access in services])
    except HelmError as error:
        print(error.sentence, file=sys.stderr)
        return 1
    return 0


def _service(word: str) -> PasswordLogin:
    role, database, connections = [*word.split(":"), "", ""][:3]
    return PasswordLogin(role, database or role, int(connections or DATABASE_CONNECTIONS))


def _provision(given: dict[str, str], services: list[PasswordLogin]) -> None:
    passfile = Path(given["passfile"])
    known = passwords_in(passfile)
    passwords = {access.role: known.get(access.role) for access in services}
    if KEYCLOAK_ROLE in known:
        passwords[KEYCLOAK_ROLE] = known[KEYCLOAK_ROLE]
    for name in [name for name, password in passwords.items() if not password]:
        print(f"{name} has no password for its database; run: helmctl setup", file=sys.stderr)
    ensure_local_databases(suite_cluster(*_place(given), passfile, services), passwords)


def _provision_without_passwords(given: dict[str, str], names: list[str]) -> None:
    admin = admin_conninfo(Cluster(*_place(given)))
    try:
        for name in names:
            ensure_role_and_database(admin, name)
        if "keycloak" in given:
            password = read_environment_file(Path(given["keycloak"])).get(KEYCLOAK_PASSWORD)
            ensure_role_and_database(admin, KEYCLOAK_ROLE, password)
    except PasswordNeededError as error:
        # "helmctl apply" set the superuser's password and created the databases, but was killed before it replaced the
        # unit. PostgreSQL must start nevertheless.
        print(f"{error.sentence}; run: helmctl apply", file=sys.stderr)


def _place(given: dict[str, str]) -> tuple[Path, Path, int, str]:
    return Path(given["directory"]), Path(given["socket"]), int(given["port"]), given["account"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
