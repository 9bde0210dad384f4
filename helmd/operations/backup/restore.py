"""Restoring a suite from an archive, on an empty machine or in place of an existing suite.

The archive is read twice through one descriptor: once completely, which authenticates and checks all of it, and then
again, part by part in the order of set-up. Each step can be repeated, so an interrupted restore is run again from its
beginning, with the same archive.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from helmd import __version__
from helmd.files.durable import write_atomically
from helmd.files.lock import locked
from helmd.files.tar import Member
from helmd.files.trees import put_member
from helmd.health.listeners import conflict
from helmd.keycloak.distribution.artefact import DownloadCallback
from helmd.model.backup.manifest import (
    CONFIGURATION,
    SERVICES,
    STATE_PART,
    STORE,
    SUITE,
    BackupError,
    Manifest,
    ServiceRef,
    kind_of_part,
    manifest_text,
)
from helmd.model.backup.restoring import RestoreConditions, RestorePlan, plan_restore
from helmd.model.errors import NotSetUpError, StartFailedError
from helmd.model.layout import Layout
from helmd.model.suite.names import (
    HELM_UNITS,
    SOCKET_UNITS,
    STORE_CLUSTER_UNIT,
    SUITE_CLUSTER,
    SUITE_CLUSTER_UNIT,
    TARGET,
)
from helmd.model.suite.service import Registry
from helmd.modules.versions import link_shared, make_directories
from helmd.operations.backup.archive import read_archive
from helmd.operations.backup.checking import Dumps, compare
from helmd.operations.backup.checkouts import clone, make_environment, remote_fault, sandboxed
from helmd.operations.backup.create import create_backup
from helmd.operations.backup.encryption import AgeIdentity
from helmd.operations.backup.module_state import MODULES, is_module_file
from helmd.operations.configuration.databases import embedded_cluster, ensure_databases
from helmd.operations.configuration.load import load_settings, load_suite
from helmd.operations.configuration.sockets import wait_for_jobs
from helmd.operations.setup.setup import (
    REGISTRY_TEMPLATE,
    SUITE_TEMPLATE,
    Notify,
    SetupOptions,
    prepare_keycloak,
    run_unit,
    set_up,
)
from helmd.postgres.binaries import Binaries, binaries_of, newest
from helmd.postgres.cluster import account_name, store_cluster
from helmd.postgres.configuration import ADMIN_FILE, Cluster
from helmd.systemd.bus import Manager, Signals

_MAX_ADMIN_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Restoring:
    """The archive, by the descriptor through which it was checked, and its identity."""

    descriptor: int
    identity: AgeIdentity
    manifest: Manifest


def check_archive(descriptor: int, identity: AgeIdentity, layout: Layout) -> tuple[Restoring, bool | None]:
    """Read a whole archive without changes; return whether it is signed by the key in the identity's file.

    Raises BackupError as `helmd.operations.backup.archive.read_archive`.
    """
    read = read_archive(descriptor, identity, limit=lambda: _free(layout))
    return Restoring(descriptor, identity, read.manifest), read.signed


def _free(layout: Layout) -> int:
    place = layout.state
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def found_conditions(layout: Layout, manifest: Manifest) -> RestoreConditions:
    """Return the facts of this machine that matter for a restore. Nothing is changed."""
    try:
        newest_here = newest().major
    except NotSetUpError:
        newest_here = 0
    unfinished = _mark(layout) == _name(manifest)
    faults = [fault for ref in manifest.services if (fault := _fault(ref, layout, unfinished))]
    if os.geteuid() == 0:
        faults.append("root should not run services: give --account NAME")
    if int(os.path.exists("/run/systemd/system")) == 0:
        faults.append("systemd does not run here")
    held = {}
    if not unfinished:
        for ref in manifest.services:
            if ref.port and (holder := conflict("127.0.0.1", ref.port)):
                held[ref.port] = str(holder)
    living = "" if unfinished else existing_suite(layout)
    return RestoreConditions(
        __version__, newest_here, _free(layout), living, unfinished, held, tuple(dict.fromkeys(faults))
    )


def existing_suite(layout: Layout) -> str:
    """Return the evidence of an existing suite, which a restore would replace, as a sentence; empty without one."""
    if layout.suite_cluster.exists():
        return f"this account has a suite already, with databases in {layout.suite_cluster}"
    with suppress(OSError, UnicodeDecodeError):
        if layout.registry_file.read_text() not in (REGISTRY_TEMPLATE, SUITE_TEMPLATE):
            return f"this account has a suite already, by {layout.registry_file}"
    return ""


def _fault(ref: ServiceRef, layout: Layout, unfinished: bool) -> str:
    """Return why a service's directory can't be restored here; empty if it can."""
    if ref.saved == "nothing":
        return ""
    directory = layout.resolve(ref.path)
    if ".." in directory.parts or layout.exposed(directory) is not None:
        return f"{ref.name}: {directory} is not a directory that a service may have"
    place = directory
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK):
        return (
            f"{ref.name}: {place} can't be written by {account_name()}: sudo install -d -o {account_name()} {directory}"
        )
    there = directory.is_dir() and any(directory.iterdir())
    if ref.saved == "shared" and ref.type != "keycloak" and not (there or unfinished):
        if not (ref.remote and ref.commit):
            return f"{ref.name}: only its state is in the archive, and {directory} is not there: put its code there"
        if fault := remote_fault(ref):
            return f"{ref.name}: its code is not in the archive, and {fault}"
    return ""


def plan(layout: Layout, manifest: Manifest, replace: bool) -> RestorePlan:
    """Return the plan of a restore here, with its obstacles."""
    return plan_restore(manifest, found_conditions(layout, manifest), replace)


def _name(manifest: Manifest) -> str:
    """Return the identification of an archive."""
    return hashlib.sha256(manifest_text(manifest)).hexdigest()


def _mark(layout: Layout) -> str:
    try:
        return str(json.loads(layout.restore_mark.read_text())["archive"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def restore_backup(
    restoring: Restoring,
    layout: Layout,
    manager: Manager,
    replace: bool,
    notify: Notify,
    progress: DownloadCallback,
    keycloak_archive: Path | None = None,
) -> None:
    """Restore a suite; it is not started. Call only with an archive that `check_archive` has read, and a plan without
    a fault.

    Raises BackupError, and errors as `helmd.operations.setup.setup.set_up`. What was done stays, and is done again by
    the next restore of the same archive.
    """
    with locked(layout.state / "restore.lock", "a suite is being restored"):
        if replace and _mark(layout) != _name(restoring.manifest) and existing_suite(layout):
            _move_aside(restoring.manifest, layout, manager, notify)
        write_atomically(layout.restore_mark, json.dumps({"archive": _name(restoring.manifest)}) + "\n", 0o600)
        steps = _Steps(restoring.manifest, layout, manager, notify, progress, keycloak_archive)
        try:
            read_archive(restoring.descriptor, restoring.identity, steps, restoring.manifest)
        except BaseException:
            steps.dumps.abandon()
            raise
        steps.finish()
        layout.restore_mark.unlink()


def _move_aside(manifest: Manifest, layout: Layout, manager: Manager, notify: Notify) -> None:
    """Back up the existing suite, stop it, and move its files aside."""
    settings = load_settings(layout)
    made = create_backup(layout, settings, load_suite(layout, settings), notify)
    notify(f"the suite that is here is saved in {made.path}")
    units = [TARGET, *manager.units_like("hivematrix-*.service", "hivematrix-*.timer"), *SOCKET_UNITS]
    units += [unit for unit in HELM_UNITS if unit != STORE_CLUSTER_UNIT]
    own = [unit for unit in units if not unit.startswith("hivematrix-job-") and manager.facts(unit).exists]
    for unit in own:
        manager.stop(unit)
    wait_for_jobs(manager, own)
    if still := [unit for unit in own if manager.facts(unit).active_state not in ("inactive", "failed")]:
        raise BackupError(f"{', '.join(still)} did not stop", hint="Stop it, then run the command again.")
    write_atomically(layout.restore_mark, json.dumps({"archive": _name(manifest)}) + "\n", 0o600)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = layout.state / f"replaced-{stamp}"
    aside.mkdir(mode=0o700)
    for place in (layout.config, layout.suite_cluster):
        if place.exists():
            shutil.move(place, aside / place.name)
    for ref in manifest.services:
        directory = layout.resolve(ref.path)
        if ref.saved == "whole" and directory.is_dir() and not directory.is_symlink():
            directory.rename(directory.with_name(f"{directory.name}.replaced-{stamp}"))
    notify(f"moved the suite that was here to {aside}; delete that when you no longer need it")


class _Steps:
    """The second pass over an archive: restores each part, with the steps in between."""

    def __init__(
        self,
        manifest: Manifest,
        layout: Layout,
        manager: Manager,
        notify: Notify,
        progress: DownloadCallback,
        keycloak_archive: Path | None,
    ) -> None:
        self._manifest, self._layout, self._manager = manifest, layout, manager
        self._notify, self._progress = notify, progress
        self._options = SetupOptions(keycloak_archive=keycloak_archive)
        self._refs = {ref.name: ref for ref in manifest.services}
        self._admin_files: dict[str, bytes] = {}
        self._state_files = (layout.placed_variables.name, layout.restored_views.name)
        self._registry: Registry | None = None
        self._coded = self._is_set_up = False
        self.dumps = Dumps(self._cluster_of, notify)

    def part(self, name: str) -> None:
        kind = kind_of_part(name)
        if kind not in (CONFIGURATION, STATE_PART):
            self._prepare_code()
        if kind not in (CONFIGURATION, STATE_PART, SERVICES):
            self._set_up()
        if kind == CONFIGURATION:
            self._notify("configuration and secrets")
        elif kind == SERVICES:
            self._notify(f"files of {name.partition('/')[2]}")
        self.dumps.part(name)

    def member(self, part: str, member: Member, chunks: Iterator[bytes]) -> None:
        kind = kind_of_part(part)
        if kind == CONFIGURATION:
            self._put_configuration(member, chunks)
        elif kind == STATE_PART:
            self._put_state(member, chunks)
        elif kind == SERVICES:
            ref = self._refs.get(part.partition("/")[2])
            if ref is None:
                raise BackupError(f"the archive has files of a service that it does not name: {part!r}")
            shared = self._suite()[ref.name].shared_paths if ref.name in self._suite() else ()
            put_member(
                self._layout.state_directory(self._layout.resolve(ref.path), member.name, shared), member, chunks
            )
        else:
            self.dumps.member(part, member, chunks)

    def end(self, part: str) -> None:
        self.dumps.end(part)

    def _put_configuration(self, member: Member, chunks: Iterator[bytes]) -> None:
        above, _, name = member.name.partition("/")
        if above == "config" and name:
            put_member(self._layout.config, replace(member, name=name), chunks)
        elif above == "units" and name.startswith(("hivematrix", "helmd")):
            put_member(self._layout.admin_units, replace(member, name=name), chunks)
        else:
            raise BackupError(f"the archive has a file that is not configuration: {member.name[:200]!r}")

    def _put_state(self, member: Member, chunks: Iterator[bytes]) -> None:
        above, _, name = member.name.partition("/")
        if above == "clusters" and name in (f"{SUITE}/{ADMIN_FILE}", f"{STORE}/{ADMIN_FILE}"):
            # Only after the cluster was created, whose directory must be empty before.
            if member.size > _MAX_ADMIN_FILE:
                raise BackupError(f"{member.name} is too large to be a configuration file")
            self._admin_files[name.partition("/")[0]] = b"".join(chunks)
        elif above == MODULES and is_module_file(name):
            put_member(self._layout.modules, replace(member, name=name), chunks)
        elif member.name in self._state_files or (above == "homes" and name):
            put_member(self._layout.state, member, chunks)
        else:
            raise BackupError(f"the archive has a file that is not state of Helm's: {member.name[:200]!r}")

    def _suite(self) -> Registry:
        if self._registry is None:
            self._registry = load_suite(self._layout, load_settings(self._layout))
        return self._registry

    def _prepare_code(self) -> None:
        """Create what is needed before a service's own files are restored into its directory."""
        if self._coded:
            return
        self._coded = True
        self._layout.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
        for ref in self._refs.values():
            directory = self._layout.resolve(ref.path)
            if ref.type == "keycloak" and ref.saved != "whole":
                prepare_keycloak(self._suite(), self._layout, self._options, self._notify, self._progress)
            elif ref.saved == "shared" and ref.type != "keycloak" and ref.remote and not directory.exists():
                self._notify(f"cloning {ref.remote} for {ref.name}")
                clone(ref, directory)

    def _set_up(self) -> None:
        if self._is_set_up:
            return
        self._is_set_up = True
        for ref in self._refs.values():
            directory = self._layout.resolve(ref.path)
            module = self._layout.module_of(directory)
            if module is not None and directory.is_dir():
                make_directories(module)
                link_shared(module, directory.name, self._suite()[ref.name].shared_paths)
            for sentence in make_environment(ref, directory, sandboxed(self._layout, ref.name, directory)):
                self._notify(sentence)
        os.sync()
        self._registry = set_up(self._layout, self._options, self._notify, self._progress)
        settings = load_settings(self._layout)
        for name, content in self._admin_files.items():
            cluster = self._layout.suite_cluster if name == SUITE else self._layout.store_cluster
            if cluster.is_dir():
                write_atomically(cluster / ADMIN_FILE, content.decode("utf-8", "surrogateescape"), 0o600)
        if disabled := [ref.name for ref in self._refs.values() if ref.disabled and ref.name in self._registry]:
            self._manager.disable([self._registry[name].enabled_unit for name in disabled])
            self._manager.daemon_reload()
            self._notify(f"disabled, as before: {', '.join(disabled)}")
        with Signals() as signals:
            self._manager.subscribe()
            if STORE in self._admin_files and settings.store_embedded:
                run_unit(self._manager, signals, STORE_CLUSTER_UNIT, restart=True)
            if SUITE_CLUSTER in self._registry:
                self._notify("starting PostgreSQL of the suite")
                run_unit(self._manager, signals, SUITE_CLUSTER_UNIT)
            if any(facts.cluster == STORE for facts in self._manifest.databases):
                for unit in (*SOCKET_UNITS, *(unit for unit in HELM_UNITS if unit != STORE_CLUSTER_UNIT)):
                    with suppress(StartFailedError):
                        run_unit(self._manager, signals, unit, stop=True)

    def _cluster_of(self, name: str) -> tuple[Cluster, Binaries]:
        settings = load_settings(self._layout)
        if name == STORE and settings.store_embedded:
            cluster = store_cluster(self._layout, account_name())
        elif name == SUITE and SUITE_CLUSTER in self._suite():
            cluster = embedded_cluster(self._suite(), self._layout, settings)
        else:
            raise BackupError(f"the archive has databases of {name}, and its configuration has no such cluster")
        return cluster, binaries_of(cluster.directory)

    def finish(self) -> None:
        """Do the remaining steps after all parts were restored."""
        self._prepare_code()
        self._set_up()
        settings = load_settings(self._layout)
        for facts in self._manifest.databases:
            compare(facts, self._cluster_of(facts.cluster)[0], self._manifest.realm)
        ensure_databases(self._suite(), self._layout, settings, self._manager.facts)
        if self._manifest.databases:
            self._notify("databases restored; rows and schema are as in the backup")
        if any(facts.cluster == STORE for facts in self._manifest.databases):
            _start(self._manager, [*SOCKET_UNITS, *(unit for unit in HELM_UNITS if unit != STORE_CLUSTER_UNIT)])


def _start(manager: Manager, units: Sequence[str]) -> None:
    for unit in units:
        if manager.facts(unit).exists:
            manager.start(unit)
    wait_for_jobs(manager, units)
