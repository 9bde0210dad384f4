"""What the overview says in sentences: how all is, what is wrong and why, what a reader may do."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from helmd.model.counted import counted
from helmd.model.suite.causes import troubles
from helmd.model.suite.composition import dependencies
from helmd.model.suite.dependencies import Graph, closure
from helmd.model.suite.names import HELM_SERVICE
from helmd.model.suite.service import Registry
from helmd.model.units.status import Status
from helmd.operations.monitoring.service_history import ServiceRecord
from helmd.web.auth.roles import Identity, Role
from helmd.web.pages.policy import HOME
from helmd.web.pages.rendering import HealthLine
from helmd.web.pages.service_rows import OWN_SERVICES, Row, Tone, rows, worst

_NAMED = 4
"""How many services a sentence names; more are counted."""


@dataclass(frozen=True, slots=True)
class Permission:
    """Something that the reader may do. ``link`` and ``command`` may be empty."""

    text: str
    link: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Absent:
    """What would be on the page, and how to get it."""

    text: str
    steps: tuple[Permission, ...] = ()


@dataclass(frozen=True, slots=True)
class Alarm:
    """What is wrong with one service, and with others because of it."""

    row: Row
    sentence: str
    affected: tuple[Row, ...]

    @property
    def because(self) -> str:
        """Whom it affects, as a sentence; empty where nobody."""
        if not self.affected:
            return ""
        names = names_text([row.name for row in self.affected])
        states = {row.state for row in self.affected}
        verb = "is" if len(self.affected) == 1 else "are"
        return f"{names} {verb} {states.pop() if len(states) == 1 else 'affected'} because of it."


def alarms(seen: Sequence[Row], suite: Registry) -> tuple[Alarm, ...]:
    """Return what is wrong, grouped by cause: what does not work before what works in part."""
    graph = dependencies(suite)
    missed = _missed(seen, graph)
    wrong = {
        row.name: row
        for row in seen
        if row.name in missed or (row.tone in ("error", "warn") and row.state not in ("starting", "stopping"))
    }
    made = [
        Alarm(
            wrong[each.root],
            _sentence(wrong[each.root], missed.get(each.root, ())),
            tuple(wrong[name] for name in each.affected),
        )
        for each in troubles(list(wrong), graph)
    ]
    return tuple(sorted(made, key=lambda alarm: (alarm.row.tone != "error", -len(alarm.affected), alarm.row.name)))


def tone_of(seen: Sequence[Row], found: Sequence[Alarm]) -> Tone:
    """Return the tone of the page: that of the worst service, and never a good one while something is wrong."""
    tone = worst(seen)
    return "warn" if found and tone in ("ok", "off") else tone


def _missed(seen: Sequence[Row], graph: Graph) -> dict[str, tuple[str, ...]]:
    """Return services that are switched off though others need them, which run; with the names of these."""
    off = {row.name for row in seen if row.state == "stopped"}
    missed: dict[str, list[str]] = {}
    for row in seen:
        if row.since:
            for name in off & (closure(graph, [row.name]) - {row.name}):
                missed.setdefault(name, []).append(row.name)
    return {name: tuple(sorted(needing)) for name, needing in missed.items()}


def _sentence(row: Row, missed_by: Sequence[str]) -> str:
    if missed_by:
        needing = names_text(missed_by) if len(missed_by) <= _NAMED else counted(len(missed_by), "running service")
        return f"{row.name} is {row.state}, and {needing} {'needs' if len(missed_by) == 1 else 'need'} it"
    word = {"failed": "has failed", "flapping": "is failing", "unhealthy": "is unhealthy", "degraded": "is degraded"}
    return f"{row.name} {word.get(row.state, f'is {row.state}')}" + (f": {row.message}" if row.message else "")


@dataclass(frozen=True, slots=True)
class Headline:
    """The state of all services in a sentence: ``text``, "for" so long as since ``since``, ``rest``."""

    text: str
    since: datetime | None = None
    rest: str = ""


def headline(seen: Sequence[Row], found: Sequence[Alarm] = (), well_since: datetime | None = None) -> Headline:
    """Return the state of all services. WELL_SINCE says since when nothing was wrong, if known."""
    if not seen:
        return Headline("No services to show")
    works = [row for row in seen if row.tone == "ok"]
    if len(works) == len(seen) and all(row.name in OWN_SERVICES for row in seen):
        return Headline("No services yet")
    if found:
        first = found[0].sentence
        return Headline(first if len(found) == 1 else f"{first}; {counted(len(found) - 1, 'other problem')}")
    changing = [row.name for row in seen if row.tone == "warn"]
    if changing:
        return Headline(f"{names_text(changing)} {'is' if len(changing) == 1 else 'are'} starting or stopping")
    if not works:
        return Headline("All services are switched off")
    off = len(seen) - len(works)
    working = f"{works[0].name} is healthy" if len(works) == 1 else f"All {len(works)} services healthy"
    return Headline(working, well_since, f", {off} {'is' if off == 1 else 'are'} off" if off else "")


def well_since(
    statuses: Mapping[str, Status], records: Mapping[str, ServiceRecord], suite: Registry
) -> datetime | None:
    """Since when nothing was wrong: by the last trouble that is stored, and the newest start of a process that runs
    all the time. That of helmd does not count: its downtime says nothing about the services.
    """
    times = [
        status.started_at
        for name, status in statuses.items()
        if status.started_at is not None and name != HELM_SERVICE and not (name in suite and suite[name].schedule)
    ]
    times += [record.last_trouble for name, record in records.items() if record.last_trouble and name in statuses]
    return max(times, default=None)


def health_line(statuses: Mapping[str, Status], suite: Registry, identity: Identity) -> HealthLine:
    """Return what the top bar says to IDENTITY of the services of SUITE."""
    seen = rows(statuses, suite, identity, datetime.now(UTC))
    found = alarms(seen, suite)
    tone = tone_of(seen, found)
    if found:
        affected = sum(len(alarm.affected) for alarm in found)
        root = found[0].row
        word = "failing" if root.tone == "error" else root.state
        sentence = f"{root.name} {word}" if len(found) == 1 else f"{len(found)} problems"
        return HealthLine(
            tone,
            sentence + (f", {affected} affected" if affected else ""),
            f"({len(found) + affected}) {root.name} {word}",
        )
    if not seen:
        return HealthLine()
    works = sum(row.tone == "ok" for row in seen)
    off = sum(row.tone == "off" for row in seen)
    changing = len(seen) - works - off
    parts = (f"{works} healthy", f"{changing} changing" if changing else "", f"{off} off" if off else "")
    return HealthLine(tone, ", ".join(part for part in parts if part))


def absent(seen: Iterable[Row], identity: Identity) -> Absent | None:
    """Return what to say where IDENTITY sees no service but Helm's own, or None where there are others."""
    if not all(row.name in OWN_SERVICES for row in seen):
        return None
    if not identity.may(Role.TECHNICIAN):
        return Absent(
            "The services that you may use would be listed here: whether each works, and a link that opens it. There is"
            " none for you yet. An administrator decides which there are, and who sees them."
        )
    text = "The services of the suite would be listed here: state, health, what they use, and since when they run."
    if not identity.may(Role.ADMIN):
        return Absent(f"{text} None is configured yet; an administrator of this machine adds them.")
    return Absent(
        f"{text} None is configured yet. On this machine:",
        (
            Permission("1. Name the services in ~/.config/hivematrix/services.toml", command="man services.toml"),
            Permission("2. Make what they need: databases, keys, units, the realm", command="helmctl setup"),
            Permission("3. Start them, in order", command="helmctl up"),
        ),
    )


def names_text(names: Sequence[str]) -> str:
    """Return NAMES as in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def permissions(identity: Identity, has_services: bool = True) -> list[Permission]:
    """Return what IDENTITY may do, the most useful first.

    HAS_SERVICES says whether there are services to do it with.
    """
    logs = f"{HOME}logs"
    may = []
    if identity.may(Role.ADMIN):
        may.append(
            Permission("Start, stop and restart services here, or on the machine", command="helmctl restart NAME")
        )
        may.append(Permission("Learn why a service does not work", command="helmctl why NAME"))
    if identity.may(Role.TECHNICIAN):
        may.append(Permission("Read and search the logs of all services", logs, "helmctl logs -f"))
        may.append(Permission("Read errors alone", f"{logs}?query=level%3E%3Derror", "helmctl logs -p err"))
    elif identity.may(Role.BILLING):
        of = sorted(identity.services or ())
        text = f"Read the logs of {names_text(of)}" if of else "Read logs, once an admin has named services for billing"
        may.append(Permission(text, logs if of else ""))
    if identity.may(Role.TECHNICIAN):
        may.append(Permission("Write programs for all of this: the API", f"{HOME}docs/api"))
    else:
        if has_services:
            may.append(Permission("See on this page how the services are, and open one by its name in the list"))
        may.append(Permission("Report a problem to your administrator: say which service, and the time above"))
    return may
