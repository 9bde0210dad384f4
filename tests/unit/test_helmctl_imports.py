"""What commands load before they do anything, since they are typed all day: each module takes a millisecond or more."""

import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]

RUN = f"""
import sys
sys.path.insert(0, {str(TOP)!r})
from dataclasses import replace
from pathlib import Path
from helmd.cli.main import helmctl as group
from helmd.model.layout import layout
from helmd.operations.configuration.effective import load_effective
home = Path(sys.argv[2])
group.get_command(None, sys.argv[1])
load_effective(replace(layout({{}}, home, 1000, Path({str(TOP)!r})), machine=home))
print(*sys.modules)
"""
NEVER = {"asyncio", "configparser", "decimal", "hashlib", "hmac", "logging", "psycopg"}
NEVER |= {"helmd.model.field_error", "helmd.model.logs.parsing.parsed"}
CONTROL = NEVER | {"helmd.cli.audit", "helmd.model.api", "helmd.model.identity.audit", "helmd.model.identity.peer"}
CONTROL |= {"json", "shutil", "socket", "ssl", "subprocess", "systemd._reader", "helmd.systemd.programs"}
STATUS = NEVER | {"json", "shutil", "subprocess", "tempfile"}
STATUS |= {"helmd.model.json_fields", "helmd.model.units.status", "helmd.postgres.cluster"}
UNITS = NEVER | {"difflib", "jinja2", "json", "subprocess", "helmd.model.identity.audit", "helmd.systemd.programs"}
LOGS = NEVER | {"shutil", "subprocess", "helmd.model.identity.unit_jobs", "helmd.model.logs.filter"}
LOGS |= {"helmd.model.logs.query_language"}


def loaded_by(command: str, home: Path) -> set[str]:
    """Return the modules that are loaded once COMMAND has read the configuration of an account without files of its
    own.
    """
    done = subprocess.run(
        [sys.executable, "-EsXutf8", "-c", RUN, command, str(home)], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "command, unneeded",
    [
        *((command, CONTROL) for command in ("start", "stop", "restart")),
        *((command, UNITS) for command in ("cat", "disable", "kill", "show")),
        ("status", STATUS),
        ("logs", LOGS),
    ],
)
def test_a_command_loads_what_it_uses(command: str, unneeded: set[str], tmp_path: Path) -> None:
    assert not loaded_by(command, tmp_path) & unneeded


def loaded_after(statements: str) -> set[str]:
    """Return the modules that are loaded once an interpreter has executed STATEMENTS."""
    program = f"import sys\nsys.path.insert(0, {str(TOP)!r})\n{statements}\nprint(*sys.modules)\n"
    done = subprocess.run([sys.executable, "-EsXutf8", "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_records_of_actions_are_written_and_read_without_what_they_do_not_need() -> None:
    """They are in most journals; entries that were posted while the store was unavailable are rare."""
    loaded = loaded_after("import helmd.cli.caller, helmd.journal.actions, helmd.model.ingest.own_entries")
    unneeded = {"helmd.model.ingest.body", "helmd.model.ingest.journal_codec", "helmd.model.logs.parsing.structured"}
    unneeded |= {"hashlib", "hmac", "_hashlib", "_ssl"}
    assert not loaded & (unneeded | {"helmd.model.identity.audit", "helmd.model.identity.peer", "json"})


def test_a_service_without_a_port_is_started_without_what_asks_ports() -> None:
    effect = "CheckHealth(Probe('process'))"
    driver = "Driver(None, list, print, lambda service, facts, since: '')"
    loaded = loaded_after(
        "from helmd.model.units.health import Probe\n"
        "from helmd.operations.lifecycle.driver import CheckHealth, Driver\n"
        f"def ask():\n    assert (yield {effect}).started\n"
        f"{driver}.run(ask())"
    )
    assert not loaded & {"helmd.health.probe", "socket"}


def test_units_are_rendered_and_installed_without_what_only_databases_need() -> None:
    """Most units are installed for services that have no database, or one that is there."""
    loaded = loaded_after("import helmd.cli.units, helmd.operations.configuration.apply")
    unneeded = {"asyncio", "cryptography", "decimal", "logging", "psycopg", "secrets", "ssl", "subprocess", "tarfile"}
    assert not loaded & (unneeded | {"helmd.health.listeners", "helmd.model.units.status", "helmd.systemd.usage"})


def test_lines_of_the_journal_are_read_without_the_registry() -> None:
    loaded = loaded_after("import helmd.cli.logs.command, helmd.model.ingest.own_entries, helmd.systemd.bus")
    assert not loaded & {"helmd.model.config", "helmd.model.suite.registry", "helmd.model.suite.service"}


def test_helmd_loads_only_when_asked_what_few_suites_need() -> None:
    assert "prometheus_client" not in loaded_after("import helmd.daemon, helmd.serve")


def test_helmctl_does_without_the_module_site() -> None:
    """Its imports are found all the same, by the interpreter of its first line."""
    interpreter, flags = (TOP / "helmctl.py").read_text().splitlines()[0].removeprefix("#!").split()
    assert "S" in flags.partition("X")[0]
    command = [interpreter, flags[:-5], "-Xutf8", "-Ximporttime", str(TOP / "helmctl.py"), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "helmd.cli.main" in loaded and "site" not in loaded


def test_the_garbage_collector_leaves_short_commands_alone() -> None:
    program = (
        "import gc, runpy, sys\n"
        "runs = []\n"
        "gc.callbacks.append(lambda phase, info: 'helmd' in sys.modules and runs.append(phase))\n"
        f"sys.path.insert(0, {str(TOP)!r})\n"
        "sys.argv = ['helmctl', '--version']\n"
        "try: runpy.run_path(sys.path[0] + '/helmctl.py', run_name='__main__')\n"
        "finally: print(runs.count('start'), gc.get_freeze_count() > 10_000, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-EsXutf8", "-c", program], capture_output=True, text=True, check=True)
    collections, frozen = done.stderr.split()
    assert (collections, frozen) == ("0", "True")
