"""Starting, stopping and restarting services: in order, each once those it needs are healthy; each failure explained.

`start`, `stop`, `restart` and `reload` only decide: they yield effects (`effects`) and receive the results. The driver
that performs the effects (`driver`) is what does I/O and blocks.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from helmd.health.target import probe_of, url_host
from helmd.model.suite.composition import dependencies
from helmd.model.suite.dependencies import closure, ready, start_order, stop_order
from helmd.model.suite.names import SUITE_CLUSTER, timer_of, unit_of
from helmd.model.suite.service import Registry, Service
from helmd.model.units.health import NOT_HEALTHY, NOT_YET
from helmd.model.units.program_failures import program_cause
from helmd.model.units.unit_state import (
    BEGAN_SLACK,
    UnitFacts,
    explain,
    foreground_hint,
    last_exit,
    reload_failure,
    retry,
)
from helmd.operations.lifecycle.effects import (
    CheckHealth,
    Effects,
    FindChange,
    FindListener,
    JobMode,
    Pause,
    QueueJob,
    ReadLastLines,
    ReadUnit,
    ResetFailed,
    Verb,
    result_of,
)
from helmd.operations.lifecycle.jobs import Ended, Jobs
from helmd.operations.lifecycle.oneshot import (
    WAITING_FOR_END,
    about_schedule,
    begin_run,
    begin_schedule,
    schedule_begun,
)
from helmd.operations.lifecycle.steps import Code, OperationResult, Options, Step

DEGRADED_CHECK = 0.08
"""Seconds for the health check of a service that has just started, by which a degraded one is reported as such."""
RELOAD_SETTLES = 0.1
"""Seconds after the end of a reload in which a service ends that does not handle its signal, and systemd notices."""
EXPLAINING_LINES = 10
LOOKED_AT = 1_000
"""Number of last lines of a failed start to search for the probe's: the service may print more after it."""
SHOWN = 500
"""Characters of a line that are shown."""


def to_start(registry: Registry, names: Collection[str], with_dependencies: bool = True) -> tuple[str, ...]:
    """Return the services that a start of NAMES concerns, in order."""
    graph = dependencies(registry)
    return start_order(graph, closure(graph, names) if with_dependencies else frozenset(names))


def to_stop(registry: Registry, names: Collection[str]) -> tuple[str, ...]:
    """NAMES, dependents first, without external services, which Helm does not control."""
    return tuple(name for name in stop_order(dependencies(registry), names) if not registry[name].external)


def start(registry: Registry, names: Collection[str], options: Options) -> Effects[OperationResult]:
    """Start NAMES and what they need. Services that need one that failed are skipped."""
    jobs = Jobs(options)
    graph = dependencies(registry)
    order = to_start(registry, names, options.with_dependencies)
    waiting = list(order)
    healthy: set[str] = set()
    joined: set[str] = set()
    """Services of which a start was under way. If that fails, what was wrong may have been corrected meanwhile."""
    causes: dict[str, str] = {}
    """Services that failed or were skipped, with the service whose failure is the cause."""
    while True:
        yield from _skip_unreachable(registry, jobs, waiting, causes)
        eligible = ready(graph, waiting, healthy, order)
        for name in eligible:
            waiting.remove(name)
            before = len(jobs.steps)
            yield from _begin(registry[name], jobs, joined)
            for step in jobs.steps[before:]:
                (causes.update({name: name}) if step.bad else healthy.add(name))
        if not jobs:
            if waiting and eligible:
                continue
            break
        ended = yield from jobs.ended()
        if ended is None:
            for name in waiting:
                yield from jobs.add(Step(name, "skipped", "not started: the time limit was reached", "timeout"))
            break
        for job in ended:
            service = registry[job.service]
            by_schedule = bool(service.schedule) and options.schedules
            step = yield from (schedule_begun if by_schedule else _started)(service, job)
            if step.bad and job.service in joined:
                joined.remove(job.service)
                again = f"the start that was under way failed ({step.sentence}); restarting it"
                yield from jobs.queue(job.service, QueueJob("restart", unit_of(job.service), jobs.mode), again)
                continue
            yield from jobs.add(step)
            (causes.update({job.service: job.service}) if step.bad else healthy.add(job.service))
    return jobs.report


def _skip_unreachable(registry: Registry, jobs: Jobs, waiting: list[str], causes: dict[str, str]) -> Effects[None]:
    for name in list(waiting):
        failed = next((needed for needed in registry[name].depends_on if needed in causes), None)
        if failed is not None:
            waiting.remove(name)
            cause = causes[name] = causes[failed]
            through = "" if cause == failed else f" (through {failed})"
            yield from jobs.add(
                Step(
                    name,
                    "skipped",
                    f"not started, because {cause} failed{through}",
                    "dependency_failed",
                    hint=f"Fix {cause} first: helmctl why {cause}",
                )
            )


def _begin(service: Service, jobs: Jobs, joined: set[str]) -> Effects[None]:
    """Queue a start; if there is nothing to start, add a step with the reason.

    A start that is under way is joined, and the service added to JOINED, unless it began before a change of what it
    reads: then it is restarted.
    """
    name, unit = service.name, unit_of(service.name)
    if service.external:
        verdict = yield from result_of(CheckHealth(probe_of(service)))
        sentence = f"external, {verdict.state}: {verdict.sentence}"
        hint = f"Helm does not start external services. Check {service.url}."
        yield from jobs.add(
            Step(name, "already", sentence)
            if verdict.started
            else Step(name, "failed", sentence, "start_failed", hint=hint)
        )
        return
    facts = yield from result_of(ReadUnit(unit))
    if service.schedule and jobs.options.schedules:
        yield from begin_schedule(service, facts, jobs)
        return
    if service.oneshot and facts.oneshot:
        yield from begin_run(service, facts, jobs)
        return
    if facts.active:
        verdict = yield from result_of(CheckHealth(probe_of(service)))
        sentence = f"running but unhealthy: {verdict.sentence}"
        hint = f"Restart it: helmctl restart {name}"
        yield from jobs.add(
            Step(name, "already", f"already running, {verdict.state}")
            if verdict.started
            else Step(name, "failed", sentence, "start_failed", hint=hint)
        )
        return
    if name in jobs.options.refused:
        yield from jobs.add(jobs.refusal(name))
        return
    if service.port is not None and facts.active_state in ("inactive", "failed"):
        listener = yield from result_of(FindListener(url_host(service), service.port))
        if listener:
            place = "suite.database_port in helm.toml" if name == SUITE_CLUSTER else "services.toml"
            hint = f"Stop that process, or set another port in {place}."
            sentence = f"port {service.port} is in use by {listener}"
            yield from jobs.add(Step(name, "failed", sentence, "port_taken", hint=hint))
            return
    verb: Verb = "start"
    waiting = _waiting_for(service)
    if facts.active_state == "activating" and not facts.awaits_restart:
        began = facts.started_at if facts.main_pid else facts.changed_at
        changed = yield from result_of(FindChange(service, facts, began))
        if changed or facts.need_reload:
            verb = "restart"
            waiting = (
                f"restarting it: a start was under way that began before {changed or 'its unit'} was changed; {waiting}"
            )
        else:
            joined.add(name)
            waiting = f"a start was under way; {waiting}"
    yield from result_of(ResetFailed(unit))
    yield from jobs.queue(name, QueueJob(verb, unit, jobs.mode), waiting)


def _waiting_for(service: Service) -> str:
    if service.oneshot:
        return WAITING_FOR_END
    return f"waiting for {probe_of(service, starting=True).asked}"


def _started(service: Service, job: Ended) -> Effects[Step]:
    """Yield the step for a start job that has ended."""
    if service.oneshot and job.result == "done":
        return Step(service.name, "done", "succeeded", "", job.seconds)
    if job.result == "done":
        sentence = f"started, after {_waiting_for(service)}"
        verdict = yield from result_of(CheckHealth(probe_of(service)._replace(timeout=DEGRADED_CHECK)))
        if verdict.state == "degraded":
            sentence += f"; {verdict.sentence}"
        return Step(service.name, "done", sentence, "", job.seconds)
    facts = yield from result_of(ReadUnit(unit_of(service.name)))
    begun = facts.begun_at - BEGAN_SLACK
    lines = yield from result_of(ReadLastLines(facts.unit, LOOKED_AT, begun, facts.invocation))
    return failure(service, facts, job, lines)


def failure(service: Service, facts: UnitFacts, job: Ended, lines: Sequence[str]) -> Step:
    """Return why a start failed: systemd's result in words, whether systemd will retry, and the last LINES of
    the unit.
    """
    name = job.service
    if job.result == "canceled":
        return Step(name, "failed", "its start was cancelled by another request", "failed", job.seconds)
    sentence = explain(facts, name, service.pre_start)
    shown = [line[:SHOWN] for line in lines if line]
    code: Code = "start_failed"
    # The probe's own line becomes the sentence; the others are the service's.
    if facts.probe_exit.status == 1 and (said := next((line for line in shown if line.startswith(NOT_HEALTHY)), "")):
        sentence, code = f"{name} was {said}", "not_healthy"
        shown = [line for line in shown if line != said and not line.startswith(NOT_YET)]
    if facts.start_exit.failed and shown:
        sentence = f"{sentence}: {shown[-1]}"
    if again := retry(facts, service):
        sentence = f"{sentence}; {again.rstrip('.')}"
    causes = (program_cause(service, facts, shown), foreground_hint(facts))
    hint = " ".join(filter(None, (*causes, f"See: helmctl why {name}; helmctl logs {name}")))
    return Step(name, "failed", sentence, code, job.seconds, hint, tuple(shown[-EXPLAINING_LINES:]))


def stop(registry: Registry, names: Collection[str], options: Options) -> Effects[OperationResult]:
    """Stop NAMES, each after those of NAMES that depend on it."""
    jobs = Jobs(options)
    needed_by: dict[str, list[str]] = {name: [] for name in registry.names}
    for name, needs in dependencies(registry).items():
        for needed in needs:
            needed_by[needed].append(name)
    order = to_stop(registry, names)
    for name in names:
        if registry[name].external:
            yield from jobs.add(Step(name, "already", "external: Helm does not stop it"))
    waiting = list(order)
    stopped: set[str] = {name for name in registry.names if name not in order}
    off: set[str] = set()
    """Services whose timer is stopped, too."""
    while True:
        for name in ready(needed_by, waiting, stopped, order):
            waiting.remove(name)
            facts = yield from result_of(ReadUnit(unit_of(name)))
            if options.schedules and facts.scheduled:
                # Once the manager has this job, the timer starts nothing any more.
                yield from result_of(QueueJob("stop", timer_of(name)))
                off.add(name)
            if not facts.exists or facts.active_state in ("inactive", "failed"):
                sentence = f"not running{about_schedule(name, facts, off)}"
                yield from jobs.add(Step(name, "done" if name in off else "already", sentence))
                stopped.add(name)
                continue
            mode: JobMode = "ignore-dependencies" if registry[name].oneshot else "replace"
            yield from jobs.queue(name, QueueJob("stop", unit_of(name), mode), "stopping")
            if not options.block:
                stopped.add(name)
        if not jobs:
            if waiting:
                continue
            break
        ended = yield from jobs.ended()
        if ended is None:
            break
        for job in ended:
            facts = yield from result_of(ReadUnit(unit_of(job.service)))
            if facts.stopped_at_start or (facts.oneshot and facts.active_state == "failed"):
                # Of a oneshot and a start, systemd takes the end by SIGTERM for a failure. This one was asked for.
                yield from result_of(ResetFailed(facts.unit))
            step = stopped_step(registry[job.service], facts, job)
            yield from jobs.add(replace(step, sentence=step.sentence + about_schedule(job.service, facts, off)))
            stopped.add(job.service)
    return jobs.report


def stopped_step(service: Service, facts: UnitFacts, job: Ended) -> Step:
    """Return the step for a stop job that has ended."""
    if job.result != "done":
        return Step(service.name, "failed", f"its stop job ended with result '{job.result}'", "failed", job.seconds)
    if facts.result == "timeout":
        limit = service.restart.stop_timeout
        sentence = f"did not exit within {limit:g} s of {service.stop_signal} and was killed"
        hint = "If it needs longer, set restart.stop_timeout; if it ends by another signal, stop_signal."
        return Step(service.name, "killed", sentence, "", job.seconds, hint)
    if facts.active_state == "failed" and not facts.oneshot and not facts.stopped_at_start:
        sentence = f"stopped; {explain(facts, service.name, service.pre_start)}"
        return Step(service.name, "done", sentence, "", job.seconds)
    return Step(service.name, "done", "stopped", "", job.seconds)


def restart(registry: Registry, names: Collection[str], options: Options) -> Effects[OperationResult]:
    """Restart NAMES one after another in starting order, start those that are not running; end at the first failure."""
    jobs = Jobs(options)
    order = start_order(dependencies(registry), frozenset(names))
    for place, name in enumerate(order, 1):
        service = registry[name]
        if service.external and len(names) > 1:
            yield from jobs.add(Step(name, "already", "external: Helm does not restart it"))
            continue
        if service.external:
            yield from jobs.add(Step(name, "failed", "external: Helm does not restart it", "failed"))
            break
        if service.schedule and options.schedules:
            yield from jobs.add(Step(name, "already", "runs by its schedule"))
            continue
        if name in options.refused:
            # It would not come back.
            yield from jobs.add(replace(jobs.refusal(name), sentence=f"not restarted: {options.refused[name]}"))
            continue
        unmet = yield from _unmet(registry, service, options)
        if unmet is not None:
            yield from jobs.add(unmet)
            yield from _leave(order[place:], f", because {name} was not", jobs)
            break
        yield from result_of(ResetFailed(unit_of(name)))
        # Otherwise a second run of a oneshot would restart what depends on it (Requires=).
        mode: JobMode = "ignore-dependencies" if service.oneshot else jobs.mode
        yield from jobs.queue(name, QueueJob("restart", unit_of(name), mode), _waiting_for(service))
        while jobs:
            ended = yield from jobs.ended()
            if ended is None:
                yield from _leave(order[place:], ": the time limit was reached", jobs)
                return jobs.report
            for job in ended:
                step = yield from _started(service, job)
                yield from jobs.add(step if step.bad else _as_restart(step))
        if jobs.steps[-1].bad:
            yield from _leave(order[place:], f", because {name} failed", jobs)
            break
    return jobs.report


def _leave(names: Iterable[str], why: str, jobs: Jobs) -> Effects[None]:
    """Say of services that a restart did not come to that they are as they were."""
    for name in names:
        yield from jobs.add(Step(name, "skipped", f"not restarted{why}; it is as it was", "failed"))


def _as_restart(step: Step) -> Step:
    return replace(step, sentence=step.sentence.replace("started", "restarted", 1))


def _unmet(registry: Registry, service: Service, options: Options) -> Effects[Step | None]:
    """Yield a failed step for a dependency that is not running: a restart would then only stop the service."""
    if not options.with_dependencies:
        return None
    for needed in service.depends_on:
        other = registry[needed]
        if other.external:
            up = (yield from result_of(CheckHealth(probe_of(other)))).started
        else:
            up = (yield from result_of(ReadUnit(unit_of(needed)))).active
        if not up:
            sentence = f"not restarted, because {needed} {'has not succeeded' if other.oneshot else 'is not running'}"
            hint = f"Start it first: helmctl start {needed}; or restart with --no-deps"
            return Step(service.name, "failed", sentence, "dependency_failed", hint=hint)
    return None


def reload(registry: Registry, names: Collection[str], options: Options) -> Effects[OperationResult]:
    """Make NAMES reread their own configuration, where their units have an ExecReload=."""
    jobs = Jobs(options)
    for name in start_order(dependencies(registry), frozenset(names)):
        facts = yield from result_of(ReadUnit(unit_of(name)))
        if facts.active_state != "active":
            step = Step(name, "failed", "not running", "failed", hint=f"Start it: helmctl start {name}")
            yield from jobs.add(step)
        elif not facts.can_reload:
            sentence = "its unit has no ExecReload="
            hint = f"Set reload_command in services.toml, or restart it: helmctl restart {name}"
            step = Step(name, "failed", sentence, "failed", hint=hint)
            yield from jobs.add(step)
        else:
            yield from jobs.queue(name, QueueJob("reload", unit_of(name)), "reloading")
    while jobs:
        for job in (yield from jobs.ended()) or ():
            yield from jobs.add((yield from _reloaded(registry[job.service], job)))
    return jobs.report


def _reloaded(service: Service, job: Ended) -> Effects[Step]:
    """Yield the step for a reload job that has ended."""
    name = service.name
    yield from result_of(Pause(RELOAD_SETTLES))
    facts = yield from result_of(ReadUnit(unit_of(name)))
    if job.result == "done" and facts.active:
        return Step(name, "done", "reloaded", "", job.seconds)
    if not facts.active:
        # Such as by a signal that it does not handle.
        ended = last_exit(facts) or "ended"
        hint = f"If it can't reload, leave reload_command out. To start it, run: helmctl start {name}"
        return Step(name, "failed", f"it {ended} when it was reloaded", "failed", job.seconds, hint)
    command = facts.reload_exit
    lines: Sequence[str] = ()
    if command.failed:
        began = command.began - BEGAN_SLACK
        lines = yield from result_of(ReadLastLines(facts.unit, EXPLAINING_LINES, began, facts.invocation))
    said = f": {lines[-1][:SHOWN]}" if lines else ""
    reason = reload_failure(facts, service.reload_command) or f"its reload failed (job result '{job.result}')"
    return Step(name, "failed", f"{reason}{said}; it still runs as before", "failed", job.seconds)


def dry_run(
    registry: Registry, names: Sequence[str], verb: str, with_dependencies: bool, schedules: bool = False
) -> Mapping[str, str]:
    """Return what VERB would do to which services, or with SCHEDULES to their schedules, in order."""
    if verb == "stop":
        return dict.fromkeys(to_stop(registry, names), "stop")
    order = to_start(registry, names, with_dependencies and verb == "start")
    return {name: _would(registry[name], verb, schedules) for name in order}


def _would(service: Service, verb: str, schedules: bool) -> str:
    if service.schedule and schedules:
        return "begin its schedule" if verb == "start" else "leave it to its schedule"
    return f"{verb}, then {_waiting_for(service).replace('waiting', 'wait', 1)}"
