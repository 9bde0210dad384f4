"""Settings of one service in the text of ``services.toml``: changed, with comments and all else left as they are."""

import copy
import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

from helmd.model.config.secrets import holds_password
from helmd.model.config.validators import names_secret
from helmd.model.errors import CONTENT_FAULTS

MASK = "********"
_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)[\"']?\s*=")

_Tables = MutableMapping[str, Any]


def edited(text: str, service: str, set: Mapping[str, Any], unset: Iterable[str]) -> str:
    """Return TEXT with settings of SERVICE changed: SET by dotted key, those in UNSET taken out.

    Raises ValueError, with the reason, for text that is not TOML, a key of UNSET that it does not have, and what can't
    be written without changing something else.
    """
    # Imported here: only who changes settings needs it.
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        wanted = copy.deepcopy(tomllib.loads(text))
        document = tomlkit.parse(text)
    except (TOMLKitError, *CONTENT_FAULTS) as problem:
        raise ValueError(f"is not valid TOML: {str(problem).splitlines()[0][:120]}") from None
    unset = tuple(unset)
    try:
        for tables in (wanted, document):
            own = _service_table(tables, service, make=tomlkit.table if tables is document else dict)
            for key in unset:
                _take_out(own, key.split("."))
            for key, value in set.items():
                _put(own, key.split("."), value, tomlkit.inline_table if tables is document else dict)
        changed = tomlkit.dumps(document)
        changed.encode()
    except _NotThereError as problem:
        raise ValueError(str(problem)) from None
    except (TOMLKitError, *CONTENT_FAULTS) as problem:
        raise ValueError(f"a value can't be written as TOML: {str(problem).splitlines()[0][:120]}") from None
    try:
        same = tomllib.loads(changed) == wanted
    except CONTENT_FAULTS:
        same = False
    if not same:
        raise ValueError("this can't be changed in it without changing something else")
    return changed


class _NotThereError(Exception):
    """A setting that is to be taken out is not there."""


def _service_table(tables: _Tables, service: str, make: Any) -> _Tables:
    if "services" not in tables:
        tables["services"] = make()
    services = tables["services"]
    if service not in services:
        services[service] = make()
    own: _Tables = services[service]
    return own


def _take_out(table: _Tables, path: Sequence[str]) -> None:
    inner = table.get(path[0])
    if len(path) > 1 and isinstance(inner, MutableMapping):
        _take_out(inner, path[1:])
        if not inner:
            del table[path[0]]
    elif len(path) == 1 and path[0] in table:
        del table[path[0]]
    else:
        raise _NotThereError(f"{path[-1]} is not set in it")


def _put(table: _Tables, path: Sequence[str], value: Any, make: Any) -> None:
    """New tables are made inline: tomlkit puts a table with a head behind comments about what follows."""
    first = path[0]
    inner = table.get(first)
    if len(path) > 1:
        if not isinstance(inner, MutableMapping):
            inner = make()
            _put(inner, path[1:], value, make)
            table[first] = inner
        else:
            _put(inner, path[1:], value, make)
    elif isinstance(value, Mapping):
        if not isinstance(inner, MutableMapping):
            made = make()
            for name, item in value.items():
                made[name] = item
            table[first] = made
            return
        for name in [each for each in inner if each not in value]:
            del inner[name]
        for name, item in value.items():
            inner[name] = item
    else:
        table[first] = value


def masked(value: Any) -> Any:
    """Return VALUE of a setting with MASK for each text that holds a password, and for each variable named like a
    secret.
    """
    if isinstance(value, str):
        return MASK if holds_password(value) else value
    if isinstance(value, Mapping):
        return {str(name): MASK if item and names_secret(str(name)) else masked(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item) for item in value]
    return value


def text_difference(before: str, after: str, name: str) -> str:
    """Return the unified diff of two texts of the file NAME, with MASK for what looks like a secret; empty for equal
    ones.
    """
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), f"a/{name}", f"b/{name}", lineterm="")
    return "".join(f"{_masked_line(line)}\n" for line in lines)


def _masked_line(line: str) -> str:
    found = next((each for each in _ASSIGNED.finditer(line) if names_secret(each[1].rpartition(".")[2])), None)
    if found is not None and line[found.end() :].strip():
        return f"{line[: found.end()]} {MASK}"
    return f"{line[:1]}{MASK}" if holds_password(line) else line
