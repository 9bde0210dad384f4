"""Building a version of a module beside the active one: fetching, checkout, virtual environment, checks.

The suite is not changed. A failed build leaves a version in state ``failed`` with its log, until a build succeeds.
"""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from helmd.files.durable import write_atomically
from helmd.model.config.settings import Settings
from helmd.model.errors import ConfigurationError, HelmError, ModuleError
from helmd.model.layout import Layout, ModulePlaces
from helmd.model.modules.record import HistoryEntry, ModuleRecord, Version, version_id
from helmd.model.modules.settings import DECLARED_FILE, ENVIRONMENT, Declared, read_declared, shared_path_faults
from helmd.model.modules.source import GitSource, ref_of
from helmd.model.modules.tree import SUBMODULE, Tree, tree_faults
from helmd.model.suite.service import Service
from helmd.model.units.hardening import ISOLATED
from helmd.modules.environment import EnvironmentBuild, Interpreter, find_interpreter
from helmd.modules.git import Repository
from helmd.modules.records import places_of, read_record, write_record
from helmd.modules.sandbox import BuildSandbox, TakeLine
from helmd.modules.snapshot import remove_tree
from helmd.modules.versions import link_shared, make_directories, make_version, remove_version
from helmd.operations.configuration.host_facts import host_of
from helmd.operations.modules.planned import check_entry, planned_suite

_OWN = (ENVIRONMENT, "services.json")
_MAX_LOG = 4 << 20
_SPARE = 64 << 20
"""Bytes that must be free besides a version; with less, pip's downloads are deleted."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options. ``line`` is called with the output of programs; ``job`` is the unit of the job, if any."""

    notify: TakeLine
    line: TakeLine
    job: str = ""
    trust: bool = False
    """Whether a module may be built and run without sandbox, because of its settings or this host."""
    by: str = ""
    trial_key: Path | None = None
    """A key for the repository in place of the module's own, which is not stored."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A commit that could become a version, as read from the repository, before anything is written or run."""

    repository: Repository
    commit: str
    tree: Tree
    declared: Declared
    service: Service
    interpreter: Interpreter | None
    """None for a module that is not of type python."""


class ModuleBuild:
    """Builds versions of one module."""

    def __init__(
        self, layout: Layout, settings: Settings, name: str, source: GitSource, ref: str, options: BuildOptions
    ) -> None:
        self.layout, self.settings, self.name = layout, settings, name
        self.source, self.ref, self.options = source, ref_of(ref), options
        self.places: ModulePlaces = places_of(layout, name)
        self._log: list[str] = []
        self._logged = 0

    def _line(self, text: str) -> None:
        self._logged += len(text)
        if self._logged < _MAX_LOG:
            self._log.append(f"{text}\n")
        self.options.line(text)

    def _say(self, sentence: str) -> None:
        self._log.append(f"== {sentence}\n")
        self.options.notify(f"{self.name}: {sentence}")

    @property
    def _sandbox(self) -> BuildSandbox:
        namespaces = host_of(self.layout).user_namespaces
        if not namespaces and not self.options.trust:
            raise ModuleError(
                "this host has no user namespaces, so what a module runs while it is built could act as the account",
                hint="Install it only if you trust its authors and all that it needs: --trust",
            )
        return BuildSandbox(
            self.layout,
            self.name,
            namespaces,
            self.places.mirror,
            seconds=self.settings.module_build_timeout,
            largest_file=self.settings.module_max_size,
            bound_to=self.options.job,
        )

    def candidate(self) -> Candidate:
        """Fetch into the mirror, and read the commit; nothing else is written. Raises HelmError."""
        check_entry(self.layout, self.name)
        make_directories(self.places)
        size, key = self.settings.module_max_size, self.options.trial_key
        repository = Repository(self.places, self.source, self._sandbox, size, self._line, key)
        self._say(f"fetching {self.source.url}")
        for remark in repository.fetch():
            self._say(remark)
        commit = repository.resolve(self.ref)
        tree = repository.tree(commit)
        declared = self._declared(repository, tree)
        service = self._service(commit, declared)
        if service.hardening not in ISOLATED and not self.options.trust:
            raise ModuleError(
                f"{self.name} wants the profile '{service.hardening}', under which it could act as the account",
                hint="Install it only if you trust its authors and all that it needs: --trust",
            )
        wrong = list(shared_path_faults(service))
        wrong += tree_faults(
            tree, service.shared_paths, _OWN, self.settings.module_max_size, service.install.submodules
        )
        if wrong:
            raise ModuleError(f"commit {commit[:12]} of {self.source.url} is refused: {wrong[0]}", lines=wrong[1:])
        interpreter = None
        if service.type == "python":
            interpreter = find_interpreter(self.name, service.install, service.install.requirements in tree.entries)
        return Candidate(repository, commit, tree, declared, service, interpreter)

    def _declared(self, repository: Repository, tree: Tree) -> Declared:
        text = repository.file(tree, DECLARED_FILE)
        if text is None:
            return Declared()
        declared, faults = read_declared(self.name, text)
        if faults:
            raise ConfigurationError(faults)
        return declared

    def _service(self, commit: str, declared: Declared) -> Service:
        version = version_id(0, commit)
        return planned_suite(self.layout, self.settings, self.name, version, self.source.url, self.ref, declared.text)[
            self.name
        ]

    def preflight(self) -> Candidate:
        """As `candidate`; also check for free space for a version and its packages."""
        found = self.candidate()
        free = os.statvfs(self.places.root)
        available, needed = free.f_bavail * free.f_frsize, found.tree.size * 12 // 10 + _SPARE
        if available < needed:
            raise ModuleError(
                f"{self.places.root} has {available >> 20:,} MB free, and a version needs {needed >> 20:,} MB",
                hint="Free some space, and run the command again.",
            )
        return found

    def build(self, found: Candidate) -> tuple[ModuleRecord, Version]:
        """Build a version of the candidate FOUND; record it in state ``built``. Raises ModuleError, OSError."""
        now = time.time()
        record = read_record(self.places) or ModuleRecord(self.name, self.source.url)
        record = replace(record, source=self.source.url, ref=self.ref, trusted=record.trusted or self.options.trust)
        version = Version(version_id(now, found.commit), found.commit, "building", now)
        record = record.with_version(version)
        write_record(self.places, record)
        try:
            self._build(found, version)
        except BaseException as problem:
            why = problem.sentence if isinstance(problem, HelmError) else str(problem) or type(problem).__name__
            self._log.append(f"== failed: {why}\n")
            # First, since it may have filled the disk.
            remove_version(self.places, version.id)
            space = os.statvfs(self.places.root)
            if space.f_bavail * space.f_frsize < _SPARE:
                remove_tree(self.places.cache)
            self._write_log(version.id)
            failed = replace(version, state="failed", detail=why[:1000])
            entry = HistoryEntry(time.time(), "build", why[:1000], version.id, record.active, self.options.by, ok=False)
            write_record(self.places, record.with_version(failed).noted(entry))
            raise
        self._write_log(version.id)
        built = replace(version, state="built")
        record = record.with_version(built)
        write_record(self.places, record)
        return record, built

    def _build(self, found: Candidate, version: Version) -> None:
        directory = make_version(self.places, version.id)
        self._say(f"checking out commit {found.commit[:12]}")
        found.repository.check_out(found.commit, directory)
        if any(entry.mode == SUBMODULE for entry in found.tree.entries.values()):
            self._say("it has submodules, which are left empty")
        if found.repository.has_large_files(found.tree):
            self._say("it has files in Git LFS, which are not fetched: what is there are pointers to them")
        if found.declared.text:
            write_atomically(self.places.declared_by(version.id), found.declared.text, 0o600)
        link_shared(self.places, version.id, found.service.shared_paths)
        if found.interpreter is not None:
            number = ".".join(map(str, found.interpreter.version))
            self._say(f"making its virtual environment with Python {number}")
            EnvironmentBuild(
                self.places, version.id, found.service.install, found.interpreter, self._sandbox, self._line
            ).build()
        os.sync()

    def _write_log(self, version: str) -> None:
        write_atomically(log_file(self.places, version), "".join(self._log), 0o600)


def log_file(places: ModulePlaces, version: str) -> Path:
    """Return the path of the log of a build."""
    return places.logs / f"{version}.log"


def tidy(places: ModulePlaces, record: ModuleRecord) -> ModuleRecord:
    """Remove the directories of versions that are not needed any more, once the active one serves; return the new
    record.
    """
    for version in record.superfluous:
        remove_version(places, version.id)
        if version.state == "failed":
            log_file(places, version.id).unlink(missing_ok=True)
        record = record.with_version(replace(version, state="removed"))
    write_record(places, record)
    return record
