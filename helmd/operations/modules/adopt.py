"""``helmctl adopt``: takes over a manual installation, with its checkouts in place, and can undo that.

Files in checkouts that Helm may change, and what is needed to start the older Helm again, are copied before anything is
changed. Databases are not moved. Progress is recorded on disk before each step, so that an interrupted adoption is
completed or undone by the same command.
"""

import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from helmd.files.beneath import opened_directory, read_in, write_below
from helmd.files.durable import fsync_directory, write_atomically
from helmd.files.lock import locked
from helmd.model.config.config_text import value_in
from helmd.model.config.settings import Settings
from helmd.model.counted import counted
from helmd.model.layout import Layout
from helmd.model.modules.adoption import (
    OLDER_HELM,
    Adoption,
    AdoptionError,
    CheckoutFile,
    Stage,
    adoption_of,
    adoption_text,
    keycloak_entry,
)
from helmd.model.suite.names import HELM_UNITS, unit_of
from helmd.operations.configuration.apply import apply, changes
from helmd.operations.configuration.import_json import Import, plan_import, write_import
from helmd.operations.configuration.load import load_settings, load_suite
from helmd.operations.configuration.module_files import FLASKENV, KEYS, SERVICES_JSON, describe_file_error, read_text
from helmd.operations.modules.processes import FoundProcess, FoundProcesses, end_processes, find_processes
from helmd.operations.setup.setup import run_unit
from helmd.systemd.bus import Manager, Signals

ADOPTED_FILE = "adopted.toml"
OLDER_CONFIG = "instance/helm.conf"
_RECORD, _KEPT = "adoption.json", "kept"
_MADE_DIRECTORIES = ("instance", "keys", "certs")
"""Directories of a checkout that Helm may create."""

Said = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AdoptionPlan:
    """What an adoption would do. Sentences are without a full stop."""

    directory: Path
    imported: Import
    places: Mapping[str, Path]
    processes: FoundProcesses
    databases: Mapping[str, str]
    """The address of the database that a service continues to use, without password."""
    logs: str
    """The address of the older Helm's database with log entries; empty if unknown."""
    remarks: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def units(self) -> tuple[str, ...]:
        """Units of the account that run the older Helm, which are stopped and disabled."""
        found = {each.facts.unit for each in self.processes.own if not each.system}
        return tuple(sorted(unit for unit in found if unit.endswith(".service")))

    @property
    def steps(self) -> tuple[str, ...]:
        """What would be done, in order."""
        ended = [each for each in self.processes.own if each.facts.unit not in self.units]
        steps = [f"keep {', '.join(_kept_names('NAME'))} and keys of {counted(len(self.places), 'checkout')}"]
        steps += [f"stop and disable {unit}" for unit in self.units]
        steps += [f"end pid {each.facts.pid} ({each.owner}): {each.facts.command}" for each in ended]
        steps.append(f"write {self.imported.target}: {', '.join(self.imported.services)}")
        steps.append("set up Helm, and start them as units, each until it is healthy")
        steps += [f"leave the database of {name} where it is: {where}" for name, where in self.databases.items()]
        if self.logs:
            steps.append(f"copy the older Helm's log entries from {self.logs}, as a job")
        return tuple(steps)


class _Amendments:
    """Changes of imported entries, so that services run as before."""

    def __init__(self, directory: Path, raw: Mapping[str, Any]) -> None:
        self._directory, self._raw = directory, raw
        self.places: dict[str, Path] = {}
        self.databases: dict[str, str] = {}
        self.remarks: list[str] = []

    def __call__(self, services: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for name, entry in services.items():
            if entry.get("type") == "keycloak":
                entry = self._keycloak(name, entry)
            place = Path(str(entry.get("path", self._directory / f"hivematrix-{name}")))
            if not place.is_dir():
                self.remarks.append(f"{name} is left out: {place} does not exist")
                continue
            self.places[name] = place
            entry = {**entry, "path": str(place)}
            if where := _database(place, name):
                self.databases[name] = where
                entry |= {"database": False}
            found[name] = entry
        return found

    def _keycloak(self, name: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        raw = self._raw.get(name, {})
        given, command = raw.get("path"), raw.get("start_command") or "bin/kc.sh start-dev"
        if not isinstance(given, str) or not isinstance(command, str) or not isinstance(entry.get("port"), int):
            return entry
        place = Path(os.path.normpath(self._directory / OLDER_HELM / given))
        self.remarks.append(
            f"{name} goes on in {place} with the database that it has; users and the realm stay as they are, and are"
            " managed in Keycloak itself"
        )
        return {**entry, **keycloak_entry(str(place), command.split(), entry["port"])}


def plan_adoption(given: Path, layout: Layout, settings: Settings) -> AdoptionPlan:
    """Return the plan for the installation in GIVEN. Raises AdoptionError and ConfigurationError."""
    directory = Path(os.path.realpath(given))
    if directory.name == OLDER_HELM:
        directory = directory.parent
    file = directory / OLDER_HELM / "services.json"
    if not file.is_file():
        raise AdoptionError(
            f"{directory} has no {OLDER_HELM}/services.json, which an installation of an older Helm has",
            hint="Name the directory in which hivematrix-helm and the other checkouts are.",
        )
    if os.stat(directory).st_uid != os.geteuid():
        raise AdoptionError(
            f"{directory} belongs to another account", hint="Run helmctl adopt as the account that runs it."
        )
    amend = _Amendments(directory, _raw(file))
    imported = plan_import([file], None, layout, settings, ADOPTED_FILE, amend)
    suite = {name: amend.places[name] for name in imported.services}
    ports = {name: port for name, port in _ports(imported).items() if name in suite}
    found = find_processes({**suite, OLDER_HELM: directory / OLDER_HELM}, ports, lambda unit: _of_helm(layout, unit))
    return AdoptionPlan(
        directory,
        imported,
        suite,
        found,
        amend.databases,
        _where(_older_database(directory)),
        (*amend.remarks, *_kept_remarks(imported.remarks)),
        tuple(_faults(directory, suite, found, layout)),
    )


def _raw(file: Path) -> Mapping[str, Any]:
    """Return the entries of the older file, which the import checks."""
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {name: entry for name, entry in found.items() if isinstance(entry, dict)} if isinstance(found, dict) else {}


def _kept_remarks(remarks: Iterable[str]) -> Iterator[str]:
    """Yield remarks of the import, except those about Keycloak, which runs as before here."""
    yield from (remark for remark in remarks if "helmctl setup installs Keycloak" not in remark)


def _ports(imported: Import) -> dict[str, int]:
    import tomllib

    services = tomllib.loads(imported.text)["services"]
    return {name: entry["port"] for name, entry in services.items() if isinstance(entry.get("port"), int)}


def _of_helm(layout: Layout, unit: str) -> bool:
    return unit in HELM_UNITS or layout.unit_file(unit).exists()


def _faults(directory: Path, places: Mapping[str, Path], found: FoundProcesses, layout: Layout) -> Iterator[str]:
    if not places:
        yield "none of its services has a directory"
    for name, place in places.items():
        if exposed := layout.exposed(Path(os.path.realpath(place))):
            yield f"{name} can't run in {place}: it would see {exposed}"
    for each in found.own:
        if each.system:
            unit = each.facts.unit
            yield f"{each.owner} is run by the system's {unit}; first: sudo systemctl disable --now {unit}"
    for name, holder in found.foreign.items():
        yield f"the port of {name} is kept by another program: {holder}"


def _kept_names(service: str) -> tuple[str, ...]:
    """Return the paths, in a checkout, of the files that Helm may write."""
    return (FLASKENV, SERVICES_JSON, f"instance/{service}.conf", *KEYS.get(service, ()))


def _database(place: Path, service: str) -> str:
    """Return the address of the database in a service's own configuration; empty for none."""
    try:
        text = read_text(place, f"instance/{service}.conf")
        return _where(value_in(text, "ini", "database", "connection_string") or "")
    except (OSError, ValueError):
        return ""


def older_database(directory: Path) -> str:
    """Return the URI of the older Helm's database, with its password; empty for none that is known."""
    return _older_database(directory)


def _older_database(directory: Path) -> str:
    try:
        text = read_text(directory / OLDER_HELM, OLDER_CONFIG)
        found = value_in(text, "ini", "database", "connection_string") or ""
    except (OSError, ValueError):
        return ""
    # SQLAlchemy's URIs name a driver.
    return re.sub(r"\Apostgresql\+[a-z0-9]+:", "postgresql:", found)


def _where(uri: str) -> str:
    """Return a URI of PostgreSQL without its secrets; empty for other URIs."""
    try:
        parts = urlsplit(uri)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    if parts.scheme.partition("+")[0] not in ("postgresql", "postgres") or not parts.path.strip("/"):
        return ""
    return f"postgresql://{parts.hostname or 'localhost'}{port}{parts.path}"


def record_place(layout: Layout) -> Path:
    """Return the path of the record of the account's adoption."""
    return layout.adoption / _RECORD


def read_adoption(layout: Layout) -> Adoption | None:
    """Return the adoption of this account, or None if there is none. Raises AdoptionError."""
    try:
        return adoption_of(record_place(layout).read_text(errors="replace"))
    except FileNotFoundError:
        return None


def adopt_installation(plan: AdoptionPlan, layout: Layout, manager: Callable[[], Manager], notify: Said) -> Adoption:
    """Carry out PLAN up to the configuration: processes are ended, and the services become part of the suite.

    Raises AdoptionError, also if another installation was taken over already, LockedError and OSError.
    """
    if plan.faults:
        raise AdoptionError(f"{plan.directory} can't be taken over: {plan.faults[0]}", hint="Nothing was changed.")
    with locked(layout.state / "adoption.lock", "an installation is being taken over"):
        before = read_adoption(layout)
        if before is not None and (before.directory != str(plan.directory) or before.stage == "done"):
            raise AdoptionError(
                f"{before.directory} was taken over already", hint="To give it back, run: helmctl adopt --undo"
            )
        states = {unit: manager().facts(unit).file_state for unit in plan.units}
        adoption = before or _keep(plan, layout, states)
        notify(f"kept {counted(len(adoption.files), 'file')} of the checkouts in {layout.adoption / _KEPT}")
        _stop(plan, adoption.enabled, manager, notify)
        adoption = _at(adoption, "stopped", layout)
        # Files written by an interrupted adoption are written again.
        write_import(plan.imported, force=before is not None)
        notify(f"wrote {plan.imported.target}")
        return _at(adoption, "written", layout)


def finish(layout: Layout) -> None:
    """Record that the services of an adoption run."""
    with locked(layout.state / "adoption.lock", "an installation is being taken over"):
        if (adoption := read_adoption(layout)) is not None:
            _at(adoption, "done", layout)


def _at(adoption: Adoption, stage: Stage, layout: Layout) -> Adoption:
    changed = replace(adoption, stage=stage)
    write_atomically(record_place(layout), adoption_text(changed), 0o600)
    return changed


def _keep(plan: AdoptionPlan, layout: Layout, states: Mapping[str, str]) -> Adoption:
    """Copy the files that may be changed, and write the record. STATES are those of unit files, by unit.

    Raises AdoptionError for a file that can't be copied.
    """
    shutil.rmtree(layout.adoption, ignore_errors=True)
    place = layout.adoption / _KEPT
    place.mkdir(parents=True, mode=0o700)
    layout.adoption.chmod(0o700)
    files: list[CheckoutFile] = []
    for service, directory in plan.places.items():
        for name in _kept_names(service):
            files.append(_keep_file(service, directory, name, place / str(len(files))))
    fsync_directory(place)
    absent = [str(place / name) for place in plan.places.values() for name in _MADE_DIRECTORIES]
    adoption = Adoption(
        str(plan.directory),
        tuple(plan.places),
        "planned",
        tuple(files),
        tuple(each for each in absent if not os.path.lexists(each)),
        tuple(name for name in plan.places if not layout.secrets_file(name).exists()),
        tuple(unit for unit, state in states.items() if state != "transient"),
        tuple(unit for unit, state in states.items() if state == "enabled"),
        time.time(),
    )
    return _at(adoption, "planned", layout)


def _keep_file(service: str, directory: Path, name: str, place: Path) -> CheckoutFile:
    path = directory / name
    try:
        with opened_directory(path.parent) as folder:
            content = read_in(folder, path.name)
            facts = None if content is None else os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        content, facts = None, None
    except OSError as problem:
        raise AdoptionError(
            f"a file that Helm would change can't be kept: {path}: {problem.strerror}",
            hint="Nothing was changed. Replace it by a plain file, and run the command again.",
        ) from None
    if content is None or facts is None:
        return CheckoutFile(service, str(directory), name)
    write_atomically(place, content.decode("utf-8", "surrogateescape"), 0o600)
    return CheckoutFile(service, str(directory), name, stat.S_IMODE(facts.st_mode), facts.st_mtime_ns)


def _stop(plan: AdoptionPlan, enabled: tuple[str, ...], manager: Callable[[], Manager], notify: Said) -> None:
    if plan.units:
        with Signals() as signals:
            bus = manager()
            bus.subscribe()
            bus.disable(enabled)
            for unit in plan.units:
                run_unit(bus, signals, unit, stop=True)
                notify(f"stopped {unit}" + (" and disabled it" if unit in enabled else ""))
    running = [each for each in plan.processes.own if each.facts.unit not in plan.units]
    # The older Helm first: it might restart the others.
    for group in (
        [each for each in running if each.owner == OLDER_HELM],
        [each for each in running if each.owner != OLDER_HELM],
    ):
        for killed in end_processes([each.facts for each in group]):
            notify(f"warning: pid {killed.pid} did not end by itself and was killed: {killed.command}")
        for each in group:
            notify(f"ended pid {each.facts.pid} ({_owner_words(each)})")


def _owner_words(found: FoundProcess) -> str:
    return "the older Helm" if found.owner == OLDER_HELM else found.owner


def undo_adoption(layout: Layout, manager: Manager, notify: Said) -> Adoption:
    """Undo the adoption of this account: its services are removed from the suite, and its files restored.

    Later versions of these files are kept. Raises AdoptionError if there is none, LockedError and OSError.
    """
    with locked(layout.state / "adoption.lock", "an installation is being taken over"):
        adoption = read_adoption(layout)
        if adoption is None:
            raise AdoptionError("nothing was taken over", hint="See: helmctl adopt --help")
        target = layout.registry_directory / ADOPTED_FILE
        if target.exists():
            _leave_suite(adoption, target, layout, manager, notify)
        replaced = layout.state / f"adoption-replaced-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        for number, kept in enumerate(adoption.files):
            _restore_file(kept, layout.adoption / _KEPT / str(number), replaced)
        for each in adoption.absent:
            with suppress(OSError):
                os.rmdir(each)
        for name in adoption.secrets:
            layout.secrets_file(name).unlink(missing_ok=True)
        if replaced.exists():
            notify(f"what these files had meanwhile is in {replaced}")
        if adoption.enabled:
            manager.enable(adoption.enabled)
            manager.daemon_reload()
        for unit in adoption.units:
            manager.start(unit)
            notify(f"started {unit}" + (" and enabled it" if unit in adoption.enabled else ""))
        record_place(layout).unlink()
        shutil.rmtree(layout.adoption, ignore_errors=True)
        return adoption


def _leave_suite(adoption: Adoption, target: Path, layout: Layout, manager: Manager, notify: Said) -> None:
    """Stop the services and take them out of the suite."""
    with Signals() as signals:
        manager.subscribe()
        for name in reversed(adoption.services):
            if manager.facts(unit_of(name)).active_state not in ("inactive", "failed"):
                run_unit(manager, signals, unit_of(name), stop=True)
                notify(f"stopped {name}")
        target.unlink()
        settings = load_settings(layout)
        suite = load_suite(layout, settings)
        found = changes(suite, layout, settings)
        for change in found:
            if change.kind == "orphan" and manager.facts(change.unit).active:
                run_unit(manager, signals, change.unit, stop=True)
    done = apply(found, suite, layout, settings, manager).done
    notify(f"removed {counted(sum(change.kind == 'orphan' for change in done), 'unit')}")


def _restore_file(kept: CheckoutFile, place: Path, replaced: Path) -> None:
    """Restore a file; a different present content is moved to REPLACED."""
    path = Path(kept.directory, kept.name)
    content = None if kept.mode is None else place.read_bytes()
    try:
        with opened_directory(path.parent) as folder:
            now = read_in(folder, path.name)
            if now is not None and now != content and kept.name != SERVICES_JSON:
                replaced.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_below(replaced, f"{kept.service}/{kept.name}", now, 0o600)
            if content is None:
                if now is not None:
                    os.unlink(path.name, dir_fd=folder)
                return
    except FileNotFoundError:
        if content is None:
            return
    except OSError as problem:
        raise AdoptionError(
            f"{path} can't be restored: {describe_file_error(problem)}",
            hint=f"What it had is in {place}; then run this again.",
        ) from None
    assert content is not None and kept.mode is not None
    write_below(Path(kept.directory), kept.name, content, kept.mode)
    os.utime(path, ns=(kept.modified, kept.modified), follow_symlinks=False)
