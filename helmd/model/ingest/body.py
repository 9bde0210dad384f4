"""A JSON body that is posted to Helm, apart from what its entries mean.

Those who post drop a batch that is refused. So whatever has a sensible reading is read, and only the rest is a fault.
Nothing takes a faulty body in part.

A body is read entry by entry, not at one go: reading 16 MiB of JSON takes Python 0.2 s during which no other thread
runs, and a body can ask for a hundred times its own size in objects.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from json.decoder import JSONDecodeError
from typing import Any

from helmd.model.api.ingest import MAX_ENTRIES, SERVICE_PATTERN
from helmd.model.errors import UsageError
from helmd.model.field_error import FieldError
from helmd.model.logs.parsing.structured import decode_any_number
from helmd.model.printable import printable

BodyPath = tuple[str | int, ...]
"""The place of something in a body: names of members, and indices in lists."""
AHEAD = timedelta(minutes=10)
"""A time further ahead than this is none that anything was logged at."""

_NAME = re.compile(SERVICE_PATTERN.removesuffix("$") + r"\Z")
_NAME_RULE = "must be 1 to 50 of a-z, 0-9, '_' and '-'"
_KEY = re.compile(r"[\x20-\x7e]{1,255}\Z")
_SPACE = re.compile(r"[ \t\n\r]*")
_HALVES = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class Body:
    """A body, apart from what its entries mean. ``single``: it is one entry, not a list."""

    service_name: str
    entries: tuple[Any, ...]
    suspect: bool
    """Whether it may hold text that can't be stored."""
    size: int
    """Characters of its text."""
    single: bool = False


def read_body(body: bytes, listed: str, sign: str) -> Body:
    """Return the body of a request whose entries are under the key LISTED; SIGN is the key by which one entry, given
    instead of a list, is known. Raises UsageError.
    """
    try:
        text, suspect = _decoded(body)
        found = _members(text, listed)
    except RecursionError:
        raise body_fault((), "the body is nested too deeply", "json") from None
    except JSONDecodeError as fault:
        sentence = f"the body is not a JSON object: {fault.msg} at character {fault.pos:,}"
        raise body_fault((), sentence, "json") from None
    except ValueError:
        raise body_fault((), "the body is not a JSON object", "json") from None
    if "service_name" not in found:
        raise body_fault(("service_name",), f"{_NAME_RULE}, and is missing", "required")
    name = service_named(found["service_name"])
    if listed in found:
        entries = found[listed]
        if not isinstance(entries, list):
            raise body_fault((listed,), f"must be a list, not {kind_of(entries)}", "type")
        return Body(name, tuple(entries), suspect, len(text))
    if sign not in found:
        raise body_fault((listed,), "is missing", "required")
    return Body(name, (found,), suspect, len(text), single=True)


def service_named(given: object) -> str:
    """Return the name of the service that posts. Raises UsageError."""
    if not isinstance(given, str) or not _NAME.match(given):
        code = "pattern" if isinstance(given, str) else "type"
        raise body_fault(("service_name",), f"{_NAME_RULE}, and is {shown_value(given)}", code)
    return given


def idempotency_key(given: str) -> str:
    """Return an Idempotency-Key. Raises UsageError."""
    if not _KEY.match(given):
        raise UsageError("Idempotency-Key: must be one header of 1 to 255 printable characters")
    return given


def _decoded(body: bytes) -> tuple[str, bool]:
    """Return the text of BODY, and whether there may be some in it that can't be stored. Raises ValueError.

    A regular expression over all of a large body would hold up every thread.
    """
    suspect = b"\0" in body or b"\\u0000" in body
    if not suspect and (b"\\ud" in body or b"\\uD" in body):
        suspect = _HALVES.search(body) is not None
    encoding = json.detect_encoding(body)
    try:
        text = body.decode(encoding)
    except UnicodeDecodeError:
        # Bytes that are no UTF-8 become lone surrogates, which are replaced where they turn up, and noted there.
        text, suspect = body.decode(encoding, "surrogateescape"), True
    return text.removeprefix("\ufeff"), suspect


def _members(text: str, listed: str) -> dict[str, Any]:
    """Return the members of the object that TEXT is. Raises ValueError, RecursionError and UsageError."""
    at = _past(text, _after_space(text, 0), "{", "Expecting an object")
    found: dict[str, Any] = {}
    if text[at : at + 1] == "}":
        at += 1
    else:
        while True:
            if text[at : at + 1] != '"':
                raise JSONDecodeError("Expecting property name enclosed in double quotes", "", at)
            key, at = decode_any_number(text, at)
            at = _past(text, _after_space(text, at), ":", "Expecting ':' delimiter")
            if key == listed and text[at : at + 1] == "[":
                found[key], at = _elements(text, at + 1, listed)
            else:
                found[key], at = decode_any_number(text, at)
            at = _after_space(text, at)
            if text[at : at + 1] == "}":
                at += 1
                break
            at = _past(text, at, ",", "Expecting ',' delimiter")
    if (at := _after_space(text, at)) < len(text):
        raise JSONDecodeError("Extra data", "", at)
    return found


def _elements(text: str, at: int, listed: str) -> tuple[list[Any], int]:
    """Return the elements of the list that begins before AT, and where it ends."""
    found: list[Any] = []
    at = _after_space(text, at)
    if text[at : at + 1] == "]":
        return found, at + 1
    while True:
        if len(found) == MAX_ENTRIES:
            raise body_fault((listed,), f"at most {MAX_ENTRIES:,} are taken at once", "maxItems")
        try:
            element, at = decode_any_number(text, at)
        except RecursionError:
            raise body_fault((listed, len(found)), "is nested too deeply", "json") from None
        found.append(element)
        at = _after_space(text, at)
        if text[at : at + 1] == "]":
            return found, at + 1
        at = _past(text, at, ",", "Expecting ',' delimiter")


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _past(text: str, at: int, sign: str, fault: str) -> int:
    if text[at : at + 1] != sign:
        raise JSONDecodeError(fault, "", at)
    return _after_space(text, at + 1)


def objects(body: Body, listed: str) -> Iterator[tuple[BodyPath, dict[str, Any]]]:
    """Yield the entries, each with its place."""
    for index, entry in enumerate(body.entries):
        if not isinstance(entry, dict):
            raise body_fault((listed, index), f"must be an object, not {kind_of(entry)}", "type")
        yield () if body.single else (listed, index), entry


def body_fault(path: BodyPath, detail: str, code: str) -> UsageError:
    """Return the error for what is wrong at PATH in a body: DETAIL follows the place, in the sentence (``logs[3].name:
    ...``).

    CODE is the keyword of JSON Schema that is not met, or ``json``.
    """
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
    # Steps are names of fields and indices, which need no escapes in a JSON pointer.
    pointer = "#" + "".join(f"/{step}" for step in path)
    return UsageError(f"{place}: {detail}" if place else detail, errors=[FieldError(pointer, detail, code)])


def timestamp_in(given: object, now: datetime, days: int) -> datetime | None:
    """Return the time that GIVEN states in ISO 8601, in UTC unless it has an offset.

    None for what is none, and for one that is no more kept (for DAYS) or too far ahead of NOW.
    """
    if not isinstance(given, str):
        return None
    try:
        time = datetime.fromisoformat(given.strip())
        time = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return time if now - timedelta(days=days) <= time <= now + AHEAD else None


def kind_of(value: object) -> str:
    """Return what a value out of JSON is."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names[value.__class__]


def shown_value(value: object) -> str:
    """Return a value as a fault names it."""
    if isinstance(value, str):
        return ascii(printable(value[:80], 60))
    return kind_of(value)
