"""The package on the Debian release that the other tests don't run on, with its systemd, PostgreSQL and Python.

What depends on these most, in about a minute; `scripts/campaign release` runs more there. Stages are fixtures that rest
on one another, as in test_package.py.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.sandboxlib.place import DEFAULT_RELEASE
from tests.system.booted import RELEASE, Sandbox, until
from tests.system.packaged import ACCOUNT, HOME, Machine, booted_machine, printing_suite
from tests.system.printed_lines import check_same_lines, numbered_lines
from tests.system.test_hardening import EFFECTS, LEVELS

NAME = "otherrelease"
RELEASES = {"bookworm": ("3.11", "15"), "trixie": ("3.13", "17")}
"""Versions of Python and PostgreSQL by release."""
LINES = 20_000
ELSEWHERE = {"read_other_home", "read_other_file", "gain_rights"}
"""What test_hardening.py prepares another account for."""
SECURE = """
[services.secure]
type = "command"
path = "/opt/suite/faulty"
start_command = ["/usr/bin/python3", "answering.py"]
port = 6123
url = "https://localhost:6123"
environment = { PORT = "6123", TLS = "1" }
"""
SUITE = (
    printing_suite(LINES, 50)
    + SECURE
    + "".join(
        f"""
[services.tries-{level}]
type = "command"
path = "/opt/suite/faulty"
start_command = ["/usr/bin/python3", "sandboxed.py"]
port = {port}
environment = {{ PORT = "{port}" }}
hardening = "{level}"
"""
        for level, port in LEVELS.items()
    )
)
SERVICES = ("postgres", "printer", "ticker", "codex", "secure", *(f"tries-{level}" for level in LEVELS))


@pytest.fixture(scope="module")
def release() -> str:
    (other,) = RELEASES.keys() - {RELEASE[-1] if RELEASE else DEFAULT_RELEASE}
    return other


@pytest.fixture(scope="module")
def machine(package: Path, release: str) -> Iterator[Machine]:
    with booted_machine(NAME, {package: "/root/helm.deb"}, ("--release", release)) as box:
        yield box


@pytest.fixture(scope="module")
def running(machine: Machine) -> Machine:
    machine.root("apt-get update --quiet")
    machine.apt("install /root/helm.deb curl")
    machine.set_up(SUITE)
    machine.root("helmctl up")
    return machine


@pytest.fixture(scope="module")
def rebooted(running: Machine) -> Machine:
    done = running.script("reboot", timeout=300)
    assert done.code == 0, done.text
    return running


def codename(box: Sandbox) -> str:
    return box.shell(". /etc/os-release; echo $VERSION_CODENAME").out.strip()


def printed(machine: Machine, what: str) -> str:
    return machine.sql(f"SELECT {what} FROM log_entries WHERE service_name = 'printer' AND message LIKE 'line %'")


def test_the_suite_is_healthy_by_what_the_release_has(running: Machine, release: str) -> None:
    assert codename(running) == release
    python, postgresql = RELEASES[release]
    assert Path(running.root("readlink -f /usr/bin/python3").out.strip()).name == f"python{python}"
    versions = running.root(f"cat {HOME}/.local/state/hivematrix/postgres-*/PG_VERSION").out.split()
    assert versions == [postgresql] * 2
    assert running.suite() == dict.fromkeys(SERVICES, "healthy")


def test_doctor_finds_what_there_is_alone(running: Machine) -> None:
    done = running.root("helmctl doctor --json", check=False)
    concerns = {each["check"]: each["sentence"] for each in json.loads(done.out)["findings"] if each["verdict"] != "ok"}
    assert "secure" in concerns["certificates"], "its certificate is valid for a day"
    # Whether a time service runs, and what controllers there are, is this machine's affair; "isolation" names the
    # services that are to have none; no backups are set up.
    assert concerns.keys() <= {"backups", "certificates", "clock", "hardening", "isolation", "limits"}, concerns


def test_libraries_of_the_release_have_nothing_to_say(running: Machine) -> None:
    """Such as that something is deprecated."""
    for command in ("doctor", "diff", "apply", "status", "deps", "why codex", "logs -n 5", "postgres status"):
        assert "Warning" not in running.root(f"helmctl {command}", check=False).err, command
    units = " ".join(f"_SYSTEMD_USER_UNIT={unit}.service" for unit in ("helmd", "helmd-journal"))
    said = running.root(f"journalctl -q -o cat {units}").out.splitlines()
    assert said and not [line for line in said if "Warning:" in line]


def test_profiles_have_the_effect_that_they_have_elsewhere(running: Machine) -> None:
    allowed = {
        level: json.loads(running.root(f"curl -s http://127.0.0.1:{port}/").out)["can"]
        for level, port in LEVELS.items()
    }
    probes = allowed["off"].keys() & EFFECTS.keys() - ELSEWHERE
    assert len(probes) > 20
    seen = {probe: tuple(allowed[level][probe]["allowed"] for level in LEVELS) for probe in probes}
    assert seen == {probe: EFFECTS[probe] for probe in probes}


def test_no_role_is_let_in_without_its_password(running: Machine) -> None:
    where = f"-h /run/user/{running.uid}/hivematrix/postgres-suite -p 5499"
    for role in ("postgres", "codex"):
        query = f"runuser -u {ACCOUNT} -- env PGPASSFILE=/dev/null psql -w {where} -U {role} -c 'SELECT 1' codex_db"
        done = running.root(query, check=False)
        assert done.code == 2 and "no password supplied" in done.err, done.text
    assert json.loads(running.root("curl -s http://127.0.0.1:5010/health").out)["checks"]["database"]["status"] == (
        "healthy"
    )


def test_what_was_killed_comes_back(running: Machine) -> None:
    before = running.pids("hivematrix-codex.service", "helmd-journal.service")
    for pid in before.values():
        running.root(f"kill -9 {pid}")
    until(lambda: not before.items() & running.pids(*before).items() and running.suite()["codex"] == "healthy", 30)
    assert "restarted it once" in " ".join(running.root("helmctl why codex").out.split())


def test_every_line_is_stored_once(running: Machine) -> None:
    """helmd-journal was killed meanwhile."""
    until(lambda: int(printed(running, "count(*)")) >= LINES, 60)
    check_same_lines(Counter(printed(running, "message").splitlines()), numbered_lines(LINES))


def test_after_a_reboot_it_is_healthy_again(rebooted: Machine) -> None:
    until(lambda: rebooted.suite() == dict.fromkeys(SERVICES, "healthy"), 60)
    # It prints all of its lines in each boot.
    until(lambda: printed(rebooted, "count(*), count(DISTINCT message)") == f"{2 * LINES}|{LINES}", 60)
