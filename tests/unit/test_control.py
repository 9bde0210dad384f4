"""Control's decisions, driven without a systemd: what is dispatched in which order, and what comes of each failure.

The manager here is a hand-written stand-in, for results that the real one does not give on demand; the system tests
have the real one.
"""

import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import pytest

from helmd.model.errors import BusError
from helmd.model.suite.service import Health, Registry, Restart, Service
from helmd.model.units.unit_state import CLD_EXITED, CLD_KILLED, UnitFacts
from helmd.operations.lifecycle import control
from helmd.operations.lifecycle.steps import OperationResult, Options, Step, Work, drive
from helmd.systemd.bus import Finished

QUIET = Health(check="process")


def service(name: str, *needs: str, **more: object) -> Service:
    return Service(name, "command", depends_on=needs, health=QUIET, **more)  # type: ignore[arg-type]


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


class FakeManager:
    """Units by service name. A job ends as RESULTS says, by default well; ``calls`` is all that was asked."""

    def __init__(self, results: dict[str, str] | None = None, **facts: UnitFacts) -> None:
        self.results = results or {}
        self.found = facts
        self.calls: list[str] = []
        self.open: list[tuple[str, str, str]] = []
        self.modes: set[str] = set()
        self.can_reload = True

    def facts(self, name: str) -> UnitFacts:
        return self.found.get(name.removeprefix("hivematrix-").removesuffix(".service"), UnitFacts(name, "loaded"))

    def properties(self, name: str) -> dict[str, object]:
        return {"ActiveState": self.facts(name).active_state, "CanReload": self.can_reload}

    def _job(self, verb: str, name: str, mode: str = "replace") -> str:
        short = name.removeprefix("hivematrix-").removesuffix(".service")
        self.calls.append(f"{verb} {short}")
        self.modes.add(mode)
        job = f"/job/{len(self.calls)}"
        self.open.append((job, short, verb))
        return job

    def start(self, name: str, mode: str = "replace") -> str:
        return self._job("start", name, mode)

    def stop(self, name: str) -> str:
        return self._job("stop", name)

    def restart(self, name: str, mode: str = "replace") -> str:
        return self._job("restart", name, mode)

    def reload(self, name: str) -> str:
        return self._job("reload", name)

    def reset_failed(self, name: str) -> None:
        pass

    def finish(self, count: int = 100) -> list[Finished]:
        """The oldest COUNT open jobs end, and the units are as that leaves them."""
        ended = []
        for job, name, verb in self.open[:count]:
            result = self.results.get(name, "done")
            before = self.facts(unit(name))
            if result == "done" and before.active_state != "failed":
                self.found[name] = replace(before, active_state="inactive" if verb == "stop" else "active")
            ended.append(Finished(job, unit(name), result))
        del self.open[:count]
        return ended


class Heard:
    """Everything told, as short lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, step: Step) -> None:
        self.lines.append(f"{step.kind} {step.service}")


def perform(
    verb: Callable[..., Work],
    names: Sequence[str],
    manager: FakeManager,
    registry: Registry = SUITE,
    options: Options = Options(),  # noqa: B008
    wait: Callable[[float], Sequence[Finished]] | None = None,
    notify: Callable[[Step], None] | None = None,
) -> OperationResult:
    work = verb(registry, names, manager, options, *([notify] if notify else []))
    return drive(work, wait or (lambda until: manager.finish()))


def kinds(report: OperationResult) -> dict[str, str]:
    return {step.service: step.kind for step in report.steps}


def running(name: str, **more: object) -> UnitFacts:
    return replace(UnitFacts(unit(name), "loaded", "active", "running", main_pid=7), **more)


def all_running(names: Iterable[str] = SUITE.names) -> dict[str, UnitFacts]:
    return {name: running(name) for name in names}


def failed(name: str, **more: object) -> UnitFacts:
    return replace(UnitFacts(unit(name), "loaded", "failed", "failed", "exit-code"), **more)


# Starting


def test_what_is_needed_is_started_first_and_waited_for() -> None:
    manager, heard = FakeManager(), Heard()
    report = perform(control.start, ["nexus"], manager, notify=heard)
    assert report.good and report.cause is None
    assert manager.calls == ["start postgres", "start keycloak", "start core", "start nexus"]
    assert heard.lines == [
        f"{kind} {name}" for name in ("postgres", "keycloak", "core", "nexus") for kind in ("begun", "done")
    ]
    assert manager.modes == {"replace"}


def test_independent_services_start_together_and_each_follows_its_own() -> None:
    manager = FakeManager()
    seen: list[list[str]] = []

    def wait(until: float) -> Sequence[Finished]:
        seen.append([name for _, name, _ in manager.open])
        return manager.finish(1)

    report = perform(control.start, SUITE.names, manager, wait=wait)
    assert report.good and len(report.steps) == 6
    assert seen == [
        ["postgres", "ticker"], ["ticker", "keycloak"], ["keycloak"], ["core"], ["nexus", "codex"], ["codex"]
    ]  # fmt: skip


def test_what_already_runs_is_adopted() -> None:
    manager = FakeManager(**all_running(["postgres", "keycloak"]))
    report = perform(control.start, ["core"], manager)
    assert kinds(report) == {"postgres": "already", "keycloak": "already", "core": "done"}
    assert manager.calls == ["start core"]
    assert report.steps[0].sentence == "already running, healthy"


def test_a_start_that_is_under_way_is_joined() -> None:
    manager = FakeManager(postgres=UnitFacts(unit("postgres"), "loaded", "activating", "start-post"))
    assert perform(control.start, ["postgres"], manager).good
    assert manager.calls == ["start postgres"]


def test_dependents_of_a_failure_are_left_alone_and_others_are_not() -> None:
    broken = failed("keycloak", exit_code=CLD_EXITED, exit_status=3)
    manager = FakeManager({"keycloak": "failed"})
    work = control.start(SUITE, SUITE.names, manager, Options())  # type: ignore[arg-type]

    def wait(until: float) -> Sequence[Finished]:
        if any(name == "keycloak" for _, name, _ in manager.open):
            manager.found["keycloak"] = broken
        return manager.finish()

    report = drive(work, wait)
    assert kinds(report) == {
        "postgres": "done", "ticker": "done", "keycloak": "failed",
        "core": "skipped", "nexus": "skipped", "codex": "skipped",
    }  # fmt: skip
    assert not any(name in call for call in manager.calls for name in ("core", "nexus", "codex"))
    assert report.cause is not None
    assert (report.cause.service, report.cause.code) == ("keycloak", "start_failed")
    assert report.cause.sentence == "keycloak exited with code 3"
    notified = {step.service: step.sentence for step in report.steps}
    assert notified["core"] == "not started, because keycloak failed"
    assert notified["codex"] == "not started, because keycloak failed (through core)"
    assert {step.code for step in report.steps if step.kind == "skipped"} == {"dependency_failed"}
    assert all("helmctl why keycloak" in step.hint for step in report.steps if step.bad)


def test_a_failure_says_what_systemd_does_next() -> None:
    again = failed(
        "ticker", active_state="activating", sub_state="auto-restart", exit_code=CLD_KILLED, exit_status=9,
        result="signal", restart_delay=1.0,
    )  # fmt: skip
    step = control.failure(again, "ticker", 0.5, "failed")
    assert step.sentence == "ticker was killed by SIGKILL; systemd starts it again in 1 s (restart 1)"


def test_a_cancelled_start_is_told_as_such() -> None:
    report = perform(control.start, ["ticker"], FakeManager({"ticker": "canceled"}))
    assert report.steps[0].sentence == "its start was cancelled by another request" and not report.good


def test_no_deps_starts_only_what_was_named() -> None:
    manager = FakeManager()
    report = perform(control.start, ["nexus", "core"], manager, options=Options(with_dependencies=False))
    assert manager.calls == ["start core", "start nexus"], "in order all the same"
    assert report.good and manager.modes == {"ignore-dependencies"}


def test_not_blocking_queues_all_at_once() -> None:
    manager = FakeManager()

    def wait(until: float) -> Sequence[Finished]:
        raise AssertionError("nothing is waited for")

    report = perform(control.start, ["nexus"], manager, options=Options(block=False), wait=wait)
    assert set(kinds(report).values()) == {"queued"} and report.good
    assert manager.calls == ["start postgres", "start keycloak", "start core", "start nexus"]


def test_out_of_time_leaves_it_to_systemd() -> None:
    manager = FakeManager()
    asked: list[float] = []

    def wait(until: float) -> Sequence[Finished]:
        asked.append(until)
        time.sleep(max(0.0, until - time.monotonic()))
        return []

    begun = time.monotonic()
    report = perform(control.start, ["core", "ticker"], manager, options=Options(timeout=0.1), wait=wait)
    assert asked and begun + 0.1 <= asked[0] <= time.monotonic()
    assert [(step.service, step.kind, step.code) for step in report.steps] == [
        ("postgres", "failed", "timeout"), ("ticker", "failed", "timeout"),
        ("keycloak", "skipped", "timeout"), ("core", "skipped", "timeout"),
    ]  # fmt: skip
    assert manager.calls == ["start postgres", "start ticker"]
    assert all("systemd goes on with it" in step.sentence for step in report.steps if step.kind == "failed")


def test_jobs_of_others_and_idle_wake_ups_change_nothing() -> None:
    manager = FakeManager()
    strange = [Finished("/job/999", unit("postgres"), "failed"), Finished("/job/1000", "else.service", "done")]
    rounds = iter([strange, [], None])

    def wait(until: float) -> Sequence[Finished]:
        said = next(rounds, None)
        return manager.finish() if said is None else said

    assert perform(control.start, ["postgres"], manager, wait=wait).good


def test_a_running_but_unhealthy_dependency_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    ill = Service("ill", "command", port=port, health=Health(check="port"))
    manager = FakeManager(ill=running("ill"))
    report = perform(control.start, ["top"], manager, suite(ill, service("top", "ill")))
    assert kinds(report) == {"ill": "failed", "top": "skipped"} and manager.calls == []
    assert report.steps[0].sentence == f"runs but is unhealthy: nothing listens on port {port}"
    assert report.steps[0].hint == "Restart it: helmctl restart ill"


def test_a_port_held_by_a_stranger_is_no_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        mine = Service("mine", "command", port=port, health=QUIET)
        manager = FakeManager()
        report = perform(control.start, ["mine"], manager, suite(mine))
    assert manager.calls == []
    assert report.cause is not None and report.cause.code == "port_taken"
    assert report.cause.sentence.startswith(f"port {port} is taken by pid ")


def test_an_external_service_is_asked_and_never_started() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        there = Service("there", "external", url=url, health=Health(check="port"))
        manager = FakeManager()
        registry = suite(there, service("top", "there"))
        report = perform(control.start, ["top"], manager, registry)
        assert kinds(report) == {"there": "already", "top": "done"} and manager.calls == ["start top"]
    manager = FakeManager()
    report = perform(control.start, ["top"], manager, registry)
    assert kinds(report) == {"there": "failed", "top": "skipped"} and manager.calls == []
    assert "external and unhealthy: nothing listens on port" in report.steps[0].sentence


def test_a_manager_that_goes_away_is_an_error_of_its_own() -> None:
    class Gone(FakeManager):
        def start(self, name: str, mode: str = "replace") -> str:
            raise BusError("systemd refused StartUnit: Connection timed out")

    with pytest.raises(BusError, match="timed out"):
        perform(control.start, ["ticker"], Gone())


# Stopping


def test_dependents_stop_first_and_are_waited_for() -> None:
    manager = FakeManager(**all_running())
    seen: list[list[str]] = []

    def wait(until: float) -> Sequence[Finished]:
        seen.append([name for _, name, _ in manager.open])
        return manager.finish(1)

    report = perform(control.stop, SUITE.names, manager, wait=wait)
    assert report.good
    assert seen == [["ticker", "codex", "nexus"], ["codex", "nexus"], ["nexus"], ["core"], ["keycloak"], ["postgres"]]


def test_stopping_one_touches_no_other() -> None:
    manager = FakeManager(**all_running())
    assert perform(control.stop, ["core"], manager).good
    assert manager.calls == ["stop core"]


def test_what_does_not_run_is_not_stopped() -> None:
    manager = FakeManager(**all_running(["core"]), nexus=failed("nexus"), codex=UnitFacts(unit("codex")))
    report = perform(control.stop, ["core", "nexus", "codex", "ticker"], manager)
    assert kinds(report) == {"nexus": "already", "codex": "already", "ticker": "already", "core": "done"}
    assert manager.calls == ["stop core"] and report.good


def test_one_waiting_to_be_restarted_is_stopped() -> None:
    manager = FakeManager(ticker=UnitFacts(unit("ticker"), "loaded", "activating", "auto-restart"))
    perform(control.stop, ["ticker"], manager)
    assert manager.calls == ["stop ticker"]


def test_one_that_had_to_be_killed_is_told_so() -> None:
    manager = FakeManager(deaf=running("deaf"))

    def wait(until: float) -> Sequence[Finished]:
        manager.found["deaf"] = failed("deaf", result="timeout", exit_code=CLD_KILLED, exit_status=9)
        return manager.finish()

    registry = suite(service("deaf", restart=Restart(stop_timeout=2.5)))
    report = perform(control.stop, ["deaf"], manager, registry, wait=wait)
    assert [(step.kind, step.sentence) for step in report.steps] == [
        ("killed", "did not end on SIGTERM within 2.5 s and was killed")
    ]
    assert report.good, "it is stopped, which is what was asked for"


def test_a_bad_end_of_a_stop_is_told() -> None:
    manager = FakeManager(ticker=running("ticker"))

    def wait(until: float) -> Sequence[Finished]:
        manager.found["ticker"] = failed("ticker", exit_code=CLD_EXITED, exit_status=1)
        return manager.finish()

    report = perform(control.stop, ["ticker"], manager, wait=wait)
    assert report.steps[0].sentence == "stopped; ticker exited with code 1" and report.good


def test_a_failed_stop_does_not_keep_the_others_up() -> None:
    manager = FakeManager({"nexus": "canceled"}, **all_running())
    report = perform(control.stop, ["nexus", "core"], manager)
    assert manager.calls == ["stop nexus", "stop core"]
    assert kinds(report) == {"nexus": "failed", "core": "done"} and not report.good


def test_external_services_are_not_ours_to_stop() -> None:
    manager = FakeManager()
    outside = Service("outside", "external", url="http://127.0.0.1:1")
    report = perform(control.stop, ["outside"], manager, suite(outside))
    assert kinds(report) == {"outside": "already"} and report.good and manager.calls == []


def test_a_stop_out_of_time() -> None:
    manager = FakeManager(**all_running())
    report = perform(
        control.stop, ["core", "nexus"], manager, options=Options(timeout=0.0), wait=lambda until: []
    )  # fmt: skip
    assert [(step.service, step.code) for step in report.steps] == [("nexus", "timeout")]


def test_a_stop_queued_without_waiting() -> None:
    manager = FakeManager(**all_running())
    report = perform(control.stop, ["core", "nexus"], manager, options=Options(block=False))
    assert set(kinds(report).values()) == {"queued"} and manager.calls == ["stop nexus", "stop core"]


# Restarting, reloading


def test_restarts_go_one_by_one_in_starting_order() -> None:
    manager, heard = FakeManager(**all_running()), Heard()
    report = perform(control.restart, ["nexus", "core"], manager, notify=heard)
    assert manager.calls == ["restart core", "restart nexus"]
    assert heard.lines == ["begun core", "done core", "begun nexus", "done nexus"]
    assert all(step.sentence.startswith("restarted, after waiting for") for step in report.steps)


def test_a_failed_restart_ends_it() -> None:
    manager = FakeManager({"core": "failed"}, **all_running())

    def wait(until: float) -> Sequence[Finished]:
        manager.found["core"] = failed("core", exit_code=CLD_EXITED, exit_status=1)
        return manager.finish()

    report = perform(control.restart, ["core", "nexus"], manager, wait=wait)
    assert manager.calls == ["restart core"] and kinds(report) == {"core": "failed"}


def test_a_restart_without_what_it_needs_leaves_it_running() -> None:
    manager = FakeManager(**all_running(["nexus", "core"]))
    report = perform(control.restart, ["nexus"], manager)
    assert manager.calls == [] and report.cause is not None
    assert report.cause.sentence == "not restarted, because keycloak is not running"
    assert report.cause.code == "dependency_failed" and "--no-deps" in report.cause.hint
    report = perform(control.restart, ["nexus"], manager, options=Options(with_dependencies=False))
    assert report.good and manager.calls == ["restart nexus"] and manager.modes == {"ignore-dependencies"}


def test_a_restart_out_of_time() -> None:
    manager = FakeManager(**all_running())
    report = perform(
        control.restart, ["core", "nexus"], manager, options=Options(timeout=0.0), wait=lambda until: []
    )  # fmt: skip
    assert [(step.service, step.code) for step in report.steps] == [("core", "timeout")]
    assert manager.calls == ["restart core"]


def test_restarting_all_passes_external_services_by() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        there = Service("there", "external", url=url, health=Health(check="port"))
        registry = suite(there, service("top", "there"))
        manager = FakeManager(top=running("top"))
        report = perform(control.restart, ["there", "top"], manager, registry)
        assert manager.calls == ["restart top"] and report.good
        report = perform(control.restart, ["there"], manager, registry)
        assert not report.good and report.steps[0].sentence == "external: it is not Helm's to restart"


def test_reload() -> None:
    manager = FakeManager(**all_running(["core", "nexus"]))
    assert perform(control.reload, ["nexus", "core"], manager).good
    assert manager.calls == ["reload core", "reload nexus"]
    report = perform(control.reload, ["ticker"], manager)
    assert [step.sentence for step in report.steps] == ["not running"] and not report.good
    manager.can_reload = False
    report = perform(control.reload, ["core"], manager)
    assert report.steps[0].sentence == "can't reload" and "helmctl restart core" in report.steps[0].hint
    assert manager.calls == ["reload core", "reload nexus"]


def test_a_reload_that_is_only_queued() -> None:
    manager = FakeManager(**all_running(["core"]))
    report = perform(control.reload, ["core"], manager, options=Options(block=False), wait=lambda until: pytest.fail())
    assert kinds(report) == {"core": "queued"} and manager.calls == ["reload core"]


def test_a_reload_that_fails_or_takes_too_long() -> None:
    manager = FakeManager({"core": "failed"}, **all_running())
    report = perform(control.reload, ["core"], manager)
    assert report.steps[0].sentence == "its reload ended with result 'failed'" and not report.good
    report = perform(control.reload, ["core"], manager, options=Options(timeout=0.0), wait=lambda until: [])
    assert report.steps[0].code == "timeout"


# What it would do


def test_dry_run() -> None:
    assert list(control.dry_run(SUITE, ["nexus"], "start", True)) == ["postgres", "keycloak", "core", "nexus"]
    assert list(control.dry_run(SUITE, ["nexus"], "start", False)) == ["nexus"]
    assert list(control.dry_run(SUITE, ["core", "nexus"], "restart", True)) == ["core", "nexus"]
    assert control.dry_run(SUITE, ["core", "nexus"], "stop", True) == {"nexus": "stop", "core": "stop"}
    assert control.dry_run(SUITE, ["ticker"], "start", True) == {"ticker": "start, then wait for its process"}


@pytest.mark.parametrize("exists", [True, False])
def test_the_target_is_marked_only_where_there_is_one(exists: bool) -> None:
    class Marked(FakeManager):
        def facts(self, name: str) -> UnitFacts:
            return UnitFacts(name, "loaded" if exists else "not-found")

    manager = Marked()
    control.mark_target(manager)  # type: ignore[arg-type]
    assert manager.calls == (["start hivematrix.target"] if exists else [])
