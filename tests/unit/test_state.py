"""Explaining the state of a unit."""

from dataclasses import replace
from typing import Any

import pytest

from helmd.model.units.unit_state import (
    CLD_DUMPED,
    CLD_EXITED,
    CLD_KILLED,
    PROVING_SECONDS,
    UnitFacts,
    condition,
    explain,
    last_exit,
    retry,
    waiting_for,
)

UNIT = UnitFacts("hivematrix-core.service", "loaded")
RUNNING = replace(UNIT, active_state="active", sub_state="running", main_pid=7, active_since=1000.0, started_at=999.0)
FAILED = replace(UNIT, active_state="failed", sub_state="failed", active_since=1000.0, started_at=999.0)


@pytest.mark.parametrize(
    ("facts", "now", "expected"),
    [
        (RUNNING, 1001.0, "running"),
        (replace(RUNNING, active_state="reloading"), 1001.0, "running"),
        *(
            (
                replace(RUNNING, restarts=count),
                1000.0 + PROVING_SECONDS[min(count, len(PROVING_SECONDS)) - 1] + after,
                word,
            )
            for count in (1, 2, 9)
            for after, word in ((-0.1, "flapping"), (0.1, "running"))
        ),
        (replace(UNIT, active_state="activating", sub_state="start-post"), 1001.0, "starting"),
        (replace(UNIT, active_state="activating", sub_state="start-post", restarts=1), 1001.0, "flapping"),
        (replace(UNIT, active_state="activating", sub_state="auto-restart"), 1001.0, "flapping"),
        (replace(UNIT, active_state="deactivating", sub_state="stop-sigterm"), 1001.0, "stopping"),
        (FAILED, 1001.0, "failed"),
        (UNIT, 1001.0, "stopped"),
        (UnitFacts("nothing.service"), 1001.0, "stopped"),
        (replace(UNIT, active_state="maintenance"), 1001.0, "unknown"),
    ],
)
def test_condition_of_a_unit(facts: UnitFacts, now: float, expected: str) -> None:
    assert condition(facts, now) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"result": "exit-code", "exit_code": CLD_EXITED, "exit_status": 3}, "core exited with code 3"),
        ({"result": "signal", "exit_code": CLD_KILLED, "exit_status": 9}, "core was killed by SIGKILL"),
        ({"result": "core-dump", "exit_code": CLD_DUMPED, "exit_status": 11},
         "core was killed by SIGSEGV and dumped core"),
        ({"result": "signal", "exit_code": CLD_KILLED, "exit_status": 200}, "core was killed by signal 200"),
        ({"result": "oom-kill", "exit_code": CLD_KILLED, "exit_status": 9}, "core was killed by the OOM killer"),
        ({"result": "watchdog", "exit_code": CLD_KILLED, "exit_status": 6},
         "core did not respond and was killed by its watchdog"),
        ({"result": "start-limit-hit", "exit_code": CLD_EXITED, "exit_status": 1},
         "core failed too often and systemd gave up; it last exited with code 1"),
        ({"result": "start-limit-hit"}, "core failed too often and systemd gave up"),
        ({"result": "resources"},
         "systemd could not start core: a resource is missing (a directory, a limit, memory)"),
        ({"result": "exit-code", "start_exit": (CLD_EXITED, 1)}, "a start-up command of core exited with code 1"),
        ({"result": "exit-code", "probe_exit": (CLD_EXITED, 1), "exit_code": CLD_KILLED, "exit_status": 15},
         "core did not become healthy in time: its probe exited with code 1"),
        ({"result": "exit-code", "probe_exit": (CLD_EXITED, 2), "exit_code": CLD_EXITED, "exit_status": 5},
         "core exited with code 5"),
        ({"result": "timeout", "exit_code": CLD_KILLED, "exit_status": 9}, "core did not stop in time and was killed"),
        ({"result": "timeout", "exit_code": CLD_KILLED, "exit_status": 15, "active_since": 0.0},
         "core was not ready in time and was killed"),
        ({"result": "timeout", "exit_code": CLD_KILLED, "exit_status": 15, "started_at": 1500.0},
         "core was not ready in time and was killed"),
        ({"result": "success"}, "core is not running"),
        ({"result": "exec-condition"}, "core failed (exec-condition)"),
    ],
)  # fmt: skip
def test_why_a_unit_is_not_running(change: dict[str, Any], expected: str) -> None:
    assert explain(replace(FAILED, **change), "core") == expected


def test_last_exit_and_retry() -> None:
    assert last_exit(UNIT) == "" and retry(FAILED) == ""
    assert last_exit(replace(UNIT, exit_code=CLD_EXITED, exit_status=0)) == "exited with code 0"
    waiting = replace(UNIT, active_state="activating", sub_state="auto-restart", restarts=2, restart_delay=1.5)
    assert retry(waiting) == "systemd restarts it in 1.5 s (restart 3)."


def test_why_nothing_is_stored() -> None:
    waits = UnitFacts(
        "helmd-journal.service", status_text="waiting: the disk is nearly full; 5 rows stored since the start"
    )
    assert waiting_for(waits) == "the disk is nearly full"
    assert waiting_for(UnitFacts("helmd-journal.service", status_text="stored up to 2026")) == ""


def test_exists_and_active() -> None:
    assert not UnitFacts("x.service").exists and UNIT.exists and not UNIT.active
    assert RUNNING.active and replace(RUNNING, active_state="reloading").active and not FAILED.active
