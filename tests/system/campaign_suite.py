"""The whole suite by the one command of the README, as root on a bare Debian: ``scripts/campaign suite``.

The catalogue's repositories are those of the sample suite, which a server in the sandbox has over https; Keycloak's
archive is given. All else is as on a server: the package with what it recommends, production mode, port 443.
"""

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.booted import TOP, until
from tests.system.keycloak_admin import Person, log_in
from tests.system.packaged import ACCOUNT, Machine, booted_machine
from tests.system.test_modules_install import CERTIFICATES, SERVER, TRUSTED

ARCHIVES = Path("/var/cache/hivematrix-sandbox/downloads")
"""The download cache of scripts/demo."""
SUITE = ("core", "nexus", "codex", "ledger", "knowledgetree")
URL = "https://localhost:8444/git/hivematrix-"
SOURCES = "".join(f'[services.{name}]\ninstall.source = "{URL}{name}"\n' for name in SUITE) + "database = true\n"
COMMAND = f"helmctl setup --account {ACCOUNT} --suite --yes --keycloak-archive /root/keycloak.tar.gz"
SAID = re.compile(r"The first admin is (\w+), with the password (\S+)")
SILENCE = 60.0
"""Maximum seconds without a line of output, on a machine that others use."""


@pytest.fixture(scope="module")
def machine(package: Path) -> Iterator[Machine]:
    (archive, *_) = ARCHIVES.glob("keycloak-*.tar.gz")
    with booted_machine("suite", {package: "/root/helm.deb", archive: "/root/keycloak.tar.gz"}) as box:
        box.script("copy", str(TOP / "tests/suite"), "/home/hive/")
        box.root("apt-get update")
        began = time.monotonic()
        box.root("DEBIAN_FRONTEND=noninteractive apt-get install --yes /root/helm.deb", timeout=600)
        print(f"the package with what it recommends: {time.monotonic() - began:.0f} s")
        box.shell("~/suite/repositories ~/git")
        box.shell(CERTIFICATES)
        box.root(f"cp /home/hive/tls/ca.crt {TRUSTED} && update-ca-certificates")
        box.write("/home/hive/server.py", SERVER)
        box.shell("systemd-run --user --quiet --collect --unit=git-server python3 /home/hive/server.py")
        until(lambda: not box.shell(": < /dev/tcp/127.0.0.1/8444", check=False).code, 60)
        box.write("/etc/hivematrix/services.toml", SOURCES, root=True)
        yield box


def followed(box: Machine, command: str) -> tuple[str, float, float]:
    """Run a command as root; return its output, its duration, and the longest time without output, in seconds."""
    began = last = time.monotonic()
    silence, lines = 0.0, []
    words = box.command("sh", "-c", f"exec {command} 2>&1", root=True)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            now = time.monotonic()
            if now - last > silence:
                silence = now - last
            last = now
            lines.append(f"[{now - began:4.0f}] {line}")
    said = "".join(lines)
    print(said)
    assert running.returncode == 0, said
    return said, last - began, silence


def test_one_command_gives_a_suite_in_which_users_log_in(machine: Machine) -> None:
    said, took, silence = followed(machine, COMMAND)
    print(f"{took:.0f} s; at most {silence:.0f} s without a line")
    assert silence < SILENCE
    found = machine.suite()
    assert set(found.values()) == {"healthy"} and set(SUITE) < set(found), found
    first = SAID.search(said)
    assert first, said
    admin = Person(first[1], first[2])
    done = log_in(machine, admin, new_password="a passphrase of many words", gateway="https://localhost")
    assert done.location == "/codex/api/notes"


def test_the_second_time_there_is_nothing_to_do(machine: Machine) -> None:
    units = tuple(f"hivematrix-{name}" for name in ("keycloak", "postgres", *SUITE))
    before = machine.pids(*units)
    said, took, _ = followed(machine, COMMAND)
    print(f"the second time: {took:.0f} s")
    assert "Nothing was to be installed." in said and "The first admin" not in said and "must be" not in said
    assert machine.pids(*units) == before and set(machine.suite().values()) == {"healthy"}
