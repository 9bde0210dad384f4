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

from helmd.model.errors import UsageError
from helmd.model.logs.parsing.structured import decode_any_number
from helmd.model.printable import printable

MAX_ENTRIES = 10_000
AHEAD = timedelta(minutes=10)
"""A time further ahead than this is none that anything was logged at."""

_NAME = re.compile(r"[a-z0-9_-]{1,50}\Z")
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
    """The body of a request whose entries are under the key LISTED; SIGN is the key by which one entry, given instead
    of a list, is known. Raises UsageError.
    """
    try:
        text, suspect = _decoded(body)
        found = _members(text, listed)
    except RecursionError:
        raise UsageError("the body is nested too deeply") from None
    except JSONDecodeError as fault:
        raise UsageError(f"the body is not a JSON object: {fault.msg} at character {fault.pos:,}") from None
    except ValueError:
        raise UsageError("the body is not a JSON object") from None
    if "service_name" not in found:
        raise UsageError(f"service_name: {_NAME_RULE}, and is missing")
    name = service_named(found["service_name"])
    if listed in found:
        entries = found[listed]
        if not isinstance(entries, list):
            raise UsageError(f"{listed}: must be a list, not {kind_of(entries)}")
        return Body(name, tuple(entries), suspect, len(text))
    if sign not in found:
        raise UsageError(f"{listed}: is missing")
    return Body(name, (found,), suspect, len(text), single=True)


def service_named(given: object) -> str:
    """The name of the service that posts. Raises UsageError."""
    if not isinstance(given, str) or not _NAME.match(given):
        raise UsageError(f"service_name: {_NAME_RULE}, and is {shown_value(given)}")
    return given


def idempotency_key(given: str) -> str:
    """An Idempotency-Key. Raises UsageError."""
    if not _KEY.match(given):
        raise UsageError("Idempotency-Key: must be one header of 1 to 255 printable characters")
    return given


def _decoded(body: bytes) -> tuple[str, bool]:
    """The text of BODY, and whether there may be some in it that can't be stored. Raises ValueError.

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
    """The members of the object that TEXT is. Raises ValueError, RecursionError and UsageError."""
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
    """The elements of the list that begins before AT, and where it ends."""
    found: list[Any] = []
    at = _after_space(text, at)
    if text[at : at + 1] == "]":
        return found, at + 1
    while True:
        if len(found) == MAX_ENTRIES:
            raise UsageError(f"{listed}: at most {MAX_ENTRIES:,} are taken at once")
        try:
            element, at = decode_any_number(text, at)
        except RecursionError:
            raise UsageError(f"{listed}[{len(found)}]: is nested too deeply") from None
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


def objects(body: Body, listed: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries, each with how a fault in it is to be addressed."""
    for index, entry in enumerate(body.entries):
        if not isinstance(entry, dict):
            raise UsageError(f"{listed}[{index}]: must be an object, not {kind_of(entry)}")
        yield "" if body.single else f"{listed}[{index}]", entry


def timestamp_in(given: object, now: datetime, days: int) -> datetime | None:
    """The time that GIVEN states in ISO 8601, in UTC unless it has an offset.

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
    """What a value out of JSON is."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names[value.__class__]


def shown_value(value: object) -> str:
    """A value as a fault names it."""
    if isinstance(value, str):
        return ascii(printable(value[:80], 60))
    return kind_of(value)
