"""Performs what operations ask for: D-Bus calls, health checks, reading /proc and the journal. Blocks; for helmctl."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from helmd.model.suite.names import TARGET
from helmd.model.suite.service import Service
from helmd.model.units.health import PROCESS_RUNS
from helmd.model.units.unit_state import UnitFacts
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
    Returned,
    WaitForJobs,
)
from helmd.operations.lifecycle.steps import Step
from helmd.systemd.bus import Finished, Manager


class Driver:
    """Runs one operation.

    ``wait`` waits for finished jobs until a time (time.monotonic()) and returns them; ``report`` shows a step.
    ``changed_since`` is `changes.changed_since` for the suite's directories.
    """

    def __init__(
        self,
        manager: Manager,
        wait: Callable[[float], Sequence[Finished]],
        report: Callable[[Step], None],
        changed_since: Callable[[Service, UnitFacts, float], str],
    ) -> None:
        self._manager, self._wait, self._report = manager, wait, report
        self._changed_since = changed_since
        self._began = time.monotonic()

    def run(self, operation: Effects[Returned]) -> Returned:
        """Return what OPERATION returns. Raises BusError."""
        try:
            effect = next(operation)
            while True:
                effect = operation.send(self._perform(effect))
        except StopIteration as ended:
            returned: Returned = ended.value
            return returned

    def _perform(self, effect: Effect[Any]) -> Any:
        match effect:
            case ReadUnit(unit):
                return self._manager.facts(unit)
            case CheckHealth(probe):
                if probe.check == "process":
                    return PROCESS_RUNS
                from helmd.health.probe import run_probe

                return run_probe(probe)
            case FindListener(host, port):
                from helmd.health.listeners import conflict

                return str(conflict(host, port) or "")
            case FindChange(service, facts, since):
                return self._changed_since(service, facts, since)
            case ReadLastLines(unit, count, since, invocation):
                from helmd.journal.lines import last_lines

                return [line.message for line in last_lines(unit, count, since, invocation=invocation)]
            case ResetFailed(unit):
                return self._manager.reset_failed(unit)
            case QueueJob():
                return Job(self._queue(effect), self._now())
            case WaitForJobs(until):
                ended = [JobResult(job.job, job.result) for job in self._wait(self._began + until)]
                return JobWait(ended, self._now())
            case Pause(seconds):
                return time.sleep(seconds)
            case ReportStep(step):
                return self._report(step)
            case _:
                raise TypeError(f"no effect: {effect!r}")

    def _queue(self, effect: QueueJob) -> str:
        match effect.verb:
            case "start":
                return self._manager.start(effect.unit, effect.mode)
            case "restart":
                return self._manager.restart(effect.unit, effect.mode)
            case "stop":
                return self._manager.stop(effect.unit, effect.mode)
            case "reload":
                return self._manager.reload(effect.unit)

    def _now(self) -> float:
        return time.monotonic() - self._began


def mark_target(manager: Manager) -> None:
    """Make the target active, so that ``systemctl --user stop hivematrix.target`` stops the suite."""
    if manager.facts(TARGET).exists:
        manager.start(TARGET)
