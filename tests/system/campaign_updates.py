"""An update of a module, killed as soon as it has begun each of its steps: it ends in the old or the new version.

`scripts/campaign updates` runs this. The kill comes some milliseconds after the step's line is on the disk.
"""

import pytest

from helmd.model.modules.transaction import FORWARD
from tests.system.booted import Sandbox
from tests.system.test_modules_update import DROPS, MIGRATE, NAME, STATE, commit, good, machine, state

__all__ = ["machine"]

KILL = """
rm -f {state}/intent.ndjson
systemd-run --user --quiet --collect --unit=desk-update helmctl modules update {name} --yes --gate 5s
for _ in $(seq 20000); do
    grep -qs '"step": "{step}"' {state}/intent.ndjson && break
    sleep 0.002
done
systemctl --user kill --signal=KILL desk-update
tail -n 1 {state}/intent.ndjson
"""


@pytest.mark.parametrize("step", FORWARD)
def test_killed_at_each_step_it_is_old_or_new(machine: Sandbox, step: str) -> None:
    before = state(machine)
    commit(machine, {**good(f"killed-{step}"), "migrate.py": MIGRATE + DROPS})
    said = machine.shell(KILL.format(state=STATE, name=NAME, step=step)).out
    again = machine.helmctl("modules", "recover")
    assert state(machine) == before, (said, again.text)
    assert "Nothing was interrupted." in machine.helmctl("modules", "recover").text
