"""The steps of an operation on services: what is told of each, and the bookkeeping of jobs that are under way."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from helmd.model.suite.service import Registry
from helmd.systemd.bus import Finished, Manager

StepKind = Literal["begun", "done", "already", "failed", "skipped", "killed", "queued"]
Code = Literal["", "start_failed", "dependency_failed", "port_taken", "timeout", "failed", "bus"]

Work = Generator[float, Sequence[Finished], "OperationResult"]


@dataclass(frozen=True, slots=True)
class Step:
    """What happened to one service. ``sentence`` has no full stop; ``lines`` are its last log lines."""

    service: str
    kind: StepKind
    sentence: str
    code: Code = ""
    seconds: float = 0.0
    hint: str = ""
    lines: tuple[str, ...] = ()

    @property
    def bad(self) -> bool:
        return self.kind in ("failed", "skipped")


@dataclass(frozen=True, slots=True)
class OperationResult:
    """All steps of one operation, in the order in which they ended."""

    steps: tuple[Step, ...]

    @property
    def good(self) -> bool:
        return not any(step.bad for step in self.steps)

    @property
    def cause(self) -> Step | None:
        """The first failure, which is why others were skipped."""
        return next((step for step in self.steps if step.kind == "failed"), None)


@dataclass(frozen=True, slots=True)
class Options:
    """``timeout`` (seconds) bounds the whole operation; None leaves it to each service's own."""

    block: bool = True
    with_dependencies: bool = True
    timeout: float | None = None


@dataclass(slots=True)
class Run:
    """The bookkeeping of one operation."""

    registry: Registry
    manager: Manager
    options: Options
    notify: Callable[[Step], None]
    begun: float = field(default_factory=time.monotonic)
    steps: list[Step] = field(default_factory=list)
    jobs: dict[str, tuple[str, float]] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        self.steps.append(step)
        self.notify(step)

    def dispatch(self, name: str, job: str) -> None:
        self.jobs[job] = (name, time.monotonic())

    @property
    def deadline(self) -> float:
        # systemd has time limits of its own for every job; ours is only for a manager that stopped answering.
        return self.begun + (self.options.timeout if self.options.timeout is not None else 86400.0)

    def next_finished(self) -> Generator[float, Sequence[Finished], list[tuple[str, float, str]] | None]:
        """Our jobs that finished next: service, seconds, systemd's result. None when the time is up, which is told."""
        finished = yield self.deadline
        if not finished and time.monotonic() >= self.deadline:
            self._out_of_time()
            return None
        ours = [(self.jobs.pop(item.job), item.result) for item in finished if item.job in self.jobs]
        return [(name, time.monotonic() - since, result) for (name, since), result in ours]

    @property
    def report(self) -> "OperationResult":
        return OperationResult(tuple(self.steps))

    def _out_of_time(self) -> None:
        for name, since in self.jobs.values():
            waited = time.monotonic() - since
            sentence = f"not done after {waited:.1f} s; systemd goes on with it"
            self.add(Step(name, "failed", sentence, "timeout", waited, f"Look at it: helmctl why {name}"))
        self.jobs.clear()


def quiet(step: Step) -> None:
    """Tells nobody."""


def drive(work: Work, wait: Callable[[float], Sequence[Finished]]) -> OperationResult:
    """Runs WORK, blocking in WAIT, which returns the jobs that finish before a moment."""
    try:
        until = next(work)
        while True:
            until = work.send(wait(until))
    except StopIteration as ended:
        report: OperationResult = ended.value
        return report
