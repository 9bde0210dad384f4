"""The jobs of one operation that are in progress, and the steps of those that have ended."""

from dataclasses import dataclass, field
from typing import NamedTuple

from helmd.operations.lifecycle.effects import Effects, Job, JobMode, QueueJob, ReportStep, WaitForJobs, result_of
from helmd.operations.lifecycle.steps import OperationResult, Options, Step

_NO_TIMEOUT = 86400.0
"""Seconds. systemd has a time limit of its own for every job; this one is only for a manager that stopped answering."""


class Ended(NamedTuple):
    """The end of a service's job: how many seconds after it was queued, and systemd's result."""

    service: str
    seconds: float
    result: str


@dataclass(slots=True)
class Jobs:
    """The jobs and the steps of one operation so far."""

    options: Options
    steps: list[Step] = field(default_factory=list)
    _services: dict[str, str] = field(default_factory=dict)
    """Services by the object path of their job."""
    _queued_at: dict[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Return whether any job is in progress."""
        return bool(self._services)

    @property
    def report(self) -> OperationResult:
        return OperationResult(tuple(self.steps))

    @property
    def mode(self) -> JobMode:
        """The mode in which jobs are queued."""
        return "replace" if self.options.with_dependencies else "ignore-dependencies"

    def refusal(self, name: str) -> Step:
        """Return the step for a service that can't be started as it is configured."""
        hint = f"Correct that, then run: helmctl start {name}"
        return Step(name, "failed", self.options.refused[name], "start_failed", hint=hint)

    def add(self, step: Step) -> Effects[None]:
        """Record and report STEP."""
        self.steps.append(step)
        yield from result_of(ReportStep(step))

    def queue(self, service: str, effect: QueueJob, waiting_for: str) -> Effects[None]:
        """Queue a job for SERVICE. Without blocking its step ends with that; else `ended` returns its end."""
        job: Job = yield from result_of(effect)
        if not self.options.block:
            yield from self.add(Step(service, "queued", f"{effect.verb} queued"))
            return
        self._services[job.path], self._queued_at[job.path] = service, job.queued_at
        yield from result_of(ReportStep(Step(service, "in_progress", waiting_for)))

    def ended(self) -> Effects[list[Ended] | None]:
        """Yield those of our jobs that have ended since the last call; waits for the end of any job.

        None at the operation's time limit; then every job in progress has become a failed step.
        """
        until = _NO_TIMEOUT if self.options.timeout is None else self.options.timeout
        ended, now = yield from result_of(WaitForJobs(until))
        if not ended and now >= until:
            yield from self._give_up(now)
            return None
        ours = [job for job in ended if job.path in self._services]
        return [Ended(self._services.pop(path), now - self._queued_at.pop(path), result) for path, result in ours]

    def _give_up(self, now: float) -> Effects[None]:
        for path, service in self._services.items():
            seconds = now - self._queued_at[path]
            sentence = f"not finished after {seconds:.1f} s; systemd continues with it"
            yield from self.add(Step(service, "failed", sentence, "timeout", seconds, f"See: helmctl why {service}"))
        self._services.clear()
        self._queued_at.clear()
