"""The software on this machine that the suite depends on: PostgreSQL, Java, Keycloak, packages; with pending updates.

Nothing is fetched or changed: the data is from dpkg, apt's lists and, if installed, needrestart(1).
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from helmd.health.control_group import control_group_of
from helmd.health.thread_pool import ThreadPool
from helmd.keycloak.distribution.artefact import KEYCLOAK
from helmd.model.api.apps import AppBody, AppsReply
from helmd.model.api.host import HostUpdates
from helmd.model.errors import HelmError
from helmd.model.identity.group_unit import unit_of_group
from helmd.model.layout import Layout
from helmd.model.modules.packages import (
    QUERY_FORMAT,
    alternatives_in,
    chosen,
    installed_packages,
    outdated_processes,
)
from helmd.model.suite.names import HELM_SERVICE, service_of
from helmd.model.suite.service import Registry
from helmd.operations.configuration.databases import keycloak_service
from helmd.operations.identity.upgrade import older, version_of
from helmd.operations.monitoring.updates import PendingUpdates
from helmd.postgres.binaries import installed, major_of

OWN_PACKAGE = "hivematrix-helm"
_QUERY_SECONDS, _RESTART_SECONDS = 10.0, 30.0
_KEPT_SECONDS = 300.0
"""Maximum age in seconds of a cached result of needrestart, which reads the maps of every process."""
_REBOOT = Path("/run/reboot-required")
_DEPENDS = "age, dbus-user-session, libpam-systemd, systemd\ngit, python3-venv\n"
"""The packages shown if Helm is not installed as a package."""
_LEADING = {"postgresql": "PostgreSQL", "java": "Java", "keycloak": "Keycloak", "python": "Python", "git": "git"}

_Installed = Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Needed:
    """The facts about the suite that are needed to inspect its software."""

    registry: Registry
    packages: _Installed
    updates: HostUpdates | None


class InstalledApps:
    """Inspects the software. REGISTRY returns the current suite; UPDATES may be shared."""

    def __init__(
        self,
        layout: Layout,
        registry: Callable[[], Registry],
        updates: PendingUpdates | None = None,
        run: Callable[[Sequence[str], float], str | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._layout, self._registry = layout, registry
        self._updates = updates or PendingUpdates()
        self._run = run or _output
        self._clock = clock
        self._threads = ThreadPool(1)
        self._outdated: tuple[str, ...] | None = None
        self._outdated_at: float | None = None

    async def report(self) -> AppsReply:
        """Return the present state, with updates if apt has returned them already."""
        updates = await self._updates.current()
        return await self._threads.run(lambda: self.read(updates))

    def report_here(self) -> AppsReply:
        """Return the same, waiting for apt. Blocks."""
        return self.read(self._updates.read())

    def read(self, updates: HostUpdates | None) -> AppsReply:
        """Return the present state, with UPDATES. Blocks."""
        shown = self._run(["dpkg-query", "--show", f"--showformat={QUERY_FORMAT}"], _QUERY_SECONDS) or ""
        needed = _Needed(self._registry(), installed_packages(shown), updates)
        leading = [self._postgresql(needed), self._java(needed), *self._keycloak(needed), self._python(needed)]
        known = {app.package for app in leading}
        others = {app.package: app for app in self._packages(needed) if app.package not in known}
        return AppsReply(
            (*leading, *sorted(others.values(), key=_order)),
            updates.listed_at if updates else None,
            self._outdated_services(),
            _REBOOT.exists(),
        )

    def _postgresql(self, needed: _Needed) -> AppBody:
        there = installed()
        services = [
            name for name, service in needed.registry.services.items()
            if service.database or service.type in ("postgres", "keycloak")
        ]  # fmt: skip
        package = f"postgresql-{there[-1].major}" if there else "postgresql"
        sentences = []
        clusters = {self._layout.store_cluster: "the log store", self._layout.suite_cluster: "the suite"}
        for directory, whose in clusters.items():
            try:
                major = major_of(directory)
            except HelmError:
                continue
            if major is not None:
                newer = "; move it by: helmctl postgres upgrade" if there and major < there[-1].major else ""
                sentences.append(f"The cluster of {whose} is of version {major}{newer}")
        return _app(needed, "postgresql", package, (HELM_SERVICE, *services), True, ". ".join(sentences))

    def _java(self, needed: _Needed) -> AppBody:
        services = [name for name, service in needed.registry.services.items() if service.type == "keycloak"]
        program = shutil.which("java")
        package = self._owner(program) if program else "default-jre-headless"
        detail = f"{os.path.realpath(program)} is in no package" if program and package is None else ""
        return _app(needed, "java", package, services, bool(services), detail)

    def _python(self, needed: _Needed) -> AppBody:
        services = [name for name, service in needed.registry.services.items() if service.type == "python"]
        return _app(needed, "python", self._owner("/usr/bin/python3"), (HELM_SERVICE, *services), True)

    def _keycloak(self, needed: _Needed) -> Iterator[AppBody]:
        name = keycloak_service(needed.registry)
        if name is None:
            return
        home = self._layout.resolve(needed.registry[name].path)
        users = [each for each, service in needed.registry.services.items() if name in service.depends_on]
        try:
            version: str | None = version_of(home)
        except HelmError:
            version = None
        update = KEYCLOAK.version if version is None or older(version, KEYCLOAK.version) else None
        command = "" if update is None else "helmctl setup" if version is None else "helmctl keycloak upgrade"
        detail = f"In {home}" if version else f"{home} holds no Keycloak"
        update = update if version else None
        yield AppBody("keycloak", "Keycloak", None, version, update, False, True, tuple(users), detail, command)

    def _packages(self, needed: _Needed) -> Iterator[AppBody]:
        """Yield packages that Helm's own package names."""
        fields = "${Depends}\\n${Recommends}\\n"
        shown = self._run(["dpkg-query", "--show", f"--showformat={fields}", OWN_PACKAGE], _QUERY_SECONDS)
        depends, _, recommends = (shown if shown and shown.strip() else _DEPENDS).partition("\n")
        for field, required in ((depends, True), (recommends, False)):
            for alternatives in alternatives_in(field):
                name, _ = chosen(alternatives, needed.packages)
                if name.startswith(("postgresql", "default-jre", "openjdk")) or name == "python3":
                    continue
                yield _app(needed, name, name, (HELM_SERVICE,), required)

    def _owner(self, program: str) -> str | None:
        """Return the package that contains a program."""
        found = self._run(["dpkg-query", "--search", os.path.realpath(program)], _QUERY_SECONDS) or ""
        return found.partition(":")[0].partition(",")[0].strip() or None

    def _outdated_services(self) -> tuple[str, ...] | None:
        now = self._clock()
        if self._outdated_at is None or now - self._outdated_at > _KEPT_SECONDS:
            self._outdated, self._outdated_at = self._ask_needrestart(), now
        return self._outdated

    def _ask_needrestart(self) -> tuple[str, ...] | None:
        program = shutil.which("needrestart") or shutil.which("/usr/sbin/needrestart")
        if program is None:
            return None
        command = ["nice", "-n", "19", program, "-b", "-l", "-r", "l"]
        found = outdated_processes(self._run(command, _RESTART_SECONDS) or "")
        if found is None:
            return None
        units = (unit_of_group(group) for pid in found if (group := control_group_of(pid)))
        return tuple(sorted({name for unit in units if unit is not None and (name := service_of(unit.unit))}))


def _order(app: AppBody) -> tuple[bool, bool, str]:
    return app.update is None, app.version is not None, app.name


def _app(
    needed: _Needed, name: str, package: str | None, needed_by: Sequence[str], required: bool, detail: str = ""
) -> AppBody:
    version = needed.packages[package][1] if package is not None and package in needed.packages else None
    updates = needed.updates.packages if needed.updates else ()
    waiting = next((each for each in updates if each.package == package), None)
    command = ""
    if version is None and package is not None and needed.packages:
        command = f"sudo apt install {package}"
    elif waiting is not None:
        command = f"sudo apt install --only-upgrade {package}"
    return AppBody(
        name,
        _LEADING.get(name, name),
        package,
        version,
        waiting.available if waiting and version else None,
        bool(waiting and version and waiting.security),
        required,
        tuple(needed_by),
        detail,
        command,
    )


def _output(command: Sequence[str], seconds: float) -> str | None:
    """Return what a command prints, or None if it fails, or takes longer than SECONDS."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")
