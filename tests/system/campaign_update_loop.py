"""Updates of a module in a loop for ten minutes, while users read pages of other modules through the gateway.

`scripts/campaign update-loop` runs this; with ``--times 12`` it takes two hours.
"""

import json
import time

from tests.campaign import lasting
from tests.system.booted import Sandbox, until
from tests.system.test_modules_update import DROPS, GATE, MIGRATE, NAME, ask, commit, good, machine, run_file, state

__all__ = ["machine"]

SECONDS = lasting(600.0, 600.0)
OTHERS = ("codex", "ledger", "knowledgetree")
PLACE, RESULT = "/tmp/load.py", "/tmp/load.json"

LOAD = """
import json, os, sys, threading, time
sys.path.insert(0, "/usr/share/hivematrix-helm")
from helmd.health.peers import Peers
from helmd.model.identity.realm import GATEWAY, PROBE_USER
from helmd.model.urls import origin_of
from helmd.model.layout import layout
from helmd.model.suite.names import unit_of
from helmd.operations.configuration.effective import load_effective
from helmd.operations.identity.gateway_login import Gateway, GatewayBrowser, GatewayPageError, ProbeRefusedError
from helmd.operations.identity.probe_account import probe_password
from pathlib import Path

def log_in(browser, name):
    # One account, so one login at a time; a refused one is tried again.
    with LOGIN:
        for left in range(4, -1, -1):
            try:
                return browser.visit(f"/{name}/", PROBE_USER, password)
            except (GatewayPageError, ProbeRefusedError):
                if not left:
                    raise
                time.sleep(1)

LOGIN = threading.Lock()
place = layout(os.environ, Path.home(), os.getuid(), Path("/usr/share/hivematrix-helm"))
gateway = load_effective(place).registry[GATEWAY]
where = Gateway(origin_of(gateway.url), gateway.port, unit_of(GATEWAY))
password, found = probe_password(place), {}

def read(name):
    mine = found[name] = {"answered": 0, "failed": [], "longest": 0.0}
    while not os.path.exists("/tmp/load.end"):
        with GatewayBrowser(where, Peers(os.getuid()).peer, 120.0) as browser:
            until = time.monotonic() + 90
            log_in(browser, name)
            while time.monotonic() < until and not os.path.exists("/tmp/load.end"):
                began = time.monotonic()
                try:
                    page = browser.fetch(f"/{name}/health")
                    why = "" if page.status == 200 else f"HTTP {page.status}"
                except GatewayPageError as error:
                    why = error.sentence
                mine["longest"] = max(mine["longest"], time.monotonic() - began)
                mine["answered"] += not why
                if why:
                    mine["failed"].append([time.time(), why])
                time.sleep(0.1)
            browser.leave()

threads = [threading.Thread(target=read, args=(name,)) for name in sys.argv[1:]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
Path("/tmp/load.json").write_text(json.dumps(found))
"""

SHOWN = "MainPID,NRestarts,ActiveEnterTimestampMonotonic"


def others(box: Sandbox) -> dict[str, str]:
    """Return main process, restarts and start time of the units of suite and Helm, except those of the module."""
    listed = box.shell(
        "systemctl --user list-units --quiet --plain --no-legend 'hivematrix-*.service' 'helmd*.service'"
    )
    units = [line.split()[0] for line in listed.out.splitlines() if " running " in line]
    return {
        unit: box.shell(f"systemctl --user show -p {SHOWN} {unit}").out
        for unit in units
        if unit != f"hivematrix-{NAME}.service" and "-job-" not in unit
    }


def test_nobody_notices_updates_of_another_module(machine: Sandbox) -> None:
    machine.write(PLACE, LOAD)
    machine.shell(f"rm -f /tmp/load.end {RESULT}; systemd-run --user --quiet --collect --unit=load python3 {PLACE} "
                  + " ".join(OTHERS))  # fmt: skip
    before, began, ended = others(machine), time.monotonic(), {"good": 0, "rolled back": 0}
    bad = (
        {"migrate.py": MIGRATE + DROPS + "sys.exit('no such column')\n"},
        {"run.py": run_file("bad", 500), "migrate.py": MIGRATE + DROPS},
    )
    number = 0
    try:
        while time.monotonic() - began < SECONDS:
            number += 1
            broken = number % 2 == 0
            kept = state(machine)
            commit(machine, {**good(f"loop{number}"), **(bad[number // 2 % 2] if broken else {})})
            done = machine.helmctl("modules", "update", NAME, "--yes", *GATE, check=False)
            assert done.code == (1 if broken else 0), done.text
            if broken:
                assert state(machine) == kept, done.text
            else:
                assert ask(machine, "/version") == f"loop{number}"
            ended["rolled back" if broken else "good"] += 1
    finally:
        machine.shell("touch /tmp/load.end")
    seconds = time.monotonic() - began
    until(lambda: machine.shell(f"test -s {RESULT}", check=False).code == 0, 120)
    found = json.loads(machine.shell(f"cat {RESULT}").out)
    answered = {name: each["answered"] for name, each in found.items()}
    longest = {name: round(each["longest"], 2) for name, each in found.items()}
    history = json.loads(machine.helmctl("modules", "history", NAME, "--json").out)
    down = sorted(each["downtime"] for each in history if each["downtime"])
    print(f"{ended} in {seconds:.0f} s; answered {answered}, the slowest {longest} s")
    print(f"without the module: median {down[len(down) // 2]:.1f} s, longest {down[-1]:.1f} s")
    assert {name: each["failed"] for name, each in found.items()} == {name: [] for name in OTHERS}
    assert all(answered.values()) and others(machine) == before
