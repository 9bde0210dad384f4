"""Writing TOML 1.0, which the standard library only reads: strings, integers, booleans, lists, tables."""

import json
import re
from collections.abc import Mapping, Sequence

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")


def _text(value: str) -> str:
    """Return a basic string. JSON's escapes are valid in TOML, but JSON does not escape DEL."""
    if _SURROGATE.search(value):
        raise ValueError("an unpaired surrogate cannot be written as TOML")
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE.match(name) else _text(name)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    raise ValueError(f"a value of type {type(value).__name__} cannot be written as TOML")


def toml_text(table: Mapping[str, object]) -> str:
    """Return a document that `tomllib` reads back as TABLE. Raises ValueError for a value that cannot be written."""
    return "\n\n".join(_sections(table, ())) + "\n"


def _sections(table: Mapping[str, object], place: tuple[str, ...]) -> list[str]:
    plain = [f"{_key(name)} = {_value(value)}" for name, value in table.items() if not isinstance(value, Mapping)]
    inner = {name: value for name, value in table.items() if isinstance(value, Mapping)}
    head = [f"[{'.'.join(map(_key, place))}]"] if place and (plain or not inner) else []
    own = ["\n".join(head + plain)] if head or plain else []
    return own + [section for name, value in inner.items() for section in _sections(value, (*place, name))]
