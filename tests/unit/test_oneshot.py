"""Services that run to their end, once or by a schedule: their units, their state, how they are started and stopped."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from helmd.model.config.settings import Settings
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.layout import Layout, layout
from helmd.model.suite.names import service_behind, service_of, service_of_timer
from helmd.model.suite.registry import read_registry
from helmd.model.suite.service import Registry, Service
from helmd.model.units.health_policy import next_check
from helmd.model.units.status import Observed, service_status, summary
from helmd.model.units.unit_state import (
    CLD_EXITED,
    CLD_KILLED,
    UnitFacts,
    condition,
    explain,
    next_run,
    oneshot_sentence,
    oneshot_verdict,
    sum_up,
)
from helmd.operations.configuration.apply import Change, changes, changes_for
from helmd.operations.configuration.effective import Effective
from helmd.operations.configuration.installed_suite import installed_suite
from helmd.operations.configuration.load import path_faults
from helmd.operations.diagnostics import services as doctor_services
from helmd.operations.diagnostics.context import DoctorContext
from helmd.operations.lifecycle import control
from helmd.operations.lifecycle.steps import Options
from helmd.operations.monitoring.status import View
from helmd.operations.setup.upgrade_clusters import _users
from helmd.systemd.bus import NEVER, facts_of
from helmd.systemd.calendar import calendar_fault
from helmd.systemd.host import Host
from helmd.systemd.installed import is_ours, mode_of, starts_with_others, verify_units
from helmd.systemd.render import Setup, render, render_timer, template_environment
from tests.unit import systemd_syntax as syntax
from tests.unit.test_control import World, kinds, perform, service, suite

TOP = Path(__file__).resolve().parents[2]
TEMPLATES = template_environment(TOP / "units")
TEXT = """
[services.migrate]
type = "oneshot"
path = "~/work"
start_command = ["./job", "migrate"]
pre_start = ["./job", "check"]
success_exit_status = [3]
[services.web]
type = "command"
path = "~/work"
start_command = ["./job", "serve"]
depends_on = ["migrate", "other"]
[services.other]
type = "command"
path = "~/work"
start_command = ["./job", "serve"]
[services.backup]
type = "oneshot"
path = "~/work"
start_command = ["./job", "backup"]
depends_on = ["other"]
schedule = "Mon..Fri 03:00"
"""
SETTINGS = Settings(store="postgresql://db.example/helm")
NOON = 1_800_000_000.0


def registry(text: str = TEXT) -> Registry:
    return read_registry([ConfigSource("test", text)], {})


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    made = layout({}, tmp_path, os.getuid(), TOP)
    (tmp_path / "work").mkdir()
    (tmp_path / "work/job").write_text("#!/bin/sh\n")
    (tmp_path / "work/job").chmod(0o755)
    made.units.mkdir(parents=True)
    made.state.mkdir(parents=True)
    return made


def rendered(account: Layout, text: str = TEXT) -> dict[str, str]:
    found = registry(text)
    setup = Setup(account, Settings(), Host(252, True), "hive", {})
    units = {}
    for name, each in found.services.items():
        units[f"hivematrix-{name}.service"] = render(each, found, "production", setup, TEMPLATES)
        if each.schedule:
            units[f"hivematrix-{name}.timer"] = render_timer(each, TEMPLATES)
    return units


def values(text: str, key: str) -> list[str]:
    return [value for _, name, value in syntax.assignments(text) if name == key]


# Units


def test_units_of_both_kinds(account: Layout) -> None:
    units = rendered(account)
    assert not verify_units(units)
    once, scheduled = units["hivematrix-migrate.service"], units["hivematrix-backup.service"]
    for text in (once, scheduled):
        assert is_ours(text) and mode_of(text) == "production"
        assert values(text, "Type") == ["oneshot"] and values(text, "TimeoutStartSec") == ["infinity"]
        assert values(text, "Restart") == ["no"] and not values(text, "ExecStartPost"), "there is no health to wait for"
        assert values(text, "StartLimitIntervalSec") == ["0"], "a schedule may run it as often as it likes"
    assert values(once, "RemainAfterExit") == ["yes"] and values(once, "WantedBy") == ["hivematrix.target"]
    (before,) = values(once, "ExecStartPre")
    assert values(once, "SuccessExitStatus") == ["3"] and "job check" in before
    # With RemainAfterExit= it would be active after its first run, and its timer would start nothing any more.
    assert not values(scheduled, "RemainAfterExit") and not values(scheduled, "WantedBy")
    assert starts_with_others(once) and not starts_with_others(scheduled)


def test_a_run_may_be_limited(account: Layout) -> None:
    limited = TEXT.replace('schedule = "', 'run_timeout = "90m"\nschedule = "', 1)
    assert limited != TEXT
    units = rendered(account, limited)
    assert not verify_units(units)
    assert values(units["hivematrix-backup.service"], "TimeoutStartSec") == ["5400"]
    assert values(units["hivematrix-migrate.service"], "TimeoutStartSec") == ["infinity"]
    ended = replace(RAN, active_state="failed", result="timeout")
    assert explain(ended, "job") == "job did not end in time and was killed"


def test_what_depends_on_one_starts_only_if_it_has_succeeded(account: Layout) -> None:
    web = rendered(account)["hivematrix-web.service"]
    assert values(web, "Requires") == ["hivematrix-migrate.service"]
    assert values(web, "Wants") == ["hivematrix-other.service"]
    assert sorted(values(web, "After")) == ["hivematrix-migrate.service", "hivematrix-other.service"]


def test_the_timer(account: Layout) -> None:
    timer = rendered(account)["hivematrix-backup.timer"]
    assert is_ours(timer) and starts_with_others(timer)
    expected = {
        "OnCalendar": "Mon..Fri 03:00", "Persistent": "true", "AccuracySec": "1s",
        "PartOf": "hivematrix.target", "WantedBy": "hivematrix.target", "Service": "backup",
    }  # fmt: skip
    assert {key: values(timer, key) for key in expected} == {key: [value] for key, value in expected.items()}
    broken = {**rendered(account), "hivematrix-backup.timer": timer.replace("Mon..Fri", "Mondays")}
    assert "hivematrix-backup.timer" in verify_units(broken)


def test_names() -> None:
    assert service_of_timer("hivematrix-backup.timer") == service_behind("hivematrix-backup.timer") == "backup"
    assert service_of("hivematrix-backup.timer") is None, "its lines and its state are not the service's"
    assert service_of_timer("hivematrix-backup.service") is None and service_behind("hivematrix-a.service") == "a"
    assert service_behind("other.timer") is None
    found = registry()
    assert found["backup"].enabled_unit == "hivematrix-backup.timer"
    assert found["migrate"].enabled_unit == "hivematrix-migrate.service"


@pytest.mark.parametrize("expression", ["daily", "*:*:0/5", "Mon..Fri 03:00 Europe/Berlin", "2001-01-01", "@1"])
def test_what_systemd_takes_for_a_calendar_event(expression: str) -> None:
    assert calendar_fault(expression) == ""


@pytest.mark.parametrize("expression", ["every day", "25:00", "--help", "daily; true", "now", "-1"])
def test_what_systemd_does_not(expression: str) -> None:
    assert expression in calendar_fault(expression) and "systemd.time(7)" in calendar_fault(expression)


def test_a_schedule_is_checked_with_the_paths(account: Layout) -> None:
    assert path_faults(registry(), account) == []
    wrong = registry(TEXT.replace("Mon..Fri 03:00", "Mon..Fri 3 o'clock"))
    (fault,) = path_faults(wrong, account)
    assert fault.where == "services.backup.schedule" and "Mon..Fri 3 o'clock" in fault.sentence
    assert path_faults(wrong, account, ["migrate", "web"]) == []


# Applying


def change(unit: str, kind: Any, before: str = "", after: str = "") -> Change:
    return Change(unit, kind, before, after)


def test_the_timer_is_applied_and_removed_with_its_service(account: Layout) -> None:
    units = rendered(account)
    found = {each.unit: each for each in changes(registry(), account, SETTINGS)}
    assert found["hivematrix-backup.timer"].kind == "new"
    assert {"hivematrix-backup.service", "hivematrix-backup.timer"} <= {
        each.unit for each in changes_for(list(found.values()), {"hivematrix-backup.service"})
    }
    for name, text in units.items():
        account.unit_file(name).write_text(text)
    account.unit_file("hivematrix-backup.timer").write_text(units["hivematrix-backup.timer"] + "# changed\n")
    found = {each.unit: each for each in changes(registry(), account, SETTINGS)}
    assert found["hivematrix-backup.timer"].kind == "changed"
    account.unit_file("hivematrix-backup.timer").write_text("[Timer]\nOnCalendar=daily\n")
    found = {each.unit: each for each in changes(registry(), account, SETTINGS)}
    assert found["hivematrix-backup.timer"].kind == "foreign"
    without = TEXT.replace('schedule = "Mon..Fri 03:00"', "")
    assert "hivematrix-backup.timer" not in {each.unit for each in changes(registry(without), account, SETTINGS)}
    account.unit_file("hivematrix-backup.timer").write_text(units["hivematrix-backup.timer"])
    found = {each.unit: each for each in changes(registry(without), account, SETTINGS)}
    assert found["hivematrix-backup.timer"].kind == "orphan"
    # A fault in the service keeps its timer as it is.
    faulty = registry(TEXT.replace('["./job", "backup"]', '["./missing"]'))
    found = {each.unit: each for each in changes(faulty, account, SETTINGS)}
    assert found["hivematrix-backup.service"].kind == "refused" and "hivematrix-backup.timer" not in found


def test_which_units_become_enabled(account: Layout) -> None:
    units = rendered(account)
    once, scheduled, timer = (
        units[f"hivematrix-{name}"] for name in ("migrate.service", "backup.service", "backup.timer")
    )
    name = "hivematrix-backup.service"
    assert not change(name, "new", "", scheduled).enables, "its timer is"
    assert change(name, "new", "", once).enables and change(name, "new", "", timer).enables
    assert not change(name, "changed", once, once + "#").enables, "it may be disabled"
    assert change(name, "changed", scheduled, once).enables and change(name, "changed", once, scheduled).disables
    assert change("hivematrix-backup.timer", "orphan", timer).disables
    assert not change(name, "same", once, once).disables and not change(name, "refused", once).disables


def test_the_suite_as_it_is_installed(account: Layout) -> None:
    for name, text in rendered(account).items():
        account.unit_file(name).write_text(text)
    found = installed_suite(account)
    assert [found[name].type for name in ("migrate", "web", "backup")] == ["oneshot", "command", "oneshot"]
    assert (found["migrate"].schedule, found["backup"].schedule) == ("", "Mon..Fri 03:00")
    assert set(found["web"].depends_on) == {"migrate", "other"}


def test_an_upgrade_of_the_cluster_stops_timers_first() -> None:
    used = replace(registry()["backup"], depends_on=("postgres",))
    wanted = ["hivematrix-backup.timer", "hivematrix-backup.service"]
    assert _users("hivematrix-postgres.service", Registry({"backup": used})) == wanted


# State


RAN = UnitFacts(
    "hivematrix-job.service", "loaded", oneshot=True, exit_code=CLD_EXITED, started_at=NOON - 9, ended_at=NOON
)
WAITING: dict[str, Any] = {"timer": "waiting", "next_run": NOON + 60}


def at(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


@pytest.mark.parametrize(
    ("facts", "word", "sentence"),
    [
        ({"active_state": "activating", "sub_state": "start", **WAITING}, "running", f"running since {at(NOON - 9)}"),
        ({"active_state": "activating", "sub_state": "start-pre", "started_at": 0.0}, "running", "running"),
        ({"active_state": "active", "sub_state": "exited"}, "succeeded", f"succeeded at {at(NOON)}"),
        (WAITING, "scheduled", f"next run at {at(NOON + 60)}; the last succeeded at {at(NOON)}"),
        ({**WAITING, "ended_at": 0.0}, "scheduled", f"next run at {at(NOON + 60)}"),
        ({**WAITING, "exit_code": CLD_KILLED, "exit_status": 15}, "scheduled",
         f"next run at {at(NOON + 60)}; the last was killed by SIGTERM at {at(NOON)}"),
        ({"timer": "elapsed"}, "scheduled", f"its schedule has no further time; the last succeeded at {at(NOON)}"),
        ({"timer": "dead"}, "stopped", ""),
        ({}, "stopped", ""),
        ({"active_state": "failed", "sub_state": "failed", "exit_status": 3, **WAITING}, "failed", ""),
        ({"active_state": "activating", "sub_state": "auto-restart"}, "flapping", ""),
        ({"active_state": "deactivating", "sub_state": "stop-sigterm"}, "stopping", ""),
    ],
)  # fmt: skip
def test_state(facts: dict[str, Any], word: str, sentence: str) -> None:
    found = replace(RAN, **facts)
    assert (condition(found, NOON), oneshot_sentence(found)) == (word, sentence)
    verdict = oneshot_verdict(found)
    assert (verdict is not None and verdict.started) == bool(sentence), "what works counts as healthy"


def test_a_service_that_stays_is_none_of_these() -> None:
    stays = replace(RAN, oneshot=False, active_state="activating", sub_state="start-post")
    assert condition(stays, NOON) == "starting" and oneshot_verdict(stays) is None
    assert condition(replace(stays, active_state="active", sub_state="running"), NOON) == "running"


def test_next_run() -> None:
    assert next_run(RAN) == "" and next_run(replace(RAN, timer="dead", next_run=NOON)) == ""
    assert next_run(replace(RAN, timer="running")) == "it runs now"


def test_the_api_says_what_it_does() -> None:
    job = registry()["backup"]
    failed = replace(RAN, active_state="failed", result="exit-code", exit_status=3, **WAITING)
    found = [
        service_status(Observed("backup", job, facts), NOON)
        for facts in (
            replace(RAN, active_state="activating", sub_state="start", main_pid=7),
            replace(RAN, active_state="active", sub_state="exited"),
            replace(RAN, **WAITING),
            failed,
        )
    ]
    assert [(each.status, each.state, each.health) for each in found] == [
        ("running", "running", "healthy"),
        ("stopped", "succeeded", "healthy"),
        ("stopped", "scheduled", "healthy"),
        ("error", "failed", "unhealthy"),
    ]
    assert found[2].next_run == datetime.fromtimestamp(NOON + 60, UTC)
    assert found[1].ended_at == datetime.fromtimestamp(NOON, UTC)
    assert found[3].health_message == f"backup exited with code 3; next run at {at(NOON + 60)}"
    assert summary(found) == "4 services: 1 healthy, 1 failed, 1 scheduled, 1 succeeded"


def test_it_is_never_asked_for_its_health() -> None:
    job = registry()["migrate"]
    exited = Observed("migrate", job, replace(RAN, active_state="active", sub_state="exited"))
    assert next_check(exited) is None
    assert next_check(replace(exited, facts=replace(exited.facts, oneshot=False))) == 0.0


def test_facts_of_the_timer() -> None:
    unit = {b"Type": b"oneshot", b"ExecMainExitTimestamp": 5_000_000}
    alone = facts_of("hivematrix-a.service", unit, {})
    assert (alone.oneshot, alone.ended_at, alone.scheduled, alone.next_run) == (True, 5.0, False, 0.0)
    waits = facts_of("hivematrix-a.service", unit, {b"SubState": b"waiting", b"NextElapseUSecRealtime": 7_000_000})
    assert waits.scheduled and waits.next_run == 7.0
    over = facts_of("hivematrix-a.service", unit, {b"SubState": b"elapsed", b"NextElapseUSecRealtime": NEVER})
    assert over.scheduled and over.next_run == 0.0


# Starting and stopping


def oneshot(name: str, *needs: str, schedule: str = "") -> Service:
    return replace(service(name, *needs), type="oneshot", schedule=schedule)


JOBS = suite(
    service("base"), oneshot("migrate", "base"), service("web", "migrate"), oneshot("backup", schedule="daily")
)


def facts(name: str, **more: Any) -> UnitFacts:
    return replace(RAN, unit=f"hivematrix-{name}.service", **more)


def done(name: str) -> UnitFacts:
    return facts(name, active_state="active", sub_state="exited")


def test_a_start_waits_for_the_end_of_what_it_needs() -> None:
    world = World(migrate=facts("migrate"))
    report = perform(control.start, ["web"], world, JOBS)
    assert world.calls == ["start base", "start migrate", "start web"] and report.good
    assert [step.sentence for step in report.steps if step.service == "migrate"] == ["succeeded"]
    assert "waiting for its end" in world.said


def test_without_its_success_nothing_that_needs_it_starts() -> None:
    broken = facts("migrate", active_state="failed", sub_state="failed", result="exit-code", exit_status=4)
    world = World({"migrate": "failed"}, migrate=broken)
    world.lines["migrate"] = ["column exists"]
    report = perform(control.start, ["web"], world, JOBS)
    assert kinds(report) == {"base": "done", "migrate": "failed", "web": "skipped"}
    assert report.cause is not None
    assert (report.cause.sentence, report.cause.lines) == ("migrate exited with code 4", ("column exists",))


def test_what_has_succeeded_is_not_run_again_by_a_start() -> None:
    world = World(migrate=done("migrate"))
    report = perform(control.start, ["web"], world, JOBS)
    assert world.calls == ["start base", "start web"] and report.good
    step = next(each for each in report.steps if each.service == "migrate")
    assert step.kind == "already" and "to run it again: helmctl restart migrate" in step.sentence


def test_a_run_under_way_is_joined_whatever_has_changed_since() -> None:
    world = World(backup=facts("backup", active_state="activating", sub_state="start", main_pid=7))
    world.changed["backup"] = NOON
    report = perform(control.start, ["backup"], world, JOBS)
    assert world.calls == ["start backup"] and report.good, "a restart would break it off"
    assert world.said[0] == "it runs already; waiting for its end"


def test_a_run_that_was_joined_and_fails_is_not_repeated() -> None:
    world = World({"backup": "failed"}, backup=facts("backup", active_state="activating", sub_state="start"))
    assert not perform(control.start, ["backup"], world, JOBS).good
    assert world.calls == ["start backup"]


def test_a_second_run_leaves_what_requires_it_alone() -> None:
    world = World(base=done("base"), migrate=done("migrate"))
    assert perform(control.restart, ["migrate"], world, JOBS).good
    assert (world.calls, world.modes) == (["restart migrate"], {"ignore-dependencies"})
    world = World(migrate=done("migrate"))
    assert perform(control.stop, ["migrate"], world, JOBS).good
    assert (world.calls, world.modes) == (["stop migrate"], {"ignore-dependencies"})


def test_named_it_is_a_run_and_with_the_suite_its_schedule() -> None:
    world = World(backup=facts("backup"))
    assert perform(control.start, ["backup"], world, JOBS).good
    assert world.calls == ["start backup"]
    world = World(backup=facts("backup"))
    whole = perform(control.start, JOBS.names, world, JOBS, Options(schedules=True))
    assert whole.good and "start backup.timer" in world.calls and "start backup" not in world.calls
    world = World(backup=facts("backup", **WAITING))
    report = perform(control.start, ["backup"], world, JOBS, Options(schedules=True))
    assert not world.calls and report.steps[0].sentence == f"its schedule is on; next run at {at(NOON + 60)}"


def test_a_stop_ends_the_run_and_says_that_the_schedule_goes_on() -> None:
    running = facts("backup", active_state="activating", sub_state="start", **WAITING)
    world = World(backup=running)
    report = perform(control.stop, ["backup"], world, JOBS)
    assert world.calls == ["stop backup"]
    assert report.steps[0].sentence == (
        f"stopped; its schedule goes on, next run at {at(NOON + 60)} (to end it: helmctl disable --now backup)"
    )
    waiting = World(backup=facts("backup", **WAITING))
    report = perform(control.stop, ["backup"], waiting, JOBS)
    assert not waiting.calls and report.steps[0].sentence.startswith("not running; its schedule goes on")


def test_with_the_suite_the_schedule_ends_first() -> None:
    world = World(backup=facts("backup", active_state="activating", sub_state="start", **WAITING))
    report = perform(control.stop, ["backup"], world, JOBS, Options(schedules=True))
    assert world.calls == ["stop backup.timer", "stop backup"]
    assert report.steps[0].sentence == "stopped; its schedule is off"
    waiting = World(backup=facts("backup", **WAITING))
    report = perform(control.stop, ["backup"], waiting, JOBS, Options(schedules=True))
    assert waiting.calls == ["stop backup.timer"]
    assert (report.steps[0].kind, report.steps[0].sentence) == ("done", "not running; its schedule is off")


def test_a_timer_that_does_not_start_is_a_failure() -> None:
    world = World({"backup.timer": "failed"}, backup=facts("backup"))
    report = perform(control.start, ["backup"], world, JOBS, Options(schedules=True))
    assert report.cause is not None and "systemctl --user status hivematrix-backup.timer" in report.cause.hint


def test_restarting_all_runs_nothing_before_its_time() -> None:
    world = World(base=done("base"), migrate=done("migrate"), backup=facts("backup", **WAITING))
    report = perform(control.restart, JOBS.names, world, JOBS, Options(schedules=True))
    assert world.calls == ["restart base", "restart migrate", "restart web"]
    assert kinds(report)["backup"] == "already"


def test_a_restart_needs_the_success_of_what_it_depends_on() -> None:
    world = World(migrate=facts("migrate", active_state="failed"))
    report = perform(control.restart, ["web"], world, JOBS)
    assert not world.calls and "because migrate has not succeeded" in report.steps[0].sentence


def test_dry_run() -> None:
    assert control.dry_run(JOBS, ["backup"], "start", True) == {"backup": "start, then wait for its end"}
    assert control.dry_run(JOBS, ["backup"], "start", True, True) == {"backup": "begin its schedule"}


# Doctor


def view(name: str, needs: Sequence[str] = (), schedule: str = "", **more: Any) -> View:
    found = facts(name, **more)
    verdict = oneshot_verdict(found)
    each = oneshot(name, *needs, schedule=schedule)
    state = sum_up(False, found, verdict, NOON) if verdict else condition(found, NOON)
    return View(each, found, verdict or Mock(started=False, sentence="not running"), state)


@pytest.mark.parametrize(
    ("views", "timer", "words"),
    [
        ([view("a", active_state="active", sub_state="exited")], {}, ""),
        ([view("a", schedule="daily", **WAITING)], {"active_state": "active", "sub_state": "waiting"}, ""),
        ([view("a", schedule="daily", active_state="activating", sub_state="start", timer="running")],
         {"active_state": "active", "sub_state": "running"}, ""),
        ([view("a", schedule="daily", active_state="failed", exit_status=3, result="exit-code", **WAITING)],
         {"active_state": "active", "sub_state": "waiting"}, "a is failed: a exited with code 3"),
        ([view("a", schedule="daily"), view("b", active_state="active", sub_state="exited")],
         {"file_state": "enabled"}, "the schedule of a is off"),
        ([view("a", schedule="daily"), view("b", active_state="active", sub_state="exited")],
         {"file_state": "disabled"}, ""),
        ([view("a", schedule="daily", timer="elapsed")], {"active_state": "active", "sub_state": "elapsed"},
         "no further time"),
        ([view("a", active_state="failed"), view("b", ["a"], active_state="active", sub_state="exited")], {},
         "a is failed"),
    ],
)  # fmt: skip
def test_doctor(
    views: list[View], timer: dict[str, Any], words: str, account: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = DoctorContext(account)
    context.effective = Effective(Settings(), Registry({each.service.name: each.service for each in views}))
    context.manager = Mock()
    context.manager.facts.return_value = UnitFacts("hivematrix-a.timer", "loaded", **timer)
    monkeypatch.setattr(doctor_services, "observe_services", lambda *_: views)
    found = doctor_services.services(context)
    assert len(found) == 1 and (words or "all are healthy") in found[0].sentence
    assert (found[0].verdict == "ok") == (not words)
