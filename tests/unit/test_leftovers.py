"""What a killed process leaves of a file that it replaces is found, and nothing else."""

import os
import subprocess
import sys
import time
from pathlib import Path

from helmd.files.durable import write_atomically
from helmd.files.leftovers import OLD_SECONDS, remove_leftovers, tidy_account
from helmd.model.layout import layout
from tests.waiting import WITHIN

TOP = Path(__file__).resolve().parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from helmd.files.durable import write_atomically
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), "new")
"""


def test_what_a_kill_leaves_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "desk.toml"
    file.write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(file)], cwd=TOP, timeout=WITHIN, check=False)
    assert done.returncode < 0 and len(list(tmp_path.iterdir())) == 2
    assert not remove_leftovers(tmp_path, "other.toml") and not remove_leftovers(tmp_path, older=60)
    assert len(remove_leftovers(tmp_path, "desk.toml")) == 1
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]


def test_old_ones_are_removed_from_the_directories_of_an_account_alone(tmp_path: Path) -> None:
    place = layout({}, tmp_path, os.getuid(), TOP)
    module = place.module("desk")
    made = [
        each.with_name(f".{each.name}.0badc0de")
        for each in (place.settings_file, module.record, module.deploy_key, module.intent, place.secrets_file("desk"))
    ]
    young = module.record.with_name(".module.json.deadbeef")
    others = [module.shared / ".mine.0badc0de", module.root / ".module.json.short", module.root / "x.0badc0de"]
    # Copies that somebody made, and what other programs leave.
    others += [place.config / ".helm.toml.20261129", place.units / ".other.service.0badc0de"]
    for each in (*made, young, *others):
        write_atomically(each, "x")
        if each != young:
            os.utime(each, (time.time() - OLD_SECONDS - 1,) * 2)
    (module.root / ".directory.0badc0de").mkdir()
    # One that can't be read keeps nothing else from being tidied.
    (place.modules / "aaa").mkdir(mode=0)
    assert sorted(tidy_account(place)) == sorted(map(str, made))
    assert all(each.exists() for each in (young, *others)) and not tidy_account(place)
