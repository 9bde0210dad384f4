"""``helmctl keycloak upgrade``: upgrading Keycloak, with a copy of its database for a rollback.

A newer Keycloak migrates its database at its first start, after which older ones can't use it. The facts for a rollback
are recorded before the first change, so that an interrupted upgrade is undone by the next one.
"""

import json
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from helmd.files.durable import write_atomically
from helmd.files.lock import locked
from helmd.journal.lines import last_lines
from helmd.keycloak.distribution.artefact import KEYCLOAK, Artefact, DownloadCallback
from helmd.keycloak.distribution.fetch import fetch
from helmd.keycloak.distribution.maven import available
from helmd.keycloak.distribution.unpack import artefact_of, unpack, unpacked
from helmd.model.config.settings import Settings
from helmd.model.errors import HelmError, KeycloakError, StartFailedError, UsageError
from helmd.model.layout import Layout
from helmd.operations.configuration.apply import apply, changes, changes_for
from helmd.operations.configuration.databases import administration
from helmd.operations.configuration.load import load_suite
from helmd.operations.configuration.registry_file import set_in_registry
from helmd.operations.identity.server import KeycloakUnit, Report, keycloak_unit, stop_server
from helmd.postgres.cluster import KEYCLOAK_ROLE
from helmd.postgres.roles import copy_database, restore_copy
from helmd.systemd.bus import Manager

COPY = f"{KEYCLOAK_ROLE}_before_upgrade"
"""The database with the copy. It is kept until the next upgrade."""
_PAUSE = 0.25
_VERSION = re.compile(r"(\d+(?:\.\d+)+)")
_OF_THE_ADMIN = ("conf", "providers", "themes")
"""Directories of an installation with files of the admin, which are copied (Keycloak's upgrading guide)."""
_ALWAYS_TAKEN = ("conf/keycloak.conf",)
"""Files that are copied although the new installation has them, without content."""


@dataclass(frozen=True, slots=True)
class Return:
    """The target of a rollback: the path of the service, and the text of ``services.toml``."""

    path: str
    text: str
    changed: str
    """The text that the upgrade wrote to the file; if it differs now, only the path is restored."""


@dataclass(frozen=True, slots=True)
class ReplacedKeycloak:
    """A Keycloak that was replaced, and its old path."""

    before: str
    after: str
    kept: Path


def version_of(home: Path) -> str:
    """Return the version of the Keycloak in HOME. Raises KeycloakError if there is none."""
    try:
        found = _VERSION.search((home / "version.txt").read_text())
    except (OSError, UnicodeDecodeError):
        found = None
    if found is None:
        raise KeycloakError(f"{home} holds no Keycloak", hint="Run: helmctl setup")
    return found[1]


def older(version: str, than: str) -> bool:
    """Return whether VERSION comes before THAN."""
    return [int(part) for part in version.split(".")] < [int(part) for part in than.split(".")]


def upgrade(
    layout: Layout,
    settings: Settings,
    manager: Manager,
    notify: Report,
    target: str = "",
    progress: DownloadCallback = lambda done, total: None,
) -> ReplacedKeycloak:
    """Upgrade to the Keycloak TARGET: the path of an archive, or the version for this Helm, which is the default.

    If this raises an error, the old one was restored with its database. Raises KeycloakError, FetchError,
    UsageError, and LockedError while another process sets Keycloak up.
    """
    with locked(layout.keycloak_lock, "Keycloak is being set up"):
        if _runs_since_interruption(layout, settings, manager):
            notify("the last upgrade was interrupted, but Keycloak runs since; it is not undone")
            layout.keycloak_upgrade.unlink()
        go_back_if_interrupted(layout, settings, manager, notify)
        keycloak = keycloak_unit(load_suite(layout, settings))
        home = layout.resolve(keycloak.service.path)
        before = version_of(home)
        given = Path(target) if target and Path(target).is_file() else None
        artefact = artefact_of(given) if given else _known(target)
        if older(artefact.version, before):
            raise UsageError(
                f"{target} is Keycloak {artefact.version}, and {before} runs here",
                hint="An older Keycloak can't use the database of a newer one.",
            )
        name = artefact.directory if artefact == KEYCLOAK else f"{artefact.directory}-{artefact.sha256[:8]}"
        place = layout.data / name
        if place == home:
            raise UsageError(f"{place} is in use already", hint="There is nothing to upgrade.")
        present = unpacked(layout.data, artefact, name) is not None
        if not present:
            archive = given or _fetched(layout, notify, progress)
            notify(f"unpacking {archive.name} to {place}")
            unpack(archive, layout.data, artefact, name=name)
        keep_own_files(home, place)
        try:
            _replace(keycloak, layout, settings, manager, name, notify)
        except HelmError:
            if not present:
                shutil.rmtree(place, ignore_errors=True)
            raise
    return ReplacedKeycloak(before, artefact.version, home)


def _known(version: str) -> Artefact:
    if version not in ("", KEYCLOAK.version):
        raise UsageError(
            f"{version} is neither a file nor the version that this Helm knows, which is {KEYCLOAK.version}",
            hint=f"Download keycloak-{version}.tar.gz, compare its checksum, and give its path.",
        )
    return KEYCLOAK


def _fetched(layout: Layout, notify: Report, progress: DownloadCallback) -> Path:
    notify(f"fetching Keycloak {KEYCLOAK.version}")
    return fetch(layout.data / "downloads", None, progress, mvn=available())


def keep_own_files(old: Path, new: Path) -> None:
    """Copy what the admin has added to the OLD installation into the NEW one."""
    for name in _OF_THE_ADMIN:
        for file in sorted((old / name).rglob("*")):
            place = file.relative_to(old)
            if file.is_file() and (str(place) in _ALWAYS_TAKEN or not (new / place).exists()):
                (new / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, new / place)


def _replace(
    keycloak: KeycloakUnit, layout: Layout, settings: Settings, manager: Manager, path: str, notify: Report
) -> None:
    """Run Keycloak from PATH, or roll back."""
    admin = administration(load_suite(layout, settings), layout, settings)
    text = layout.registry_file.read_text()
    stop_server(keycloak, manager, notify)
    try:
        notify(f"copying its database to {COPY}")
        copy_database(admin, KEYCLOAK_ROLE, COPY)
    except BaseException:
        manager.start(keycloak.unit)
        raise
    back = Return(keycloak.service.path, text, "")
    _write(layout, back)
    try:
        set_in_registry(layout, settings, keycloak.service.name, "path", path)
        _write(layout, Return(back.path, back.text, layout.registry_file.read_text()))
        _install(layout, settings, manager)
        notify(f"starting Keycloak in {layout.data / path}, which may take some minutes if its database changes")
        await_health(keycloak, manager)
    except BaseException as error:
        notify(f"it does not become healthy: {error.sentence if isinstance(error, HelmError) else 'interrupted'}")
        go_back_if_interrupted(layout, settings, manager, notify)
        raise
    layout.keycloak_upgrade.unlink()


def _write(layout: Layout, back: Return) -> None:
    write_atomically(layout.keycloak_upgrade, json.dumps(asdict(back)), 0o600)


def _interrupted(layout: Layout) -> Return | None:
    """Return the rollback target of an unfinished upgrade, or None. Raises KeycloakError if it can't be read."""
    try:
        return Return(**json.loads(layout.keycloak_upgrade.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as problem:
        raise KeycloakError(
            f"{layout.keycloak_upgrade} can't be read: {problem}",
            hint=f"Set path of Keycloak in {layout.registry_file} by hand, and remove that file.",
        ) from None


def _runs_since_interruption(layout: Layout, settings: Settings, manager: Manager) -> bool:
    """Return whether Keycloak runs from its new path.

    Later changes by users would be lost by a rollback.
    """
    back, keycloak = _interrupted(layout), keycloak_unit(load_suite(layout, settings))
    return back is not None and keycloak.service.path != back.path and manager.facts(keycloak.unit).active


def go_back_if_interrupted(layout: Layout, settings: Settings, manager: Manager, notify: Report) -> None:
    """Undo an upgrade that is not finished, if there is one; Keycloak runs again afterwards."""
    if (back := _interrupted(layout)) is None:
        return
    keycloak = keycloak_unit(load_suite(layout, settings))
    notify(f"going back to {layout.resolve(back.path)}, with the database as it was before the upgrade")
    stop_server(keycloak, manager, notify)
    if layout.registry_file.read_text() == back.changed:
        write_atomically(layout.registry_file, back.text)
    elif keycloak.service.path != back.path:
        set_in_registry(layout, settings, keycloak.service.name, "path", back.path)
    restore_copy(administration(load_suite(layout, settings), layout, settings), KEYCLOAK_ROLE, COPY)
    _install(layout, settings, manager)
    layout.keycloak_upgrade.unlink()
    await_health(keycloak_unit(load_suite(layout, settings)), manager)
    notify(f"Keycloak runs again in {layout.resolve(back.path)}")


def _install(layout: Layout, settings: Settings, manager: Manager) -> None:
    """Install Keycloak's unit for the present configuration."""
    registry = load_suite(layout, settings)
    unit = keycloak_unit(registry).unit
    done = apply(changes_for(changes(registry, layout, settings), [unit]), registry, layout, settings, manager)
    for fault in (fault for change in done.refused if change.unit == unit for fault in change.faults):
        raise KeycloakError(f"its unit can't be installed: {fault}")


def await_health(keycloak: KeycloakUnit, manager: Manager) -> None:
    """Start Keycloak, and wait until it is healthy. Raises StartFailedError, with its last lines."""
    began, service = time.time(), keycloak.service
    manager.reset_failed(keycloak.unit)
    restarts = manager.facts(keycloak.unit).restarts
    manager.start(keycloak.unit)
    deadline = time.monotonic() + service.slowest_start
    while (facts := manager.facts(keycloak.unit)).active_state != "active":
        failed = facts.restarts > restarts or facts.sub_state == "auto-restart"
        if failed or (facts.active_state in ("inactive", "failed") and not facts.job) or time.monotonic() > deadline:
            lines = [line.message for line in last_lines(keycloak.unit, 10, began)]
            raise StartFailedError(
                f"{service.name} did not start", hint=f"See: helmctl why {service.name}", lines=lines
            )
        time.sleep(_PAUSE)
