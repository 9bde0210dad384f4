"""An update, a rollback with data and an installation of a module, killed or cancelled as soon as each step has begun.

Afterwards the previous version runs with its data, or nothing of the module is left. `scripts/campaign updates` runs
this. The kill follows some milliseconds after the step's line is on disk; for a cancellation the process is stopped
there (SIGSTOP) until it was requested.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from helmd.model.jobs.record import JOB_ENDED
from helmd.model.modules.transaction import FORWARD, INSTALL, ChangeStep, steps_of
from tests.system.booted import Sandbox, superuser_sql, until
from tests.system.test_jobs import SOCKET, job_of
from tests.system.test_modules_install import SETTINGS
from tests.system.test_modules_update import (
    DROPS,
    GATE,
    MIGRATE,
    NAME,
    REPOSITORY,
    STATE,
    ask,
    commit,
    ended,
    good,
    machine,
    state,
)

__all__ = ["machine"]

ROLLBACK = steps_of("rollback-data")
OTHER = "shelf"
SOURCE = "/home/hive/git/shelf"
PLACE = "/home/hive/.local/state/hivematrix/modules/shelf"
KILL = """
rm -f {state}/intent.ndjson
systemd-run --user --quiet --collect --unit=desk-update helmctl modules {words} --yes
for _ in $(seq 20000); do
    grep -qs '"step": "{step}"' {state}/intent.ndjson && break
    sleep 0.002
done
grep -s '"step": "{step}"' {state}/intent.ndjson || exit 1
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

intent, socket, route, body, step = sys.argv[1:]
words = ["curl", "-sS", "--unix-socket", socket, "-X", "POST", "-H", "Content-Type: application/json", "-d", body]
job = json.loads(run(*words, f"http://helm/api/modules/{route}"))["job"]["id"]
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
print(job, failed[1] if failed else "")
"""


def cancelled(box: Sandbox, route: str, body: object, step: ChangeStep, steps: tuple[ChangeStep, ...], at: str) -> str:
    """Begin a change over the API, and cancel it when STEP begins; return the step at which it was rolled back.

    AT is the directory of its intent log.
    """
    box.shell(f"rm -f {at}/intent.ndjson")
    box.write("/home/hive/cancel.py", CANCEL)
    words = ("python3", "/home/hive/cancel.py", f"{at}/intent.ndjson", SOCKET, route, json.dumps(body), step)
    job, _, where = box(*words, timeout=300).out.strip().partition(" ")
    until(lambda: job_of(box, job)["state"] in JOB_ENDED, 60)
    assert job_of(box, job)["state"] == "cancelled"
    # One that takes less than a millisecond may be over.
    assert where in steps[steps.index(step) :][:2]
    return where


def check_history(box: Sandbox, step: str, where: str) -> None:
    """Check that the newest entry of the module's history is a cancelled change, and print its downtime."""
    (newest, *_) = json.loads(box.helmctl("modules", "history", NAME, "--json").out)
    assert "it was cancelled" in newest["sentence"] and not newest["succeeded"]
    print(f"cancelled as {step} begins: rolled back at {where}; {newest['downtime']:.1f} s without the module")


@pytest.fixture(scope="module")
def newer(machine: Sandbox) -> Iterator[Sandbox]:
    """Yield the machine with a newer version of the module, other rows and uploads, and a rollback with data."""
    before = state(machine)
    commit(machine, {**good("newer"), "migrate.py": MIGRATE + DROPS})
    machine.helmctl("modules", "update", NAME, "--yes", *GATE)
    ask(machine, "/write/newer")
    yield machine
    machine.helmctl("modules", "rollback", NAME, "--with-data", "--yes", *GATE)
    assert state(machine) == before


@pytest.mark.parametrize("step", FORWARD)
def test_killed_at_each_step_the_old_version_serves_without_anybody(machine: Sandbox, step: str) -> None:
    before = state(machine)
    commit(machine, {**good(f"killed-{step}"), "migrate.py": MIGRATE + DROPS})
    said = machine.shell(KILL.format(state=STATE, words=f"update {NAME} --gate 5s", step=step)).out
    ended(machine)
    assert state(machine) == before, said
    assert "Nothing was interrupted." in machine.helmctl("modules", "recover").text


@pytest.mark.parametrize("step", FORWARD)
def test_cancelled_at_each_step_the_old_version_serves(machine: Sandbox, step: ChangeStep) -> None:
    before = state(machine)
    commit(machine, {**good(f"cancelled-{step}"), "migrate.py": MIGRATE + DROPS})
    where = cancelled(machine, f"{NAME}/update", {}, step, FORWARD, STATE)
    ended(machine)
    assert state(machine) == before
    check_history(machine, step, where)


@pytest.mark.parametrize("step", ROLLBACK)
def test_a_rollback_killed_at_each_step_leaves_the_newer_version(newer: Sandbox, step: str) -> None:
    before = state(newer)
    words = f"rollback {NAME} --with-data --gate 5s"
    said = newer.shell(KILL.format(state=STATE, words=words, step=step)).out
    ended(newer)
    assert state(newer) == before, said
    assert "Nothing was interrupted." in newer.helmctl("modules", "recover").text


@pytest.mark.parametrize("step", ROLLBACK)
def test_a_rollback_cancelled_at_each_step_leaves_the_newer_version(newer: Sandbox, step: ChangeStep) -> None:
    before = state(newer)
    where = cancelled(newer, f"{NAME}/rollback", {"with_data": True}, step, ROLLBACK, STATE)
    ended(newer)
    assert state(newer) == before
    check_history(newer, step, where)


@contextmanager
def not_installed(box: Sandbox, version: str) -> Iterator[Callable[[], None]]:
    """Make a repository of another module with a VERSION of its own.

    Yields a function that checks that nothing of the module is left, and that it can be installed.
    """

    def check() -> None:
        guards = "systemctl --user list-units --quiet --plain 'helm-guard-shelf-*'"
        until(lambda: not box.shell(guards).out, 120)
        assert OTHER not in box.status()
        left = "find ~/.config ~/.local/share/hivematrix/modules/shelf/shared -name '*shelf*' -o -path '*/shared/*'"
        assert not box.shell(left, check=False).out
        assert OTHER not in superuser_sql(box, "SELECT datname FROM pg_database UNION SELECT rolname FROM pg_roles")
        box.helmctl("modules", "install", SOURCE, "--allow-file", "--yes")
        assert box.status()[OTHER]["state"] == "healthy"

    commit(box, good(version))
    box.shell(f"rm -rf {SOURCE}; cp -r {REPOSITORY} {SOURCE}; sed -i s/5081/5082/ {SOURCE}/hivematrix.toml")
    box.shell(f"cd {SOURCE} && git -c user.name=a -c user.email=a@example.org commit --quiet --all --message=port")
    try:
        yield check
    finally:
        box.shell(f"helmctl modules remove {OTHER} --yes; rm -rf {SOURCE}", check=False)


@pytest.mark.parametrize("step", INSTALL)
def test_an_installation_killed_at_each_step_leaves_nothing(machine: Sandbox, step: str) -> None:
    with not_installed(machine, f"install-killed-{step}") as check:
        words = f"install {SOURCE} --allow-file"
        print(machine.shell(KILL.format(state=PLACE, words=words, step=step)).out)
        check()


@pytest.mark.parametrize("step", INSTALL)
def test_an_installation_cancelled_at_each_step_leaves_nothing(machine: Sandbox, step: ChangeStep) -> None:
    before = machine.shell(f"cat {SETTINGS}").out
    machine.write(SETTINGS, before.replace("[modules]\n", "[modules]\nfiles = true\n"))
    try:
        with not_installed(machine, f"install-cancelled-{step}") as check:
            where = cancelled(machine, "install", {"source": SOURCE}, step, INSTALL, PLACE)
            print(f"installation cancelled as {step} begins: rolled back at {where}")
            check()
    finally:
        machine.write(SETTINGS, before)
