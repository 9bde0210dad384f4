"""The JSON of bodies: from dataclasses to what `json.dumps` takes, and from valid JSON to dataclasses."""

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from helmd.model.json_fields import description_of

Convert = Callable[[Any], Any]
Kind = TypeVar("Kind")

_NATIVE = (str, bool, int, float, type(None), Any, object)
_LISTS = (tuple, list, frozenset, Sequence)


def to_json(value: Any, kind: Any = None) -> Any:
    """VALUE, of type KIND (by default its class), as JSON: times become ISO 8601; members that are omitted when None
    are left out.
    """
    convert = _to_json(cast(Any, type(value) if kind is None else kind))
    return value if convert is None else convert(value)


def from_json(kind: type[Kind], document: Any) -> Kind:
    """Return the dataclass that DOCUMENT is, which must be valid by the schema of KIND. Times without offset are
    UTC.
    """
    convert = _from_json(cast(Any, kind))
    made: Kind = document if convert is None else convert(document)
    return made


def read_json(kind: type[Kind], document: Any) -> Kind:
    """As `from_json`, of a DOCUMENT of which nothing is known. Raises ValueError where it is none of KIND."""
    _check(cast(Any, kind), document, "#")
    return from_json(kind, document)


def _check(kind: Any, value: Any, place: str) -> None:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
    elif kind in (Any, object):
        good = True
    elif kind in (str, bool, int, type(None)):
        good = type(value) is (type(None) if kind is None else kind)
    elif kind is datetime:
        good = isinstance(value, str)
    elif origin is Literal:
        good = isinstance(value, str) and value in arguments
    elif is_dataclass(kind):
        good = isinstance(value, dict)
        hints = get_type_hints(kind)
        for member in fields(kind) if good else ():
            if member.name in value:
                _check(hints[member.name], value[member.name], f"{place}/{member.name}")
            elif not description_of(member).omitted:
                raise ValueError(f"{place} has no {member.name}")
    elif origin in (Union, types.UnionType):
        (choice,) = [each for each in arguments if each is not type(None)]
        good = True
        if value is not None:
            _check(choice, value, place)
    elif origin in _LISTS:
        good = isinstance(value, list)
        for number, item in enumerate(value if good else ()):
            _check(arguments[0], item, f"{place}/{number}")
    else:
        raise TypeError(f"{kind!r} can't be checked")
    if not good:
        raise ValueError(f"{place} must be of type {getattr(kind, '__name__', kind)}")


@cache
def _to_json(kind: Any) -> Convert | None:
    """Return what converts values of a type, or None where they are JSON already."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _NATIVE or origin is Literal:
        return None
    if kind is datetime:
        return datetime.isoformat
    if isinstance(kind, type) and issubclass(kind, Enum):
        return lambda member: member.value
    if isinstance(kind, type) and is_dataclass(kind):
        return _object_to_json(kind)
    if origin in (Union, types.UnionType):
        choices = [each for each in arguments if each is not type(None)]
        if len(choices) == 1:
            return _unless_none(_to_json(choices[0]))
        return to_json
    if isinstance(origin, type) and issubclass(origin, Mapping):
        of_value = _to_json(arguments[1])
        return dict if of_value is None else lambda given: {key: of_value(value) for key, value in given.items()}
    if origin in _LISTS:
        of_item = _to_json(arguments[0])
        return list if of_item is None else lambda given: [of_item(item) for item in given]
    if kind in (dict, list):
        return None
    raise TypeError(f"{kind!r} has no JSON")


def _object_to_json(kind: type) -> Convert:
    hints = get_type_hints(kind)
    members = [(field.name, description_of(field).omitted, _to_json(hints[field.name])) for field in fields(kind)]

    def convert(given: Any) -> dict[str, Any]:
        made = {}
        for name, omitted, of_member in members:
            value = getattr(given, name)
            if value is None and omitted:
                continue
            made[name] = value if of_member is None else of_member(value)
        return made

    return convert


def _unless_none(convert: Convert | None) -> Convert | None:
    return None if convert is None else lambda given: None if given is None else convert(given)


@cache
def _from_json(kind: Any) -> Convert | None:
    """Return what converts JSON to values of a type, or None where there is nothing to convert."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _NATIVE or origin is Literal:
        return None
    if kind is datetime:
        return _time
    if isinstance(kind, type) and (issubclass(kind, Enum)):
        return kind
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        members = {field.name: _from_json(hints[field.name]) for field in fields(kind)}
        return lambda given: kind(
            **{
                name: value if (convert := members[name]) is None else convert(value)
                for name, value in given.items()
                if name in members
            }
        )
    if origin in (Union, types.UnionType):
        choices = [each for each in arguments if each is not type(None)]
        if len(choices) != 1:
            raise TypeError(f"{kind!r} can't be parsed: more than one type")
        return _unless_none(_from_json(choices[0]))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        of_value = _from_json(arguments[1])
        return None if of_value is None else lambda given: {key: of_value(value) for key, value in given.items()}
    if origin in _LISTS:
        of_item = _from_json(arguments[0])
        made = origin if origin is not Sequence else tuple
        return lambda given: made(given if of_item is None else map(of_item, given))
    raise TypeError(f"{kind!r} can't be parsed")


def _time(text: str) -> datetime:
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
