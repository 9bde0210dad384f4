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
NEVER = {"asyncio", "configparser", "hmac", "json", "logging", "psycopg", "helmd.model.logs.parsing.parsed"}
CONTROL = NEVER | {"shutil", "socket", "ssl", "subprocess", "systemd._reader", "helmd.systemd.programs"}
STATUS = NEVER | {"shutil", "subprocess", "tempfile", "helmd.postgres.cluster", "helmd.model.units.status"}


def loaded_by(command: str, home: Path) -> set[str]:
    """The modules that are loaded once COMMAND has read the configuration of an account without files of its own."""
    done = subprocess.run(
        [sys.executable, "-EsXutf8", "-c", RUN, command, str(home)], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "command, unneeded", [("start", CONTROL), ("stop", CONTROL), ("restart", CONTROL), ("status", STATUS)]
)
def test_a_command_loads_what_it_uses(command: str, unneeded: set[str], tmp_path: Path) -> None:
    assert not loaded_by(command, tmp_path) & unneeded


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
