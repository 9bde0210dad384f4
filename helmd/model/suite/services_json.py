"""Converting ``services.json`` of older Helm versions to settings of ``services.toml``."""

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helmd.model.config.toml_tables import MAX_FILE, shown_key
from helmd.model.errors import ConfigurationError, Fault
from helmd.model.suite.names import HELM_SERVICE, fault_in_name

FIELDS = frozenset(
    {
        "url",
        "path",
        "port",
        "type",
        "python_bin",
        "run_script",
        "start_command",
        "visible",
        "admin_only",
        "billing_or_admin_only",
        "description",
        "depends_on",
    }
)
"""Fields of the older format; their meaning is unchanged."""

_BELOW_PATH = ("python_bin", "run_script")


@dataclass(frozen=True, slots=True)
class Document:
    """The text of an older file. ``base`` is the absolute directory to which its relative paths refer."""

    file: str
    text: str
    base: str


@dataclass(frozen=True, slots=True)
class Legacy:
    """Settings by service, the file that first named each service, and remarks for the admin, as sentences."""

    services: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, str]
    remarks: tuple[str, ...]


def read_legacy(documents: Sequence[Document]) -> Legacy:
    """Merge DOCUMENTS. Raises ConfigurationError with all faults in their syntax and types.

    The values are validated later, by the registry.
    """
    faults: list[Fault] = []
    remarks: list[str] = []
    services: dict[str, dict[str, Any]] = {}
    files: dict[str, str] = {}
    for document in documents:
        for name, entry in _entries(document, faults).items():
            if name == HELM_SERVICE:
                remarks.append(_about_helm(entry))
                continue
            read = _fields(name, entry, document, remarks, faults)
            known = services.setdefault(name, {})
            files.setdefault(name, document.file)
            for key, value in read.items():
                if known.setdefault(key, value) != value:
                    sentence = f"differs from the value in {shown_key(files[name])}"
                    faults.append(Fault(document.file, 0, f"{name}.{key}", sentence))
    if not services and not faults:
        faults.append(Fault(documents[0].file, 0, "", "names no service"))
    if faults:
        raise ConfigurationError(faults)
    return Legacy({name: _converted(name, entry, remarks) for name, entry in services.items()}, files, tuple(remarks))


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"duplicate key {shown_key(key)}")
        found[key] = value
    return found


def _entries(document: Document, faults: list[Fault]) -> Mapping[str, Mapping[str, Any]]:
    """Return the entries of one document by name, and append a fault for each invalid one."""
    if len(document.text.encode("utf-8", "replace")) > MAX_FILE:
        faults.append(Fault(document.file, 0, "", f"is larger than {MAX_FILE >> 20} MiB"))
        return {}
    try:
        content = json.loads(document.text, object_pairs_hook=_pairs)
    except json.JSONDecodeError as problem:
        faults.append(Fault(document.file, problem.lineno, "", f"is not valid JSON: {problem.msg}"))
        return {}
    except ValueError as problem:
        faults.append(Fault(document.file, 0, "", f"can't be read: {problem}"))
        return {}
    except RecursionError:
        faults.append(Fault(document.file, 0, "", "is nested too deeply"))
        return {}
    if not isinstance(content, dict):
        faults.append(Fault(document.file, 0, "", "must be an object with an entry for each service"))
        return {}
    valid = {}
    for name, entry in content.items():
        if name != HELM_SERVICE and (sentence := fault_in_name(name)):
            faults.append(Fault(document.file, 0, shown_key(name), sentence))
        elif not isinstance(entry, dict):
            faults.append(Fault(document.file, 0, shown_key(name), "must be an object with the service's fields"))
        else:
            valid[name] = entry
    return valid


def _about_helm(entry: Mapping[str, Any]) -> str:
    port = entry.get("port")
    suffix = f" (http.port = {port})" if isinstance(port, int) and port != 5004 else ""
    return f"helm: ignored; its address is set in helm.toml{suffix}"


def _fields(
    name: str, entry: Mapping[str, Any], document: Document, remarks: list[str], faults: list[Fault]
) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in FIELDS:
            remarks.append(f"{name}: unknown field {shown_key(key)} ignored")
        elif isinstance(value, float | dict) or (isinstance(value, list) and key != "depends_on"):
            faults.append(Fault(document.file, 0, f"{name}.{key}", f"can't be {shown_key(value)}"))
        elif isinstance(value, str) and not _valid_unicode(value):
            faults.append(Fault(document.file, 0, f"{name}.{key}", "contains an unpaired surrogate"))
        elif isinstance(value, list) and not all(isinstance(item, str) and _valid_unicode(item) for item in value):
            faults.append(Fault(document.file, 0, f"{name}.{key}", "must be a list of service names"))
        elif value is not None:
            read[key] = value
    if isinstance(read.get("path"), str) and read["path"]:
        read["path"] = posixpath.normpath(posixpath.join(document.base, read["path"]))
    return read


def _valid_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _converted(name: str, entry: Mapping[str, Any], remarks: list[str]) -> Mapping[str, Any]:
    """Return an entry with the settings of ``services.toml``."""
    found = dict(entry)
    if found.get("type") == "keycloak":
        left = [key for key in ("path", "start_command") if found.pop(key, None) is not None]
        if left:
            remarks.append(
                f"{name}: {' and '.join(left)} ignored; helmctl setup installs Keycloak and stores its data in"
                " PostgreSQL. Move existing accounts with Keycloak's export and import"
            )
        return found
    if "type" not in found and "start_command" in found and not any(key in found for key in _BELOW_PATH):
        found["type"] = "command"
    path = found.get("path")
    if not path:
        found.pop("path", None)
        remarks.append(f"{name}: no path given; its directory is hivematrix-{name} below ~/.local/share/hivematrix")
    for key in _BELOW_PATH:
        inner = found.get(key)
        if isinstance(inner, str) and isinstance(path, str) and ".." in inner.split("/"):
            found[key] = posixpath.normpath(posixpath.join(path, inner))
    return found
