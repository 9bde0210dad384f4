"""Updates of a module that fill its small file system: the old version runs, and the space is free again.

`scripts/campaign update-disk` runs this.
"""

from collections.abc import Iterator

import pytest

from tests.system.booted import Sandbox
from tests.system.test_modules_update import MIGRATE, NAME, PLACE, commit, good, machine, run_file, state, update

__all__ = ["machine"]

FILL = "file = open('uploads/fill', 'wb')\nwhile True:\n    file.write(b'x' * 65536)\n    file.flush()\n"
FILLS_AND_RUNS = """
try:
    with open('uploads/fill', 'wb', buffering=0) as file:
        while True:
            file.write(b'x' * 65536)
except OSError:
    pass
"""
AROUND = """
set -e
systemctl --user --machine=hive@ stop hivematrix-desk
cp -a {place} /tmp/desk-aside
mount -t tmpfs -o size=170m,mode=0700,uid=$(id -u hive),gid=$(id -g hive) tmpfs {place}
cp -a /tmp/desk-aside/. {place}/
systemctl --user --machine=hive@ start hivematrix-desk
"""


@pytest.fixture
def small(machine: Sandbox) -> Iterator[Sandbox]:
    """Yield the machine with the module's directory on a small file system of its own."""
    machine.shell(AROUND.format(place=PLACE), root=True)
    yield machine
    machine.shell(
        f"systemctl --user --machine=hive@ stop hivematrix-desk; umount --lazy {PLACE}; rm -rf /tmp/desk-aside",
        root=True,
    )


def free(box: Sandbox) -> int:
    """Return the free space of the module's file system in MiB."""
    return int(box.shell(f"df --block-size=1M --output=avail {PLACE} | tail -n 1").out)


def test_an_update_that_fills_the_disk_is_rolled_back(small: Sandbox) -> None:
    before, space = state(small), free(small)
    commit(small, {**good("full"), "migrate.py": MIGRATE + FILL})
    code, said = update(small)
    assert code == 1 and "rolled back at its migration" in said and "No space left on device" in said, said
    assert state(small) == before and free(small) > space - 10, (space, said)

    # What a version has written that ran is kept, and said with what removes it.
    commit(small, {**good("full"), "run.py": run_file("full", 500, FILLS_AND_RUNS)})
    code, said = update(small)
    assert code == 1 and "rolled back at watching it: an asset of its page: HTTP 500" in said, said
    assert f"what was written meanwhile is kept: {PLACE}/failed/" in said, said
    assert state(small) == before and free(small) < space - 50
    shown = small.helmctl("modules", "show", NAME).out
    assert f"{PLACE}/failed/" in shown and f"helmctl modules prune {NAME}" in shown, shown
    small.helmctl("modules", "prune", NAME, "--yes")
    assert free(small) > space - 10

    # One that does not fit is refused before anything is stopped.
    commit(small, {**good("full"), "static/large": "x" * (110 << 20)})
    code, said = update(small)
    assert code == 1 and "MB free, and" in said, said
    assert state(small) == before and free(small) > space - 40
