"""Starting and stopping services that run to their end, and the schedules of those that have one."""

from collections.abc import Collection

from helmd.model.suite.names import timer_of, unit_of
from helmd.model.suite.service import Service
from helmd.model.units.unit_state import UnitFacts, next_run, oneshot_sentence
from helmd.operations.lifecycle.effects import Effects, QueueJob, ReadUnit, ResetFailed, result_of
from helmd.operations.lifecycle.jobs import Ended, Jobs
from helmd.operations.lifecycle.steps import Step

WAITING_FOR_END = "waiting for its end"


def begin_run(service: Service, facts: UnitFacts, jobs: Jobs) -> Effects[None]:
    """Start a oneshot, or join its run. A file that it reads and that was changed meanwhile does not end that run."""
    name, unit = service.name, unit_of(service.name)
    if facts.active:
        sentence = f"{oneshot_sentence(facts)}; to run it again: helmctl restart {name}"
        yield from jobs.add(Step(name, "already", sentence))
        return
    runs = facts.runs or facts.active_state == "activating"
    if not runs and name in jobs.options.refused:
        yield from jobs.add(jobs.refusal(name))
        return
    yield from result_of(ResetFailed(unit))
    waiting = f"it runs already; {WAITING_FOR_END}" if runs else WAITING_FOR_END
    yield from jobs.queue(name, QueueJob("start", unit, jobs.mode), waiting)


def begin_schedule(service: Service, facts: UnitFacts, jobs: Jobs) -> Effects[None]:
    name = service.name
    if facts.scheduled:
        yield from jobs.add(Step(name, "already", _schedule_on(facts)))
    elif name in jobs.options.refused:
        yield from jobs.add(jobs.refusal(name))
    else:
        yield from jobs.queue(name, QueueJob("start", timer_of(name)), "beginning its schedule")


def schedule_begun(service: Service, job: Ended) -> Effects[Step]:
    """Yield the step for the start of a timer."""
    if job.result != "done":
        hint = f"See: systemctl --user status {timer_of(service.name)}"
        return Step(service.name, "failed", f"its timer did not start: {job.result}", "failed", job.seconds, hint)
    facts = yield from result_of(ReadUnit(unit_of(service.name)))
    return Step(service.name, "done", _schedule_on(facts), "", job.seconds)


def _schedule_on(facts: UnitFacts) -> str:
    return "; ".join(filter(None, ("its schedule is on", next_run(facts))))


def about_schedule(name: str, facts: UnitFacts, off: Collection[str]) -> str:
    """Return what the stop of a service means for its schedule, which it ends for those in OFF.

    Empty for one without.
    """
    if name in off:
        return "; its schedule is off"
    if not facts.scheduled:
        return ""
    when = f", {next_run(facts)}" if facts.next_run else ""
    return f"; its schedule goes on{when} (to end it: helmctl disable --now {name})"
