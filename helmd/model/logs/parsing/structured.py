"""Lines that are a JSON object or logfmt pairs: which of it is level, message and ids; all else is context."""

import json
import math
import re
from collections.abc import Iterator
from json import JSONDecoder
from typing import Any

from helmd.model.logs.parsing.embedded_time import says_nothing_new
from helmd.model.logs.parsing.parsed import ABSENT, ROLES, Formats, Keys, Parsed, level_of

_DEEPEST = 64
"""PostgreSQL and Python's encoder go deeper, but end at their stacks' depths; what is deeper is taken for text."""
_UNSTORABLE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
"""Escapes that can stand for what PostgreSQL has not: NUL, and halves of a surrogate pair."""
_REPLACED = re.compile("[\0\ud800-\udfff]")
_PAIR = re.compile(r'([A-Za-z_@][\w.@/-]{0,200})=("(?:[^"\\]|\\.)*+"|[^\s"]*)(?:\s+|\Z)')
_MOST_PAIRS = 200
_ENOUGH_PAIRS = 2
_MOST_SHAPES, _SHAPED = 512, 4096
"""Sets of names that are remembered, and characters of a line at most whose names are."""
_new = tuple.__new__
"""Makes a named tuple with half the work of calling its class, which is Python code; this is the hot path."""


def _finite(digits: str) -> float | str:
    """jsonb has no infinity."""
    number = float(digits)
    return number if math.isfinite(number) else digits


def _whole(digits: str) -> int | str:
    """Python refuses to read numbers of more than some thousand digits."""
    return int(digits) if len(digits) < 4000 else digits


# strict=False: control characters in strings are no reason to lose sight of the level.
_decoder = JSONDecoder(strict=False, parse_constant=str, parse_float=_finite)
_decode, _scan = _decoder.raw_decode, _decoder.scan_once  # type: ignore[attr-defined]
decode_any_number = JSONDecoder(strict=False, parse_constant=str, parse_float=_finite, parse_int=_whole).raw_decode
"""Reads one JSON value from a place in a text on: the value, and where it ends. jsonb has all numbers it gives."""
_encode = json.JSONEncoder(ensure_ascii=False, separators=(", ", ": ")).encode


def json_object(text: str) -> dict[str, Any] | None:
    """The object that TEXT is, such that it can be stored as jsonb; None when it is none."""
    try:
        try:
            read, end = _scan(text, 0)
        except (json.JSONDecodeError, StopIteration):
            return None
        except ValueError:
            read, end = decode_any_number(text)
    except (ValueError, RecursionError):
        return None
    if read.__class__ is not dict or (end != len(text) and not text[end:].isspace()):
        return None
    if ("[" in text or text.find("{", 1) > 0) and too_deep(read):
        return None
    if "\\" in text and _UNSTORABLE.search(text):
        return {storable(key): storable(value) for key, value in read.items()}
    return read


def too_deep(value: object, deepest: int = _DEEPEST) -> bool:
    """Whether VALUE is nested deeper than DEEPEST, by default what is stored as it is."""
    layer: list[Any] = [value]
    for _ in range(deepest + 1):
        layer = [inner for outer in layer for inner in _inside(outer)]
        if not layer:
            return False
    return True


def _inside(value: Any) -> Iterator[Any]:
    if value.__class__ is dict:
        yield from value.values()
    elif value.__class__ is list:
        yield from value


def storable(value: Any) -> Any:
    """VALUE with what PostgreSQL's text can't hold replaced: NUL, and halves of surrogate pairs."""
    if value.__class__ is str:
        return _REPLACED.sub("\ufffd", value)
    if value.__class__ is dict:
        return {storable(key): storable(inner) for key, inner in value.items()}
    if value.__class__ is list:
        return [storable(inner) for inner in value]
    return value


def logfmt_pairs(text: str) -> dict[str, Any] | None:
    """The pairs of a line that is nothing but ``key=value`` pairs (values may be quoted); None for any other."""
    pairs: dict[str, Any] = {}
    position, count = 0, 0
    while position < len(text):
        found = _PAIR.match(text, position)
        if found is None or count == _MOST_PAIRS:
            return None
        key, value = found.groups()
        if key in pairs:
            return None
        pairs[key] = _unquoted(value) if value[:1] == '"' else value
        position, count = found.end(), count + 1
    return pairs if count >= _ENOUGH_PAIRS else None


def _unquoted(value: str) -> str:
    if "\\" in value:
        try:
            read = _decode(value)[0]
            return str(storable(read)) if isinstance(read, str) else value
        except ValueError:
            return value
    return value[1:-1]


def parse_object(formats: Formats, given: dict[str, Any], text: str, realtime: int, complete: bool) -> Parsed:
    """What the object GIVEN, read from TEXT, says; GIVEN becomes the context."""
    names = tuple(given)
    keys = formats.shapes.get(names)
    if keys is None:
        keys = _shape(formats, names, len(text))
    if keys:
        return _take(formats, given, keys, text, realtime, complete)
    found: dict[str, str] = {}
    nested: list[str] = []
    empty: list[str] = []
    for key, value in given.items():
        if (role := formats.roles.get(key)) is None:
            continue
        if value.__class__ is dict and key in formats.nested:
            nested.append(key)
        elif value is None:
            empty.append(key)
        elif role not in found or formats.ranks[key] < formats.ranks[found[role]]:
            found[role] = key
    if empty:
        for key in empty:
            del given[key]
    parsed = _take(formats, given, tuple(map(found.get, ROLES)), text, realtime, complete)
    return _look_into(formats, given, nested, parsed, text, realtime) if nested else parsed


def _shape(formats: Formats, names: tuple[str, ...], size: int) -> Keys:
    """The keys of the ROLES among NAMES; () where the values are needed as well. Programs use few sets of names."""
    found: dict[str, str] = {}
    flat = True
    for name in names:
        if (role := formats.roles.get(name)) is not None:
            flat = flat and role not in found and name not in formats.nested
            found[role] = name
    keys = tuple(map(found.get, ROLES)) if flat else ()
    if size <= _SHAPED:
        if len(formats.shapes) >= _MOST_SHAPES:
            formats.shapes.clear()
        formats.shapes[names] = keys
    return keys


def _take(formats: Formats, given: dict[str, Any], keys: Keys, text: str, realtime: int, complete: bool) -> Parsed:
    """Moves what has a place of its own out of GIVEN; KEYS are where it is. What is null says nothing."""
    level = trace_id = user_id = process_id = None
    message = text
    at_level, at_message, at_timestamp, at_trace, at_user, at_pid = keys
    if at_level is not None:
        if (value := given[at_level]) is None:
            del given[at_level]
        else:
            word = value if value.__class__ is str else str(value.get("name") if value.__class__ is dict else value)
            known = formats.levels.get(word) or level_of(formats.levels, word)
            if known is not None:
                level, says_it_all = known
                if says_it_all and value.__class__ is str:
                    del given[at_level]
    if at_message is not None:
        value = given.pop(at_message)
        if value.__class__ is str:
            message = value
        elif value is not None:
            message = _encode(value)
    if at_timestamp is not None:
        value = given[at_timestamp]
        if value is None or says_nothing_new(value, realtime):
            del given[at_timestamp]
    if at_trace is not None:
        trace_id = _id(given, at_trace)
    if at_user is not None:
        user_id = _id(given, at_user)
    if at_pid is not None:
        value = given[at_pid]
        process_id = pid_of(value)
        if process_id is not None or value is None:
            del given[at_pid]
    return _new(Parsed, (level, message, given or None, trace_id, user_id, process_id, complete))


def _id(given: dict[str, Any], key: str) -> str | None:
    """The id under KEY as text, taken out; what can be no id stays in the context."""
    value = given[key]
    if value.__class__ is not str:
        if value is None:
            del given[key]
        if value.__class__ is not int and value.__class__ is not float:
            return None
        value = str(value)
    del given[key]
    return None if value.isspace() or (len(value) < 16 and value.strip().lower() in ABSENT) else value


def pid_of(value: object) -> int | None:
    """A process id as pid_t has it, from a number or its digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        value = int(value)
    return value if value.__class__ is int and 0 < value < 1 << 31 else None


def _look_into(
    formats: Formats, given: dict[str, Any], nested: list[str], outer: Parsed, text: str, realtime: int
) -> Parsed:
    """What the tables inside GIVEN say where GIVEN itself says nothing."""
    for outer_key in nested:
        table = dict(given[outer_key])
        roles = formats.nested[outer_key]
        found: dict[str, str] = {}
        for key, value in table.items():
            role = roles.get(key)
            if role is not None and value is not None and (value.__class__ is not dict or role == "level"):
                found.setdefault(role, key)
        said = {
            "level": outer.level is not None,
            "message": outer.message is not text,
            "trace_id": outer.trace_id is not None,
            "user_id": outer.user_id is not None,
            "process_id": outer.process_id is not None,
            "timestamp": False,
        }
        found = {role: key for role, key in found.items() if not said[role]}
        inner = _take(formats, table, tuple(map(found.get, ROLES)), text, realtime, outer.complete)
        given[outer_key] = table
        if not table:
            del given[outer_key]
        outer = Parsed(
            outer.level or inner.level,
            outer.message if said["message"] else inner.message,
            given or None,
            outer.trace_id or inner.trace_id,
            outer.user_id or inner.user_id,
            outer.process_id or inner.process_id,
            outer.complete,
        )
    return outer
