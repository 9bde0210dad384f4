"""Setting one value in the text of a configuration file of another program; everything else in it stays as it is."""

import configparser
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from helmd.model.config.toml_text import toml_text


def value_in(text: str, kind: str, section: str, key: str) -> str | None:
    """Return the value of KEY in SECTION, or None if it is not set.

    Raises ValueError, with the reason, for text that is not of this KIND of file.
    """
    found = _READ[kind](text, section, key)
    return None if found is None else str(found)


def with_value(text: str, kind: str, section: str, key: str, value: str) -> str:
    """Return TEXT with KEY in SECTION set to VALUE. Raises ValueError, with the reason, if that can't be done without
    changing anything else.
    """
    before = _parsed(text, kind)
    changed = _WRITTEN[kind](text, section, key, value)
    if value_in(changed, kind, section, key) != value or _without(_parsed(changed, kind), kind, section, key) != (
        _without(before, kind, section, key)
    ):
        raise ValueError(f"{key} can't be set in it without changing something else")
    return changed


def _parsed(text: str, kind: str) -> dict[str, Any]:
    """Return what TEXT says, as nested tables."""
    try:
        if kind == "json":
            read = json.loads(text or "{}")
            if not isinstance(read, dict):
                raise ValueError("must be a JSON object")
            return read
        if kind == "toml":
            return tomllib.loads(text)
        if kind == "ini":
            parser = _ini(text)
            return {name: dict(parser.items(name)) for name in parser.sections()}
    except (ValueError, configparser.Error, RecursionError) as problem:
        raise ValueError(f"is not valid {kind.upper()}: {str(problem).splitlines()[0][:120]}") from None
    return {found[2]: found[3] for line in text.splitlines() if (found := _VARIABLE.match(line))}


def _ini(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(default_section="\0", interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def _place(section: str) -> list[str]:
    return [part for part in section.split(".") if part]


def _nested(tables: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    for part in _place(section):
        inner = tables.get(part, {})
        if not isinstance(inner, dict):
            raise ValueError(f"{part} is not a table in it")
        tables = inner
    return tables


def _read_table(kind: str) -> Callable[[str, str, str], Any]:
    return lambda text, section, key: _nested(_parsed(text, kind), section).get(key)


def _read_ini(text: str, section: str, key: str) -> Any:
    table = _parsed(text, "ini").get(section, {})
    return next((value for name, value in table.items() if name.lower() == key.lower()), None)


def _read_env(text: str, section: str, key: str) -> Any:
    value = _parsed(text, "env").get(key)
    return value if value is None else value.strip().strip("\"'")


def _without(tables: Mapping[str, Any], kind: str, section: str, key: str) -> dict[str, Any]:
    """Return TABLES without KEY, and without tables that are empty then."""
    path = {"ini": [section], "env": []}.get(kind, _place(section))
    return _removed(tables, path, key.lower() if kind == "ini" else key, kind == "ini")


def _removed(tables: Mapping[str, Any], path: list[str], key: str, any_case: bool) -> dict[str, Any]:
    copy: dict[str, Any] = {}
    for name, value in tables.items():
        if not path and (name.lower() if any_case else name) == key:
            continue
        if path and name == path[0] and isinstance(value, dict):
            value = _removed(value, path[1:], key, any_case)
            if not value:
                continue
        copy[name] = value
    return copy


_VARIABLE = re.compile(r"\s*(export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)")


def _write_env(text: str, section: str, key: str, value: str) -> str:
    lines, done = [], False
    for line in text.splitlines():
        found = _VARIABLE.match(line)
        if found and found[2] == key:
            line, done = f"{found[1] or ''}{key}={value}", True
        lines.append(line)
    return "".join(f"{line}\n" for line in (lines if done else [*lines, f"{key}={value}"]))


def _write_json(text: str, section: str, key: str, value: str) -> str:
    tables = _parsed(text, "json")
    place = tables
    for part in _place(section):
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise ValueError(f"{part} is not an object in it")
    place[key] = value
    return json.dumps(tables, indent=2, ensure_ascii=False) + "\n"


_TABLE = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*([#;].*)?$")


def _in_section(
    text: str, section: str, header: Callable[[str], str | None], is_key: re.Pattern[str], line: str
) -> str:
    """Return TEXT with LINE in the place of the line in SECTION that IS_KEY matches, or else behind the section's
    header.
    """
    lines = text.splitlines()
    current, at = "", None if section else 0
    for number, each in enumerate(lines):
        if (name := header(each)) is not None:
            current = name
            at = number + 1 if current == section and at is None else at
        elif current == section and is_key.match(each):
            end = number + 1
            # Lines that continue the value begin with a blank (configparser).
            while end < len(lines) and lines[end][:1] in (" ", "\t") and lines[end].strip():
                end += 1
            return "".join(f"{kept}\n" for kept in (*lines[:number], line, *lines[end:]))
    if at is None:
        lines += [*([""] if lines else []), f"[{section}]"]
        at = len(lines)
    return "".join(f"{kept}\n" for kept in (*lines[:at], line, *lines[at:]))


def _write_ini(text: str, section: str, key: str, value: str) -> str:
    def header(line: str) -> str | None:
        found = re.match(r"\[(.+)\]", line)
        return found[1] if found else None

    is_key = re.compile(rf"{re.escape(key)}\s*([=:]|$)", re.IGNORECASE)
    return _in_section(text, section, header, is_key, f"{key} = {value}")


def _write_toml(text: str, section: str, key: str, value: str) -> str:
    def header(line: str) -> str | None:
        found = _TABLE.match(line)
        return ".".join(part.strip().strip("\"'") for part in found[1].split(".")) if found else None

    is_key = re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*=""")
    return _in_section(text, section, header, is_key, toml_text({key: value}).strip())


_READ: Mapping[str, Callable[[str, str, str], Any]] = {
    "ini": _read_ini,
    "env": _read_env,
    "json": _read_table("json"),
    "toml": _read_table("toml"),
}
_WRITTEN: Mapping[str, Callable[[str, str, str, str], str]] = {
    "ini": _write_ini,
    "env": _write_env,
    "json": _write_json,
    "toml": _write_toml,
}
