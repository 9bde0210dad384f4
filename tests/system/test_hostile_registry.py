"""Hostile registry files against the installed package: a clear error each, no unit written, the suite untouched, and
everything else as usual.

The files and what is expected of each are those of tests/unit/hostile.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.booted import Sandbox, until
from tests.unit.hostile.cases import CASES, Case

EVIL = "/home/hive/.config/hivematrix/services.d/evil.toml"
COMMANDS = ("apply", "diff", "start core", "start evil", "up")

# Runs in the sandbox: each file in turn put in its place, commands run with it (apply and status always, the others in
# turn), and helmd reloaded.
DRIVER = """
import concurrent.futures, glob, json, os, pathlib, subprocess, sys, time, urllib.error, urllib.request

evil, commands, expected = pathlib.Path(sys.argv[1]), sys.argv[2].split(","), json.loads(sys.argv[3])

def run(command):
    done = subprocess.run(["helmctl", *command.split()], capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    return {"command": command, "code": done.returncode, "out": done.stdout.decode(), "err": done.stderr.decode()}

def faults_known_to_helmd():
    try:
        with urllib.request.urlopen("http://127.0.0.1:5004/health", timeout=10) as answer:
            document = json.load(answer)
    except urllib.error.HTTPError as answer:
        document = json.load(answer)
    return document["checks"]["configuration"]["faults"]

def reload_helmd(count):
    subprocess.run(["systemctl", "--user", "kill", "-s", "HUP", "--kill-who=main", "helmd"], check=True)
    deadline = time.monotonic() + 30
    while (known := faults_known_to_helmd()) != count and time.monotonic() < deadline:
        time.sleep(0.1)
    return known

found = {}
pool = concurrent.futures.ThreadPoolExecutor(2)
for number, (name, count) in enumerate(expected.items()):
    others = commands[1:]
    now = [commands[0], others[number % len(others)], "status"]
    content = pathlib.Path(sys.argv[4], name).read_bytes()
    evil.write_bytes(content)
    try:
        found[name] = {"runs": list(pool.map(run, now)), "helmd": reload_helmd(count)}
    finally:
        evil.unlink()
found[""] = {"runs": [run("diff"), run("status")], "helmd": reload_helmd(0)}
print(json.dumps(found))
"""

# What must not change: unit files with all that stat(2) says, links to them, what runs, and helmd itself.
LOOK = r"""
find ~/.config/systemd/user ~/.local/share/systemd/user ~/.local/state/hivematrix/enabled -printf '%p %i %T@ %s %l\n'
cat ~/.local/share/hivematrix/services.json
units=$(systemctl --user list-units --plain --no-legend 'hivematrix-*.service' 'helmd*.service' | cut -d' ' -f1)
for unit in $units; do
    echo "$unit $(systemctl --user show -p MainPID -p NRestarts -p InvocationID --value "$unit" | tr '\n' ' ')"
done
ls -A /tmp/helm-was-here 2> /dev/null || true
"""


@pytest.fixture(scope="module")
def looks() -> list[str]:
    """How everything was before and after all of it."""
    return []


@pytest.fixture(scope="module")
def notified(demo: Sandbox, tmp_path_factory: pytest.TempPathFactory, looks: list[str]) -> Iterator[dict[str, Any]]:
    """What each command said and did with each file in place."""
    place = tmp_path_factory.mktemp("hostile")
    for case in CASES:
        Path(place, case.name).write_bytes(case.content)
    demo.helmctl("up", timeout=240)
    demo.script("copy", str(place), "/home/hive/hostile")
    looks.append(demo.shell(LOOK).out)
    counts = json.dumps({case.name: len(case.expected) for case in CASES})
    try:
        done = demo.python(DRIVER, EVIL, ",".join(COMMANDS), counts, "/home/hive/hostile", timeout=600)
        looks.append(demo.shell(LOOK).out)
        yield json.loads(done.out)
    finally:
        demo.shell(f"rm -rf {EVIL} ~/hostile; systemctl --user kill -s HUP --kill-who=main helmd")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_clear_error(notified: dict[str, Any], case: Case) -> None:
    for run in notified[case.name]["runs"]:
        printed = run["out"] + run["err"]
        assert "Traceback" not in printed
        assert all(line.isprintable() for line in printed.splitlines()), "nothing that a terminal would obey"
        assert "hunter2" not in printed, "no secret"
        for line, words in case.expected:
            assert f"{EVIL}:{line}: {words}" in printed or (not line and f"{EVIL}: {words}" in printed), printed[:2000]
        if run["command"] == "status":
            assert run["code"] == 0
            rows = {line.split()[0]: line for line in run["out"].splitlines()}
            assert "5000" in rows["core"] and "answered 200" in rows["core"], "ports and health stay"
            assert list(rows)[1:4] == ["postgres", "keycloak", "core"] and "evil" not in rows, "so does their order"
        elif run["command"] == "start evil":
            # 4 where the name stands in no table that can be read.
            assert run["code"] in (1, 4)
        elif run["command"] in ("apply", "diff", "up"):
            assert run["code"] == 1, "something that was asked for is not done"
        elif run["command"] == "start core":
            assert run["code"] == 0 and "✓ core: already running" in run["err"]
    assert notified[case.name]["helmd"] == len(case.expected), "helmd serves, and knows of the faults"


def test_nothing_was_changed(notified: dict[str, Any], looks: list[str]) -> None:
    before, after = looks
    assert "hivematrix-core.service" in before and "helmd.service" in before
    assert after.splitlines() == before.splitlines()
    assert notified[""]["helmd"] == 0
    assert [(run["code"], run["err"]) for run in notified[""]["runs"]] == [
        (0, "Nothing would change.\n"), (0, "")
    ]  # fmt: skip


def test_a_faulty_registry_keeps_nobody_else_from_anything(box: Sandbox) -> None:
    box.write(EVIL, CASES[0].content.decode())
    try:
        done = box.helmctl("stop", "ticker")
        assert "✓ ticker: stopped" in done.err and "warning: " in done.err
        assert "✓ ticker: started" in box.helmctl("start", "ticker").err
        assert "✓ ticker: restarted" in box.helmctl("restart", "ticker").err
        status = json.loads(box.helmctl("status", "--json", "ticker").out)
        assert [entry["status"] for entry in status] == ["running"]
    finally:
        box("rm", EVIL)


def test_faulty_files_that_are_no_files(box: Sandbox) -> None:
    """A pipe, a directory, a loop of links: said at once, by helmctl and by helmd."""
    directory = EVIL.rpartition("/")[0]
    made = f"cd {directory} && mkfifo a.toml && mkdir b.toml && ln -s c.toml c.toml && ln -s /dev/zero d.toml"
    box.shell(made)
    try:
        done = box.helmctl("apply", check=False, timeout=30)
        assert done.code == 1 and done.err.endswith("Nothing to change.\n")
        for name in "abcd":
            assert f"{directory}/{name}.toml: " in done.err
        box("systemctl", "--user", "reload", "helmd")
        until(lambda: '"faults": 4' in box.shell("curl -s http://127.0.0.1:5004/health").out, within=30)
    finally:
        box.shell(f"cd {directory} && rm -rf a.toml b.toml c.toml d.toml")
        box("systemctl", "--user", "reload", "helmd")


def test_a_missing_directory_concerns_its_own_service_only(box: Sandbox) -> None:
    """The others are started, restarted and applied as usual, and it is refused by name, before it is stopped."""
    box.shell("mv ~/suite/ledger ~/suite/moved")
    try:
        missing = "directory /home/hive/suite/ledger does not exist"
        done = box.helmctl("restart", "ticker", "ledger", check=False)
        assert done.code == 1 and "✓ ticker: restarted" in done.err
        assert "✗ ledger: not restarted: " in done.err and missing in done.err
        status = json.loads(box.helmctl("status", "--json", "ledger", check=False).out)
        assert status[0]["status"] == "running", "it runs on from the directory that was moved"
        box.helmctl("stop", "ticker", "ledger")
        assert "✓ ticker: started" in box.helmctl("start", "ticker").err
        done = box.helmctl("start", "ledger", check=False)
        assert done.code == 1 and "✗ ledger: " in done.err and missing in done.err
        for command in ("apply", "diff"):
            done = box.helmctl(command, check=False)
            assert done.code == 1 and "hivematrix-ledger.service: stays as it is" in done.err and missing in done.err
        assert missing in box.helmctl("doctor", check=False).out
    finally:
        box.shell("mv ~/suite/moved ~/suite/ledger; helmctl start ledger ticker")
