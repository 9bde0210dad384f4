"""Taking over an installation that was made by hand: which processes are its own, and what is recorded of it.

Everything here was written by others: lines of commands, files, the record itself.
"""

import json
import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from helmd.model.errors import HelmError
from helmd.model.suite.names import KEYCLOAK_START_SECONDS, fault_in_name

OLDER_HELM = "hivematrix-helm"
"""The directory of the older Helm, beside the checkouts."""
Stage = Literal["planned", "stopped", "written", "done"]
STAGES: tuple[Stage, ...] = ("planned", "stopped", "written", "done")
"""How far an adoption is: what Helm may have changed by then."""

_RUNS_SCRIPTS = re.compile(r"(?:python|pypy|java|node|gunicorn|uwsgi|flask|celery|bash|dash|sh|authbind)[0-9.]*\Z")
_SCRIPT = re.compile(r"\A[^-].*\.(?:py|sh|js|jar)\Z|/")
_REALM = "/realms/hivematrix/.well-known/openid-configuration"


class AdoptionError(HelmError):
    """An installation can't be taken over, or given back, as it is."""


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """A process of this account. ``ports`` are those that it listens on; ``unit`` is empty outside the user manager."""

    pid: int
    started: int
    """Clock ticks after the boot (proc(5)); with the pid, what identifies a process."""
    directory: str
    words: tuple[str, ...]
    ports: frozenset[int] = frozenset()
    unit: str = ""

    @property
    def command(self) -> str:
        """Its command line, for display."""
        return shlex.join(self.words)[:160]


@dataclass(frozen=True, slots=True)
class CheckoutFile:
    """A file of a checkout as it was. ``mode`` is None where there was none."""

    service: str
    directory: str
    name: str
    mode: int | None = None
    modified: int = 0
    """Nanoseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """What is recorded of an adoption, so that it can be given back."""

    directory: str
    services: tuple[str, ...]
    stage: Stage
    files: tuple[CheckoutFile, ...] = ()
    absent: tuple[str, ...] = ()
    """Directories below checkouts that were not there."""
    secrets: tuple[str, ...] = ()
    """Services that had no file of secrets before."""
    units: tuple[str, ...] = ()
    """Units of the admin's own that ran the older Helm; transient ones are not among them."""
    enabled: tuple[str, ...] = ()
    """Those of them that were enabled."""
    at: float = 0.0


def process_owner(process: ProcessFacts, places: Mapping[str, str], ports: Mapping[str, int]) -> str:
    """Return whose process it is, of the directories PLACES by name; empty if it is nobody's.

    PORTS are those of services. A process belongs to a directory by what it executes: a program in it, or a script of
    it that an interpreter runs; or because it works there and listens on that service's port. That an editor or a shell
    works there says nothing.
    """
    if not process.words:
        return ""
    program, given = process.words[0], process.words[1:]
    runs = _RUNS_SCRIPTS.match(posixpath.basename(program)) is not None
    for name, place in places.items():
        executes = "/" in program and _within(_resolved(program, process.directory), place)
        script = runs and any(
            _names(word, place) or (_SCRIPT.search(word) and _within(_resolved(word, process.directory), place))
            for word in given
        )
        serves = ports.get(name) in process.ports and _within(f"{process.directory}/", place)
        if executes or script or serves:
            return name
    return ""


def _resolved(word: str, directory: str) -> str:
    return posixpath.normpath(posixpath.join(directory, word))


def _within(path: str, place: str) -> bool:
    return path.startswith(f"{place}/")


def _names(word: str, place: str) -> bool:
    """Return whether an argument is a path below PLACE, or has one after an equals sign or in a list."""
    return any(_within(part, place) for part in re.split("[=:]", word))


def keycloak_entry(path: str, command: Sequence[str], port: int) -> dict[str, Any]:
    """Return the settings of a service that runs a Keycloak as it was run before, with its own database."""
    return {
        "type": "command",
        "path": path,
        "port": port,
        "start_command": list(command),
        "health": {"path": _REALM, "start_path": _REALM, "start_timeout": KEYCLOAK_START_SECONDS},
        "success_exit_status": [143],
        "restart": {"stop_timeout": 30},
        "shared_paths": ["conf", "data", "providers", "themes"],
    }


def adoption_text(adoption: Adoption) -> str:
    """Return the record as the content of a file."""
    return json.dumps(asdict(adoption), indent=1) + "\n"


def adoption_of(text: str) -> Adoption:
    """Return the record that a file has. Raises AdoptionError."""
    try:
        found = json.loads(text)
        files = tuple(_kept(each) for each in found["files"])
        made = Adoption(
            _absolute(found["directory"]),
            tuple(_name(each) for each in found["services"]),
            found["stage"],
            files,
            tuple(_absolute(each) for each in found["absent"]),
            tuple(_name(each) for each in found["secrets"]),
            tuple(_unit(each) for each in found["units"]),
            tuple(_unit(each) for each in found["enabled"]),
            float(found["at"]),
        )
    except (ValueError, TypeError, LookupError, RecursionError) as problem:
        raise AdoptionError(
            f"the record of the adoption can't be read: {type(problem).__name__}",
            hint="What was kept is beside it, below ~/.local/state/hivematrix/adoption.",
        ) from None
    if made.stage not in STAGES:
        raise AdoptionError("the record of the adoption has no stage that is known")
    return made


def _kept(found: Mapping[str, Any]) -> CheckoutFile:
    name, mode = str(found["name"]), found["mode"]
    if name.startswith("/") or ".." in name.split("/") or not name:
        raise ValueError
    return CheckoutFile(
        _name(found["service"]),
        _absolute(found["directory"]),
        name,
        None if mode is None else int(mode) & 0o7777,
        int(found["modified"]),
    )


def _absolute(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or ".." in value.split("/"):
        raise ValueError
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or fault_in_name(value):
        raise ValueError
    return value


def _unit(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9:_.@\\-]{1,250}\.(service|timer)", value):
        raise ValueError
    return value
