"""``helmctl why``: a paragraph about a service: its state, since when, the cause of a failure, what to do."""

import re
import time
from collections.abc import Sequence

from helmd.health.listeners import conflict, holder_of
from helmd.health.probe import NOTHING_LISTENS, elsewhere
from helmd.health.target import probe_of, url_host
from helmd.journal.lines import PrintedLine, last_lines
from helmd.model.counted import counted
from helmd.model.layout import Layout
from helmd.model.suite.composition import dependencies
from helmd.model.suite.dependencies import closure, start_order
from helmd.model.suite.service import Registry
from helmd.model.units.program_failures import program_cause
from helmd.model.units.python_failures import environment_cause
from helmd.model.units.unit_state import (
    BEGAN_SLACK,
    UnitFacts,
    explain,
    foreground_hint,
    last_exit,
    next_run,
    retry,
)
from helmd.operations.configuration.ports import privileged_ports
from helmd.operations.diagnostics.sandbox import sandbox_causes
from helmd.operations.monitoring.status import View, observe_services
from helmd.systemd.bus import Manager

LINES = 8
CAUSE_LINES = 60
"""Number of lines that are searched for the cause of a failure."""
_RUN = 400
"""Maximum number of lines of a run that are searched for its first error."""
_BEGINNINGS = {"running": "is ", "scheduled": "is scheduled: ", "succeeded": ""}
"""What comes before the sentence about a oneshot, by its state."""
_ERROR = re.compile(r"\b(?:ERROR|CRITICAL|FATAL|SEVERE|PANIC)\b|\b\w*(?:Error|Exception): |^Traceback ")
_EXCEPTION = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): ")


def since(then: float, now: float) -> str:
    """Return how long ago THEN was, in seconds since the epoch: "just now", "for 1 second", "for 2 days"."""
    seconds = max(0, int(now - then))
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            return f"for {counted(seconds // size, unit)}"
    return "just now"


def _times(count: int) -> str:
    return "once" if count == 1 else counted(count, "time")


def why(name: str, registry: Registry, manager: Manager, layout: Layout) -> tuple[str, Sequence[str]]:
    """Return the paragraph, and the last log lines of the service that it is about."""
    graph = dependencies(registry)
    order = start_order(graph, closure(graph, [name])) if name in registry else (name,)
    views = {view.service.name: view for view in observe_services(registry, order, manager, layout)}
    view, now = views[name], time.time()
    broken = next((views[other] for other in order if other != name and not views[other].good), None)
    sentences = [_now(view, now)]
    lines: Sequence[str] = ()
    if not view.good and broken is not None:
        sentences.append(f"It depends on {broken.service.name}: {_now(broken, now)}")
        more, lines = _failure(broken, now, manager)
        sentences += more
    elif not view.good:
        more, lines = _failure(view, now, manager)
        sentences += more
    else:
        sentences += _detail(view, now)
        if broken is not None:
            sentences.append(f"However, it depends on {broken.service.name}: {_now(broken, now)}")
    return " ".join(sentence for sentence in sentences if sentence), lines


def lines_of_run(facts: UnitFacts) -> Sequence[PrintedLine]:
    """Return the last lines that a unit has printed in its last run."""
    return last_lines(facts.unit, _RUN, facts.begun_at - BEGAN_SLACK, invocation=facts.invocation)


def _failure(view: View, now: float, manager: Manager) -> tuple[list[str], Sequence[str]]:
    """Return what more to say of a service that does not work, and its last log lines."""
    facts = view.facts
    if view.blocked:
        return [f"{view.blocked}."], ()
    printed: Sequence[PrintedLine] = ()
    if not view.service.external and facts.exists and view.word != "stopped":
        printed = lines_of_run(facts)
        if view.word == "flapping" and not facts.awaits_restart:
            # This run has just begun; the reason is in the previous one.
            earlier = facts.begun_at - view.service.slowest_start - view.service.restart.delay
            printed = last_lines(facts.unit, _RUN, earlier)
    ending = [line.message for line in printed[-CAUSE_LINES:]]
    sentences = [*_detail(view, now), *_sandbox(view, ending, manager)]
    if view.word in ("failed", "flapping"):
        sentences += [environment_cause(view.service, ending), foreground_hint(facts)]
    if view.word in ("failed", "flapping", "unhealthy"):
        sentences.append(program_cause(view.service, facts, ending))
    shown = of_this_run(printed)
    stamps = [time.strftime("%H:%M:%S", time.localtime(line.seconds)) for line in shown]
    return [*filter(None, sentences), _advice(view)], [
        f"{at} {line.message[:300]}" for at, line in zip(stamps, shown, strict=True)
    ]


def _stopped(then: float, now: float) -> str:
    return f" {since(then, now)}" if then and now - then >= 1 else ""


def _now(view: View, now: float) -> str:
    facts, name = view.facts, view.service.name
    changed = f" {since(facts.changed_at, now)}" if facts.changed_at else ""
    if view.service.external:
        return f"{name} is external and {view.verdict.state}: {view.verdict.sentence}."
    if not facts.exists:
        return f"{name} has no unit installed."
    if facts.oneshot and view.good:
        return f"{name} {_BEGINNINGS[view.word]}{view.verdict.sentence}."
    if view.word in ("healthy", "degraded", "unhealthy", "running"):
        running = f"{name} is running (pid {facts.main_pid}) {since(facts.active_since, now)}"
        return f"{running}, {view.word}: {view.verdict.sentence}."
    if view.word == "flapping":
        again = (
            f"systemd has restarted it {_times(facts.restarts)}" if facts.restarts else "systemd is about to restart it"
        )
        return f"{name} is flapping: {again}, and {explain(facts, name, view.service.pre_start)}."
    if view.word == "failed":
        return f"{name} has failed{changed}: {explain(facts, name, view.service.pre_start)}."
    if view.word == "stopped":
        ended = f"; its last run {last_exit(facts)}" if last_exit(facts) else ""
        if ended and facts.result == "success" and facts.exit_status:
            # SuccessExitStatus= in systemd.service(5).
            ended += " (a clean exit)"
        return f"{name} is stopped{_stopped(facts.changed_at, now)}{ended}."
    return f"{name} is {view.word}{changed}."


def _detail(view: View, now: float) -> list[str]:
    facts = view.facts
    sentences = []
    if facts.restarts and view.word != "flapping":
        sentences.append(f"systemd has restarted it {_times(facts.restarts)} since it was last started manually.")
    if view.unregistered:
        sentences.append("It is not in services.toml; Helm shows it, but does not manage it.")
    if facts.drop_ins:
        sentences.append(f"Its unit has the drop-in {', '.join(facts.drop_ins)}.")
    if facts.need_reload:
        sentences.append("Its unit file has changed since systemd loaded it; run: systemctl --user daemon-reload.")
    if view.word == "failed" and (again := next_run(facts)):
        sentences.append(f"By its schedule: {again}.")
    sentences += _port(view)
    if again := retry(facts, None if view.unregistered else view.service):
        sentences.append(again[0].upper() + again[1:])
    return sentences


def _sandbox(view: View, printed: Sequence[str], manager: Manager) -> list[str]:
    """Return what of its sandbox it may have failed by."""
    facts = view.facts
    if view.service.external or not facts.exists or view.word in ("stopped", "starting", "stopping"):
        return []
    found = sandbox_causes(view.service, facts, printed, manager)
    return [f"Its sandbox may be the cause: {found[0]}", *map(str, found[1:])] if found else []


def _port(view: View) -> list[str]:
    """Return who else listens on its port, or where it listens instead."""
    service, facts = view.service, view.facts
    if service.port is None or service.external:
        return []
    if facts.active:
        listening = view.word != "unhealthy" or not view.verdict.sentence.startswith(NOTHING_LISTENS)
        where = elsewhere(probe_of(service), listening, facts.control_group).removeprefix("; ")
        return [f"{where[0].upper()}{where[1:]}."] if where else []
    if holder := conflict(url_host(service), service.port):
        return [] if holder.unit == facts.unit else [f"Its port {service.port} is in use by {holder}."]
    if privileged := next(privileged_ports([(service.port, facts.unit)]), None):
        return [f"{privileged.sentence}; to allow it, run: {privileged.fix}."]
    if view.word in ("failed", "flapping") and (holder := holder_of(service.port)) and holder.unit != facts.unit:
        return [
            f"At another address, port {service.port} is in use by {holder}: a program that listens on all addresses"
            " can't have it then."
        ]
    return []


def _advice(view: View) -> str:
    name = view.service.name
    if view.service.external:
        return f"Check {view.service.url}; Helm does not control external services."
    if not view.facts.exists:
        return "To install it, run: helmctl apply."
    if view.word == "stopped" and view.service.schedule:
        return f"To begin its schedule, run: helmctl enable --now {name}; to run it once: helmctl start {name}."
    if view.word == "stopped":
        return f"To start it, run: helmctl start {name}."
    if view.word == "unhealthy":
        return f"Check its log (helmctl logs {name}); to restart it, run: helmctl restart {name}."
    if view.word in ("failed", "flapping"):
        return f"Fix the cause (see the lines below), then run: helmctl restart {name}."
    return ""


def of_this_run(lines: Sequence[PrintedLine]) -> Sequence[PrintedLine]:
    """Return the last of LINES; from the first error on, if that is earlier, since what follows is mostly its
    consequence.
    """
    first = next((number for number, line in enumerate(lines) if _ERROR.search(line.message)), len(lines))
    if first >= len(lines) - LINES:
        return lines[-LINES:]
    half = LINES // 2
    return [*lines[first : first + half], *lines[-half:]] if first + half < len(lines) - half else lines[first:]


def cause_line(lines: Sequence[str]) -> str:
    """Return the one of LINES that most likely says why a run failed: its last exception, else its last error; else
    empty.
    """
    errors = [line for line in lines if _ERROR.search(line) and not line.startswith("Traceback ")]
    return next((line.strip() for line in reversed(errors) if _EXCEPTION.match(line)), "") or (
        errors[-1].strip() if errors else ""
    )
