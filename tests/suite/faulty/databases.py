"""Tries, from inside its unit, every way into the suite's PostgreSQL and Helm's, and writes down what worked.

Reads RUN (the runtime directory), PORT_OF_SUITE, ROLES, DATABASES, PLACE_PATH (the directory of secrets) and CLUSTER
(the data directory). Writes report.json into its own directory, then stays.
"""

import json
import os
import time
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo


def logs_in(**given: object) -> bool:
    try:
        psycopg.connect(make_conninfo(**given), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


def environments() -> bool:
    """Whether the environment of any other process can be read."""
    others = [each for each in Path("/proc").iterdir() if each.name.isdigit() and int(each.name) != os.getpid()]
    return any(b"DATABASE" in each.joinpath("environ").read_bytes() for each in others if readable(each / "environ"))


def writable(path: Path) -> bool:
    try:
        path.open("ab").close()
    except OSError:
        return False
    return True


def main() -> None:
    run, port = os.environ["RUN"], os.environ["PORT_OF_SUITE"]
    own = os.environ.get("DATABASE_URL", "")
    password = str(conninfo_to_dict(own).get("password", "none")) if own else "none"
    suite = f"{run}/hivematrix/postgres-suite"
    entered = []
    for role in os.environ["ROLES"].split():
        for database in os.environ["DATABASES"].split():
            for where in (suite, "127.0.0.1"):
                for word in ("", password):
                    given = {"host": where, "port": port, "user": role, "dbname": database, "password": word}
                    if logs_in(**given, passfile="/dev/null"):
                        entered.append(f"{role} {database} {'socket' if where == suite else 'tcp'}")
    store = [role for role in ("postgres", "helm", "helm_owner") if logs_in(
        host=f"{run}/hivematrix/postgres-helm", port=5432, user=role, dbname="helm" if role != "postgres" else role
    )]  # fmt: skip
    secrets, cluster = Path(os.environ["PLACE_PATH"]), Path(os.environ["CLUSTER"])
    report = {
        "entered": sorted(set(entered)),
        "own": bool(own) and logs_in(**conninfo_to_dict(own)),
        "socket": os.path.exists(f"{suite}/.s.PGSQL.{port}"),
        "store": store,
        "passwords": readable(secrets / "postgres.pgpass"),
        "secrets of others": readable(secrets / "keycloak.env"),
        "environments": environments(),
        "rules": writable(cluster / "pg_hba.conf"),
    }
    with open("report.new", "w") as file:
        json.dump(report, file)
    os.replace("report.new", "report.json")
    time.sleep(1e6)


if __name__ == "__main__":
    main()
