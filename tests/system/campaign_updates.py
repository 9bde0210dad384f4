"""An update of a module, killed or cancelled as soon as it has begun each of its steps: the old version serves again.

`scripts/campaign updates` runs this. The kill comes some milliseconds after the step's line is on the disk; for a
cancellation the process is stopped there (SIGSTOP), until that has reached it.
"""

import json

import pytest

from helmd.model.modules.transaction import FORWARD, INSTALL
from tests.system.booted import Sandbox, superuser, until
from tests.system.test_jobs import SOCKET
from tests.system.test_modules_update import (
    DROPS,
    MIGRATE,
    NAME,
    REPOSITORY,
    STATE,
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


CANCEL = """
import json, os, re, signal, subprocess, sys, time

def run(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout

def seen(words):
    try:
        return words in open(intent).read()
    except FileNotFoundError:
        return False

intent, socket, name, step = sys.argv[1:]
words = ["curl", "-sS", "--unix-socket", socket, "-X", "POST", "-H", "Content-Type: application/json", "-d", "{}"]
job = json.loads(run(*words, f"http://helm/api/modules/{name}/update"))["job"]["id"]
pid, end = 0, time.monotonic() + 120
while not pid:
    pid = int(run("systemctl", "--user", "show", "-P", "MainPID", f"hivematrix-job-{job}.service"))
while not seen(f'"event": "enter", "facts": {{}}, "step": "{step}"') and time.monotonic() < end:
    time.sleep(0.0005)
os.kill(pid, signal.SIGSTOP)
run("helmctl", "jobs", "cancel", job)
while not seen('"event": "ended"') and time.monotonic() < end:
    time.sleep(0.05)
failed = re.search('"event": "failed",.*"step": "([a-z]*)"', open(intent).read())
print(failed[1] if failed else "")
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
    machine.write("/home/hive/cancel.py", CANCEL)
    words = ("python3", "/home/hive/cancel.py", f"{STATE}/intent.ndjson", SOCKET, NAME, step)
    at = machine(*words, timeout=300).out.strip()
    ended(machine)
    assert state(machine) == before
    (newest, *_) = json.loads(machine.helmctl("modules", "history", NAME, "--json").out)
    assert "it was cancelled" in newest["sentence"] and not newest["succeeded"]
    print(f"cancelled as {step} begins: taken back at {at}; {newest['downtime']:.1f} s without the module")
    # One that takes less than a millisecond may be over.
    assert at in FORWARD[FORWARD.index(step) :][:2]


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
