"""Decisions of the monitor."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helmd.health.thread_pool import ProbeResult
from helmd.model.suite.service import Health, Registry, Restart, Service
from helmd.model.units.health import DEGRADED, HEALTHY, UNHEALTHY, HealthVerdict
from helmd.model.units.health_policy import (
    PROVEN_SECONDS,
    checked_again,
    judged,
    measured,
    next_check,
    proven,
    restart_reason,
    restarted,
    seen,
)
from helmd.model.units.status import Observed, Usage
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.monitoring.monitor import Monitor
from helmd.systemd.bus import Signals
from helmd.systemd.usage import UsageMeter

RUNNING = UnitFacts("hivematrix-core.service", "loaded", "active", "running", main_pid=7, invocation="a1")
CORE = Service("core", port=5000, health=Health(interval=10.0), on_unhealthy="restart", unhealthy_after=3)
PASSED = HealthVerdict(HEALTHY, "answered 200")
ILL = HealthVerdict(UNHEALTHY, "no answer within 2 s")


def running(service: Service | None = CORE) -> Observed:
    return Observed("core", service, RUNNING)


def failing(times: int, observed: Observed | None = None) -> Observed:
    observed = observed or running()
    for at in range(times):
        observed = judged(observed, ILL, 2000.0, float(at))
    return observed


def test_a_verdict_is_kept_for_the_same_process() -> None:
    before = measured(judged(running(), PASSED, 3.0, 100.0), Usage(1.0, 20.0))
    after = seen(before, replace(RUNNING, status_text="busy"), "production")
    assert (after.verdict, after.response_ms, after.usage, after.mode) == (
        PASSED,
        3.0,
        Usage(1.0, 20.0),
        "production",
    )
    assert after.facts.status_text == "busy"


@pytest.mark.parametrize(
    "facts",
    [
        replace(RUNNING, invocation="a2"),
        replace(RUNNING, main_pid=8),
        replace(RUNNING, active_state="deactivating"),
        replace(RUNNING, active_state="failed", sub_state="failed"),
    ],
    ids=["started again", "another process", "stopping", "failed"],
)
def test_a_verdict_is_dropped_for_another_process(facts: UnitFacts) -> None:
    after = seen(measured(failing(2), Usage(9.0, 9.0)), facts, None)
    assert (after.verdict, after.failures, after.response_ms, after.usage) == (None, 0, None, Usage())


def test_a_service_is_checked_when_it_becomes_active_and_then_at_its_interval() -> None:
    assert next_check(running()) == 0.0
    at, found = 100.03, []
    for _ in range(5):
        due = next_check(judged(running(), PASSED, 1.0, at))
        assert due is not None
        found.append(due)
        at = due + 0.03
    assert 105 <= found[0] < 115.1
    assert found == [found[0] + 10 * n for n in range(5)]
    often = running(replace(CORE, health=Health(interval=0.25)))
    assert 0.125 <= (next_check(judged(often, PASSED, 1.0, 100.03)) or 0) - 100.03 < 0.375


def test_checks_of_services_that_were_started_together_are_spread() -> None:
    services = [replace(running(), name=f"s{number}") for number in range(60)]
    due = Counter(int(next_check(judged(one, PASSED, 1.0, 100.0 + n / 100)) or 0) for n, one in enumerate(services))
    assert len(due) == 10 and max(due.values()) <= 15


def test_a_service_that_keeps_failing_is_checked_less_often() -> None:
    shown = running(replace(CORE, on_unhealthy="show"))
    pauses = []
    for _ in range(6):
        shown = judged(shown, ILL, 2000.0, 100.0)
        pauses.append((next_check(shown) or 0.0) - 100.0)
    assert 5 <= pauses[0] < 15
    assert pauses[1:] == [20.0, 40.0, 60.0, 60.0, 60.0]
    assert next_check(judged(shown, PASSED, 1.0, 100.0)) == 100.0 + pauses[0]
    seldom = running(replace(CORE, on_unhealthy="show", health=Health(interval=300.0)))
    assert next_check(failing(9, seldom)) == 8 + 300.0
    assert next_check(failing(5000, shown)) == 4999 + 60.0
    # It is to be restarted after so many checks.
    assert 1 + 5 <= (next_check(failing(2)) or 0) < 1 + 15


def test_a_failing_service_is_checked_at_once_when_what_it_needs_works_again() -> None:
    shown = failing(6, running(replace(CORE, on_unhealthy="show", depends_on=("postgres", "keycloak"))))
    again = checked_again(shown, "postgres")
    assert (again.checked_at, again.failures, again.verdict) == (0.0, 1, ILL)
    assert checked_again(shown, "ledger") is shown
    healthy = judged(shown, PASSED, 1.0, 9.0)
    assert checked_again(healthy, "postgres") is healthy
    restarts = failing(2, running(replace(CORE, depends_on=("postgres",))))
    assert checked_again(restarts, "postgres").failures == 2, "on the way to its restart"


def test_inactive_and_unregistered_services_are_not_checked() -> None:
    assert next_check(replace(running(), facts=replace(RUNNING, active_state="activating"))) is None
    assert next_check(running(service=None)) is None


def test_an_external_service_is_checked_without_a_unit() -> None:
    external = Observed("idp", Service("idp", "external", url="https://idp.example"), UnitFacts(""))
    assert next_check(external) == 0.0
    assert seen(judged(external, PASSED, 1.0, 5.0), UnitFacts(""), None).verdict == PASSED


def test_degraded_resets_the_failure_count() -> None:
    assert judged(failing(2), HealthVerdict(DEGRADED, "answered 503: degraded"), 1.0, 9.0).failures == 0


def test_restart_after_consecutive_failures() -> None:
    assert restart_reason(failing(2)) is None
    assert restart_reason(failing(3)) == "its health check failed 3 times in a row: no answer within 2 s"
    assert restart_reason(restarted(failing(3))) is None


@pytest.mark.parametrize(
    "observed",
    [
        failing(9, running(replace(CORE, on_unhealthy="show"))),
        failing(9, running(replace(CORE, type="external"))),
        failing(9, running(service=None)),
        replace(failing(9), facts=replace(RUNNING, job="/org/freedesktop/systemd1/job/1")),
        replace(failing(9), facts=replace(RUNNING, active_state="deactivating")),
    ],
    ids=["only shown", "external", "not in the registry", "a job is under way", "stopping already"],
)
def test_services_that_are_not_restarted(observed: Observed) -> None:
    assert restart_reason(observed) is None


LIMITED = replace(
    judged(running(replace(CORE, restart=Restart(burst=3))), PASSED, 1.0, 1.0),
    facts=replace(RUNNING, restarts=2, active_since=1000.0),
)


def test_starts_of_a_service_that_was_healthy_for_a_minute_do_not_count() -> None:
    assert proven(LIMITED, 1000.0 + PROVEN_SECONDS) and not proven(LIMITED, 999.0 + PROVEN_SECONDS)
    assert proven(replace(LIMITED, verdict=HealthVerdict(DEGRADED, "answered 503: degraded")), 2000.0)


@pytest.mark.parametrize(
    "observed",
    [
        replace(LIMITED, facts=replace(LIMITED.facts, restarts=1)),
        replace(LIMITED, facts=replace(LIMITED.facts, job="/org/freedesktop/systemd1/job/1")),
        replace(LIMITED, facts=replace(LIMITED.facts, active_state="activating")),
        replace(LIMITED, verdict=ILL),
        replace(LIMITED, verdict=None),
        replace(LIMITED, service=None),
        replace(LIMITED, service=replace(CORE, restart=Restart(burst=3, within=600.0))),
        replace(LIMITED, service=replace(CORE, restart=Restart(burst=1)), facts=replace(LIMITED.facts, restarts=0)),
    ],
    ids=[
        "far from the limit", "a job is under way", "starting", "unhealthy", "not checked yet", "not in the registry",
        "the admin's own interval", "never restarted",
    ],
)  # fmt: skip
def test_starts_that_count(observed: Observed) -> None:
    assert not proven(observed, 2000.0)


@pytest.mark.parametrize("order", [1, -1])
async def test_what_helm_is_does_not_depend_on_its_other_units(order: int) -> None:
    """hivematrix-recover.service ends at once; whichever is read last, helmd runs."""
    units = ["helmd.service", "hivematrix-recover.service", "hivematrix-core.service", "hivematrix-job-1.service"]
    idle: Any = SimpleNamespace(statuses=lambda rows: None, keep_only=lambda names: None)

    async def ask(service: Service) -> ProbeResult:
        return ProbeResult(PASSED, 1.0)

    async def rates() -> None:
        return None

    def facts(unit: str) -> UnitFacts:
        runs = unit != "hivematrix-recover.service"
        return replace(RUNNING, unit=unit, active_state="active" if runs else "inactive")

    keys: Any = None
    monitor = Monitor(ask, rates, idle, UsageMeter(), keys, on_change=lambda: None, beat=lambda: None)
    monitor.adopt(Registry({"helm": Service("helm"), "core": CORE}), 15.0)
    watch: Any = SimpleNamespace(manager=SimpleNamespace(facts=facts))
    await monitor._read(watch, units[::order])
    seen_now = {name: each.active_state for name, each in monitor.statuses().items()}
    assert seen_now == {"helm": "active", "core": "active"}


async def test_a_unit_file_that_can_not_be_read_ends_nothing(tmp_path: Path) -> None:
    """As one without rights for this account; a directory here, which not even root can read."""
    unused: Any = None
    recorder: Any = SimpleNamespace(statuses=list, keep_only=list)
    monitor = Monitor(
        unused, unused, recorder, UsageMeter(), unused, on_change=lambda: None, beat=lambda: None, blocked=str
    )
    monitor.adopt(Registry({"core": CORE}), 15.0)
    watch: Any = SimpleNamespace(
        manager=SimpleNamespace(facts=lambda unit: replace(RUNNING, unit=unit, fragment=str(tmp_path)))
    )
    await monitor._read(watch, ["hivematrix-core.service"])
    assert (monitor.status("core").active_state, monitor.status("core").mode) == ("active", None)


async def test_a_new_registry_has_only_the_units_read_that_are_new() -> None:
    """systemd reports every change of the others."""
    recorded: list[str] = []
    recorder: Any = SimpleNamespace(
        statuses=lambda rows: recorded.extend(row.service_name for row in rows), keep_only=lambda names: None
    )
    watch: Any = SimpleNamespace(reported=[])
    watch.report = watch.reported.append
    unused: Any = None
    noticed: list[bool] = []
    monitor = Monitor(
        unused, unused, recorder, UsageMeter(), unused, on_change=lambda: noticed.append(True), beat=lambda: None
    )
    monitor.adopt(Registry({"core": CORE}), 15.0)
    monitor._watch = watch
    monitor.adopt(Registry({"core": CORE}), 30.0)
    assert (watch.reported, recorded, noticed) == ([], [], [])
    away = Service("idp", "external", url="https://idp.example")
    moved = replace(CORE, port=7000)
    monitor.adopt(Registry({"core": moved, "shop": Service("shop"), "idp": away}), 30.0)
    assert watch.reported == [["hivematrix-shop.service"]]
    assert recorded == ["core", "idp"] and noticed == [True]
    monitor.adopt(Registry({"shop": Service("shop")}), 30.0)
    assert list(monitor.statuses()) == ["shop"] and watch.reported[1:] == [[]]


def test_units_are_read_again_after_a_reload_of_the_manager_and_not_before() -> None:
    seen_by: Any = SimpleNamespace(_changed=set())
    for reloading, expected in ((True, 0), (False, 1)):
        message: Any = SimpleNamespace(body=reloading, process_reply=lambda strict: None)
        Signals._reloading(seen_by, message)
        assert len(seen_by._changed) == expected
