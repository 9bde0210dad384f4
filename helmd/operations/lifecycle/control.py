"""Starting, stopping and restarting services: in order, each gated on its own health, each failure explained.

`start`, `stop`, `restart` and `reload` are generators. They decide what to dispatch and yield the moment (on
time.monotonic()'s clock) until which they want to hear of finished jobs; whoever drives them sends those in. So the
same code serves helmctl, which blocks, and helmd, which doesn't.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from helmd.health.probe import run_probe
from helmd.health.target import probe_of
from helmd.journal.lines import last_lines
from helmd.model.printable import printable
from helmd.model.suite.composition import dependencies
from helmd.model.suite.dependencies import closure, ready, start_order, stop_order
from helmd.model.suite.names import SUITE_CLUSTER, TARGET, unit_of
from helmd.model.suite.service import Registry, Service
from helmd.model.units.unit_state import UnitFacts, explain, retry
from helmd.operations.lifecycle.steps import Options, Run, Step, StepKind, Work, quiet
from helmd.systemd.bus import Manager
from helmd.systemd.listeners import holder_of

QUICK_LOOK = 0.08
"""How long (seconds) a service just started is asked for its health, to show it as degraded."""
EXPLAINING_LINES = 10


def to_start(registry: Registry, names: Collection[str], with_dependencies: bool = True) -> tuple[str, ...]:
    """What a start of NAMES touches, in order."""
    graph = dependencies(registry)
    return start_order(graph, closure(graph, names) if with_dependencies else frozenset(names))


def to_stop(registry: Registry, names: Collection[str]) -> tuple[str, ...]:
    """NAMES, dependents first; external services are not ours to stop."""
    return tuple(name for name in stop_order(dependencies(registry), names) if not registry[name].external)


def start(
    registry: Registry,
    names: Collection[str],
    manager: Manager,
    options: Options,
    notify: Callable[[Step], None] = quiet,
) -> Work:
    """Starts NAMES and what they need. Those whose dependency fails are left alone and say so."""
    run = Run(registry, manager, options, notify)
    graph = dependencies(registry)
    order = to_start(registry, names, options.with_dependencies)
    waiting = list(order)
    healthy: set[str] = set()
    failed: dict[str, str] = {}
    while True:
        _skip_unreachable(run, waiting, failed)
        eligible = ready(graph, waiting, healthy, order)
        for name in eligible:
            waiting.remove(name)
            if step := _begin(run, registry[name], options.with_dependencies):
                run.add(step)
                (failed.update({name: name}) if step.bad else healthy.add(name))
        if not run.jobs:
            if waiting and eligible:
                continue
            break
        finished = yield from run.next_finished()
        if finished is None:
            for name in waiting:
                run.add(Step(name, "skipped", "not started, because the time was up", "timeout"))
            break
        for name, seconds, result in finished:
            step = _started(run, registry[name], seconds, result)
            run.add(step)
            (failed.update({name: name}) if step.bad else healthy.add(name))
    return run.report


def _skip_unreachable(run: Run, waiting: list[str], failed: dict[str, str]) -> None:
    for name in list(waiting):
        broken = next((needed for needed in run.registry[name].depends_on if needed in failed), None)
        if broken is not None:
            waiting.remove(name)
            root = failed[broken]
            failed[name] = root
            via = "" if root == broken else f" (through {broken})"
            hint = f"Mend {root} first: helmctl why {root}"
            run.add(Step(name, "skipped", f"not started, because {root} failed{via}", "dependency_failed", hint=hint))


def _begin(run: Run, service: Service, with_dependencies: bool) -> Step | None:
    """Dispatches a start; a step when there is nothing to wait for."""
    if service.external:
        verdict = run_probe(probe_of(service))
        if verdict.started:
            return Step(service.name, "already", f"external, {verdict.state}: {verdict.sentence}")
        hint = f"It is not Helm's to start; see that {service.url} answers."
        return Step(
            service.name, "failed", f"external and {verdict.state}: {verdict.sentence}", "start_failed", hint=hint
        )
    unit = unit_of(service.name)
    facts = run.manager.facts(unit)
    if facts.active:
        verdict = run_probe(probe_of(service))
        if verdict.started:
            return Step(service.name, "already", f"already running, {verdict.state}")
        hint = f"Restart it: helmctl restart {service.name}"
        return Step(service.name, "failed", f"runs but is unhealthy: {verdict.sentence}", "start_failed", 0, hint)
    if service.port is not None and facts.active_state in ("inactive", "failed") and (h := holder_of(service.port)):
        place = "suite.database_port in helm.toml" if service.name == SUITE_CLUSTER else "services.toml"
        hint = f"Stop that process, or set another port: {place}."
        return Step(service.name, "failed", f"port {service.port} is taken by {h}", "port_taken", 0, hint)
    run.manager.reset_failed(unit)
    job = run.manager.start(unit, "replace" if with_dependencies else "ignore-dependencies")
    if not run.options.block:
        return Step(service.name, "queued", "start queued")
    run.dispatch(service.name, job)
    run.notify(Step(service.name, "begun", f"waiting for {probe_of(service, starting=True).asked}"))
    return None


def _started(run: Run, service: Service, seconds: float, result: str) -> Step:
    if result == "done":
        probe = probe_of(service, starting=True)
        sentence = f"started, after waiting for {probe.asked}"
        verdict = run_probe(probe_of(service)._replace(timeout=QUICK_LOOK))
        if verdict.state == "degraded":
            sentence += f"; {verdict.sentence}"
        return Step(service.name, "done", sentence, "", seconds)
    return failure(run.manager.facts(unit_of(service.name)), service.name, seconds, result)


def failure(facts: UnitFacts, name: str, seconds: float, result: str) -> Step:
    """Why a start did not work: systemd's result in words, what it will do by itself, the last lines."""
    if result == "canceled":
        return Step(name, "failed", "its start was cancelled by another request", "failed", seconds)
    sentence = explain(facts, name)
    said = [line for line in last_lines(facts.unit, EXPLAINING_LINES, facts.started_at - 1) if line.message]
    lines = tuple(printable(line.message)[:500] for line in said)
    if facts.probe_exit[1] == 1 and (notified := next((line for line in lines if line.startswith("not healthy")), "")):
        sentence = f"{name} was {notified}"
        lines = tuple(line for line in lines if line != notified)
    if facts.start_exit[1] and lines:
        sentence = f"{sentence}: {lines[-1]}"
    if again := retry(facts):
        sentence = f"{sentence}; {again.rstrip('.')}"
    hint = f"See more: helmctl why {name}; helmctl logs {name}"
    return Step(name, "failed", sentence, "start_failed", seconds, hint, lines)


def stop(
    registry: Registry,
    names: Collection[str],
    manager: Manager,
    options: Options,
    notify: Callable[[Step], None] = quiet,
) -> Work:
    """Stops NAMES, each after those of NAMES that depend on it."""
    run = Run(registry, manager, options, notify)
    needed_by: dict[str, list[str]] = {name: [] for name in registry.names}
    for name, needs in dependencies(registry).items():
        for needed in needs:
            needed_by[needed].append(name)
    order = to_stop(registry, names)
    for name in names:
        if registry[name].external:
            run.add(Step(name, "already", "external: it is not Helm's to stop"))
    waiting = list(order)
    stopped: set[str] = {name for name in registry.names if name not in order}
    while True:
        for name in ready(needed_by, waiting, stopped, order):
            waiting.remove(name)
            facts = manager.facts(unit_of(name))
            if not facts.exists or facts.active_state in ("inactive", "failed"):
                run.add(Step(name, "already", "not running"))
                stopped.add(name)
                continue
            job = manager.stop(unit_of(name))
            if options.block:
                run.dispatch(name, job)
                run.notify(Step(name, "begun", "stopping"))
            else:
                run.add(Step(name, "queued", "stop queued"))
                stopped.add(name)
        if not run.jobs:
            if waiting:
                continue
            break
        finished = yield from run.next_finished()
        if finished is None:
            break
        for name, seconds, result in finished:
            run.add(_stopped(manager, registry[name], seconds, result))
            stopped.add(name)
    return run.report


def _stopped(manager: Manager, service: Service, seconds: float, result: str) -> Step:
    facts = manager.facts(unit_of(service.name))
    if result != "done":
        return Step(service.name, "failed", f"its stop ended with result '{result}'", "failed", seconds)
    if facts.result == "timeout":
        limit = service.restart.stop_timeout
        sentence = f"did not end on SIGTERM within {limit:g} s and was killed"
        return Step(service.name, "killed", sentence, "", seconds)
    if facts.active_state == "failed":
        return Step(service.name, "done", f"stopped; {explain(facts, service.name)}", "", seconds)
    return Step(service.name, "done", "stopped", "", seconds)


def restart(
    registry: Registry,
    names: Collection[str],
    manager: Manager,
    options: Options,
    notify: Callable[[Step], None] = quiet,
) -> Work:
    """Restarts NAMES one after another in starting order, or starts one that doesn't run; ends at the first failure."""
    run = Run(registry, manager, options, notify)
    for name in start_order(dependencies(registry), frozenset(names)):
        service = registry[name]
        if service.external and len(names) > 1:
            run.add(Step(name, "already", "external: it is not Helm's to restart"))
            continue
        if service.external:
            run.add(Step(name, "failed", "external: it is not Helm's to restart", "failed"))
            break
        if step := _unmet(run, service):
            run.add(step)
            break
        manager.reset_failed(unit_of(name))
        job = manager.restart(unit_of(name), "replace" if options.with_dependencies else "ignore-dependencies")
        if not options.block:
            run.add(Step(name, "queued", "restart queued"))
            continue
        run.dispatch(name, job)
        run.notify(Step(name, "begun", f"waiting for {probe_of(service, starting=True).asked}"))
        while run.jobs:
            finished = yield from run.next_finished()
            if finished is None:
                return run.report
            for _, seconds, result in finished:
                step = _started(run, service, seconds, result)
                run.add(step if step.bad else _renamed(step, "started", "restarted"))
        if run.steps[-1].bad:
            break
    return run.report


def _renamed(step: Step, word: str, other: str) -> Step:
    return Step(step.service, step.kind, step.sentence.replace(word, other, 1), step.code, step.seconds)


def _unmet(run: Run, service: Service) -> Step | None:
    """A dependency that isn't up, without which a restart would only take the service away."""
    if not run.options.with_dependencies:
        return None
    for needed in service.depends_on:
        other = run.registry[needed]
        up = run_probe(probe_of(other)).started if other.external else run.manager.facts(unit_of(needed)).active
        if not up:
            sentence = f"not restarted, because {needed} is not running"
            hint = f"Start it first: helmctl start {needed}; or restart with --no-deps"
            return Step(service.name, "failed", sentence, "dependency_failed", 0, hint)
    return None


def reload(
    registry: Registry,
    names: Collection[str],
    manager: Manager,
    options: Options,
    notify: Callable[[Step], None] = quiet,
) -> Work:
    """Makes NAMES read their own configuration anew, where their units know how."""
    run = Run(registry, manager, options, notify)
    for name in start_order(dependencies(registry), frozenset(names)):
        properties = manager.properties(unit_of(name))
        if properties.get("ActiveState") != "active":
            run.add(Step(name, "failed", "not running", "failed", hint=f"Start it: helmctl start {name}"))
            continue
        if not properties.get("CanReload"):
            run.add(Step(name, "failed", "can't reload", "failed", hint=f"Restart it: helmctl restart {name}"))
            continue
        job = manager.reload(unit_of(name))
        if not options.block:
            run.add(Step(name, "queued", "reload queued"))
            continue
        run.dispatch(name, job)
    while run.jobs:
        finished = yield from run.next_finished()
        for name, seconds, result in finished or ():
            kind: StepKind = "done" if result == "done" else "failed"
            sentence = "reloaded" if kind == "done" else f"its reload ended with result '{result}'"
            run.add(Step(name, kind, sentence, "" if kind == "done" else "failed", seconds))
    return run.report


def mark_target(manager: Manager) -> None:
    """Makes the target active, so that plain ``systemctl --user stop hivematrix.target`` stops all."""
    if manager.facts(TARGET).exists:
        manager.start(TARGET)


def dry_run(registry: Registry, names: Sequence[str], verb: str, with_dependencies: bool) -> Mapping[str, str]:
    """What VERB would touch, in order, with what it would wait for."""
    if verb == "stop":
        return dict.fromkeys(to_stop(registry, names), "stop")
    order = to_start(registry, names, with_dependencies and verb == "start")
    return {name: f"{verb}, then wait for {probe_of(registry[name], starting=True).asked}" for name in order}
