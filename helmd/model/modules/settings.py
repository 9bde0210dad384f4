"""What a module declares about itself in ``hivematrix.toml``: the settings of a table of services.toml(5), as far as a
repository may say them. The admin's files override them.

The file comes with code that is not trusted, and its settings become part of a unit. So it can only set what the module
itself has to answer for: nothing that widens its sandbox, names places outside its tree, or asks for secrets of others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helmd.model.config.service_schema import SERVICE_SETTINGS
from helmd.model.config.toml_tables import ConfigSource, SettingsReader, parse_toml
from helmd.model.config.toml_text import toml_text
from helmd.model.errors import Fault
from helmd.model.suite.names import CLIENT_SECRET
from helmd.model.suite.service import Service
from helmd.model.units.hardening import ISOLATED

DECLARED_FILE = "hivematrix.toml"
TABLE = "service"
ENVIRONMENT = "pyenv"
"""Where a version's virtual environment is."""

_ADMINS = {
    "path": "the version's directory is",
    "url": "the port is",
    "install.source": "that is where it was installed from",
    "install.ref": "that is what was installed",
    "readable_paths": "only an admin can show it other files",
    "writable_paths": "only an admin can show it other files",
    "realm": "that is Keycloak's",
}
"""Settings that a module can't make, with the reason or what says so instead."""
_BELOW = ("python_bin", "run_script", "database_config.file")
_COMMANDS = ("start_command", "development.start_command", "production.start_command", "pre_start", "reload_command")
_ENVIRONMENTS = ("environment", "development.environment", "production.environment")
_SYSTEM = ("/usr", "/bin", "/sbin", "/opt")
"""Where programs are that every service sees. What is named elsewhere would be bound into the module's unit."""
_TYPES = ("python", "command", "oneshot")


@dataclass(frozen=True, slots=True)
class Declared:
    """The settings of one module by dotted key, and as the text of a catalogue that has them."""

    keys: tuple[str, ...] = ()
    text: str = ""
    unguarded: bool = False
    """Whether it wants a unit whose profile guards nothing."""


def read_declared(name: str, text: str) -> tuple[Declared, list[Fault]]:
    """Return what the module NAME declares in the TEXT of its file, and every fault in it."""
    faults: list[Fault] = []
    source = ConfigSource(DECLARED_FILE, text)
    tables, lines = parse_toml(source, faults)
    for key in tables:
        if key != TABLE:
            faults.append(
                Fault(DECLARED_FILE, lines.get((key,), 0), ascii(key)[1:-1][:60], f"is unknown; use [{TABLE}]")
            )
    table = tables.get(TABLE, {})
    if not isinstance(table, dict):
        return Declared(), [*faults, Fault(DECLARED_FILE, 0, TABLE, "must be a table")]
    given = SettingsReader(SERVICE_SETTINGS).read(table, (TABLE,), DECLARED_FILE, lines, faults)
    for key, item in given.items():
        if sentence := _refusal(key, item.value):
            faults.append(Fault(DECLARED_FILE, item.line, f"{TABLE}.{key}", sentence))
    if faults:
        return Declared(), faults
    unguarded = "hardening" in given and given["hardening"].value not in ISOLATED
    return Declared(tuple(given), _catalogue(name, table), unguarded), []


def _refusal(key: str, value: Any) -> str:
    if key in _ADMINS:
        return f"can't be set by a module: {_ADMINS[key]}"
    if key == "type" and value not in _TYPES:
        return f"must be one of {', '.join(_TYPES)}"
    if key in _BELOW and str(value).startswith(("/", "~")):
        return "must be relative to the module's tree"
    if key in _COMMANDS and value and not _is_seen(value[0]):
        return "must be in the module's tree, or a program of the system"
    if key in _ENVIRONMENTS and not all(map(_is_seen, value.get("PATH", "").split(":"))):
        return "must have directories of the system alone in PATH"
    if key == "install.interpreter" and "/" in value:
        # It is run to learn its version, and not in the sandbox.
        return "must be a name such as python3.12; only an admin can name another place"
    if key == "flaskenv" and CLIENT_SECRET in value.values():
        return f"must not ask for {CLIENT_SECRET}"
    return ""


def _is_seen(path: str) -> bool:
    """Return whether a module's unit sees PATH without anything being bound: a name, a path in its tree, or the
    system's.
    """
    if path.startswith("~") or ".." in path.split("/"):
        return False
    return not path.startswith("/") or path.startswith(tuple(f"{place}/" for place in _SYSTEM))


def _catalogue(name: str, table: Mapping[str, Any]) -> str:
    """Return TABLE as that of a service in a catalogue."""
    return toml_text({"services": {name: _plain(table)}})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return f"{value:g}"
    return value


def entry_text(name: str, path: str, source: str, ref: str) -> str:
    """Return the file of an installed module in ``services.d``: it makes the module part of the suite, run from
    PATH.
    """
    install = {"source": source} | ({"ref": ref} if ref else {})
    body = toml_text({"services": {name: {"path": path, "install": install}}})
    return f"# Written by helmctl modules, which also removes it. Your own settings go into services.toml.\n\n{body}"


def shared_path_faults(service: Service) -> tuple[str, ...]:
    """Return why the shared paths of a module can't be what they are, a sentence each."""
    faults = []
    for path in service.shared_paths:
        if path == ENVIRONMENT or path.startswith(f"{ENVIRONMENT}/"):
            faults.append(f"shared_paths: {path} is made for each version")
        if path == "services.json":
            faults.append("shared_paths: services.json is written by Helm")
        if any(other != path and path.startswith(f"{other}/") for other in service.shared_paths):
            faults.append(f"shared_paths: {path} lies in another one")
    return tuple(faults)
