"""Updates of a module with a database, uploads and keys: good, failed and killed ones, rollbacks, and its removal."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.system.booted import Sandbox, superuser_sql, until
from tests.system.test_jobs import api

NAME = "desk"
REPOSITORY = "/home/hive/git/desk"
PLACE = "/home/hive/.local/share/hivematrix/modules/desk"
STATE = "/home/hive/.local/state/hivematrix/modules/desk"
CONFIG = "/home/hive/.config/hivematrix"
GATE = ("--gate", "3s")
DATABASE = "desk"

DECLARED = """\
[service]
port = 5081
database = true
shared_paths = ["uploads", "keys"]
health.path = "/health"
health.start_timeout = "8s"

[service.install]
system_packages = true
migrate = ["python", "migrate.py"]
"""

RUN = """\
import http.server, os, pathlib, psycopg

PAGE = b'<html><link rel="stylesheet" href="static/app.css"></html>'

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = 200, b"VERSION"
        if self.path.startswith("/write/"):
            with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
                connection.execute("INSERT INTO notes VALUES (%s)", (self.path[7:],))
        elif self.path == "/":
            body = PAGE
        elif self.path.startswith("/static/"):
            status = ASSET
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body)

START
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
MIGRATE = """\
import os, pathlib, psycopg, sys, time
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS notes (text text)")
    connection.execute("COMMENT ON TABLE notes IS 'VERSION'")
"""
DROPS = """
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("DROP TABLE notes")
    connection.execute("CREATE TABLE notes (text text, more text)")
pathlib.Path("uploads/photo").write_text("overwritten")
pathlib.Path("keys/private.pem").unlink()
"""
SAID = "journalctl --user --no-pager -o cat -n 50 -u {}"
SCHEMA = "SELECT obj_description('notes'::regclass), count(*) FROM pg_attribute WHERE attrelid = 'notes'::regclass"


def run_file(version: str, asset: int = 200, start: str = "") -> str:
    return RUN.replace("VERSION", version).replace("ASSET", str(asset)).replace("START", start)


def commit(box: Sandbox, files: dict[str, str]) -> str:
    """Commit FILES, and nothing else, to the module's repository; the commit."""
    box.shell(f"rm -rf {REPOSITORY}/*")
    for name, text in files.items():
        box.write(f"{REPOSITORY}/{name}", text)
    author = "-c user.name=a -c user.email=a@example.org"
    command = f"cd {REPOSITORY} && git add --all && git {author} commit --quiet --message=change && git rev-parse HEAD"
    return box.shell(command).out.strip()


def good(version: str) -> dict[str, str]:
    files = {"run.py": run_file(version), "migrate.py": MIGRATE.replace("VERSION", version)}
    return files | {"hivematrix.toml": DECLARED, "static/app.css": "body {}"}


@pytest.fixture(scope="module")
def machine(demo: Sandbox) -> Iterator[Sandbox]:
    """The demo with the module ``desk`` in version one, which users have written to."""
    packages = "git python3-venv"
    demo.shell(f"DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends {packages}", root=True)
    demo.shell(f"mkdir -p {REPOSITORY} && git -C {REPOSITORY} init --quiet --initial-branch=main")
    commit(demo, good("one"))
    done = demo.helmctl("modules", "install", REPOSITORY, "--allow-file", "--yes", check=False)
    assert done.code == 0, done.text
    demo.shell(f"echo a photo > {PLACE}/shared/uploads/photo; echo key > {PLACE}/shared/keys/private.pem")
    demo.shell(f"chmod 600 {PLACE}/shared/keys/private.pem; ln -s photo {PLACE}/shared/uploads/link")
    ask(demo, "/write/first")
    yield demo
    # What a test has left waits for one of these.
    units = "desk-update.service desk-second.service"
    demo.shell(f"systemctl --user stop {units}; rm -f {PLACE}/shared/uploads/slow", check=False)
    demo.shell(f"helmctl modules remove {NAME} --yes; rm -rf {REPOSITORY}", check=False)


def ask(box: Sandbox, path: str) -> str:
    return box.shell(f"curl -sS --max-time 5 http://127.0.0.1:5081{path}").out


def state(box: Sandbox) -> dict[str, str]:
    """All that is the module's and its admin's, as hashes: rows, schema, uploads, keys, configuration, unit."""
    files = f"cd {PLACE}/shared && find . -printf '%p %m %l\\n' | sort && find . -type f | sort | xargs sha256sum"
    unit = "~/.local/share/systemd/user/hivematrix-desk.service"
    settings = f"{CONFIG}/secrets/desk.env {CONFIG}/services.d/desk.toml {CONFIG}/helm.toml {unit}"
    facts = "SELECT datacl, datallowconn, pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    return {
        "files": box.shell(files).out,
        "settings": box.shell(f"sha256sum {settings}").out,
        "rows": superuser_sql(box, f"SELECT * FROM notes ORDER BY 1; {SCHEMA}; {facts}", DATABASE),
        "answer": ask(box, "/version"),
        "health": box.status(NAME)[NAME]["state"],
    }


def update(box: Sandbox, *words: str) -> tuple[int, str]:
    done = box.helmctl("modules", "update", NAME, "--yes", *GATE, *words, check=False)
    return done.code, done.text


BROKEN = "import sys; sys.exit('it can not work')\n"
FAILING = {
    "does not start": ({"run.py": BROKEN}, "rolled back at its start: ", "it can not work"),
    "asset": ({"run.py": run_file("two", 500)}, "rolled back at watching it: an asset of its page: HTTP 500", ""),
    "migration": (
        {"migrate.py": MIGRATE + DROPS + "sys.exit('no such column')\n"},
        "rolled back at its migration: python migrate.py of desk failed: no such column",
        "",
    ),
    "table": (
        {"migrate.py": MIGRATE + DROPS, "run.py": run_file("two", 500, "pathlib.Path('uploads/late').write_text('x')")},
        "rolled back at watching it: an asset of its page: HTTP 500",
        f"what was written meanwhile is kept: {PLACE}/failed/",
    ),
    "requirements": (
        {"requirements.txt": "--no-index\nno-such-package==1\n"},
        "rolled back at building it: its packages could not be installed",
        "nothing of it was stopped or changed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILING)
def test_what_fails_leaves_the_old_version_with_its_data(machine: Sandbox, case: str) -> None:
    files, why, also = FAILING[case]
    before = state(machine)
    assert before["answer"] == "one" and before["health"] == "healthy"
    commit(machine, {**good("two"), **files})
    code, said = update(machine)
    assert code == 1 and why in said and also in said, said
    if case != "requirements":
        assert "s without the module" in said, said
    after = state(machine)
    # What it was given is not to be forgotten by users who saw it.
    assert after == before, (case, said)
    history = json.loads(machine.helmctl("modules", "history", NAME, "--json").out)
    assert why in history[0]["sentence"] and not history[0]["succeeded"]


def test_a_good_one_serves_and_is_rolled_back_with_its_data(machine: Sandbox) -> None:
    before = state(machine)
    commit(machine, good("two"))
    plan = json.loads(machine.helmctl("modules", "update", NAME, "--dry-run", "--json").out)
    assert (
        plan["behind_by"] == len(plan["commits"]) > 0 and plan["database"] == "desk" and plan["after"] != plan["before"]
    )
    assert f"{NAME}: {plan['behind_by']} commit" in machine.helmctl("modules", "check", NAME).out
    assert state(machine) == before
    code, said = update(machine)
    assert code == 0 and "s without the module" in said, said
    after = state(machine)
    assert after["answer"] == "two" and after["files"] == before["files"] and "first" in after["rows"]
    listed = {each["name"]: each["behind_by"] for each in json.loads(machine.helmctl("modules", "list", "--json").out)}
    assert listed[NAME] == 0
    assert "Nothing to do." in update(machine)[1]
    ask(machine, "/write/second")
    machine.shell(f"echo more > {PLACE}/shared/uploads/more")
    done = machine.helmctl("modules", "rollback", NAME, "--with-data", "--yes", *GATE, check=False)
    assert done.code == 0, done.text
    assert state(machine) == before
    done = machine.helmctl("modules", "rollback", NAME, "--code-only", "--yes", *GATE, check=False)
    assert done.code == 0, done.text
    assert ask(machine, "/version") == "two" and "second" not in state(machine)["rows"]
    machine.helmctl("modules", "hold", NAME, "--reason", "until the fair")
    commit(machine, good("three"))
    code, said = update(machine)
    assert code == 1 and "desk is held: until the fair" in said, said
    machine.helmctl("modules", "unhold", NAME)


def at_step(box: Sandbox, step: str) -> None:
    """Wait until the change that goes on has come to STEP."""
    until(lambda: f'"step": "{step}"' in box.shell(f"cat {STATE}/intent.ndjson", check=False).out, 120)


def begun(box: Sandbox, step: str) -> None:
    """An update in a unit, which has come to STEP."""
    # That of the change before, which has ended, has the same steps.
    box.shell(f"rm -f {STATE}/intent.ndjson")
    box.shell(f"systemd-run --user --quiet --collect --unit=desk-update helmctl modules update {NAME} --yes --gate 60s")
    at_step(box, step)


def ended(box: Sandbox) -> None:
    """Wait until nothing is left to be done of a change."""
    until(lambda: '"event": "ended"' in box.shell(f"tail -n 1 {STATE}/intent.ndjson", check=False).out, 120)
    until(lambda: not box.shell("systemctl --user list-units --quiet --plain 'helm-guard-desk-*'").out, 60)


def test_killed_in_its_migration_it_is_rolled_back_before_it_is_started(machine: Sandbox) -> None:
    before = state(machine)
    commit(machine, {**good("three"), "migrate.py": MIGRATE + DROPS + "time.sleep(600)\n"})
    begun(machine, "data")
    start = ("systemctl", "--user", "start", "hivematrix-desk")
    assert machine(*start, check=False).code, "it is started between two versions"
    assert "desk is not started: a change of it goes on" in machine.shell(SAID.format("hivematrix-desk")).out
    machine.shell("systemctl --user stop hivematrix-desk")
    shown = machine.helmctl("status", NAME, check=False).out
    assert "not started: a change of it is not complete; helmctl why desk" in shown
    assert "desk is not started: a change of it goes on, or was" in " ".join(machine.helmctl("why", NAME).out.split())
    says = f"/api/services/{NAME}/status"
    until(lambda: "is not started: a change" in api(machine, "GET", says)[1]["health_message"], 30)
    # As at boot: nothing of Helm runs but the unit that the module's own one wants.
    machine.shell("systemctl --user stop 'helm-guard-desk-*'; systemctl --user kill --signal=KILL desk-update")
    machine(*start)
    assert state(machine) == before
    ended(machine)
    assert state(machine) == before
    assert "Nothing was interrupted." in machine.helmctl("modules", "recover").text
    history = json.loads(machine.helmctl("modules", "history", NAME, "--json").out)
    assert "rolled back at its migration: it was interrupted" in history[0]["sentence"]


def test_killed_while_it_is_watched_it_goes_back_at_once_and_rows_are_kept(machine: Sandbox) -> None:
    before = state(machine)
    commit(machine, good("three"))
    begun(machine, "gate")
    assert ask(machine, "/version") == "three"
    ask(machine, "/write/late")
    machine.shell("systemctl --user kill --signal=KILL desk-update")
    ended(machine)
    assert state(machine) == before
    history = json.loads(machine.helmctl("modules", "history", NAME, "--json").out)
    kept = re.search(r"what was written meanwhile is kept: the database (desk_failed_\w+)", history[0]["sentence"])
    assert kept, history[0]
    assert history[0]["sentence"].endswith("; to read it: helmctl modules show desk")
    shown = machine.helmctl("modules", "show", NAME).out
    let_in, connect = [line.strip() for line in shown.splitlines() if "psql" in line and kept[1] in line]
    machine.shell(let_in)
    assert machine.shell(f"{connect} -Atc 'SELECT * FROM notes ORDER BY 1'").out.split() == ["first", "late"]


def test_of_two_updates_one_waits_and_the_other_is_cancelled(machine: Sandbox) -> None:
    machine.shell(f"touch {PLACE}/shared/uploads/slow; rm -f {STATE}/intent.ndjson")
    before = state(machine)
    slow = "while pathlib.Path('uploads/slow').exists(): time.sleep(0.2)\n"
    commit(machine, {**good("four"), "migrate.py": (MIGRATE + DROPS).replace("VERSION", "four") + slow})
    status, reply = api(machine, "POST", f"/api/modules/{NAME}/update", {})
    assert status == 202, reply
    at_step(machine, "data")
    second = ["systemd-run", "--user", "--quiet", "--collect", "--unit=desk-second", "helmctl", "modules", "update"]
    machine(*second, NAME, "--yes", "--ref", "main", *GATE)
    said = SAID.format("desk-second")
    until(lambda: "desk: waiting for the update by hive" in machine.shell(said, check=False).out, 60)
    machine.helmctl("jobs", "cancel", reply["job"]["id"])
    # The second one begins as soon as the first has ended, with the data from before it.
    until(
        lambda: "rolled back at its migration: it was cancelled" in machine.helmctl("modules", "history", NAME).out, 60
    )
    copies = f"ls {PLACE}/shared/uploads {PLACE}/snapshots/2*/uploads"
    until(lambda: machine.shell(copies, check=False).out.count("photo") == 2, 60)
    machine.shell(f"rm {PLACE}/shared/uploads/slow")
    until(lambda: "desk is updated (commit" in machine.shell(said, check=False).out, 120)
    ended(machine)
    assert ask(machine, "/version") == "four" and state(machine)["rows"] != before["rows"]


def test_removed_without_a_trace(machine: Sandbox) -> None:
    done = machine.helmctl("modules", "remove", NAME, check=False)
    assert done.code == 2 and "needs --yes" in done.text
    machine.helmctl("modules", "remove", NAME, "--yes")
    assert NAME not in machine.status()
    left = machine.shell(
        "find ~/.local ~/.config -name '*desk*' -not -path '*/jobs/*'; grep -rl desk ~/.config/hivematrix"
        " ~/.local/state/hivematrix --include=*.toml --include=*.pgpass --include=*.env --include=*.json"
        " --exclude-dir=jobs",
        check=False,
    ).out
    assert not left, left
    names = superuser_sql(machine, "SELECT datname FROM pg_database UNION ALL SELECT rolname FROM pg_roles")
    assert "desk" not in names
    assert machine("systemctl", "--user", "cat", "hivematrix-desk", check=False).code
