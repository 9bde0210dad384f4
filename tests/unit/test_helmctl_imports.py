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
CONTROL = NEVER | {"json", "shutil", "socket", "ssl", "subprocess", "systemd._reader", "helmd.systemd.programs"}
STATUS = NEVER | {"json", "shutil", "subprocess", "tempfile"}
STATUS |= {"helmd.model.json_fields", "helmd.model.units.status", "helmd.postgres.cluster"}
LOGS = NEVER | {"shutil", "subprocess", "helmd.model.identity.unit_jobs", "helmd.model.logs.filter"}
LOGS |= {"helmd.model.logs.query_language"}


def loaded_by(command: str, home: Path) -> set[str]:
    """The modules that are loaded once COMMAND has read the configuration of an account without files of its own."""
    done = subprocess.run(
        [sys.executable, "-EsXutf8", "-c", RUN, command, str(home)], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "command, unneeded",
    [("start", CONTROL), ("stop", CONTROL), ("restart", CONTROL), ("status", STATUS), ("logs", LOGS)],
)
def test_a_command_loads_what_it_uses(command: str, unneeded: set[str], tmp_path: Path) -> None:
    assert not loaded_by(command, tmp_path) & unneeded


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
