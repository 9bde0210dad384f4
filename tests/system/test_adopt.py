"""An installation that an older Helm runs, made by hand, with the machine's own PostgreSQL: taken over, and given back.

The older Helm here starts its modules, and starts again what ends, as long as it runs itself.
"""

import json
from collections.abc import Iterator

import pytest

from tests.system.booted import Sandbox, until

OLDER = "/home/hive/older"
PORTS = {"stock": 5091, "press": 5092}
ADOPTED = "/home/hive/.config/hivematrix/services.d/adopted.toml"

MANAGER = """
import json, os, subprocess, time
services = json.load(open("services.json"))
running = {}
while True:
    for name, entry in services.items():
        if name != "helm" and (name not in running or running[name].poll() is not None):
            place = entry["path"]
            environment = {**os.environ, "PORT": str(entry["port"]), "PYTHONDONTWRITEBYTECODE": "1"}
            running[name] = subprocess.Popen(["pyenv/bin/python", "run.py"], cwd=place, env=environment)
    time.sleep(0.2)
"""
RUN = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"by " + str(os.getppid()).encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
TABLES = """
CREATE ROLE older LOGIN PASSWORD 'old-secret';
CREATE DATABASE older_helm OWNER older;
CREATE DATABASE older_stock OWNER older;
"""
ENTRIES = """
CREATE TABLE log_entries (id serial PRIMARY KEY, timestamp timestamp NOT NULL, service_name varchar(50) NOT NULL,
    level varchar(20) NOT NULL, message text NOT NULL, context json, trace_id varchar(100), user_id varchar(100),
    hostname varchar(100), process_id integer);
INSERT INTO log_entries (timestamp, service_name, level, message)
    SELECT now() AT TIME ZONE 'UTC' - interval '3 days' - i * interval '1 minute', 'stock', 'INFO', 'adopted line ' || i
    FROM generate_series(1, 250) i;
"""
KILLED = """
import os, signal, sys
sys.path.insert(0, "/usr/share/hivematrix-helm")
from helmd.operations.modules import adopt
plain = adopt._at
def dying(adoption, stage, layout):
    done = plain(adoption, stage, layout)
    if stage == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
adopt._at = dying
from helmd.cli.main import run
run(["adopt", "/home/hive/older", "--yes"])
"""


@pytest.fixture(scope="module")
def machine(demo: Sandbox) -> Iterator[Sandbox]:
    """The demo with an older Helm beside it, which runs two modules."""
    demo.shell("systemctl start postgresql", root=True)
    as_postgres = "runuser -u postgres -- psql -q -p 5432 -v ON_ERROR_STOP=1"
    demo.shell(f"cd / && {as_postgres}", root=True, stdin=TABLES)
    demo.shell(f"cd / && {as_postgres} -d older_helm -c 'SET ROLE older' -f -", root=True, stdin=ENTRIES)
    services = {name: {"path": f"../hivematrix-{name}", "port": port} for name, port in PORTS.items()}
    for name in PORTS:
        place = f"{OLDER}/hivematrix-{name}"
        demo.shell(f"mkdir -p {place}/pyenv/bin {place}/instance && ln -s /usr/bin/python3 {place}/pyenv/bin/python")
        demo.write(f"{place}/run.py", RUN)
        demo.write(f"{place}/.flaskenv", f"# by hand\nSECRET_KEY=of-{name}\n")
    conf = "[database]\nconnection_string = postgresql+psycopg2://older:old-secret@localhost:5432/"
    demo.write(f"{OLDER}/hivematrix-stock/instance/stock.conf", f"{conf}older_stock\n")
    demo.shell(f"mkdir -p {OLDER}/hivematrix-helm/instance; chmod 600 {OLDER}/*/instance/*.conf {OLDER}/*/.flaskenv")
    demo.write(f"{OLDER}/hivematrix-helm/instance/helm.conf", f"{conf}older_helm\n")
    demo.write(f"{OLDER}/hivematrix-helm/services.json", json.dumps({**services, "helm": {"path": ".", "port": 5104}}))
    demo.write(f"{OLDER}/hivematrix-helm/manager.py", MANAGER)
    start(demo)
    yield demo
    demo.helmctl("adopt", "--undo", "--yes", check=False)
    # Its session's processes; a pattern that does not match the command that has it.
    demo.shell(f"kill -- -$(pgrep -f {OLDER}/hivematrix-helm/manager[.]py)", check=False)
    demo.shell(f"rm -rf {OLDER} ~/killed.py")
    drop = "DROP DATABASE older_helm WITH (FORCE); DROP DATABASE older_stock WITH (FORCE); DROP ROLE older"
    demo.shell(f"cd / && {as_postgres}", root=True, stdin=drop)


def start(box: Sandbox) -> None:
    """Start the older Helm, as its start.sh does."""
    program = f"{OLDER}/hivematrix-helm/manager.py"
    box.shell(f"cd {OLDER}/hivematrix-helm && setsid -f python3 {program} < /dev/null > /dev/null 2>&1")
    until(lambda: all(by(box, name) for name in PORTS), 30)


def by(box: Sandbox, name: str) -> str:
    """The answer of a module: the parent of its process."""
    return box.shell(f"curl -s -m 5 http://127.0.0.1:{PORTS[name]}/", check=False).out


def tree(box: Sandbox) -> str:
    """Every file of the installation with its mode, time and content."""
    return box.shell(
        f"cd {OLDER} && find . -printf '%p %y %m %l\\n' | sort && find . -type f -printf '%p %T@\\n' | sort && "
        "find . -type f -print0 | sort -z | xargs -0 sha256sum"
    ).out


def managers(box: Sandbox) -> str:
    return box.shell(f"pgrep -f {OLDER}/hivematrix-helm/manager[.]py", check=False).out.strip()


def test_an_older_installation_is_taken_over_and_given_back_byte_for_byte(machine: Sandbox) -> None:
    before, pid = tree(machine), managers(machine)
    assert pid
    shown = machine.helmctl("adopt", OLDER, "--dry-run").text
    assert f"end pid {pid} (hivematrix-helm)" in shown and "older_stock" in shown and "old-secret" not in shown, shown
    assert "Nothing was changed." in shown and tree(machine) == before and managers(machine) == pid

    # Killed once it has ended what ran: the same command goes on from there.
    machine.write("/home/hive/killed.py", KILLED)
    assert machine("python3", "/home/hive/killed.py", "stopped", check=False).code
    assert not managers(machine) and not any(by(machine, name) for name in PORTS)
    done = machine.helmctl("adopt", OLDER, "--yes")
    assert "is taken over" in done.text and "old-secret" not in done.text, done.text
    status = machine.status(*PORTS)
    assert [status[name]["state"] for name in PORTS] == ["healthy"] * 2, status
    directory = machine("systemctl", "--user", "show", "-P", "WorkingDirectory", "hivematrix-stock").out.strip()
    assert directory == f"{OLDER}/hivematrix-stock" and all(by(machine, name) for name in PORTS)
    assert "older_stock" in machine.shell(f"cat {OLDER}/hivematrix-stock/instance/stock.conf").out
    count = "SELECT count(*) FROM log_entries WHERE service_name = 'stock' AND message LIKE 'adopted line %'"
    until(lambda: machine.sql(count).strip() == "250", 90)

    again = machine.helmctl("adopt", OLDER, "--yes", check=False)
    assert again.code and ("was taken over already" in again.text or "already" in again.text), again.text
    given = machine.helmctl("adopt", "--undo", "--yes")
    assert "is as it was. To start it: cd " in given.text, given.text
    assert "systemctl --user disable --now helmd.service helmd.socket helmd-http.socket" in given.text
    assert tree(machine) == before
    assert machine.shell(f"ls {ADOPTED}", check=False).code
    assert not any(by(machine, name) for name in PORTS)
    assert "nothing was taken over" in machine.helmctl("adopt", "--undo", "--yes", check=False).text
    start(machine)
    assert managers(machine)
