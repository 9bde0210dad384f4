"""The Debian package through its life, in a sandbox of its own: built, installed, upgraded, removed, purged.

Each stage is a fixture that rests on the one before it, so that any one test can be run by itself; tests look at the
machine as the last stage left it, hence their order.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.booted import TOP, run, until
from tests.system.packaged import ACCOUNT, HOME, Machine, booted_machine
from tests.system.printed_lines import Printer, check_same_lines, numbered_lines

NAME = "pkgtest"
SHARE = "/usr/share/hivematrix-helm"
DATA = [str(HOME / place) for place in (".config/hivematrix", ".local/share/hivematrix", ".local/state/hivematrix")]
SERVICES = ("postgres", "printer", "degraded", "codex")
AS_WANTED = {name: "degraded" if name == "degraded" else "healthy" for name in SERVICES} | {"tidy": "scheduled"}
UNTOUCHED = ("helmd-postgres.service", *(f"hivematrix-{name}.service" for name in SERVICES))
"""What an upgrade leaves alone."""
DAEMONS = ("helmd.service", "helmd-journal.service")
CHANGING = ("helm-guard-desk-0badc0de", "hivematrix-job-0badc0de")
"""A guard of a module's change, and the job that makes it."""
SUITE = """\
[services.printer]
type = "command"
path = "/opt/suite/faulty"
start_command = ["/usr/bin/python3", "printer.py"]
environment = { HOLD = "1", COUNT = "0", RATE = "100" }

[services.degraded]
type = "command"
path = "/opt/suite/faulty"
start_command = ["/usr/bin/python3", "degraded.py"]
port = 5080
environment = { PORT = "5080" }

[services.codex]
path = "/opt/suite/codex"
depends_on = []

[services.tidy]
type = "oneshot"
path = "/opt/suite/faulty"
start_command = ["/bin/true"]
schedule = "daily"
"""


@dataclass(frozen=True)
class Packages:
    """The package as it is, one to upgrade to, and what building and lintian said."""

    first: Path
    second: Path
    said: str


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    kept = tmp_path_factory.mktemp("packages")
    built = []
    said = ""
    for words in (["--lintian"], ["--suffix", "+1"]):
        done = run([str(TOP / "scripts/build-deb"), *words], timeout=600)
        assert done.code == 0, done.text
        said += done.text
        built.append(Path(done.out.splitlines()[-1]))
    # The second is of no use to whoever installs what is in dist/.
    return Packages(Path(shutil.copy(built[0], kept)), Path(shutil.move(built[1], kept)), said)


@pytest.fixture(scope="module")
def machine(packages: Packages) -> Iterator[Machine]:
    with booted_machine(NAME, {packages.first: "/root/first.deb", packages.second: "/root/second.deb"}) as box:
        yield box


@pytest.fixture(scope="module")
def installed(machine: Machine) -> Machine:
    machine.root("apt-get update --quiet")
    machine.said["install"] = machine.apt("install /root/first.deb")
    return machine


@pytest.fixture(scope="module")
def set_up(installed: Machine) -> Machine:
    """The suite of the account runs, by what root said alone."""
    installed.said["setup"] = installed.set_up(SUITE)
    installed.said["up"] = installed.root("helmctl up").text
    until(lambda: installed.sql("SELECT 1 FROM log_entries WHERE message = 'line 1'"), 60)
    installed.said["first line"] = installed.sql("SELECT id FROM log_entries WHERE message = 'line 1'")
    return installed


@pytest.fixture(scope="module")
def upgraded(set_up: Machine) -> tuple[dict[str, int], dict[str, int]]:
    """Main processes before and after."""
    before = set_up.pids(*UNTOUCHED, *DAEMONS)
    set_up.said["upgrade"] = set_up.apt("install /root/second.deb")
    return before, set_up.pids(*UNTOUCHED, *DAEMONS)


@pytest.fixture(scope="module")
def removed(upgraded: object, set_up: Machine) -> Machine:
    """One service had been stopped before, and a module is being changed."""
    set_up.root("helmctl stop degraded")
    for unit in CHANGING:
        # A process that is begun while systemd ends the unit gets SIGTERM as well.
        ask = f"trap '' TERM; systemctl --user is-active hivematrix-codex > ~/{unit}; exit"
        says = f'trap "{ask}" TERM; while :; do sleep 0.2; done'
        set_up.account("systemd-run", "--user", "--quiet", "--collect", f"--unit={unit}", "/bin/sh", "-c", says)
    set_up.said["remove"] = set_up.apt("remove hivematrix-helm")
    return set_up


@pytest.fixture(scope="module")
def reinstalled(removed: Machine) -> Machine:
    removed.said["reinstall"] = removed.apt("install /root/second.deb")
    return removed


@pytest.fixture(scope="module")
def purged(reinstalled: Machine) -> Machine:
    reinstalled.said["purge"] = reinstalled.apt("purge hivematrix-helm")
    return reinstalled


def test_lintian_finds_nothing(packages: Packages) -> None:
    """--lintian fails on an error or a warning; this is that it ran, and on what."""
    assert "running lintian" in packages.said
    assert packages.second.name == packages.first.name.replace("_all", "+1_all")


def test_the_same_files_are_built_once(tmp_path: Path) -> None:
    """By a program in the place of the one that builds, which packs something else each time."""
    checkout, programs = tmp_path / "checkout", tmp_path / "bin"
    for name in ("scripts", "debian"):
        shutil.copytree(TOP / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    programs.mkdir()
    version = "$(dpkg-parsechangelog --show-field Version)"
    builder = programs / "dpkg-buildpackage"
    builder.write_text(f"#!/bin/sh\nmktemp -u > ../hivematrix-helm_{version}_all.deb\n")
    builder.chmod(0o755)

    def built(*words: str) -> str:
        path = f"PATH={programs}:{os.environ['PATH']}"
        done = run(["env", path, str(checkout / "scripts/build-deb"), *words], timeout=120)
        assert done.code == 0, done.text
        return Path(done.out.splitlines()[-1]).read_text()

    first, suffixed = built(), built("--suffix", "+1")
    assert (built(), built("--suffix", "+1")) == (first, suffixed)
    (checkout / "scripts/added").touch()
    other = built()
    assert len({first, suffixed, other}) == 3
    (checkout / "scripts/added").chmod(0o755)
    assert built() not in (first, other)


def test_manual_pages_and_completions_are_installed(installed: Machine) -> None:
    files = set(installed.root("dpkg -L hivematrix-helm").out.splitlines())
    expected = {
        "/usr/bin/helmctl",
        "/usr/lib/systemd/user/helmd.service",
        "/usr/lib/systemd/user/helmd-journal.service",
        "/usr/lib/systemd/user/hivematrix.target",
        "/usr/share/man/man1/helmctl.1.gz",
        "/usr/share/man/man5/formats.toml.5.gz",
        "/usr/share/man/man5/helm.toml.5.gz",
        "/usr/share/man/man5/services.toml.5.gz",
        "/usr/share/man/man8/helmd.8.gz",
        "/usr/share/bash-completion/completions/helmctl",
        "/usr/share/zsh/vendor-completions/_helmctl",
        "/usr/share/fish/vendor_completions.d/helmctl.fish",
    }
    assert expected - files == set()
    # Whatever the package says it has is there as it was packed.
    assert installed.root("dpkg --verify hivematrix-helm").text == ""
    assert not [file for file in files if "user@" in file]
    assert "helmctl" in installed.root("zcat /usr/share/man/man1/helmctl.1.gz").out


def test_install_makes_no_account_and_starts_nothing(installed: Machine) -> None:
    assert installed.root(f"id {ACCOUNT}", check=False).code == 1
    assert installed("systemctl", "--user", "list-units", "--plain", "--no-legend", "hivematrix*", "helmd*").out == ""


def test_root_without_an_account_is_shown_what_to_do(installed: Machine) -> None:
    for command in ("status", "up", "logs", "postgres status", "doctor", "stop all"):
        done = installed.root(f"helmctl {command}", check=False)
        assert (done.code, done.out) == (1, ""), done.text
        assert "helmctl setup --account hivematrix" in done.err
    assert installed.root("helmctl status --help").code == 0
    assert installed.root("helmctl setup", check=False).code == 2


@pytest.mark.parametrize("name", ["root", "daemon"])
def test_accounts_that_can_own_no_suite_are_left_alone(installed: Machine, name: str) -> None:
    done = installed.root(f"helmctl setup --account {name}", check=False)
    assert done.code == 2 and f"{name} can't own a suite" in done.err, done.text
    assert "systemd-journal" not in installed.root(f"id -Gn {name}").out.split()
    assert installed.existing("/etc/hivematrix/account", f"/var/lib/systemd/linger/{name}") == set()


def test_rate_limit_is_raised_for_an_account_by_the_command_that_doctor_prints(installed: Machine) -> None:
    """As for hive, which sets up its suite without root. No other account's limit changes."""

    def verdict() -> tuple[str, str]:
        findings = json.loads(installed.helmctl("doctor", "--json", check=False).out)["findings"]
        return next((found["verdict"], found["fix"]) for found in findings if found["check"] == "rate limit")

    severity, fix = verdict()
    assert severity == "warn"
    command, _, restart = fix.partition("; ")
    assert restart.startswith("sudo systemctl restart user@1000.service")
    installed.root(command.removeprefix("sudo "))
    severity, fix = verdict()
    assert severity == "warn" and fix.startswith("sudo systemctl restart user@1000.service"), fix
    installed.root("systemctl restart user@1000.service")
    assert verdict()[0] == "ok"
    assert installed.root("systemctl show -P LogRateLimitBurst user@1001.service").out.strip() == "0"
    assert installed.root("systemctl show -P LogRateLimitBurst user@1000.service").out.strip() == "10000000"


def test_set_up_makes_an_account_that_owns_the_suite(set_up: Machine) -> None:
    assert set_up.uid < 1000
    assert "systemd-journal" in set_up.root(f"id -Gn {ACCOUNT}").out.split()
    present = set_up.existing(f"/var/lib/systemd/linger/{ACCOUNT}", "/etc/hivematrix/account", *DATA)
    assert present == {f"/var/lib/systemd/linger/{ACCOUNT}", "/etc/hivematrix/account", *DATA}
    assert set_up.root(f"stat -c '%U %a' {DATA[0]}").out == f"{ACCOUNT} 700\n"
    assert set_up.systemctl("is-enabled", "hivematrix.target", *UNTOUCHED, *DAEMONS).split() == ["enabled"] * 8


def test_root_acts_as_the_account(set_up: Machine) -> None:
    assert set_up.suite() == AS_WANTED
    assert set_up.root("helmctl status").code == 0
    owners = set_up.root("ps -o user:20= -p " + ",".join(map(str, set_up.pids(*UNTOUCHED, *DAEMONS).values()))).out
    assert owners.split() == [ACCOUNT] * 7
    clusters = json.loads(set_up.root("helmctl postgres status --json").out)
    assert {cluster["unit"] for cluster in clusters} == {"helmd-postgres.service", "hivematrix-postgres.service"}
    assert all(cluster["pid"] and cluster["directory"].startswith(str(HOME)) for cluster in clusters)


def test_doctor_finds_nothing_bad(set_up: Machine) -> None:
    done = set_up.root("helmctl doctor --json", check=False)
    findings = json.loads(done.out)["findings"]
    # Whether a time service runs, and what user namespaces are allowed, is this machine's affair; there are no backups.
    others = [found for found in findings if found["check"] not in ("backups", "clock", "hardening")]
    concerns = [found["fix"] for found in others if found["verdict"] != "ok"]
    assert (done.code, concerns) == (0, ["helmctl why degraded"]), done.text


def test_journal_keeps_what_a_busy_unit_of_the_account_prints(set_up: Machine) -> None:
    """100,000 lines at once, of which journald's own limit would have left a third."""
    assert set_up.root(f"systemctl show -P LogRateLimitBurst user@{set_up.uid}.service").out.strip() == "10000000"
    set_up.account(
        "systemd-run", "--user", "--wait", "--quiet", "--property=SyslogIdentifier=burst", "/usr/bin/seq", "100000"
    )
    until(lambda: set_up.root("journalctl -q -o cat -t burst | grep -cE '^[0-9]+$'").out.strip() == "100000", 30)


def test_upgrade_leaves_services_running(
    set_up: Machine, packages: Packages, upgraded: tuple[dict[str, int], dict[str, int]]
) -> None:
    before, after = upgraded
    version = set_up.root("dpkg-query -W -f '${Version}' hivematrix-helm").out
    assert f"_{version}_" in packages.second.name and version.endswith("+1")
    assert {unit: after[unit] for unit in UNTOUCHED} == {unit: before[unit] for unit in UNTOUCHED}
    assert all(after[unit] not in (0, before[unit]) for unit in DAEMONS), (before, after)
    assert set_up.systemctl("is-active", *DAEMONS).split() == ["active", "active"]
    assert set_up.root("helmctl diff").out == ""
    assert set_up.suite() == AS_WANTED


@pytest.mark.usefixtures("upgraded")
def test_lines_printed_during_the_upgrade_are_stored_once(set_up: Machine) -> None:
    """The printer ran all the time, so its lines are 1 to N without a gap."""
    newest = "journalctl -q -o cat -n 1 _SYSTEMD_USER_UNIT=hivematrix-printer.service _TRANSPORT=stdout"
    printed = int(set_up.root(newest).out.split()[1])
    printer = Printer(set_up, "printer")
    until(lambda: printer.count() >= printed, 60)
    stored = printer.stored()
    check_same_lines(stored, numbered_lines(stored.total()))


def test_remove_stops_the_suite_and_says_so(removed: Machine) -> None:
    (line,) = [line for line in removed.said["remove"].splitlines() if "Stopping the HiveMatrix suite" in line]
    assert f"of uid {removed.uid}:" in line
    assert {"hivematrix-codex.service", "helmd.service", "helmd-postgres.service"} <= set(line.split())
    assert removed.running() == set()
    # Going back, they start what is stopped.
    assert removed.root(f"cd {HOME} && cat {' '.join(CHANGING)}").out.split() == ["active", "active"]
    assert not set(line.split()) & {f"{unit}.service" for unit in CHANGING}
    assert removed.existing(SHARE, "/usr/bin/helmctl", "/usr/share/man/man1/helmctl.1.gz") == set()


def test_remove_leaves_configuration_and_data(removed: Machine) -> None:
    kept = {
        f"{DATA[0]}/services.toml",
        f"{DATA[2]}/postgres-helm/PG_VERSION",
        f"{DATA[2]}/postgres-suite/PG_VERSION",
        f"{HOME}/.local/share/systemd/user/hivematrix-codex.service",
        "/etc/hivematrix/account",
        "/opt/suite/codex/run.py",
    }
    assert removed.existing(*kept) == kept


def test_what_is_still_enabled_does_not_fail_without_the_package(removed: Machine) -> None:
    """As the next boot would start it."""
    removed.systemctl("start", "helmd-postgres.service")
    assert removed.systemctl("show", "-P", "ConditionResult", "helmd-postgres.service") == "no"
    assert removed.running() == set()


def test_reinstall_brings_back_what_ran(reinstalled: Machine) -> None:
    """And nothing else: what had been stopped stays so."""
    wanted = {**AS_WANTED, "degraded": "stopped"}
    until(lambda: reinstalled.suite() == wanted, 60)
    until(lambda: {*DAEMONS, "helmd-postgres.service", "hivematrix.target"} <= reinstalled.running(), 60)
    assert "hivematrix-degraded.service" not in reinstalled.running()
    assert reinstalled.first_line_stored()


def test_purge_unattended_keeps_data_and_says_where(purged: Machine) -> None:
    (line,) = [line for line in purged.said["purge"].splitlines() if "data stays" in line]
    assert set(DATA) <= set(line.split()), line
    kept = {*DATA, f"{DATA[2]}/postgres-helm/PG_VERSION"}
    assert purged.existing(*kept) == kept
    assert purged.root(f"id {ACCOUNT}").code == 0


def test_purge_leaves_nothing_else(purged: Machine) -> None:
    units = f"{HOME}/.local/share/systemd {HOME}/.config/systemd"
    left = purged.root(f"find {units} -name '*hivematrix*' -o -name 'helmd*'", check=False).out
    assert left == ""
    assert purged.existing(SHARE, "/etc/hivematrix", "/run/hivematrix-helm.stopped") == set()
    assert purged.root("ls -d /etc/systemd/system/user@*", check=False).out == ""
    assert purged.systemctl("list-units", "--all", "--plain", "--no-legend", "hivematrix*.*", "helmd*") == ""
    done = purged.script("reboot")
    assert done.code == 0, done.text
    until(lambda: purged.root(f"systemctl is-active user@{purged.uid}.service", check=False).code == 0, 60)
    assert purged.running() == set()
    assert purged.systemctl("--failed", "--plain", "--no-legend") == ""


def test_data_that_was_kept_serves_again(purged: Machine) -> None:
    purged.apt("install /root/second.deb")
    purged.root(f"helmctl setup --account {ACCOUNT}")
    purged.root("helmctl up")
    assert purged.suite()["codex"] == "healthy"
    assert purged.first_line_stored()


def test_purge_with_the_data_leaves_nothing(purged: Machine) -> None:
    """The admin says yes to debconf's question. What is installed, if no test before has done it."""
    if SHARE not in purged.existing(SHARE):
        purged.apt("install /root/second.deb")
        purged.root(f"helmctl setup --account {ACCOUNT}")
    uid = purged.uid
    purged.root("echo hivematrix-helm hivematrix-helm/remove-data boolean true | debconf-set-selections")
    purged.apt("purge hivematrix-helm")
    assert purged.root(f"id {ACCOUNT}", check=False).code == 1
    assert purged.existing(str(HOME), "/etc/hivematrix", SHARE, f"/var/lib/systemd/linger/{ACCOUNT}") == set()
    assert purged.root(f"ps -o pid= -u {uid}", check=False).out == ""
