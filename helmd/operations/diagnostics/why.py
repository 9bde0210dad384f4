"""One paragraph about a service: what it is doing or why it is not, since when, what was tried, what to do."""

import time
from collections.abc import Sequence

from helmd.journal.lines import last_lines
from helmd.model.suite.composition import dependencies
from helmd.model.suite.dependencies import closure, start_order
from helmd.model.suite.names import unit_of
from helmd.model.suite.service import Registry
from helmd.model.units.unit_state import explain, last_exit, retry
from helmd.operations.monitoring.status import View, look
from helmd.systemd.bus import Manager
from helmd.systemd.listeners import holder_of

LINES = 8


def _ago(then: float, now: float) -> str:
    seconds = max(0, int(now - then))
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {name}{'s' if count != 1 else ''}"
    return f"{seconds} second{'s' if seconds != 1 else ''}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def why(name: str, registry: Registry, manager: Manager) -> tuple[str, Sequence[str]]:
    """The paragraph, and the last lines that bear on it."""
    graph = dependencies(registry)
    order = start_order(graph, closure(graph, [name])) if name in registry else (name,)
    views = {view.service.name: view for view in look(registry, order, manager)}
    view, now = views[name], time.time()
    broken = next((views[other] for other in order if other != name and not views[other].good), None)
    sentences = [_now(view, now)]
    lines: Sequence[str] = ()
    if not view.good and broken is not None:
        sentences.append(f"It needs {broken.service.name}, and {_now(broken, now)}")
        sentences += _detail(broken, now)
        sentences.append(_advice(broken))
        lines = _lines(broken)
    elif not view.good:
        sentences += _detail(view, now)
        sentences.append(_advice(view))
        lines = _lines(view)
    else:
        sentences += _detail(view, now)
        if broken is not None:
            sentences.append(f"It needs {broken.service.name}, though, and {_now(broken, now)}")
    return " ".join(sentence for sentence in sentences if sentence), lines


def _now(view: View, now: float) -> str:
    facts, name = view.facts, view.service.name
    since = f" for {_ago(facts.changed_at, now)}" if facts.changed_at else ""
    if view.service.external:
        return f"{name} is external and {view.verdict.state}: {view.verdict.sentence}."
    if not facts.exists:
        return f"{name} has no unit yet."
    if view.word in ("healthy", "degraded", "unhealthy", "running"):
        running = f"{name} has been running (pid {facts.main_pid}) for {_ago(facts.active_since, now)}"
        return f"{running} and is {view.word}: {view.verdict.sentence}."
    if view.word == "flapping":
        return f"{name} is flapping: systemd has restarted it {_times(facts.restarts)}, and {explain(facts, name)}."
    if view.word == "failed":
        return f"{name} has failed{since}: {explain(facts, name)}."
    if view.word == "stopped":
        ended = f"; its last run {last_exit(facts)}" if last_exit(facts) else ""
        return f"{name} is stopped{since}{ended}."
    return f"{name} is {view.word}{since}."


def _detail(view: View, now: float) -> list[str]:
    facts = view.facts
    notified = []
    if facts.restarts and view.word != "flapping":
        notified.append(f"systemd has restarted it {_times(facts.restarts)} since it was last started by hand.")
    if view.unregistered:
        notified.append("It is in no registry; Helm only shows it.")
    if facts.drop_ins:
        notified.append(f"Its unit has the drop-in {', '.join(facts.drop_ins)}.")
    if facts.need_reload:
        notified.append("Its unit changed on disk since it was loaded.")
    port = view.service.port
    if port is not None and not facts.active and not view.service.external and (holder := holder_of(port)):
        notified.append(f"Its port {port} is taken by {holder}.")
    if again := retry(facts):
        notified.append(again[0].upper() + again[1:])
    return notified


def _advice(view: View) -> str:
    name = view.service.name
    if view.service.external:
        return f"See that {view.service.url} answers."
    if not view.facts.exists:
        return "Install it: helmctl apply."
    if view.word == "stopped":
        return f"Start it: helmctl start {name}."
    if view.word == "unhealthy":
        return f"Look at its log (helmctl logs {name}), then restart it: helmctl restart {name}."
    if view.word in ("failed", "flapping"):
        return f"Mend what the lines below say, then: helmctl restart {name}."
    return ""


def _lines(view: View) -> Sequence[str]:
    if view.service.external or view.word == "stopped":
        return ()
    found = last_lines(unit_of(view.service.name), LINES)
    stamp = [time.strftime("%H:%M:%S", time.localtime(line.seconds)) for line in found]
    return [f"{at} {line.message[:300]}" for at, line in zip(stamp, found, strict=True)]
