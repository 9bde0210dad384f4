"""Upgrading Debian 12 to 13 while the suite runs: PostgreSQL 15 to 17, Python 3.11 to 3.13, systemd 252 to 257.

In ``scripts/campaign distribution-upgrade``, since it takes ten minutes. Every test run has the upgrade of the clusters
in test_cluster_upgrade.py, and Debian 12 in test_other_release.py. The stages are fixtures that depend on one another,
as in test_package.py.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.booted import until
from tests.system.packaged import ACCOUNT, HOME, Machine, booted_machine, printing_suite

NAME = "distupgrade"
STATE = HOME / ".local/state/hivematrix"
NOTES = 1_000_000
"""Rows in the database of a service."""
STORED = 500_000
"""Lines in the log store before the upgrade."""
SERVICES = ("postgres", "printer", "ticker", "codex", "words")
UNITS = tuple(f"hivematrix-{name}.service" for name in SERVICES)
CLUSTERS = ("postgres-helm", "postgres-suite")
SUITE = f"""{printing_suite(STORED, 100)}
[services.words]
path = "/opt/suite/words"
port = 5090
health = {{ check = "port" }}
"""
RUN = """\
from http.server import HTTPServer, SimpleHTTPRequestHandler

import wordlist

print(wordlist.WORD, flush=True)
HTTPServer(("127.0.0.1", 5090), SimpleHTTPRequestHandler).serve_forever()
"""
WORDS = "/opt/suite/words"


@dataclass(frozen=True)
class Before:
    """The machine, its notes and its processes before the upgrade."""

    machine: Machine
    notes: str
    pids: dict[str, int]


@dataclass(frozen=True)
class Upgraded:
    machine: Machine
    before: Before
    pids: dict[str, int]
    """The main processes after apt and before the reboot."""


@pytest.fixture(scope="module")
def machine(package: Path) -> Iterator[Machine]:
    with booted_machine(NAME, {package: "/root/helm.deb"}, ("--release", "bookworm")) as box:
        yield box


@pytest.fixture(scope="module")
def before(machine: Machine) -> Before:
    """Set up a suite on Debian 12, with data."""
    machine.root("apt-get update --quiet")
    machine.apt("install /root/helm.deb curl python3-venv")
    machine.write(f"{WORDS}/run.py", RUN, root=True)
    make_environment(machine, f"python3 -m venv {WORDS}/pyenv", "3.11")
    machine.set_up(SUITE)
    machine.root("helmctl up")
    of_suite(machine, "INSERT INTO notes (author, body) SELECT n % 7, md5(n::text)"
                      f" FROM generate_series(1, {NOTES}) AS n")  # fmt: skip
    until(lambda: int(of_printer(machine, "count(*)")) == STORED, 60 + STORED / 2_000, pause=1)
    return Before(machine, notes(machine), machine.pids("helmd-postgres.service", *UNITS))


@pytest.fixture(scope="module")
def announced(before: Before) -> Before:
    """Change apt's sources to Debian 13 and update its lists."""
    machine = before.machine
    machine.root("sed -i s/bookworm/trixie/ $(ls /etc/apt/sources.list /etc/apt/sources.list.d/* 2> /dev/null)")
    machine.root("apt-get update --quiet")
    return before


@pytest.fixture(scope="module")
def upgraded(announced: Before) -> Upgraded:
    machine = announced.machine
    options = "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
    began = time.monotonic()
    machine.root(f"DEBIAN_FRONTEND=noninteractive apt-get --yes {options} full-upgrade", timeout=1800)
    print(f"apt-get full-upgrade: {time.monotonic() - began:.0f} s")
    pids = machine.pids(*announced.pids)
    done = machine.script("reboot", timeout=300)
    assert done.code == 0, done.text
    until(lambda: machine.suite().get("codex") == "healthy", 120, pause=1)
    return Upgraded(machine, announced, pids)


@pytest.fixture(scope="module")
def moved(upgraded: Upgraded) -> Upgraded:
    """Do what doctor advised."""
    machine = upgraded.machine
    machine.apt("install postgresql")
    machine.apt("autoremove")
    began = time.monotonic()
    machine.said["upgrade"] = machine.root("helmctl postgres upgrade", timeout=900).text
    print(f"helmctl postgres upgrade: {time.monotonic() - began:.0f} s")
    (lost,) = [finding for finding in doctor(machine) if finding["check"] == "environments"]
    make_environment(machine, lost["fix"].partition(";")[0], "3.13")
    machine.root("helmctl restart words")
    # For a newer systemd.
    machine.root(f"helmctl setup --account {ACCOUNT} && helmctl apply")
    machine.apt("purge postgresql-15 postgresql-client-15")
    machine.apt("autoremove")
    return upgraded


def make_environment(machine: Machine, command: str, version: str) -> None:
    """Run COMMAND, which makes the virtual environment of the service words, and install its package there."""
    machine.root(f"{command} && echo 'WORD = \"found\"' > {WORDS}/pyenv/lib/python{version}/site-packages/wordlist.py")
    machine.root(f"test ! -d {HOME} || chown -R {ACCOUNT}: {WORDS}")


def of_suite(machine: Machine, query: str) -> str:
    """Return the result of a query of the service's database as the superuser."""
    passfile = f"{HOME}/.config/hivematrix/secrets/postgres.pgpass"
    where = f"-h /run/user/{machine.uid}/hivematrix/postgres-suite -p 5499 -U postgres -d codex_db"
    command = f'runuser -u {ACCOUNT} -- env PGPASSFILE={passfile} psql -w -Atqc "{query}" {where}'
    return machine.root(command).out.strip()


def notes(machine: Machine) -> str:
    """Return the number of notes, and a digest of all."""
    return of_suite(machine, "SELECT count(*), md5(string_agg(author || body, '' ORDER BY id)) FROM notes")


def of_printer(machine: Machine, what: str) -> str:
    return machine.sql(f"SELECT {what} FROM log_entries WHERE service_name = 'printer' AND message LIKE 'line %'")


def doctor(machine: Machine) -> list[dict[str, str]]:
    """Return doctor's findings that are warnings or worse."""
    findings = json.loads(machine.root("helmctl doctor --json", check=False).out)["findings"]
    return [finding for finding in findings if finding["verdict"] in ("warn", "bad")]


def majors(machine: Machine) -> list[str]:
    return machine.root(f"cat {' '.join(str(STATE / name / 'PG_VERSION') for name in CLUSTERS)}").out.split()


def test_before_it_doctor_names_what_has_to_be_done(announced: Before) -> None:
    found = doctor(announced.machine)
    clusters = [each for each in found if each["check"] == "postgresql"]
    assert len(clusters) == len(CLUSTERS) and all(
        "postgresql-15 is in no configured" in each["sentence"] for each in clusters
    )
    assert all("helmctl postgres upgrade" in each["fix"] for each in clusters)
    (environment,) = [each for each in found if each["check"] == "environments"]
    assert environment["verdict"] == "warn" and f"of words in {WORDS}/pyenv" in environment["sentence"]
    assert "Python 3.11" in environment["sentence"] and "Python 3.13" in environment["sentence"]


def test_services_run_on_while_it_is_made(upgraded: Upgraded) -> None:
    assert upgraded.pids == upgraded.before.pids


def test_after_it_postgresql_15_serves_until_the_clusters_are_moved(upgraded: Upgraded) -> None:
    machine = upgraded.machine
    assert "VERSION_CODENAME=trixie" in machine.root("cat /etc/os-release").out
    assert majors(machine) == ["15", "15"]
    assert machine.suite() | {"words": ""} == dict.fromkeys(SERVICES, "healthy") | {"words": ""}
    assert notes(machine) == upgraded.before.notes
    assert sum("postgresql-15" in each["sentence"] for each in doctor(machine)) == len(CLUSTERS)


def test_after_it_doctor_names_the_environment_that_is_to_be_made_again(upgraded: Upgraded) -> None:
    assert upgraded.machine.suite()["words"] != "healthy"
    (environment,) = [each for each in doctor(upgraded.machine) if each["check"] == "environments"]
    assert environment["verdict"] == "bad" and f"of words in {WORDS}/pyenv" in environment["sentence"]


def test_clusters_are_moved_to_17_and_nothing_is_lost(moved: Upgraded) -> None:
    machine = moved.machine
    assert "2 clusters upgraded" in machine.said["upgrade"]
    assert majors(machine) == ["17", "17"]
    assert machine.suite() == dict.fromkeys(SERVICES, "healthy")
    assert notes(machine) == moved.before.notes
    # It prints all of its lines again after the reboot.
    until(lambda: of_printer(machine, "count(*)") == str(2 * STORED), 60 + STORED / 2_000, pause=1)
    assert of_printer(machine, "count(DISTINCT message)") == str(STORED)


def test_every_line_that_was_printed_meanwhile_is_stored_once(moved: Upgraded) -> None:
    """For each boot, the ticker's lines are 1 to the last without a gap or a double."""
    machine = moved.machine
    number = "substring(message from 6)::bigint"
    query = (f"SELECT count(*), count(DISTINCT {number}), max({number}) FROM log_entries"
             " WHERE service_name = 'ticker' AND message LIKE 'line %' GROUP BY boot_id")  # fmt: skip
    rows = [line.split("|") for line in machine.sql(query).splitlines()]
    assert len(rows) == 2 and all(len(set(row)) == 1 for row in rows), rows


def test_in_the_end_doctor_finds_nothing(moved: Upgraded) -> None:
    # Whether a time service runs is this machine's affair; no backups are set up.
    assert [each for each in doctor(moved.machine) if each["check"] not in ("backups", "clock")] == []
    assert Path(moved.machine.root("readlink -f /usr/bin/python3").out.strip()).name == "python3.13"
