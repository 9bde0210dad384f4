"""Parsing lines that are a JSON object or logfmt pairs: level, message and ids; the rest is context."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from json import JSONDecoder
from typing import Any

from helmd.model.logs.ids import given_id, trace_id_in
from helmd.model.logs.level import CODES, LEVELS, level_of_status, more_severe
from helmd.model.logs.parsing.embedded_time import is_same_time
from helmd.model.logs.parsing.parsed import ROLES, Formats, Keys, Parsed, Shape, folded, level_of

_DEEPEST = 64
"""Maximum depth of a value; a deeper object is stored as text. PostgreSQL's and Python's limits, by their stacks, are
higher.
"""
_UNSTORABLE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
"""Escapes that may be unsupported by PostgreSQL: NUL, and lone surrogates."""
_REPLACED = re.compile("[\0\ud800-\udfff]")
_PAIR = re.compile(
    r"([A-Za-z_@][\w.@/-]{0,200})=(\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'(?=\s|\Z)|[^\s\"]*)(?:\s+|\Z)"
)
_QUOTES = ('"', "'")
"""The second one is used by Python's repr, by which structlog prints values."""
_MOST_PAIRS = 200
_ENOUGH_PAIRS = 2
_MOST_SHAPES, _SHAPED = 512, 4096
"""Maximum number of cached shapes, and maximum length of a line whose shape is cached."""
_new = tuple.__new__
"""Makes a named tuple with half the work of calling its class, which is Python code; this is the hot path."""


def _float(digits: str) -> float | str:
    """Return a number, or its digits if it is too large for a float, since jsonb has no infinity."""
    number = float(digits)
    return number if math.isfinite(number) else digits


def _integer(digits: str) -> int | str:
    """Return a number, or its digits if there are more than int() accepts."""
    return int(digits) if len(digits) < 4000 else digits


# strict=False: control characters in strings are accepted.
_decoder = JSONDecoder(strict=False, parse_constant=str, parse_float=_float)
_decode, _scan = _decoder.raw_decode, _decoder.scan_once  # type: ignore[attr-defined]
decode_any_number = JSONDecoder(strict=False, parse_constant=str, parse_float=_float, parse_int=_integer).raw_decode
"""Decodes the JSON value at an index of a text; returns it and the index of its end. jsonb can hold all its numbers."""
_encode = json.JSONEncoder(ensure_ascii=False, separators=(", ", ": ")).encode


def json_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object TEXT in a form that jsonb can hold, or None if TEXT is not one."""
    try:
        try:
            read, end = _scan(text, 0)
        except (json.JSONDecodeError, StopIteration):
            return None
        except ValueError:
            read, end = decode_any_number(text)
    except (ValueError, RecursionError):
        return None
    if type(read) is not dict or (end != len(text) and not text[end:].isspace()):
        return None
    if ("[" in text or text.find("{", 1) > 0) and too_deep(read):
        return None
    if "\\" in text and _UNSTORABLE.search(text):
        return {storable(key): storable(value) for key, value in read.items()}
    return read


def too_deep(value: object, deepest: int = _DEEPEST) -> bool:
    """Return whether VALUE is nested deeper than DEEPEST, by default the limit for objects stored unchanged."""
    layer: list[Any] = [value]
    for _ in range(deepest + 1):
        layer = [inner for outer in layer for inner in _inside(outer)]
        if not layer:
            return False
    return True


def _inside(value: Any) -> Iterator[Any]:
    if type(value) is dict:
        yield from value.values()
    elif type(value) is list:
        yield from value


def storable(value: Any) -> Any:
    """Return VALUE with NUL and lone surrogates, which PostgreSQL's text can't hold, replaced by U+FFFD."""
    if type(value) is str:
        return _REPLACED.sub("\ufffd", value)
    if type(value) is dict:
        return {storable(key): storable(inner) for key, inner in value.items()}
    if type(value) is list:
        return [storable(inner) for inner in value]
    return value


def logfmt_pairs(text: str) -> dict[str, Any] | None:
    """Return the pairs of a line that consists of ``key=value`` pairs (values may be quoted), or None for others."""
    pairs: dict[str, Any] = {}
    position, count = 0, 0
    while position < len(text):
        found = _PAIR.match(text, position)
        if found is None or count == _MOST_PAIRS:
            return None
        key, value = found.groups()
        if key in pairs:
            return None
        pairs[key] = _unquoted(value) if value[:1] in _QUOTES else value
        position, count = found.end(), count + 1
    return pairs if count >= _ENOUGH_PAIRS else None


def _unquoted(value: str) -> str:
    if value[0] == "'":
        return value[1:-1] if len(value) > 1 and value[-1] == "'" else value
    if "\\" in value:
        try:
            read = _decode(value)[0]
            return str(storable(read)) if isinstance(read, str) else value
        except ValueError:
            return value
    return value[1:-1]


def parse_object(formats: Formats, given: dict[str, Any], text: str, realtime: int, complete: bool) -> Parsed:
    """Parse the object GIVEN, decoded from TEXT. GIVEN is modified and becomes the context."""
    names = tuple(given)
    shape = formats.shapes.get(names)
    if shape is None:
        shape = _shape(formats, names, len(text))
    keys, at_status = shape
    if keys is not None:
        parsed = _extract(formats, given, keys, text, realtime, complete)
    else:
        nested, keys = _choose_keys(formats, given)
        parsed = _extract(formats, given, keys, text, realtime, complete)
        if nested:
            parsed = _with_nested(formats, given, nested, parsed, text, realtime)
    return parsed if at_status is None else _with_status_level(parsed, given, at_status)


def _role_of(roles: Mapping[str, str], ranks: Mapping[str, int], key: str) -> tuple[str, int] | None:
    """Return the role of KEY and its rank; a key listed exactly outranks one that is equal when `folded`."""
    if (role := roles.get(key)) is not None:
        return role, 2 * ranks.get(key, 0)
    if len(key) > 2 and (role := roles.get(short := folded(key))) is not None and role != "nested":
        return role, 2 * ranks.get(short, 0) + 1
    return None


def _choose_keys(formats: Formats, given: dict[str, Any]) -> tuple[list[str], Keys]:
    """Return the keys of nested objects in GIVEN, and for each role the key of lowest rank with a usable value.

    Keys with a role whose value is null are removed from GIVEN.
    """
    candidates: dict[str, list[tuple[int, str]]] = {}
    nested: list[str] = []
    empty: list[str] = []
    for key, value in given.items():
        if (found := _role_of(formats.roles, formats.ranks, key)) is None:
            continue
        if type(value) is dict and key in formats.nested:
            nested.append(key)
        elif value is None:
            empty.append(key)
        elif found[0] != "nested":
            candidates.setdefault(found[0], []).append((found[1], key))
    for key in empty:
        del given[key]
    if given.keys() >= _MONGODB:
        candidates.setdefault("level", []).append((999, "s"))
    keys = {}
    for role, ranked in candidates.items():
        ranked.sort()
        keys[role] = next((key for _, key in ranked if _is_usable(formats, role, key, given[key])), None)
        if keys[role] is None and role != "level":
            keys[role] = ranked[0][1]
        elif keys[role] is None:
            keys[role] = next((key for _, key in ranked if folded(key) not in _WORDS_ONLY), None)
    return nested, tuple(map(keys.get, ROLES))


def _is_usable(formats: Formats, role: str, key: str, value: Any) -> bool:
    """Return whether VALUE is valid for ROLE, and not empty."""
    if role == "level":
        return _level_of(formats, key, value) is not None
    if role == "message":
        return value not in ("", {})
    if role == "trace_id":
        return trace_id_in(str(value)) is not None
    return True


_MONGODB = {"t", "s", "c", "msg"}
"""The keys of MongoDB's lines, in which "s" is the level."""
_WORDS_ONLY = frozenset({"status", "priority", "type"})
"""Keys of a level only if the value is the name of one; numbers have other meanings."""
_SPECIAL_LEVELS = _WORDS_ONLY | {"levelno", "severitynumber"}
_PYTHON_NUMBERS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
_LEVEL_NAMES = ("name", "levelStr", "label", "standardLevel", "text")
"""The keys of the level's name if the level is an object."""
_AROUND = re.compile(r"\x1b\[[\d;]{0,20}m|SEVERITY_NUMBER_|\d\Z")
"""Text around the level's name: colours, and the enum names of OpenTelemetry's protocol."""
_SCALES = (
    (100, 600, (100, 200, 300, 400, 500)),  # Monolog
    (5_000, 50_000, (10_000, 20_000, 30_000, 40_000, 50_000)),  # Logback, Log4j
)
"""Minimum and maximum of a scale, and the lowest number of each level."""
_GOOGLE = (100, 200, 400, 500, 600)
"""The lowest number of each level in Google Cloud Logging's LogSeverity."""
_OFFSET_LEVEL = re.compile(r"([A-Za-z]{2,12})[+-]\d{1,3}\Z")
"""A level between two others in Go's log/slog: ERROR+4."""


def _level_of(formats: Formats, key: str, value: Any) -> tuple[str, bool] | None:
    """Return the level that VALUE under KEY stands for, and whether its name is exact, as in `LevelWords`."""
    if type(value) is dict:
        value = next((value[key] for key in _LEVEL_NAMES if key in value), None)
    if type(value) is not str:
        if type(value) not in (int, float):
            return None
        scale = folded(key)
        if scale in _WORDS_ONLY:
            return None
        if scale == "levelno":
            level = _PYTHON_NUMBERS.get(int(value) if math.isfinite(value) else 0)
            return None if level is None else (level, False)
        if scale == "severitynumber":
            # OpenTelemetry's data model: 1-4 trace, 5-8 debug, 9-12 info, 13-16 warn, 17-20 error, 21-24 fatal.
            return (
                (["DEBUG", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"][int(value - 1) // 4], False)
                if 1 <= value <= 24
                else None
            )
        return formats.levels.get(str(value)) or _on_a_scale(scale, value)
    known = formats.levels.get(value) or level_of(formats.levels, value)
    if known is not None:
        # PRIORITY is journald's own field.
        return None if value.strip().isdigit() and folded(key) in _WORDS_ONLY and key != "PRIORITY" else known
    if (code := CODES.get(value.strip().upper())) is not None:
        return code, False
    if (offset := _OFFSET_LEVEL.match(value)) is not None and (known := level_of(formats.levels, offset[1])):
        return known[0], False
    if "\x1b" in value or value.startswith("SEVERITY_NUMBER_"):
        known = level_of(formats.levels, _AROUND.sub("", value))
        return None if known is None else (known[0], False)
    if len(value) == 2 and value[0] == "D" and value[1].isdigit():  # MongoDB's debug levels
        return "DEBUG", False
    return None


def _on_a_scale(key: str, value: int | float) -> tuple[str, bool] | None:
    """Return the level of a number on one of the scales above those of pino and syslog, or None."""
    for least, most, begins in _SCALES:
        if least <= value <= most:
            begins = _GOOGLE if most == 600 and key == "severity" else begins
            return LEVELS[max(0, sum(value >= begin for begin in begins) - 1)], False
    return None


_STATUS_KEYS = (
    "status",
    "status_code",
    "statusCode",
    "statuscode",
    "http_status",
    "http.status_code",
    "response_code",
    "responseCode",
    "DownstreamStatus",
    "OriginStatus",
    "res",
    "response",
    "http.response.status_code",
    "code",
    "httpRequest",
    "http",
)
_REQUEST_OBJECTS = frozenset({"httpRequest", "http"})
"""Objects that have both the request and the status."""
_REQUEST_KEYS = frozenset(
    {"method", "request_method", "requestmethod", "httpmethod", "verb", "uri", "url", "path", "request", "requesturi",
     "requestpath", "httprequestmethod", "req", "useragent", "httpuseragent", "remoteaddr", "clientip", "requeststring"}
)  # fmt: skip


def _status_key(names: tuple[str, ...]) -> str | None:
    """Return the key of the HTTP status among NAMES, if they also have a key of the request."""
    key = next((key for key in _STATUS_KEYS if key in names), None)
    if key in _REQUEST_OBJECTS:
        return key
    if key is None or not any(
        name != key and (name in _REQUEST_KEYS or folded(name) in _REQUEST_KEYS) for name in names
    ):
        return None
    return key


def _with_status_level(parsed: Parsed, given: dict[str, Any], key: str) -> Parsed:
    """Return PARSED with the level of an access line's HTTP status under KEY, if it is more severe."""
    value = given.get(key)
    if type(value) is dict:
        if type(response := value.get("response")) is dict:
            value = response
        value = next((value[inner] for inner in ("statusCode", "status_code", "status") if inner in value), None)
    if type(value) is str and len(value) == 3 and value.isascii() and value.isdecimal():
        value = int(value)
    if type(value) is not int or not 100 <= value <= 599:
        return parsed
    level = more_severe(parsed.level, level_of_status(value))
    if level == parsed.level:
        return parsed
    context = dict(parsed.context or {})
    if parsed.level is not None:
        context.setdefault("level", parsed.level)
    return parsed._replace(level=level, context=context or None)


def _shape(formats: Formats, names: tuple[str, ...], size: int) -> Shape:
    """Return the shape of an object with NAMES, of a line with SIZE characters, and cache it if it is short."""
    found: dict[str, str] = {}
    flat = not _MONGODB.issubset(names)
    for name in names:
        if (role := _role_of(formats.roles, formats.ranks, name)) is not None:
            flat = flat and role[0] not in found and name not in formats.nested and folded(name) not in _SPECIAL_LEVELS
            found[role[0]] = name
    shape = Shape(tuple(map(found.get, ROLES)) if flat else None, _status_key(names))
    if size <= _SHAPED:
        if len(formats.shapes) >= _MOST_SHAPES:
            formats.shapes.clear()
        formats.shapes[names] = shape
    return shape


def _extract(formats: Formats, given: dict[str, Any], keys: Keys, text: str, realtime: int, complete: bool) -> Parsed:
    """Move the values of KEYS that have a field of their own from GIVEN to the result; nulls are dropped."""
    level = trace_id = user_id = process_id = None
    message = text
    at_level, at_message, at_timestamp, at_trace, at_user, at_pid = keys
    if at_level is not None:
        if (value := given[at_level]) is None:
            del given[at_level]
        else:
            known = formats.levels.get(value) if type(value) is str else None
            if known is None:
                known = _level_of(formats, at_level, value)
            if known is not None:
                level, exact = known
                if exact and type(value) is str:
                    del given[at_level]
    if at_message is not None:
        value = given.pop(at_message)
        if type(value) is str:
            message = value
        elif type(value) is dict and len(value) == 1 and isinstance(own := value.get("stringValue"), str):
            message = own  # OpenTelemetry's protocol
        elif type(value) is dict and isinstance(own := value.get("message"), str):
            given[at_message], message = value, own
        elif value is not None:
            message = _encode(value)
    if at_timestamp is not None:
        value = given[at_timestamp]
        if value is None or is_same_time(value, realtime):
            del given[at_timestamp]
    if at_trace is not None and (stated := _id(given, at_trace)) is not None:
        trace_id = trace_id_in(stated)
    if at_user is not None and (stated := _id(given, at_user)) is not None:
        user_id = given_id(stated)
    if at_pid is not None:
        value = given[at_pid]
        process_id = pid_of(value)
        if process_id is not None or value is None:
            del given[at_pid]
    return _new(Parsed, (level, message, given or None, trace_id, user_id, process_id, complete))


def _id(given: dict[str, Any], key: str) -> str | None:
    """Remove the id under KEY from GIVEN and return its text; values that can't be an id remain."""
    value = given[key]
    if type(value) is str:
        del given[key]
        return value
    if value is not None and type(value) is not int and type(value) is not float:
        return None
    del given[key]
    return None if value is None else str(value)


def pid_of(value: object) -> int | None:
    """Return the process id for a number or its digits, or None if it exceeds pid_t."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        value = int(value)
    return value if type(value) is int and 0 < value < 1 << 31 else None


def _with_nested(
    formats: Formats, given: dict[str, Any], nested: list[str], outer: Parsed, text: str, realtime: int
) -> Parsed:
    """Return OUTER with the values that it lacks from the objects of GIVEN under NESTED."""
    for outer_key in nested:
        table = dict(given[outer_key])
        roles = formats.nested[outer_key]
        found: dict[str, str] = {}
        for key, value in table.items():
            role = _role_of(roles, formats.ranks, key)
            if role is None or value is None or (type(value) is dict and role[0] != "level"):
                continue
            if role[0] not in found and (role[0] != "level" or _level_of(formats, key, value) is not None):
                found[role[0]] = key
        stated = {
            "level": outer.level is not None,
            "message": outer.message is not text,
            "trace_id": outer.trace_id is not None,
            "user_id": outer.user_id is not None,
            "process_id": outer.process_id is not None,
            "timestamp": False,
        }
        found = {role: key for role, key in found.items() if not stated[role]}
        inner = _extract(formats, table, tuple(map(found.get, ROLES)), text, realtime, outer.complete)
        given[outer_key] = table
        if not table:
            del given[outer_key]
        outer = Parsed(
            outer.level or inner.level,
            outer.message if stated["message"] else inner.message,
            given or None,
            outer.trace_id or inner.trace_id,
            outer.user_id or inner.user_id,
            outer.process_id or inner.process_id,
            outer.complete,
        )
    return outer
