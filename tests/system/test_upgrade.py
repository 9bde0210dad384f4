"""Upgrade from the first released package, with a running suite and stored entries.

The older package is built from its commit, so the clone needs its history. Stages are fixtures, as in test_package.py.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.campaign import scaled
from tests.system.booted import TOP, run, until
from tests.system.packaged import ACCOUNT, HOME, Machine, booted_machine, build, printing_suite

NAME = "upgradetest"
RELEASED = "9eb909f"
"""The commit of version 1.0.0."""
STORED = scaled(1_000_000, 20_000)
"""Lines that the older package has stored before the upgrade."""
SERVICES = ("postgres", "printer", "ticker", "codex")
UNITS = tuple(f"hivematrix-{name}.service" for name in SERVICES)
UNTOUCHED = ("helmd-postgres.service", *UNITS)
SUITE = printing_suite(STORED, 200)


@dataclass(frozen=True)
class Upgrade:
    """The machine after the upgrade, with main processes and entries as they were before it."""

    machine: Machine
    pids: dict[str, int]
    ticker_lines: int


@pytest.fixture(scope="module")
def machine(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    released = tmp_path_factory.mktemp("released")
    archive = released / "source.tar"
    git = ["git", "-c", f"safe.directory={TOP}", "-C", str(TOP)]
    done = run([*git, "archive", "-o", str(archive), RELEASED], timeout=60)
    assert done.code == 0, f"{done.text}\nThis test needs the repository's history: git fetch --unshallow"
    (released / "source").mkdir()
    done = run(["tar", "-xf", str(archive), "-C", str(released / "source")], timeout=60)
    assert done.code == 0, done.text
    older = build(released / "source")
    with booted_machine(NAME, {older: "/root/older.deb", package: "/root/newer.deb"}) as box:
        yield box


@pytest.fixture(scope="module")
def released(machine: Machine) -> Machine:
    """The released package with a running suite; all of the printer's lines are stored."""
    machine.root("apt-get update --quiet")
    machine.apt("install /root/older.deb curl")
    # It reads a registry as the account.
    machine.set_up(SUITE, "/opt/services.toml")
    machine.root("helmctl up")
    until(lambda: printed(machine) == STORED, 60 + STORED / 2_000, pause=1)
    return machine


@pytest.fixture(scope="module")
def upgraded(released: Machine) -> Upgrade:
    pids, ticker_lines = released.pids(*UNTOUCHED), ticked(released)
    released.said["upgrade"] = released.apt("install /root/newer.deb")
    return Upgrade(released, pids, ticker_lines)


@pytest.fixture(scope="module")
def restarted(upgraded: Upgrade) -> Upgrade:
    """Each service restarted by systemctl, as its unit was rendered by the older package."""
    for unit in UNITS:
        upgraded.machine.systemctl("restart", unit)
    return upgraded


@pytest.fixture(scope="module")
def applied(restarted: Upgrade) -> Upgrade:
    restarted.machine.said["apply"] = restarted.machine.root("helmctl apply").text
    return restarted


def printed(machine: Machine) -> int:
    return int(machine.sql("SELECT count(*) FROM log_entries WHERE service_name = 'printer' AND source = 'journal'"))


def ticked(machine: Machine) -> int:
    return int(machine.sql("SELECT count(*) FROM log_entries WHERE service_name = 'ticker' AND source = 'journal'"))


def found(machine: Machine, message: str) -> list[str]:
    """The messages that the API finds by a text."""
    socket = f"/run/user/{machine.uid}/hivematrix/helm.sock"
    query = f"http://helm/api/logs?service=printer&q={message.replace(' ', '%20')}&limit=5"
    answer = json.loads(machine.account("curl", "--silent", "--unix-socket", socket, query))
    assert "logs" in answer, answer
    return [entry["message"] for entry in answer["logs"]]


def logs_in_without_password(machine: Machine, role: str) -> bool:
    """Whether a process of the account can be ROLE of the suite's PostgreSQL, as every service could."""
    where = f"-h /run/user/{machine.uid}/hivematrix/postgres-suite -p 5499 -U {role} -d {role}"
    query = f"runuser -u {ACCOUNT} -- env PGPASSFILE=/dev/null psql -w -Atc 'SELECT 1' {where}"
    return machine.root(query, check=False).out == "1\n"


def codex_reaches_its_database(machine: Machine) -> bool:
    """By the DSN that its running process has."""
    answer = machine.root("curl --silent http://127.0.0.1:5010/health", check=False).out
    return answer != "" and json.loads(answer)["checks"]["database"]["status"] == "healthy"


def pending(machine: Machine) -> str:
    findings = json.loads(machine.root("helmctl doctor --json", check=False).out)["findings"]
    return "; ".join(found["sentence"] for found in findings if "without a password" in found["sentence"])


def test_every_service_was_superuser(released: Machine) -> None:
    """What the upgrade is to end."""
    assert logs_in_without_password(released, "postgres") and logs_in_without_password(released, "codex")
    assert codex_reaches_its_database(released)


def test_no_service_restarts(upgraded: Upgrade) -> None:
    assert upgraded.machine.pids(*UNTOUCHED) == upgraded.pids
    assert upgraded.machine.systemctl("is-active", "helmd.service", "helmd-journal.service").split() == ["active"] * 2


def test_the_log_limit_stays_raised_for_the_suites_account_only(upgraded: Upgrade) -> None:
    """The released package raised it for all accounts."""
    burst = "systemctl show -P LogRateLimitBurst user@{}.service"
    assert upgraded.machine.root(burst.format(upgraded.machine.uid)).out.strip() == "10000000"
    assert upgraded.machine.root(burst.format(1000)).out.strip() == "0"
    findings = json.loads(upgraded.machine.root("helmctl doctor --json", check=False).out)["findings"]
    assert [found["verdict"] for found in findings if found["check"] == "rate limit"] == ["ok"]


def test_no_line_is_lost_or_doubled(upgraded: Upgrade) -> None:
    """The ticker printed all the time, at 200 lines a second."""
    machine = upgraded.machine
    until(lambda: ticked(machine) > upgraded.ticker_lines + 400, 60)
    numbers = "substring(message from 6)::bigint"
    of_ticker = "FROM log_entries WHERE service_name = 'ticker' AND source = 'journal' AND message LIKE 'line %'"
    until(lambda: machine.sql(f"SELECT count(*) = max({numbers}) {of_ticker}") == "t", 30)
    assert machine.sql(f"SELECT count(DISTINCT {numbers}) = max({numbers}) {of_ticker}") == "t"
    assert printed(machine) == STORED


def test_older_and_newer_rows_are_found(upgraded: Upgrade) -> None:
    assert found(upgraded.machine, f"line {STORED}") == [f"line {STORED}"]
    assert f"line {STORED}" in upgraded.machine.root("helmctl logs printer -n 20 -o cat").out
    newest = json.loads(upgraded.machine.root("helmctl logs ticker -n 1 -o json").out.splitlines()[-1])
    assert int(newest["message"].split()[1]) > upgraded.ticker_lines


def test_services_restart_before_apply(restarted: Upgrade) -> None:
    assert restarted.machine.suite() == dict.fromkeys(SERVICES, "healthy")
    assert all(pid not in (0, restarted.pids[unit]) for unit, pid in restarted.machine.pids(*UNITS).items())


def test_applied_the_superuser_needs_its_password_and_running_pools_do_not(applied: Upgrade) -> None:
    """Also pools that reconnect, with the DSN of the older package, after PostgreSQL was restarted."""
    machine = applied.machine
    assert not logs_in_without_password(machine, "postgres")
    assert logs_in_without_password(machine, "codex") and codex_reaches_its_database(machine)
    assert pending(machine).endswith(": codex")
    machine.systemctl("restart", "hivematrix-postgres.service")
    until(lambda: codex_reaches_its_database(machine), 30)
    assert not logs_in_without_password(machine, "postgres")
    passfile = f"{HOME}/.config/hivematrix/secrets/postgres.pgpass"
    where = f"-h /run/user/{machine.uid}/hivematrix/postgres-suite -p 5499 -U postgres -d codex"
    query = f"runuser -u {ACCOUNT} -- env PGPASSFILE={passfile} psql -w -Atc 'SELECT count(*) >= 0 FROM notes' {where}"
    assert machine.root(query).out == "t\n"


def test_restarted_a_service_needs_its_password_and_has_it(applied: Upgrade) -> None:
    machine = applied.machine
    machine.systemctl("restart", "hivematrix-codex.service")
    until(lambda: not logs_in_without_password(machine, "codex"), 30)
    assert pending(machine) == ""
    assert codex_reaches_its_database(machine)
    machine.systemctl("restart", "hivematrix-postgres.service")
    until(lambda: codex_reaches_its_database(machine), 30)
    assert not logs_in_without_password(machine, "codex")


def test_services_restart_after_apply(applied: Upgrade) -> None:
    machine = applied.machine
    assert machine.root("helmctl diff").out == ""
    before = machine.pids(*UNITS)
    for name in SERVICES:
        machine.root(f"helmctl restart {name}")
    assert machine.suite() == dict.fromkeys(SERVICES, "healthy")
    assert all(pid not in (0, before[unit]) for unit, pid in machine.pids(*UNITS).items())
    assert "/usr/libexec/hivematrix-helm/probe" in machine.systemctl("cat", UNITS[-1])
    doctor = machine.root("helmctl doctor", check=False)
    assert doctor.code == 0, doctor.text
