"""Control's decisions, as the effects that it yields: which jobs in which order, and the results of each failure.

Effects are answered with plain values here. That the driver performs them is for the system tests, with a real systemd.
"""

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helmd.model.suite.service import Health, Registry, Restart, Service
from helmd.model.units.health import HEALTHY, UNHEALTHY, HealthVerdict
from helmd.model.units.unit_state import CLD_EXITED, CLD_KILLED, CommandExit, UnitFacts
from helmd.operations.lifecycle import control
from helmd.operations.lifecycle.effects import (
    CheckHealth,
    Effect,
    Effects,
    FindChange,
    FindListener,
    Job,
    JobResult,
    JobWait,
    Pause,
    QueueJob,
    ReadLastLines,
    ReadUnit,
    ReportStep,
    ResetFailed,
    WaitForJobs,
)
from helmd.operations.lifecycle.jobs import Ended
from helmd.operations.lifecycle.steps import OperationResult, Options

QUIET = Health(check="process")


def service(name: str, *needs: str, **more: Any) -> Service:
    return Service(name, "command", depends_on=needs, health=QUIET, **more)


def suite(*services: Service) -> Registry:
    return Registry({each.name: each for each in services})


SUITE = suite(
    service("postgres"),
    service("keycloak", "postgres"),
    service("core", "keycloak"),
    service("nexus", "core", "keycloak"),
    service("codex", "postgres", "core"),
    service("ticker"),
)


def unit(name: str) -> str:
    return f"hivematrix-{name}.service"


class World:
    """Answers what an operation asks for. A job ends as RESULTS says, by default well; ``calls`` lists the jobs.

    Units, health, listeners and lines are by service name, or port; what is not given is healthy, free and silent.
    """

    def __init__(self, results: dict[str, str] | None = None, /, **facts: UnitFacts) -> None:
        self.results = results or {}
        self.found = facts
        self.health: dict[str, HealthVerdict] = {}
        """By the probe's URL."""
        self.listeners: dict[int, str] = {}
        self.changed: dict[str, float] = {}
        """When a file of the service was last changed."""
        self.lines: dict[str, list[str]] = {}
        self.calls: list[str] = []
        self.reset: list[str] = []
        self.open: list[tuple[str, str, str]] = []
        self.modes: set[str] = set()
        self.notified: list[str] = []
        self.said: list[str] = []
        self.now = 0.0
        self.wait: Callable[[float], Sequence[JobResult]] = lambda until: self.finish()

    def facts(self, name: str) -> UnitFacts:
        return self.found.get(name, UnitFacts(unit(name), "loaded", can_reload=True))

    def perform(self, effect: Effect[Any]) -> Any:
        match effect:
            case ReadUnit(name):
                return self.facts(short(name))
            case CheckHealth(probe):
                return self.health.get(probe.url, HealthVerdict(HEALTHY, "it answers"))
            case FindListener(_, port):
                return self.listeners.get(port, "")
            case FindChange(service, _, since):
                return "/app.toml" if self.changed.get(service.name, 0.0) > since else ""
            case ReadLastLines(name, count, _, _):
                return self.lines.get(short(name), [])[-count:]
            case ResetFailed(name):
                self.reset.append(short(name))
                return None
            case QueueJob(verb, name, mode):
                self.calls.append(f"{verb} {short(name)}")
                self.modes.add(mode)
                self.open.append((f"/job/{len(self.calls)}", short(name), verb))
                return Job(self.open[-1][0], self.now)
            case WaitForJobs(until):
                return JobWait(self.wait(until), self.now)
            case Pause(_):
                return None
            case ReportStep(step):
                self.notified.append(f"{step.kind} {step.service}")
                self.said.append(step.sentence)
                return None
            case _:
                raise AssertionError(effect)

    def finish(self, count: int = 100) -> list[JobResult]:
        """End the oldest COUNT open jobs, and set the states of their units."""
        ended = []
        for job, name, verb in self.open[:count]:
            result = self.results.get(name, "done")
            before = self.facts(name)
            if result == "done" and before.active_state != "failed":
                self.found[name] = replace(before, active_state="inactive" if verb == "stop" else "active")
            ended.append(JobResult(job, result))
        del self.open[:count]
        return ended

    def sleep(self, until: float) -> list[JobResult]:
        """Return a wait in which nothing ends until the time is up."""
        self.now = until
        return []


def short(unit_name: str) -> str:
    return unit_name.removeprefix("hivematrix-").removesuffix(".service")


def perform(
    verb: Callable[..., Effects[OperationResult]],
    names: Sequence[str],
    world: World,
    registry: Registry = SUITE,
    options: Options = Options(),  # noqa: B008
    wait: Callable[[float], Sequence[JobResult]] | None = None,
) -> OperationResult:
    """Run an operation against WORLD."""
    world.wait = wait or world.wait
    operation = verb(registry, names, options)
    try:
        effect = next(operation)
        while True:
            effect = operation.send(world.perform(effect))
    except StopIteration as ended:
        report: OperationResult = ended.value
        return report


def kinds(report: OperationResult) -> dict[str, str]:
    return {step.service: step.kind for step in report.steps}


def running(name: str, **more: Any) -> UnitFacts:
    facts = UnitFacts(unit(name), "loaded", "active", "running", main_pid=7, can_reload=True)
    return replace(facts, **more)


def all_running(names: Iterable[str] = SUITE.names) -> dict[str, UnitFacts]:
    return {name: running(name) for name in names}


def failed(name: str, **more: Any) -> UnitFacts:
    return replace(UnitFacts(unit(name), "loaded", "failed", "failed", "exit-code"), **more)


# Starting


def test_what_is_needed_is_started_first_and_waited_for() -> None:
    world = World()
    report = perform(control.start, ["nexus"], world)
    assert report.good and report.cause is None
    assert world.calls == ["start postgres", "start keycloak", "start core", "start nexus"]
    assert world.notified == [
        f"{kind} {name}" for name in ("postgres", "keycloak", "core", "nexus") for kind in ("in_progress", "done")
    ]
    assert world.modes == {"replace"}


def test_independent_services_start_together_and_each_follows_its_own() -> None:
    world = World()
    seen: list[list[str]] = []

    def wait(until: float) -> Sequence[JobResult]:
        seen.append([name for _, name, _ in world.open])
        return world.finish(1)

    report = perform(control.start, SUITE.names, world, wait=wait)
    assert report.good and len(report.steps) == 6
    assert seen == [
        ["postgres", "ticker"], ["ticker", "keycloak"], ["keycloak"], ["core"], ["nexus", "codex"], ["codex"]
    ]  # fmt: skip


def test_what_already_runs_is_adopted() -> None:
    world = World(**all_running(["postgres", "keycloak"]))
    report = perform(control.start, ["core"], world)
    assert kinds(report) == {"postgres": "already", "keycloak": "already", "core": "done"}
    assert world.calls == ["start core"]
    assert report.steps[0].sentence == "already running, healthy"


def test_a_start_that_is_under_way_is_joined() -> None:
    world = World(postgres=UnitFacts(unit("postgres"), "loaded", "activating", "start-post"))
    assert perform(control.start, ["postgres"], world).good
    assert world.calls == ["start postgres"]


def test_a_start_that_began_before_a_change_is_restarted_and_says_so() -> None:
    under_way = UnitFacts(
        unit("ticker"), "loaded", "activating", "start-post", main_pid=9, started_at=100.0, changed_at=101.0
    )
    world = World(ticker=under_way)
    world.changed["ticker"] = 99.0
    assert perform(control.start, ["ticker"], world).good and world.calls == ["start ticker"]
    world = World(ticker=under_way)
    world.changed["ticker"] = 102.0
    assert perform(control.start, ["ticker"], world).good and world.calls == ["restart ticker"]
    assert "a start was under way that began before /app.toml was changed" in world.said[0]
    world = World(ticker=replace(under_way, need_reload=True))
    assert perform(control.start, ["ticker"], world).good and world.calls == ["restart ticker"]
    # systemd starts what waits for its restart as it is now.
    world = World(ticker=replace(under_way, sub_state="auto-restart"))
    world.changed["ticker"] = 102.0
    assert perform(control.start, ["ticker"], world).good and world.calls == ["start ticker"]


def test_a_start_that_was_under_way_and_fails_is_repeated_once() -> None:
    world = World({"ticker": "failed"}, ticker=UnitFacts(unit("ticker"), "loaded", "activating", "start"))
    report = perform(control.start, ["ticker"], world)
    assert world.calls == ["start ticker", "restart ticker"] and kinds(report) == {"ticker": "failed"}
    assert any("the start that was under way failed" in sentence for sentence in world.said)
    assert len(report.steps) == 1


def test_dependents_of_a_failure_are_left_alone_and_others_are_not() -> None:
    broken = failed("keycloak", exit_code=CLD_EXITED, exit_status=3)
    world = World({"keycloak": "failed"})

    def wait(until: float) -> Sequence[JobResult]:
        if any(name == "keycloak" for _, name, _ in world.open):
            world.found["keycloak"] = broken
        return world.finish()

    report = perform(control.start, SUITE.names, world, wait=wait)
    assert kinds(report) == {
        "postgres": "done", "ticker": "done", "keycloak": "failed",
        "core": "skipped", "nexus": "skipped", "codex": "skipped",
    }  # fmt: skip
    assert not any(name in call for call in world.calls for name in ("core", "nexus", "codex"))
    assert report.cause is not None
    assert (report.cause.service, report.cause.code) == ("keycloak", "start_failed")
    assert report.cause.sentence == "keycloak exited with code 3"
    sentences = {step.service: step.sentence for step in report.steps}
    assert sentences["core"] == "not started, because keycloak failed"
    assert sentences["codex"] == "not started, because keycloak failed (through core)"
    assert {step.code for step in report.steps if step.kind == "skipped"} == {"dependency_failed"}
    assert all("helmctl why keycloak" in step.hint for step in report.steps if step.bad)


def test_a_failure_says_what_systemd_does_next() -> None:
    again = failed(
        "ticker", active_state="activating", sub_state="auto-restart", exit_code=CLD_KILLED, exit_status=9,
        result="signal", restart_delay=1.0,
    )  # fmt: skip
    step = control.failure(SUITE["ticker"], again, Ended("ticker", 0.5, "failed"), [])
    assert step.sentence == "ticker was killed by SIGKILL; systemd restarts it in 1 s (restart 1)"


def test_a_failure_that_is_repeated_without_end_says_so() -> None:
    slow = Service("slow", "command", health=Health("process", start_timeout=60), restart=Restart(within=20.0))
    waits = failed(
        "slow", active_state="activating", sub_state="auto-restart", result="timeout", restart_delay=1.0,
        begun_at=1000.0, changed_at=1061.0,
    )  # fmt: skip
    said = control.failure(slow, waits, Ended("slow", 61.0, "failed"), []).sentence
    assert "again without end: starts that fail after 61 s never reach restart.burst = 5" in said
    # By default the interval is long enough for all of them.
    said = control.failure(replace(slow, restart=Restart()), waits, Ended("slow", 61.0, "failed"), []).sentence
    assert said.endswith("systemd restarts it in 1 s (restart 1)")


def test_a_cancelled_start_is_reported_as_such() -> None:
    report = perform(control.start, ["ticker"], World({"ticker": "canceled"}))
    assert report.steps[0].sentence == "its start was cancelled by another request" and not report.good


def test_no_deps_starts_only_what_was_named() -> None:
    world = World()
    report = perform(control.start, ["nexus", "core"], world, options=Options(with_dependencies=False))
    assert world.calls == ["start core", "start nexus"], "in order all the same"
    assert report.good and world.modes == {"ignore-dependencies"}


def test_not_blocking_queues_all_at_once() -> None:
    world = World()

    def wait(until: float) -> Sequence[JobResult]:
        raise AssertionError("nothing is waited for")

    report = perform(control.start, ["nexus"], world, options=Options(block=False), wait=wait)
    assert set(kinds(report).values()) == {"queued"} and report.good
    assert world.calls == ["start postgres", "start keycloak", "start core", "start nexus"]


def test_out_of_time_leaves_it_to_systemd() -> None:
    world = World()
    asked: list[float] = []

    def wait(until: float) -> Sequence[JobResult]:
        asked.append(until)
        return world.sleep(until)

    report = perform(control.start, ["core", "ticker"], world, options=Options(timeout=0.1), wait=wait)
    assert asked == [0.1]
    assert [(step.service, step.kind, step.code) for step in report.steps] == [
        ("postgres", "failed", "timeout"), ("ticker", "failed", "timeout"),
        ("keycloak", "skipped", "timeout"), ("core", "skipped", "timeout"),
    ]  # fmt: skip
    assert world.calls == ["start postgres", "start ticker"]
    failed_steps = [step for step in report.steps if step.kind == "failed"]
    assert {step.sentence for step in failed_steps} == {"not finished after 0.1 s; systemd continues with it"}


def test_jobs_of_others_and_idle_wake_ups_change_nothing() -> None:
    world = World()
    strange = [JobResult("/job/999", "failed"), JobResult("/job/1000", "done")]
    rounds = iter([strange, [], None])

    def wait(until: float) -> Sequence[JobResult]:
        said = next(rounds, None)
        return world.finish() if said is None else said

    assert perform(control.start, ["postgres"], world, wait=wait).good


def test_a_running_but_unhealthy_dependency_is_a_failure() -> None:
    ill = Service("ill", "command", port=5050, health=Health(check="port"))
    world = World(ill=running("ill"))
    world.health["http://localhost:5050"] = HealthVerdict(UNHEALTHY, "nothing listens on port 5050")
    report = perform(control.start, ["top"], world, suite(ill, service("top", "ill")))
    assert kinds(report) == {"ill": "failed", "top": "skipped"} and world.calls == []
    assert report.steps[0].sentence == "running but unhealthy: nothing listens on port 5050"
    assert report.steps[0].hint == "Restart it: helmctl restart ill"


def test_a_port_in_use_is_no_start() -> None:
    mine = Service("mine", "command", port=5051, health=QUIET)
    world = World()
    world.listeners[5051] = "pid 7, nc"
    report = perform(control.start, ["mine"], world, suite(mine))
    assert world.calls == []
    assert report.cause is not None and report.cause.code == "port_taken"
    assert report.cause.sentence == "port 5051 is in use by pid 7, nc"


def test_an_external_service_is_checked_and_never_started() -> None:
    there = Service("there", "external", url="http://idp:5052", health=Health(check="port"))
    registry = suite(there, service("top", "there"))
    world = World()
    report = perform(control.start, ["top"], world, registry)
    assert kinds(report) == {"there": "already", "top": "done"} and world.calls == ["start top"]
    world = World()
    world.health["http://idp:5052"] = HealthVerdict(UNHEALTHY, "nothing listens on port 5052")
    report = perform(control.start, ["top"], world, registry)
    assert kinds(report) == {"there": "failed", "top": "skipped"} and world.calls == []
    assert report.steps[0].sentence == "external, unhealthy: nothing listens on port 5052"


def test_a_failed_start_is_explained_by_the_last_lines() -> None:
    world = World({"ticker": "failed"})
    world.lines["ticker"] = ["reading ticker.conf", "", "no such file: ticker.conf"]
    world.found["ticker"] = failed("ticker", start_exit=CommandExit(CLD_EXITED, 1))
    step = perform(control.start, ["ticker"], world).steps[0]
    assert step.sentence == "a start-up command of ticker exited with code 1: no such file: ticker.conf"
    assert step.lines == ("reading ticker.conf", "no such file: ticker.conf")


def test_what_the_probe_printed_becomes_the_sentence() -> None:
    world = World({"ticker": "failed"})
    world.lines["ticker"] = ["listening", "not healthy within 3 s: GET /health: answered 500"]
    world.found["ticker"] = failed("ticker", probe_exit=CommandExit(CLD_EXITED, 1))
    step = perform(control.start, ["ticker"], world).steps[0]
    assert step.sentence == "ticker was not healthy within 3 s: GET /health: answered 500"
    assert step.lines == ("listening",)


def test_what_the_service_prints_last_does_not_hide_what_the_probe_printed() -> None:
    """Such as a traceback for each request, and lines until it has ended."""
    world = World({"ticker": "failed"})
    after = [f"closing connection {n}" for n in range(40)]
    world.lines["ticker"] = ["listening", "not healthy within 3 s: GET /health: answered 500", *after]
    world.found["ticker"] = failed("ticker", probe_exit=CommandExit(CLD_EXITED, 1))
    step = perform(control.start, ["ticker"], world).steps[0]
    assert step.sentence == "ticker was not healthy within 3 s: GET /health: answered 500"
    assert step.lines == tuple(after[-10:])


def test_one_degraded_from_the_first_second_is_reported_as_such() -> None:
    world = World()
    world.health[""] = HealthVerdict("degraded", "answered 503: degraded")
    step = perform(control.start, ["ticker"], world).steps[0]
    assert step.kind == "done" and step.sentence.endswith("; answered 503: degraded")


# Stopping


def test_dependents_stop_first_and_are_waited_for() -> None:
    world = World(**all_running())
    seen: list[list[str]] = []

    def wait(until: float) -> Sequence[JobResult]:
        seen.append([name for _, name, _ in world.open])
        return world.finish(1)

    report = perform(control.stop, SUITE.names, world, wait=wait)
    assert report.good
    assert seen == [["ticker", "codex", "nexus"], ["codex", "nexus"], ["nexus"], ["core"], ["keycloak"], ["postgres"]]


def test_stopping_one_touches_no_other() -> None:
    world = World(**all_running())
    assert perform(control.stop, ["core"], world).good
    assert world.calls == ["stop core"]


def test_what_does_not_run_is_not_stopped() -> None:
    world = World(**all_running(["core"]), nexus=failed("nexus"), codex=UnitFacts(unit("codex")))
    report = perform(control.stop, ["core", "nexus", "codex", "ticker"], world)
    assert kinds(report) == {"nexus": "already", "codex": "already", "ticker": "already", "core": "done"}
    assert world.calls == ["stop core"] and report.good


def test_one_waiting_to_be_restarted_is_stopped() -> None:
    world = World(ticker=UnitFacts(unit("ticker"), "loaded", "activating", "auto-restart"))
    perform(control.stop, ["ticker"], world)
    assert world.calls == ["stop ticker"]


def test_one_that_had_to_be_killed_is_reported_as_such() -> None:
    world = World(deaf=running("deaf"))

    def wait(until: float) -> Sequence[JobResult]:
        world.found["deaf"] = failed("deaf", result="timeout", exit_code=CLD_KILLED, exit_status=9)
        return world.finish()

    registry = suite(service("deaf", restart=Restart(stop_timeout=2.5), stop_signal="SIGQUIT"))
    report = perform(control.stop, ["deaf"], world, registry, wait=wait)
    assert [(step.kind, step.sentence) for step in report.steps] == [
        ("killed", "did not exit within 2.5 s of SIGQUIT and was killed")
    ]
    assert "restart.stop_timeout" in report.steps[0].hint and "stop_signal" in report.steps[0].hint
    assert report.good, "it is stopped, which is what was asked for"


def test_a_stop_during_a_start_is_no_failure() -> None:
    """systemd takes the probe for failed that its stop ended, and keeps the unit as failed."""
    world = World(slow=UnitFacts(unit("slow"), "loaded", "activating", "start-post"))

    def wait(until: float) -> Sequence[JobResult]:
        probe = CommandExit(CLD_KILLED, 15)
        world.found["slow"] = failed("slow", result="signal", exit_code=CLD_KILLED, exit_status=15, probe_exit=probe)
        return world.finish()

    report = perform(control.stop, ["slow"], world, suite(service("slow")), wait=wait)
    assert [(step.kind, step.sentence) for step in report.steps] == [("done", "stopped")]
    assert world.reset == ["slow"]


def test_a_bad_end_of_a_stop_is_reported() -> None:
    world = World(ticker=running("ticker"))

    def wait(until: float) -> Sequence[JobResult]:
        world.found["ticker"] = failed("ticker", exit_code=CLD_EXITED, exit_status=1)
        return world.finish()

    report = perform(control.stop, ["ticker"], world, wait=wait)
    assert report.steps[0].sentence == "stopped; ticker exited with code 1" and report.good


def test_a_failed_stop_does_not_keep_the_others_up() -> None:
    world = World({"nexus": "canceled"}, **all_running())
    report = perform(control.stop, ["nexus", "core"], world)
    assert world.calls == ["stop nexus", "stop core"]
    assert kinds(report) == {"nexus": "failed", "core": "done"} and not report.good


def test_external_services_are_not_ours_to_stop() -> None:
    world = World()
    outside = Service("outside", "external", url="http://127.0.0.1:1")
    report = perform(control.stop, ["outside"], world, suite(outside))
    assert kinds(report) == {"outside": "already"} and report.good and world.calls == []


def test_a_stop_out_of_time() -> None:
    world = World(**all_running())
    report = perform(
        control.stop, ["core", "nexus"], world, options=Options(timeout=0.0), wait=lambda until: []
    )  # fmt: skip
    assert [(step.service, step.code) for step in report.steps] == [("nexus", "timeout")]


def test_a_stop_queued_without_waiting() -> None:
    world = World(**all_running())
    report = perform(control.stop, ["core", "nexus"], world, options=Options(block=False))
    assert set(kinds(report).values()) == {"queued"} and world.calls == ["stop nexus", "stop core"]


# Restarting, reloading


def test_restarts_go_one_by_one_in_starting_order() -> None:
    world = World(**all_running())
    report = perform(control.restart, ["nexus", "core"], world)
    assert world.calls == ["restart core", "restart nexus"]
    assert world.notified == ["in_progress core", "done core", "in_progress nexus", "done nexus"]
    assert all(step.sentence.startswith("restarted, after waiting for") for step in report.steps)


def test_a_failed_restart_ends_it() -> None:
    world = World({"core": "failed"}, **all_running())

    def wait(until: float) -> Sequence[JobResult]:
        world.found["core"] = failed("core", exit_code=CLD_EXITED, exit_status=1)
        return world.finish()

    report = perform(control.restart, ["core", "nexus"], world, wait=wait)
    assert world.calls == ["restart core"] and kinds(report) == {"core": "failed", "nexus": "skipped"}
    assert report.steps[1].sentence == "not restarted, because core failed; it is as it was"


def test_a_restart_without_what_it_needs_leaves_it_running() -> None:
    world = World(**all_running(["nexus", "core"]))
    report = perform(control.restart, ["nexus"], world)
    assert world.calls == [] and report.cause is not None
    assert report.cause.sentence == "not restarted, because keycloak is not running"
    assert report.cause.code == "dependency_failed" and "--no-deps" in report.cause.hint
    report = perform(control.restart, ["nexus"], world, options=Options(with_dependencies=False))
    assert report.good and world.calls == ["restart nexus"] and world.modes == {"ignore-dependencies"}


def test_a_restart_out_of_time() -> None:
    world = World(**all_running())
    report = perform(
        control.restart, ["core", "nexus"], world, options=Options(timeout=0.0), wait=lambda until: []
    )  # fmt: skip
    assert [(step.service, step.code) for step in report.steps] == [("core", "timeout"), ("nexus", "failed")]
    assert report.steps[1].sentence == "not restarted: the time limit was reached; it is as it was"
    assert world.calls == ["restart core"]


def test_restarting_all_passes_external_services_by() -> None:
    there = Service("there", "external", url="http://idp:5052", health=Health(check="port"))
    registry = suite(there, service("top", "there"))
    world = World(top=running("top"))
    report = perform(control.restart, ["there", "top"], world, registry)
    assert world.calls == ["restart top"] and report.good
    report = perform(control.restart, ["there"], world, registry)
    assert not report.good and report.steps[0].sentence == "external: Helm does not restart it"


def test_reload() -> None:
    world = World(**all_running(["core", "nexus"]))
    assert perform(control.reload, ["nexus", "core"], world).good
    assert world.calls == ["reload core", "reload nexus"]
    report = perform(control.reload, ["ticker"], world)
    assert [step.sentence for step in report.steps] == ["not running"] and not report.good
    world.found["core"] = running("core", can_reload=False)
    report = perform(control.reload, ["core"], world)
    assert report.steps[0].sentence == "its unit has no ExecReload=" and "helmctl restart core" in report.steps[0].hint
    assert world.calls == ["reload core", "reload nexus"]


def test_a_reload_that_is_only_queued() -> None:
    world = World(**all_running(["core"]))
    report = perform(control.reload, ["core"], world, options=Options(block=False), wait=lambda until: pytest.fail())
    assert kinds(report) == {"core": "queued"} and world.calls == ["reload core"]


def test_a_reload_that_fails_or_takes_too_long() -> None:
    world = World({"core": "failed"}, **all_running())
    report = perform(control.reload, ["core"], world)
    assert report.steps[0].sentence == "its reload failed (job result 'failed'); it still runs as before"
    assert not report.good
    report = perform(control.reload, ["core"], world, options=Options(timeout=0.0), wait=lambda until: [])
    assert report.steps[0].code == "timeout"


def test_a_reload_that_fails_names_the_command_and_its_last_line() -> None:
    registry = suite(Service("web", "command", health=QUIET, reload_command=("./check", "--then-reload")))
    ended = CommandExit(CLD_EXITED, 4, ("/app/check", "--then-reload"), 1000.0)
    world = World({"web": "failed"}, web=running("web", reload_result="exit-code", reload_exit=ended))
    world.lines["web"] = ["reading web.conf", "line 3: no such directive"]
    (step,) = perform(control.reload, ["web"], world, registry).steps
    said = "its reload_command (./check) exited with code 4: line 3: no such directive; it still runs as before"
    assert (step.kind, step.sentence) == ("failed", said)


@pytest.mark.parametrize("result", ["done", "failed"])
def test_a_service_that_ends_when_it_is_reloaded(result: str) -> None:
    """Such as by SIGHUP, which systemd takes for a good end."""
    gone = running("core", exit_code=CLD_KILLED, exit_status=1)
    world = World({"core": result}, core=gone)

    def wait(until: float) -> Sequence[JobResult]:
        ended = world.finish()
        world.found["core"] = replace(gone, active_state="inactive", sub_state="dead")
        return ended

    (step,) = perform(control.reload, ["core"], world, wait=wait).steps
    assert (step.kind, step.sentence) == ("failed", "it was killed by SIGHUP when it was reloaded")
    assert "helmctl start core" in step.hint


# What it would do


def test_dry_run() -> None:
    assert list(control.dry_run(SUITE, ["nexus"], "start", True)) == ["postgres", "keycloak", "core", "nexus"]
    assert list(control.dry_run(SUITE, ["nexus"], "start", False)) == ["nexus"]
    assert list(control.dry_run(SUITE, ["core", "nexus"], "restart", True)) == ["core", "nexus"]
    assert control.dry_run(SUITE, ["core", "nexus"], "stop", True) == {"nexus": "stop", "core": "stop"}
    assert control.dry_run(SUITE, ["ticker"], "start", True) == {"ticker": "start, then wait for its process"}


def test_control_does_no_io() -> None:
    """What decides imports nothing that could reach the outside world; a driver does that."""
    top = Path(__file__).resolve().parents[2]
    for module in ("control", "oneshot", "effects", "jobs", "steps"):
        tree = ast.parse((top / f"helmd/operations/lifecycle/{module}.py").read_text())
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        own = {f"helmd.operations.lifecycle.{name}" for name in ("effects", "jobs", "oneshot", "steps")}
        plain = {"collections.abc", "dataclasses", "typing"}
        # Of the probe only the facts of one are taken; `run_probe` is the driver's.
        allowed = own | plain | {"helmd.health.target", "helmd.health.probe"}
        assert not {name for name in imported - allowed if not name.startswith("helmd.model.")}, module
        assert not {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & {"run_probe", "open", "print"}
