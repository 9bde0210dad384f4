"""Explaining the state of a unit."""

from dataclasses import replace
from typing import Any

import pytest

from helmd.model.suite.service import Restart, Service
from helmd.model.units.unit_state import (
    CLD_DUMPED,
    CLD_EXITED,
    CLD_KILLED,
    PROVING_SECONDS,
    CommandExit,
    UnitFacts,
    condition,
    daemon_trouble,
    explain,
    foreground_hint,
    last_exit,
    reload_failure,
    retry,
    waiting_for,
)
from helmd.systemd.bus import facts_of

UNIT = UnitFacts("hivematrix-core.service", "loaded")
RUNNING = replace(UNIT, active_state="active", sub_state="running", main_pid=7, active_since=1000.0, begun_at=999.0)
FAILED = replace(UNIT, active_state="failed", sub_state="failed", active_since=1000.0, begun_at=999.0)


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
        (replace(UNIT, active_state="activating", sub_state="auto-restart-queued"), 1001.0, "flapping"),
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
        ({"result": "exit-code", "start_exit": CommandExit(CLD_EXITED, 1)},
         "a start-up command of core exited with code 1"),
        ({"result": "exit-code", "probe_exit": CommandExit(CLD_EXITED, 1), "exit_code": CLD_KILLED, "exit_status": 15},
         "core did not become healthy in time: its probe exited with code 1"),
        ({"result": "exit-code", "probe_exit": CommandExit(CLD_EXITED, 2), "exit_code": CLD_EXITED, "exit_status": 5},
         "core exited with code 5"),
        ({"result": "timeout", "exit_code": CLD_KILLED, "exit_status": 9}, "core did not stop in time and was killed"),
        ({"result": "timeout", "exit_code": CLD_KILLED, "exit_status": 15, "active_since": 0.0},
         "core was not ready in time and was killed"),
        ({"result": "timeout", "exit_code": CLD_KILLED, "exit_status": 15, "begun_at": 1500.0},
         "core was not ready in time and was killed"),
        # A stop while it started: no failure of the health check.
        ({"result": "signal", "probe_exit": CommandExit(CLD_KILLED, 15), "exit_code": CLD_KILLED, "exit_status": 15},
         "core was killed by SIGTERM"),
        ({"result": "signal", "probe_exit": CommandExit(CLD_KILLED, 9), "exit_code": CLD_KILLED, "exit_status": 15},
         "core did not become healthy in time: its probe was killed by SIGKILL"),
        ({"result": "success"}, "core is not running"),
        # Between two failures systemd says nothing of the first any more.
        ({"result": "success", "active_state": "activating", "sub_state": "start-post"}, "core is starting again"),
        ({"result": "exec-condition"}, "core failed (exec-condition)"),
    ],
)  # fmt: skip
def test_why_a_unit_is_not_running(change: dict[str, Any], expected: str) -> None:
    assert explain(replace(FAILED, **change), "core") == expected


@pytest.mark.parametrize(
    ("change", "stopped"),
    [
        ({"result": "signal", "probe_exit": CommandExit(CLD_KILLED, 15)}, True),
        ({"result": "core-dump", "probe_exit": CommandExit(CLD_DUMPED, 3)}, True),
        ({"result": "signal", "start_exit": CommandExit(CLD_KILLED, 15)}, True),
        ({"result": "signal", "probe_exit": CommandExit(CLD_KILLED, 9)}, False),
        ({"result": "exit-code", "probe_exit": CommandExit(CLD_EXITED, 1)}, False),
        ({"result": "timeout", "probe_exit": CommandExit(CLD_KILLED, 15)}, False),
        ({"result": "signal", "start_exit": CommandExit(CLD_EXITED, 1), "probe_exit": CommandExit(CLD_KILLED, 15)},
         False),
    ],
)  # fmt: skip
def test_whether_a_stop_ended_a_start(change: dict[str, Any], stopped: bool) -> None:
    assert replace(FAILED, **change).stopped_at_start == stopped


MIGRATE = ("./bin/migrate", "--all")
OWN = CommandExit(CLD_EXITED, 3, ("/home/hive/app/bin/migrate", "--all"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"result": "exit-code", "start_exit": OWN},
         "the pre_start command of core (./bin/migrate) exited with code 3"),
        ({"result": "signal", "start_exit": OWN._replace(code=CLD_KILLED, status=9)},
         "the pre_start command of core (./bin/migrate) was killed by SIGKILL"),
        ({"result": "timeout", "start_exit": OWN._replace(code=CLD_KILLED, status=15)},
         "the pre_start command of core (./bin/migrate) did not end in time and was killed"),
        # The main process ended long ago.
        ({"result": "start-limit-hit", "start_exit": OWN, "exit_code": CLD_KILLED, "exit_status": 15},
         "core failed too often and systemd gave up; the pre_start command of core (./bin/migrate) last exited with "
         "code 3"),
        # Helm's own command, and one of a drop-in.
        ({"result": "exit-code", "start_exit": OWN._replace(words=("/usr/libexec/hivematrix-helm/prestart",))},
         "a start-up command of core exited with code 3"),
        ({"result": "exit-code", "start_exit": OWN._replace(words=("/bin/false",))},
         "a start-up command of core exited with code 3"),
        ({"result": "exit-code", "start_exit": OWN._replace(status=0), "exit_code": CLD_EXITED, "exit_status": 5},
         "core exited with code 5"),
    ],
)  # fmt: skip
def test_why_a_start_failed_before_the_main_process(change: dict[str, Any], expected: str) -> None:
    assert explain(replace(FAILED, **change), "core", MIGRATE) == expected


CLEAN: dict[str, Any] = {"result": "exit-code", "exit_code": CLD_EXITED, "exit_status": 0}


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({}, True),
        ({"result": "start-limit-hit"}, True),
        ({"probe_exit": CommandExit(CLD_EXITED, 2)}, True),
        # systemd has stopped these, since they were not healthy.
        ({"result": "timeout"}, False),
        ({"probe_exit": CommandExit(CLD_EXITED, 1)}, False),
        ({"start_exit": CommandExit(CLD_EXITED, 1)}, False),
        ({"exit_status": 3}, False),
        ({"exit_code": CLD_KILLED}, False),
        ({"oneshot": True}, False),
    ],
)
def test_a_program_that_goes_to_the_background_is_given_a_hint(change: dict[str, Any], hint: bool) -> None:
    assert ("stay in the foreground" in foreground_hint(replace(FAILED, **{**CLEAN, **change}))) == hint


def test_why_a_reload_failed() -> None:
    failed = replace(RUNNING, reload_result="exit-code", reload_exit=OWN)
    assert reload_failure(failed, MIGRATE) == "its reload_command (./bin/migrate) exited with code 3"
    assert reload_failure(failed, ()) == "its reload command exited with code 3"
    # systemd 252 does not keep how a command ended that it killed.
    killed = replace(RUNNING, reload_result="timeout")
    assert reload_failure(killed, MIGRATE) == "its reload_command (./bin/migrate) did not end in time and was killed"
    assert reload_failure(RUNNING, MIGRATE) == ""


def test_a_first_start_that_fails_before_the_main_process_takes_no_age() -> None:
    service = Service("core", "command", restart=Restart(within=20.0))
    waiting = replace(UNIT, active_state="activating", sub_state="auto-restart", restart_delay=1.0, start_exit=OWN)
    assert (
        retry(replace(waiting, begun_at=1000.0, changed_at=1000.5), service)
        == "systemd restarts it in 1 s (restart 1)."
    )
    assert "starts that fail after 7 s" in retry(replace(waiting, begun_at=1000.0, changed_at=1007.0), service)


def test_properties_of_commands_before_the_start() -> None:
    """As D-Bus has them: path, words, failure ignored, began, monotonic, ended, monotonic, pid, code, status."""

    def command(path: bytes, ignored: bool, began: int, code: int, status: int) -> tuple[object, ...]:
        return path, [path, b"--all"], ignored, began, 0, began + 5, 0, 77, code, status

    first = command(b"/usr/libexec/hivematrix-helm/prestart", False, 1_000_000, CLD_EXITED, 0)
    second = command(b"/app/migrate", False, 2_000_000, CLD_EXITED, 3)
    ignored = command(b"/bin/false", True, 3_000_000, CLD_EXITED, 1)
    facts = facts_of("app.service", {b"ExecStartPre": [first, second], b"ExecMainStartTimestamp": 500_000}, {})
    assert facts.start_exit == CommandExit(CLD_EXITED, 3, ("/app/migrate", "--all"), 2.0)
    assert (facts.begun_at, facts.started_at) == (1.0, 0.5)
    assert facts_of("app.service", {b"ExecStartPre": [first, ignored]}, {}).start_exit.status == 0
    # After a reload of systemd's configuration.
    lost = command(b"/app/migrate", False, 0, 0, 0)
    facts = facts_of("app.service", {b"ExecStartPre": [lost], b"ExecMainStartTimestamp": 500_000}, {})
    assert facts.begun_at == 0.5 and not facts.start_exit.failed


def test_last_exit_and_retry() -> None:
    assert last_exit(UNIT) == "" and retry(FAILED) == ""
    assert last_exit(replace(UNIT, exit_code=CLD_EXITED, exit_status=0)) == "exited with code 0"
    waiting = replace(UNIT, active_state="activating", sub_state="auto-restart", restarts=2, restart_delay=1.5)
    assert retry(waiting) == "systemd restarts it in 1.5 s (restart 3)."


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"active_state": "active"}, ""),
        ({"active_state": "reloading"}, ""),
        ({"load_state": "not-found"}, ""),
        ({}, "helmd.service is stopped"),
        ({"active_state": "activating"}, "helmd.service is starting"),
        ({"active_state": "activating", "sub_state": "auto-restart", "restarts": 7, "exit_code": CLD_EXITED,
          "exit_status": 1},
         "helmd.service is flapping: systemd has restarted it 7 times; it last exited with code 1"),
        ({"active_state": "failed", "result": "signal", "exit_code": CLD_KILLED, "exit_status": 11},
         "helmd.service has failed: helmd.service was killed by SIGSEGV"),
    ],
)  # fmt: skip
def test_trouble_with_a_daemon(change: dict[str, Any], expected: str) -> None:
    assert daemon_trouble(replace(UnitFacts("helmd.service", "loaded"), **change), 2000.0) == expected


def test_why_nothing_is_stored() -> None:
    waits = UnitFacts(
        "helmd-journal.service", status_text="waiting: the disk is nearly full; 5 rows stored since the start"
    )
    assert waiting_for(waits) == "the disk is nearly full"
    assert waiting_for(UnitFacts("helmd-journal.service", status_text="stored up to 2026")) == ""


def test_exists_and_active() -> None:
    assert not UnitFacts("x.service").exists and UNIT.exists and not UNIT.active
    assert RUNNING.active and replace(RUNNING, active_state="reloading").active and not FAILED.active
