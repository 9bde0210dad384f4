"""The timeline of a service as its page shows it: in few words, without what only repeats another event."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from helmd.model.api.details import TimelineEvent
from helmd.model.logs.entry import HELM, SYSTEMD
from helmd.model.suite.names import timer_of, unit_of
from helmd.model.units.timeline import EventKind
from helmd.web.pages.service_rows import Tone

_LOOKS: Mapping[EventKind, tuple[Tone, str]] = {
    "started": ("ok", "play"),
    "starting": ("off", "play"),
    "stopped": ("off", "square"),
    "stopping": ("off", "square"),
    "restart": ("warn", "rotate-ccw"),
    "reload": ("off", "refresh-cw"),
    "crash": ("error", "circle-x"),
    "oom": ("error", "memory-stick"),
    "failed": ("error", "circle-x"),
    "health": ("warn", "activity"),
    "update": ("off", "package"),
    "configuration": ("off", "settings"),
    "refused": ("warn", "lock"),
    "other": ("off", "circle-dashed"),
}
_ENDS: Mapping[EventKind, frozenset[EventKind]] = {
    "starting": frozenset({"started", "failed", "crash", "oom"}),
    "stopping": frozenset({"stopped", "failed", "crash", "oom"}),
}
"""What an event of systemd's is over by: then it says nothing more."""
_ABOUT_UNIT = re.compile(r"([A-Z][a-z ]+[a-z]) (\S+?)(?: - .*|\.|…|\.\.\.)?", re.DOTALL)
_EXITED = re.compile(r"Main process exited, code=(exited|killed|dumped), status=(\d+)(?:/(\S+))?")
_RESTART = re.compile(r"Scheduled restart job, restart counter is at (\d+)\.")
_RESULT_OF_EXIT = re.compile(r"Failed with result '(?:exit-code|signal|core-dump)'\.")
_ENDED_WELL = ": Deactivated successfully."
_CONSUMED = re.compile(r": Consumed .+ CPU time")
"""Of a unit that has stopped; what it uses is shown elsewhere."""
_KILLED = re.compile(r": Killing process \d+ \(.+\) with signal (?:SIG)?(\w+)\.\Z")
"""What is left of a unit that did not end in time; there is one for each process and thread."""
_GIVEN_UP = "Start request repeated too quickly."


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event of the timeline as it is shown. Who did it, and why, is shown beside the text."""

    event: TimelineEvent
    text: str
    tone: Tone
    icon: str


def event_rows(events: Sequence[TimelineEvent], service: str, summaries: Mapping[str, str]) -> Iterator[EventRow]:
    """EVENTS, the newest first; SUMMARIES say what requests do, by method and path."""
    of_systemd = [event for event in events if event.source == SYSTEMD]
    newer = dict(zip((event.id for event in of_systemd[1:]), of_systemd, strict=False))
    older = dict(zip((event.id for event in of_systemd), of_systemd[1:], strict=False))
    for event in events:
        if event.source != SYSTEMD or not _repeats(event, newer.get(event.id), older.get(event.id)):
            yield EventRow(event, event_text(event, service, summaries), *_look(event))


def _repeats(event: TimelineEvent, newer: TimelineEvent | None, older: TimelineEvent | None) -> bool:
    """Return whether EVENT says nothing that the event of systemd's after it, or that before it, does not say."""
    if _CONSUMED.search(event.message):
        return True
    if newer is not None and _KILLED.search(event.message) and _KILLED.search(newer.message):
        return True
    if newer is not None and newer.kind in _ENDS.get(event.kind, ()):
        return True
    if newer is not None and event.kind == "crash":
        # Asked to end, it ended by an exit status that counts as success.
        return newer.message.endswith(_ENDED_WELL)
    if event.message.endswith(_ENDED_WELL):
        return newer is not None and newer.kind == "stopped"
    return older is not None and older.kind == "crash" and bool(_RESULT_OF_EXIT.search(event.message))


def _look(event: TimelineEvent) -> tuple[Tone, str]:
    tone, icon = _LOOKS[event.kind]
    if event.kind == "health" and event.message.split(" is ", 1)[-1].startswith("healthy"):
        return "ok", "circle-check"
    return ("error" if tone == "off" and event.level in ("ERROR", "CRITICAL") else tone), icon


def event_text(event: TimelineEvent, service: str, summaries: Mapping[str, str]) -> str:
    """Return what happened, without who did it and why (`helmd.journal.actions.sentence`), nor to which service."""
    if event.source == SYSTEMD:
        return _of_systemd(event.message, service)
    if event.source != HELM:
        return _capitalized(event.message.removeprefix(f"{service} is "))
    text = event.message.partition(f", for {event.who}")[0] if event.who else event.message
    action, found, result = text.partition(f" {service}: ")
    if not found:
        # Of Helm itself, or of all services.
        action, found, result = text.partition(": ")
        found = found if action in summaries else ""
    if found:
        return f"{summaries.get(action, _capitalized(action))}: {result}"
    return _capitalized(text)


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _of_systemd(message: str, service: str) -> str:
    units = (unit_of(service), timer_of(service))
    about = _ABOUT_UNIT.fullmatch(message)
    if about is not None and about[2] in units:
        return about[1]
    if about is not None and about[2].endswith(".service"):
        return f"{about[1]} {about[2].removesuffix('.service')}"
    unit, found, said = message.partition(": ")
    if not found or unit not in units:
        return message
    if killed := _KILLED.search(message):
        return f"What had not ended of its processes was killed by signal {killed[1]}"
    if exited := _EXITED.match(said):
        how, status, name = exited.groups()
        if how == "exited":
            return f"Exited with code {status}"
        return f"Killed by signal {name or status}{', with a core dump' if how == 'dumped' else ''}"
    if restart := _RESTART.match(said):
        return f"Automatic restart {restart[1]}"
    return "Too many failed starts: systemd does not restart it any more" if said == _GIVEN_UP else said
