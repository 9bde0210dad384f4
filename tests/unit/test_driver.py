"""The driver of operations, against real sockets and processes; its manager is a stand-in where none is needed."""

import os
import socket
import time
from collections.abc import Sequence
from typing import Any

import pytest

from helmd.model.errors import BusError
from helmd.model.suite.service import Service
from helmd.model.units.health import Probe
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.lifecycle.driver import Driver, mark_target
from helmd.operations.lifecycle.effects import (
    CheckHealth,
    Effects,
    FindListener,
    QueueJob,
    ReportStep,
    WaitForJobs,
    result_of,
)
from helmd.operations.lifecycle.steps import Step
from helmd.systemd.bus import Finished


class Recorder:
    """A manager that queues jobs."""

    def __init__(self, exists: bool = True) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.exists = exists

    def facts(self, unit: str) -> UnitFacts:
        return UnitFacts(unit, "loaded" if self.exists else "not-found")

    def start(self, *words: str) -> str:
        self.calls.append(("start", *words))
        return f"/job/{len(self.calls)}"

    def stop(self, *words: str) -> str:
        self.calls.append(("stop", *words))
        return f"/job/{len(self.calls)}"


def nothing_changed(service: Service, facts: UnitFacts, since: float) -> str:
    return ""


def driver(manager: Any, ended: Sequence[Finished] = (), shown: list[Step] | None = None) -> Driver:
    return Driver(manager, lambda until: ended, (shown if shown is not None else []).append, nothing_changed)


def test_listeners_and_health_are_real() -> None:
    def operation(port: int) -> Effects[tuple[str, str, str]]:
        listener = yield from result_of(FindListener("localhost", port))
        nobody = yield from result_of(FindListener("localhost", 1))
        verdict = yield from result_of(CheckHealth(Probe("port", f"http://127.0.0.1:{port}")))
        return listener, nobody, verdict.state

    with socket.create_server(("127.0.0.1", 0)) as listener:
        found, nobody, state = driver(None).run(operation(listener.getsockname()[1]))
    assert found.startswith(f"pid {os.getpid()}, ")
    assert (nobody, state) == ("", "healthy")


def test_jobs_and_their_times() -> None:
    def operation() -> Effects[list[Any]]:
        first = yield from result_of(QueueJob("start", "a.service", "ignore-dependencies"))
        second = yield from result_of(QueueJob("stop", "b.service"))
        wait = yield from result_of(WaitForJobs(5.0))
        yield from result_of(ReportStep(Step("a", "done", "started")))
        return [first, second, wait]

    manager, shown = Recorder(), list[Step]()
    until: list[float] = []

    def wait(deadline: float) -> list[Finished]:
        until.append(deadline - time.monotonic())
        return [Finished("/job/1", "a.service", "done")]

    begun = time.monotonic()
    first, second, waited = Driver(manager, wait, shown.append, nothing_changed).run(operation())  # type: ignore[arg-type]
    assert manager.calls == [("start", "a.service", "ignore-dependencies"), ("stop", "b.service", "replace")]
    assert (first.path, second.path) == ("/job/1", "/job/2")
    assert waited.ended == [("/job/1", "done")]
    took = time.monotonic() - begun
    assert 0 <= first.queued_at <= second.queued_at <= waited.now <= took
    assert 5 - took <= until[0] <= 5, "the operation's clock began with the driver"
    assert [step.sentence for step in shown] == ["started"]


def test_a_manager_that_goes_away_ends_the_operation() -> None:
    class Gone(Recorder):
        def start(self, *words: str) -> str:
            raise BusError("systemd refused StartUnit: Connection timed out")

    def operation() -> Effects[None]:
        yield from result_of(QueueJob("start", "a.service"))

    with pytest.raises(BusError, match="timed out"):
        driver(Gone()).run(operation())


@pytest.mark.parametrize("exists", [True, False])
def test_the_target_is_marked_only_where_there_is_one(exists: bool) -> None:
    manager = Recorder(exists)
    mark_target(manager)  # type: ignore[arg-type]
    assert manager.calls == ([("start", "hivematrix.target")] if exists else [])
