"""An update of a module, killed or cancelled as soon as it has begun each of its steps: the old version serves again.

`scripts/campaign updates` runs this. The kill comes some milliseconds after the step's line is on the disk.
"""

import json

import pytest

from helmd.model.modules.transaction import FORWARD, INSTALL
from tests.system.booted import Sandbox, superuser, until
from tests.system.test_jobs import api
from tests.system.test_modules_update import (
    DROPS,
    MIGRATE,
    NAME,
    REPOSITORY,
    STATE,
    at_step,
    commit,
    ended,
    good,
    machine,
    state,
)

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
def test_killed_at_each_step_the_old_version_serves_without_anybody(machine: Sandbox, step: str) -> None:
    before = state(machine)
    commit(machine, {**good(f"killed-{step}"), "migrate.py": MIGRATE + DROPS})
    said = machine.shell(KILL.format(state=STATE, name=NAME, step=step)).out
    ended(machine)
    assert state(machine) == before, said
    assert "Nothing was interrupted." in machine.helmctl("modules", "recover").text


@pytest.mark.parametrize("step", FORWARD)
def test_cancelled_at_each_step_the_old_version_serves(machine: Sandbox, step: str) -> None:
    before = state(machine)
    commit(machine, {**good(f"cancelled-{step}"), "migrate.py": MIGRATE + DROPS})
    machine.shell(f"rm -f {STATE}/intent.ndjson")
    status, reply = api(machine, "POST", f"/api/modules/{NAME}/update", {})
    assert status == 202, reply
    at_step(machine, step)
    machine.helmctl("jobs", "cancel", reply["job"]["id"])
    ended(machine)
    assert state(machine) == before
    (newest, *_) = json.loads(machine.helmctl("modules", "history", NAME, "--json").out)
    assert "it was cancelled" in newest["sentence"] and not newest["succeeded"]


@pytest.mark.parametrize("step", INSTALL)
def test_an_installation_killed_at_each_step_leaves_nothing(machine: Sandbox, step: str) -> None:
    other, place = "/home/hive/git/shelf", "/home/hive/.local/state/hivematrix/modules/shelf"
    machine.shell(f"rm -rf {other}; cp -r {REPOSITORY} {other}; sed -i s/5081/5082/ {other}/hivematrix.toml")
    machine.shell(f"cd {other} && git -c user.name=a -c user.email=a@example.org commit --quiet --all --message=port")
    words = f"modules install {other} --allow-file --yes"
    killed = KILL.format(state=place, name="", step=step).replace("modules update  --yes --gate 5s", words)
    try:
        said = machine.shell(killed).out
        guards = "systemctl --user list-units --quiet --plain 'helm-guard-shelf-*'"
        until(lambda: not machine.shell(guards).out, 120)
        assert "shelf" not in machine.status(), said
        left = "find ~/.config ~/.local/share/hivematrix/modules/shelf/shared -name '*shelf*' -o -path '*/shared/*'"
        assert not machine.shell(left, check=False).out, said
        assert "shelf" not in superuser(machine, "SELECT datname FROM pg_database UNION SELECT rolname FROM pg_roles")
        machine.helmctl(*words.split())
        assert machine.status()["shelf"]["state"] == "healthy"
    finally:
        machine.shell(f"helmctl modules remove shelf --yes; rm -rf {other}", check=False)
