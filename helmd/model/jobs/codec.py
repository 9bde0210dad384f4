"""The files of a job as text: its request, its events (one JSON object a line), its end.

Only this account writes them, but a crash may leave a last line that is incomplete, and another version other fields: a
line that can't be read is skipped, a field that is missing has its default.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any, NamedTuple, TypeVar

from helmd.model.jobs.record import JobEnd, JobEvents, JobLine, JobOutcome, JobRequest, JobStep, Requester

Made = TypeVar("Made", JobRequest, JobStep, JobLine, JobOutcome, JobEnd, Requester)


class LoggedEvent(NamedTuple):
    """A part of a job's log. Numbers count all events of the job from 1."""

    number: int
    event: JobStep | JobLine


def file_text(value: JobRequest | JobEnd | Requester) -> str:
    """Return the text of the file that holds VALUE."""
    return json.dumps(asdict(value)) + "\n"


def event_line(kind: str, value: JobStep | JobLine | JobOutcome | JobEnd | Mapping[str, object]) -> bytes:
    """Return an event as a line of the file of events."""
    body = dict(value) if isinstance(value, Mapping) else asdict(value)
    return json.dumps({"event": kind, **body}).encode() + b"\n"


def job_request_of(text: str) -> JobRequest:
    """Raises ValueError."""
    found = _object(text)
    by = _made(Requester, _mapping(found.get("by")))
    return _made(JobRequest, {**found, "by": by})


def read_end(text: str) -> JobEnd:
    """Raises ValueError."""
    return _made(JobEnd, _object(text))


def read_requester(text: str) -> Requester:
    """Raises ValueError."""
    return _made(Requester, _object(text))


def read_events(content: bytes) -> JobEvents:
    """Return what the process wrote down."""
    begun, outcome, abandoned = None, None, None
    steps: list[JobStep] = []
    for _, event in _events(content):
        try:
            match event.get("event"):
                case "begun":
                    begun = float(event["at"])
                case "step":
                    steps.append(_made(JobStep, event))
                case "ended":
                    outcome = _made(JobOutcome, event)
                case "abandoned":
                    abandoned = _made(JobEnd, event)
        except (ValueError, KeyError, TypeError):
            continue
    return JobEvents(begun, tuple(steps), outcome, abandoned)


def logged_events(content: bytes) -> list[LoggedEvent]:
    """Return the log of a job: its steps, and the lines it printed."""
    found = []
    for number, event in _events(content):
        try:
            if event.get("event") == "line":
                found.append(LoggedEvent(number, _made(JobLine, event)))
            elif event.get("event") == "step":
                found.append(LoggedEvent(number, _made(JobStep, event)))
        except ValueError:
            continue
    return found


def count_events(content: bytes) -> int:
    """Return the number of the last event."""
    return content.count(b"\n")


def _events(content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the events with their numbers; what follows the last newline is not complete yet."""
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield number, found


def _object(text: str) -> dict[str, Any]:
    try:
        return _mapping(json.loads(text))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _made(kind: type[Made], values: Mapping[str, Any]) -> Made:
    """Return a value of KIND from those of its fields that are in VALUES; lists become tuples. Raises ValueError."""
    given: dict[str, Any] = {field.name: values[field.name] for field in fields(kind) if field.name in values}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(str(error)) from None
