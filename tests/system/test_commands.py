"""``pre_start`` and ``reload_command``: when they run, what they see, what is said when they fail.

And what doctor says of a service that has a database and does not use it.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.booted import Sandbox, superuser_sql, until

HOME = "/home/hive"
PLACE = f"{HOME}/commands"
TOOLS = f"{HOME}/venvs/of-the-commands"
"""A virtual environment that the sandboxes of services hide unless it is needed."""

MIGRATE = f"""#!{TOOLS}/bin/python
import json, os, pathlib, sys, time
import psycopg

state = pathlib.Path("state").read_text().strip()
print("migrating", *sys.argv[1:], flush=True)
if state == "newer":
    print("schema 9 is newer than this program", file=sys.stderr)
    sys.exit(3)
if state == "locked":
    time.sleep(1000)
with psycopg.connect(os.environ["DATABASE_URL"]) as database:
    database.execute("CREATE TABLE IF NOT EXISTS migrated (at timestamptz DEFAULT now())")
    database.execute("INSERT INTO migrated DEFAULT VALUES")
found = {{
    "argv": sys.argv[1:], "marked": os.environ.get("MARKED"), "home": os.environ["HOME"], "prefix": sys.prefix,
    "secrets": os.path.exists("{HOME}/.config/hivematrix/secrets"), "cwd": os.getcwd(),
}}
pathlib.Path("migrated.json").write_text(json.dumps(found))
"""

MAIN = """
import os, pathlib, signal, sqlite3, sys, time

def read(*_):
    pathlib.Path("read").write_text(pathlib.Path("state").read_text())

signal.signal(signal.SIGHUP, read)
if sys.argv[1:] == ["sqlite"]:
    sqlite3.connect("shop.sqlite3").execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER)").connection.commit()
else:
    import psycopg
    database = psycopg.connect(os.environ["DATABASE_URL"])
    count = database.execute("SELECT count(*) FROM migrated").fetchone()[0]
    print(f"main after migration {count}", flush=True)
while True:
    time.sleep(1)
"""

RELOAD = f"""#!{TOOLS}/bin/python
import os, pathlib, signal, sys, time

if pathlib.Path("state").read_text().strip() == "broken":
    sys.exit("state, line 1: no such word")
os.kill(int(sys.argv[1]), signal.SIGHUP)
while not pathlib.Path("read").exists():
    time.sleep(0.05)
"""

REGISTRY = f"""
[services.migrates]
type = "command"
path = "{PLACE}"
start_command = ["/usr/bin/python3", "main.py"]
pre_start = ["bin/migrate", "--to", "latest"]
reload_command = ["bin/reload", "$MAINPID"]
environment = {{ MARKED = "by the configuration" }}
database = true
health.start_timeout = "4s"
restart.policy = "no"

[services.ends]
type = "command"
path = "{PLACE}"
start_command = ["/usr/bin/sleep", "100000"]
reload_command = ["kill", "-HUP", "$MAINPID"]

[services.on-sqlite]
type = "command"
path = "{PLACE}-sqlite"
start_command = ["/usr/bin/python3", "main.py", "sqlite"]
database = true
"""


@pytest.fixture(scope="module")
def suite(demo: Sandbox) -> Iterator[Sandbox]:
    """The services above, started."""
    demo.shell(f"mkdir -p {PLACE}/bin {PLACE}-sqlite; python3 -m venv --without-pip --system-site-packages {TOOLS}")
    for name, text in {"bin/migrate": MIGRATE, "bin/reload": RELOAD, "main.py": MAIN, "state": "good\n"}.items():
        demo.write(f"{PLACE}/{name}", text)
    demo.shell(f"chmod 755 {PLACE}/bin/*; cp {PLACE}/main.py {PLACE}-sqlite/")
    try:
        demo.register("commands", REGISTRY)
        demo.helmctl("start", "migrates", "ends", "on-sqlite")
        yield demo
    finally:
        demo.unregister()
        for name in ("migrates", "on-sqlite"):
            superuser_sql(demo, f'DROP DATABASE IF EXISTS "{name}"')
            superuser_sql(demo, f'DROP ROLE IF EXISTS "{name}"')
        demo.shell(f"rm -rf {PLACE} {PLACE}-sqlite {TOOLS}")


def printed(box: Sandbox) -> list[str]:
    return box("journalctl", "--user", "-t", "hivematrix-migrates", "-o", "cat").out.splitlines()


def words_of(box: Sandbox, *words: str, **how: Any) -> str:
    """What helmctl says, as one line."""
    return " ".join(box.helmctl(*words, **how).text.split())


def test_pre_start_runs_before_each_start(suite: Sandbox) -> None:
    until(lambda: "main after migration 1" in printed(suite), 30)
    suite.helmctl("restart", "migrates")
    until(lambda: "main after migration 2" in printed(suite), 30)
    assert printed(suite)[-4:] == [
        "migrating --to latest", "main after migration 1", "migrating --to latest", "main after migration 2"
    ]  # fmt: skip


def test_pre_start_sees_what_the_service_sees(suite: Sandbox) -> None:
    """Its environment, its database, its home directory; and an interpreter below the account's, bound for it alone."""
    found = json.loads(suite("cat", f"{PLACE}/migrated.json").out)
    assert found == {
        "argv": ["--to", "latest"], "marked": "by the configuration", "secrets": False, "cwd": PLACE, "prefix": TOOLS,
        "home": f"{HOME}/.local/state/hivematrix/homes/migrates",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "how", "line"),
    [
        ("newer", "exited with code 3", "schema 9 is newer than this program"),
        ("locked", "did not end in time and was killed", "migrating --to latest"),
    ],
)
def test_a_pre_start_that_fails_is_named(suite: Sandbox, state: str, how: str, line: str) -> None:
    said = f"the pre_start command of migrates (bin/migrate) {how}"
    suite.shell(f"echo {state} > {PLACE}/state")
    try:
        done = suite.helmctl("restart", "migrates", check=False)
        assert done.code == 1 and f"✗ migrates: {said}: {line}" in done.err, done.text
        explained = words_of(suite, "why", "migrates")
        assert explained.startswith("migrates has failed") and f": {said}." in explained, explained
        assert line in explained and "main after" not in explained, "lines of this run"
        assert said in suite.status("migrates")["migrates"]["health_message"]
        assert said in words_of(suite, "doctor", check=False)
    finally:
        suite.shell(f"echo good > {PLACE}/state")
    assert suite.helmctl("restart", "migrates").code == 0


def test_reload(suite: Sandbox) -> None:
    before = suite.status("migrates")["migrates"]["pid"]
    assert "✓ migrates: reloaded" in suite.helmctl("reload", "migrates").err
    assert suite("cat", f"{PLACE}/read").out == "good\n"
    suite.shell(f"echo broken > {PLACE}/state")
    try:
        done = suite.helmctl("reload", "migrates", check=False)
        said = (
            "its reload_command (bin/reload) exited with code 1: state, line 1: no such word; it still runs as before"
        )
        assert done.code == 1 and f"✗ migrates: {said}" in done.err, done.text
    finally:
        suite.shell(f"echo good > {PLACE}/state")
    assert suite.helmctl("reload", "migrates").code == 0
    assert suite.status("migrates")["migrates"]["pid"] == before


def test_a_reload_that_ends_the_service_is_a_failure(suite: Sandbox) -> None:
    """sleep(1) does not handle SIGHUP, and systemd takes an end by it for a good one."""
    done = suite.helmctl("reload", "ends", check=False)
    assert done.code == 1 and "✗ ends: it was killed by SIGHUP when it was reloaded" in done.err, done.text
    assert "helmctl start ends" in done.text


def test_doctor_names_a_service_that_does_not_use_its_database(suite: Sandbox) -> None:
    """Once it has had time to connect."""
    found = "on-sqlite runs, but does not seem to use its PostgreSQL database"
    until(lambda: found in words_of(suite, "doctor", check=False), 60, 3)
    explained = words_of(suite, "doctor", check=False)
    assert f"the SQLite database {PLACE}-sqlite/shop.sqlite3" in explained and "database_config" in explained
    assert "migrates runs, but" not in explained
