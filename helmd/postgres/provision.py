"""The ``ExecStartPost=`` of the suite's PostgreSQL: makes the roles and databases that are missing, whoever started it.

Runs as ``/usr/libexec/hivematrix-helm/provision-cluster KEY=VALUE... SERVICE...``; ``keycloak=FILE`` names the
environment file with Keycloak's database password.
"""

import sys
from pathlib import Path

from helmd.files.environment_file import read_environment_file
from helmd.model.errors import HelmError
from helmd.postgres.configuration import Cluster
from helmd.postgres.roles import admin_conninfo, ensure_role_and_database


def main(words: list[str]) -> int:
    """Exit code 0, or 1 with the reason on stderr."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    services = [word for word in words if "=" not in word]
    cluster = Cluster(Path(given["directory"]), Path(given["socket"]), int(given["port"]), given["account"])
    admin = admin_conninfo(cluster)
    try:
        for name in services:
            ensure_role_and_database(admin, name)
        if "keycloak" in given:
            password = read_environment_file(Path(given["keycloak"])).get("KC_DB_PASSWORD")
            ensure_role_and_database(admin, "keycloak", password)
    except HelmError as error:
        print(error.sentence, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
