"""The machine is lost: a suite comes back from an archive and its key, on a machine with nothing but the package.

A small suite is lost with its account and all its files, in one sandbox. In a campaign also the demo with the real
Keycloak, restored in a second sandbox, up to a login.
"""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign import FULL
from tests.system.booted import TOP, Sandbox, fetch_file, until
from tests.system.keycloak_admin import log_in, person
from tests.system.packaged import ACCOUNT, HOME, Machine, booted_machine

NAME = "losstest"
SECRETS = "/home/hive/.config/hivematrix/secrets"
SUITE = """\
[services.codex]
path = "/opt/suite/codex"
depends_on = []
database = true

[services.ticker]
type = "command"
path = "~/ticker"
start_command = ["bin/ticker"]
"""
MINUTES = 15


@pytest.fixture(scope="module")
def machine(package: Path) -> Iterator[Machine]:
    with booted_machine(NAME, {package: "/root/helm.deb"}) as box:
        box.root("apt-get update")
        box.apt("install /root/helm.deb default-jre-headless curl" if FULL else "install /root/helm.deb")
        yield box


def test_a_suite_comes_back(machine: Machine, tmp_path: Path) -> None:
    """As root, into an account that is made; interrupted once, which the second time makes good."""
    machine.write("/opt/services.toml", SUITE, root=True)
    machine.root(f"helmctl setup --account {ACCOUNT}")
    machine.root(f"/root/sample/install /opt/suite codex && /root/sample/install {HOME} ticker")
    machine.root(f"chown -R {ACCOUNT}: /opt/suite {HOME}/ticker")
    machine.root(f"helmctl setup --account {ACCOUNT} --registry /opt/services.toml && helmctl up")
    query = "psql -d codex_db -wAtq -U postgres -p 5499 -h /run/user/{}/hivematrix/postgres-suite -c '{}'"
    passfile = f"PGPASSFILE={HOME}/.config/hivematrix/secrets/postgres.pgpass"

    def ask(statement: str) -> str:
        return machine.account("sh", "-c", f"{passfile} {query.format(machine.uid, statement)}")

    ask("CREATE TABLE kept AS SELECT 7 AS n")
    # The log store is in the archive as well: what it has and the journal has not, and lines with their numbers.
    helm_toml = f"{HOME}/.config/hivematrix/helm.toml"
    machine.root(f"sed -i 's/^#include_logs = .*/include_logs = true/' {helm_toml}")
    machine.sql(
        "INSERT INTO log_views (owner, name, shared, query, columns, last)"
        " VALUES ('account x', 'kept', true, 'level>=error', '{}', '1h')"
    )
    last = machine.sql("SELECT max(id) FROM log_entries")
    stored = f"SELECT count(*), md5(string_agg(id || message, ',' ORDER BY id)) FROM log_entries WHERE id <= {last}"
    lines = machine.sql(stored)
    machine.root("helmctl backup key")
    made = json.loads(machine.root("helmctl backup create --json").out)
    archive = fetch_file(machine, made["path"], tmp_path / "archive", root=True)
    secrets = f"{HOME}/.config/hivematrix/secrets"
    key = fetch_file(machine, f"{secrets}/backup-identity.txt", tmp_path / "key", root=True).read_text()
    password = machine.root(f"cat {secrets}/codex.env").out
    # All is lost: the account, its home, its programs.
    uid = machine.uid
    machine.root(
        f"loginctl disable-linger {ACCOUNT}; systemctl stop user@{uid}; rm -rf /opt/suite /etc/hivematrix/account"
    )
    machine.root(f"deluser --remove-home {ACCOUNT}")
    assert not machine.existing(str(HOME), "/opt/suite")
    machine.script("copy", "--root", str(archive), "/opt/archive")
    machine.root("chmod 644 /opt/archive")
    restore = f"helmctl restore /opt/archive --identity - --account {ACCOUNT}"
    # Where the account can't write it says so, before anything else is done.
    refused = machine("sh", "-c", restore, root=True, stdin=key, check=False)
    assert refused.code == 1 and "/opt can't be written" in refused.err
    assert not machine.existing(f"{HOME}/.config/hivematrix")
    machine.root(f"install -d -o {ACCOUNT} /opt/suite /opt/suite/codex")
    state = f"{HOME}/.local/state/hivematrix/restore.json"
    interrupted = (
        f"exec 3<&0; setsid {restore} <&3 & until test -e {state}; do kill -0 $! || exit 1; sleep 0.1; done;"
        " sleep 0.5; kill -9 -$!; wait $!"
    )
    killed = machine("sh", "-c", interrupted, root=True, stdin=key, check=False)
    assert killed.code in (-9, 137) and machine.existing(state)
    done = machine("sh", "-c", restore, root=True, stdin=key)
    assert "go on with the restore of this archive that was interrupted" in done.err
    until(lambda: set(machine.suite().values()) == {"healthy"}, 60)
    assert ask("SELECT n FROM kept") == "7"
    assert re.findall("PASSWORD=.*", password) == re.findall(
        "PASSWORD=.*", machine.root(f"cat {secrets}/codex.env").out
    )
    assert not machine.existing(state, f"{secrets}/backup-identity.txt")
    assert int(lines.partition("|")[0]) > 0 and machine.sql(stored) == lines
    assert machine.sql("SELECT owner, name FROM log_views") == "account x|kept"
    until(lambda: int(machine.sql("SELECT max(id) FROM log_entries")) > int(last), 60)
    machine.root(f"sed -i 's/^include_logs = .*/include_logs = false/' {helm_toml}")
    # It replaces a suite, too, if it is asked to, and keeps what was there.
    ask("INSERT INTO kept VALUES (8)")
    replaced = machine("sh", "-c", f"{restore} --replace", root=True, stdin=key)
    assert ask("SELECT n FROM kept") == "7" and "the suite that is here is saved in" in replaced.err
    assert len(machine.root(f"ls {HOME}/.local/state/hivematrix/backups").out.split()) == 1
    assert machine.existing(
        *machine.root(f"ls -d {HOME}/.local/state/hivematrix/replaced-*/postgres-suite").out.split()
    )


if FULL:

    def test_users_log_in_on_another_machine(box: Sandbox, machine: Machine, tmp_path: Path) -> None:
        """From archive and key alone, Keycloak's program included; within 15 minutes."""
        machine.root(f"helmctl down; loginctl disable-linger {ACCOUNT}; systemctl stop user@{machine.uid}")
        machine.root("rm -f /etc/hivematrix/account")
        with person(box, "admins") as who:
            box.helmctl("backup", "key")
            box.register("drill", '[services.keycloak]\nbackup = "whole"\n')
            made = json.loads(box.helmctl("backup", "create", "--json", timeout=600).out)
            archive = fetch_file(box, made["path"], tmp_path / "archive")
            key = fetch_file(box, f"{SECRETS}/backup-identity.txt", tmp_path / "key")
            box.shell(
                f"rm -rf {SECRETS}/backup* .local/state/hivematrix/backups .local/state/hivematrix/last-backup.json"
            )
            began = time.monotonic()
            for file in (archive, key):
                machine.script("copy", str(file), "/home/hive/")
            said = machine.helmctl("restore", "archive", "--identity", "key", timeout=MINUTES * 60).err
            assert log_in(machine, who).location == "/codex/api/notes"
            took = time.monotonic() - began
            print(f"{TOP.name}: {made['size'] / 1e6:.0f} MB, {took / 60:.1f} minutes from archive and key to a login")
            assert took < MINUTES * 60 and "fetching" not in said
