"""Updating a module, and rolling it back: plan and change. A failed change is rolled back automatically."""

import difflib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

from helmd.files.leftovers import remove_leftovers
from helmd.files.lock import locked
from helmd.files.trees import size_below
from helmd.model.config.settings import Settings
from helmd.model.errors import HelmError, LockedError, ModuleError, UsageError
from helmd.model.layout import Layout, ModulePlaces
from helmd.model.modules.check import UpdateCheck
from helmd.model.modules.intent import Facts, Intent
from helmd.model.modules.intent import ModuleChange as ChangeKind
from helmd.model.modules.plan import UpdatePlan, downtimes_of
from helmd.model.modules.record import HistoryEntry, ModuleRecord, Version
from helmd.model.modules.source import GitSource, git_source_of
from helmd.model.modules.transaction import change_words, failure_sentence, step_words
from helmd.model.printable import printable
from helmd.model.suite.effects import effect_text
from helmd.model.suite.names import SUITE_CLUSTER, unit_of
from helmd.modules.intent_log import IntentLog
from helmd.modules.records import places_of, read_check, read_record, write_check, write_record
from helmd.operations.configuration.apply import changes
from helmd.operations.configuration.effective import load_effective
from helmd.operations.configuration.module_files import FLASKENV
from helmd.operations.lifecycle.steps import Step
from helmd.operations.modules.build import BuildOptions, Candidate, ModuleBuild
from helmd.operations.modules.data import ModuleData, database_of, kept_of, seconds_down
from helmd.operations.modules.engine import carry_out, recover
from helmd.operations.modules.guard import watch_over
from helmd.operations.modules.install_steps import InstallSteps
from helmd.operations.modules.kept import KeptData, kept_data, remove_kept
from helmd.operations.modules.planned import clear_entry
from helmd.operations.modules.shown import not_installed
from helmd.operations.modules.surroundings import ModuleSteps
from helmd.systemd.bus import Manager

_LOCK_SECONDS = 3600.0
_MOST_LINES, _MAX_LINE = 200, 300
_MAX_TEXT = 1000


@dataclass(frozen=True, slots=True)
class ModuleOutcome:
    """The result of a change. ``changed`` is False if there was nothing to do."""

    name: str
    version: str
    commit: str
    changed: bool
    downtime: float = 0.0


class ModuleUpdates:
    """Changes of one module that is installed. STEP is called with each step as it begins.

    GATE is for how many seconds a version is watched, by default as configured.
    """

    def __init__(
        self,
        layout: Layout,
        settings: Settings,
        manager: Manager,
        name: str,
        options: BuildOptions,
        step: Callable[[Step], None],
        gate: float | None = None,
    ) -> None:
        self.layout, self.settings, self.manager, self.name = layout, settings, manager, name
        self.options, self.step = options, step
        self.gate = settings.module_gate if gate is None else gate
        self.places: ModulePlaces = places_of(layout, name)

    def _installed(self) -> ModuleRecord:
        record = read_record(self.places)
        if record is None or not record.active:
            raise not_installed(self.name)
        return record

    @contextmanager
    def locked(self, new: bool = False) -> Iterator[None]:
        """Hold the module, which may not be there if it is NEW; another change of it is waited for."""
        if not new and not self.places.root.is_dir():
            # Locking would create directories for it.
            self._installed()
        what = f"{self.name} is being changed"
        with ExitStack() as held:
            try:
                held.enter_context(locked(self.places.lock, what))
            except LockedError:
                self.options.notify(f"{self.name}: waiting for {self._holder()} to end")
                held.enter_context(locked(self.places.lock, what, wait=_LOCK_SECONDS))
            yield

    def _holder(self) -> str:
        """Return what holds the module, as text."""
        try:
            intent = IntentLog.read(self.places.state)
        except (HelmError, OSError):
            intent = None
        if intent is None or intent.direction == "nothing":
            return "another command that looks at it or changes it"
        by = f" by {intent.given['by']}" if intent.given.get("by") else ""
        at = time.strftime("%H:%M:%S", time.gmtime(intent.began_at))
        return f"the {change_words(intent.change)}{by} that began at {at} UTC"

    def block(self) -> None:
        """Prevent starts of the module until a recovery has restored code and data."""
        self._steps(None, None, dict).block()

    def _builder(self, record: ModuleRecord, ref: str) -> tuple[ModuleBuild, Candidate]:
        options = replace(self.options, trust=self.options.trust or record.trusted)
        source = git_source_of(record.source, files=True)
        builder = ModuleBuild(self.layout, self.settings, self.name, source, ref or record.ref, options)
        return builder, builder.preflight()

    def _data(self) -> ModuleData:
        suite = load_effective(self.layout)
        database = database_of(suite, self.layout, self.name)
        return ModuleData(self.places, self.layout, suite, self.manager, database)

    def _space(self, record: ModuleRecord, found: Candidate | None, looks: bool = False) -> dict[str, int]:
        """Return the result of `ModuleData.check_space`; with LOOKS, without starting a server."""
        version, data = 0, self._data()
        if found is not None:
            version = max(found.tree.size, size_below(self.places.version(record.active)))
        counted = not looks or not data.database or data.known
        if not counted:
            self.options.notify(f"{self.name}: PostgreSQL is stopped, so that the size of its database is not counted")
        return data.check_space(version, counted)

    # The plan.

    def plan(self, ref: str = "") -> UpdatePlan:
        """Return the plan of an update. Only the mirror of the repository and the plan are written.

        Raises HelmError.
        """
        with self.locked():
            record = self._installed()
            other = record.other_ref(ref)
            try:
                builder, found = self._builder(record, ref)
                plan = self._plan(record, builder, found)
            except HelmError as error:
                before = read_check(self.places, other) or UpdateCheck(0.0)
                trouble = printable(error.sentence, _MAX_TEXT)
                self._keep(replace(before, checked_at=time.time(), trouble=trouble), other)
                raise
            self._keep(UpdateCheck(now := time.time(), "", now, plan), other)
            return plan

    def _keep(self, check: UpdateCheck, ref: str = "") -> None:
        # On a full disk the plan is not stored, but returned.
        with suppress(OSError):
            write_check(self.places, check, ref)

    def _planned(self, record: ModuleRecord, builder: ModuleBuild, found: Candidate) -> None:
        """Store the plan of the update that begins, after which the module is not behind."""
        check = read_check(self.places)
        known = check.plan if check is not None else None
        if known is None or (known.before, known.after, known.ref) != (record.commit, found.commit, builder.ref):
            with suppress(HelmError):
                plan = self._plan(record, builder, found)
                self._keep(UpdateCheck(now := time.time(), "", now, plan))

    def _plan(self, record: ModuleRecord, builder: ModuleBuild, found: Candidate) -> UpdatePlan:
        registry = load_effective(self.layout).registry
        serving = registry.services.get(self.name)
        install = found.service.install
        # The links, since services.toml may have a path that the active version was not built with.
        directory = self.places.version(record.active)
        new = tuple(path for path in found.service.shared_paths if not (directory / path).is_symlink())
        space = {"need": 0, "free": 0}

        def look_at_space() -> None:
            space.update(self._space(record, found, looks=True))

        obstacles = _refusals(self._check_unit, lambda: self._check_tree(record, found, discard=False), look_at_space)
        commits, behind = found.repository.log_between(record.commit, found.commit)
        return UpdatePlan(
            name=self.name,
            before=record.commit,
            after=found.commit,
            ref=builder.ref,
            behind=behind,
            commits=commits,
            lost=found.repository.log_between(found.commit, record.commit)[0],
            requirements=_requirements(found, record.commit, install.requirements),
            migrate=printable(" ".join(install.migrate), _MAX_TEXT),
            migrate_before=printable(" ".join(serving.install.migrate), _MAX_TEXT) if serving is not None else "",
            database=self._data().database,
            shared_paths=new,
            effect=effect_text("stop", [self.name], registry),
            held=record.held,
            held_reason=record.held_reason,
            obstacles=obstacles,
            need=space["need"],
            free=space["free"],
            downtimes=downtimes_of(record.history),
        )

    # The changes.

    def update(self, ref: str = "", discard: bool = False, planned: str = "") -> ModuleOutcome:
        """Update the module, or roll that back. With DISCARD, local changes of its files are dropped.

        PLANNED is the commit of the plan that was confirmed: another one is refused.

        Raises RolledBackError, StuckError, and HelmError if nothing was begun.
        """
        with self.locked():
            self.recover()
            record = self._installed()
            if record.held:
                why = f": {record.held_reason}" if record.held_reason else ""
                raise ModuleError(
                    f"{self.name} is held{why}", hint=f"To let it be updated: helmctl modules unhold {self.name}"
                )
            builder, found = self._builder(record, ref)
            if found.commit == record.commit and builder.ref == record.ref:
                return ModuleOutcome(self.name, record.active, record.commit, False)
            self._planned(record, builder, found)
            if planned and not found.commit.startswith(planned):
                raise ModuleError(
                    f"the plan of {self.name} is for commit {planned[:12]}, and now it would be {found.commit[:12]}",
                    hint=f"Look at the new plan: helmctl modules update {self.name} --dry-run",
                )

            def checks() -> Facts:
                self._check_unit()
                self._check_tree(record, found, discard)
                return self._space(record, found)

            steps = self._steps(builder, found, checks)
            return self._change("update", record, steps, {**steps.found(), "commit": found.commit})

    def install(self, source: GitSource, ref: str, start: bool) -> ModuleOutcome:
        """Install the module, or roll that back. Without START it is not started.

        Raises RolledBackError, StuckError, and HelmError if nothing was begun.
        """
        with self.locked(new=True):
            self.recover()
            if (record := read_record(self.places)) is not None and record.active:
                return ModuleOutcome(self.name, record.active, record.commit, False)
            builder = ModuleBuild(self.layout, self.settings, self.name, source, ref, self.options)
            found = builder.preflight()
            steps = InstallSteps(self.layout, self.manager, self.name, self.options, self.step)
            steps.builder, steps.candidate = builder, found
            steps.checks = lambda: ModuleData(
                self.places, self.layout, load_effective(self.layout), self.manager, ""
            ).check_space(found.tree.size)
            facts = {**steps.found(), "start": start, "commit": found.commit}
            return self._change("install", record or ModuleRecord(self.name, source.url), steps, facts)

    def rollback(self, with_data: bool, to: str = "") -> ModuleOutcome:
        """Roll back to the previous version, or to that with the id TO. Raises as `update` does."""
        with self.locked():
            self.recover()
            record = self._installed()
            target = self._target(record, to)
            if with_data and not target.data:
                raise UsageError(
                    f"there is no copy of the data of {self.name} from when {target.id} served",
                    hint=f"Go back with its code alone: helmctl modules rollback {self.name} --code-only",
                )
            steps = self._steps(None, None, lambda: self._space(record, None))
            change: ChangeKind = "rollback-data" if with_data else "rollback-code"
            return self._change(change, record, steps, {"after": target.id, "stamp": target.data})

    def rollback_target(self, to: str = "") -> Version:
        """Return the target of a rollback, by default the previous version. Raises UsageError."""
        return self._target(self._installed(), to)

    def _target(self, record: ModuleRecord, to: str) -> Version:
        target = record.version(to) if to else record.previous
        if target is None or target.state != "kept" or not self.places.version(target.id).is_dir():
            what = f"no version {to}" if to else "no version that served before"
            raise UsageError(f"{self.name} has {what}", hint=f"Its versions: helmctl modules show {self.name}")
        return target

    def recover(self, only_data: bool = False) -> bool:
        """Complete or roll back what was interrupted; return whether there was something. The module must be locked.

        With ONLY_DATA nothing is started; a later call does the rest. Raises HelmError, OSError.
        """
        log = IntentLog.found(self.places.state)
        kind = InstallSteps if log is not None and log.intent.change == "install" else ModuleSteps
        steps = kind(self.layout, self.manager, self.name, self.options, self.step, self.gate)
        if log is None or log.intent.direction == "nothing":
            steps.allow()
            return False
        self.options.notify(f"{self.name}: a change of it was interrupted; going {log.intent.direction}")
        try:
            done = recover(log, steps, self._report, only_data)
        finally:
            self._note_failure(log.intent)
        steps.allow()
        steps.release()
        clear_entry(self.layout, self.name)
        for directory in (self.places.root, self.places.state, self.places.logs, self.places.versions):
            remove_leftovers(directory)
        return done

    # Data kept of changes that were rolled back.

    def kept(self) -> list[KeptData]:
        """Return the kept data that users wrote to versions that were rolled back. Raises HelmError, OSError."""
        if read_record(self.places) is None:
            raise not_installed(self.name)
        data = self._data()
        if data.database and not data.known:
            raise HelmError("PostgreSQL is stopped", hint=f"Start it first: helmctl start {SUITE_CLUSTER}")
        return kept_data(data)

    def prune(self, older: float) -> list[KeptData]:
        """Remove data that was kept for at least OLDER seconds; return it. Raises HelmError, OSError."""
        with self.locked():
            return remove_kept(self._data(), older)

    def _steps(self, builder: ModuleBuild | None, found: Candidate | None, checks: Callable[[], Facts]) -> ModuleSteps:
        return ModuleSteps(
            self.layout, self.manager, self.name, self.options, self.step, self.gate, builder, found, checks
        )

    def _report(self, step: str, what: str) -> None:
        sentence = step_words(step) if what == "begun" else f"rolling back: {step}"
        self.step(Step(self.name, "in_progress", sentence))

    def _change(self, change: ChangeKind, record: ModuleRecord, steps: ModuleSteps, facts: Facts) -> ModuleOutcome:
        given = {
            "database": self._data().database,
            **facts,
            "ref": record.ref,
            "ran": self.manager.facts(unit_of(self.name)).active,
            "by": self.options.by,
        }
        watch_over(self.layout, self.manager, self.name)
        log = IntentLog.begun(self.places.state, change, self.name, record.active, given)
        try:
            intent = carry_out(log, steps, self._report)
        except BaseException:
            if log.intent.ended:
                steps.release()
            self._note_failure(log.intent)
            raise
        done = self._installed()
        return ModuleOutcome(self.name, done.active, done.commit, True, seconds_down(intent) or 0.0)

    def _note_failure(self, intent: Intent) -> None:
        """Record the result of a change that was rolled back in the module's history."""
        if intent.committed or not intent.ended:
            return
        record = read_record(self.places)
        if record is None or any(each.at >= intent.began_at and each.action != "build" for each in record.history):
            return
        down = seconds_down(intent)
        sentence = failure_sentence(intent, kept_of(intent), down)
        action = change_words(intent.change)
        by = str(intent.given.get("by") or "")
        entry = HistoryEntry(
            time.time(), action, sentence[:1900], intent.after, intent.before, by, ok=False, downtime=down or 0.0
        )
        write_record(self.places, record.noted(entry))

    # What is checked before.

    def _check_unit(self) -> None:
        """Raise ModuleError if the unit is not as it would be rendered: a rollback could not restore it."""
        suite = load_effective(self.layout)
        unit = unit_of(self.name)
        found = changes(suite.registry, self.layout, suite.settings, refused=suite.refused)
        kinds = {change.kind for change in found if change.unit == unit}
        if kinds & {"changed", "foreign"}:
            raise ModuleError(
                f"{unit} is not as its configuration says",
                hint=f"See: helmctl diff {self.name}. Then run helmctl apply, and update it again.",
            )

    def _check_tree(self, record: ModuleRecord, found: Candidate, discard: bool) -> None:
        """Raise ModuleError if files of the active version were changed, since the next one would lack the changes."""
        if discard:
            return
        registry = load_effective(self.layout).registry
        service = registry.services.get(self.name, found.service)
        written = {"services.json", FLASKENV, service.database_config.file}
        changed = [
            path
            for path in found.repository.changed_files(record.commit, self.places.version(record.active))
            if path not in written
            and not any(path == each or path.startswith(f"{each}/") for each in service.shared_paths)
        ]
        if changed:
            raise ModuleError(
                f"files of the version that serves were changed: {', '.join(changed[:5])}",
                hint="Commit them into its repository, or leave them behind: --discard-changes",
            )


def _refusals(*checks: Callable[[], None]) -> tuple[str, ...]:
    """Return the errors that CHECKS raise, as sentences."""
    found = []
    for check in checks:
        try:
            check()
        except HelmError as error:
            found.append(printable(f"{error.sentence}. {error.hint}".strip(), _MAX_TEXT))
    return tuple(found)


def _requirements(found: Candidate, before: str, path: str) -> tuple[str, ...]:
    """Return how the file of requirements differs between two commits."""

    def lines(commit: str) -> list[str]:
        try:
            tree = found.tree if commit == found.commit else found.repository.tree(commit)
            return (found.repository.file(tree, path) or "").splitlines()
        except HelmError:
            return []

    differences = difflib.unified_diff(lines(before), lines(found.commit), lineterm="", n=0)
    kept = [line for line in differences if line[:1] in "+-" and not line.startswith(("+++", "---"))]
    return tuple(printable(line, _MAX_LINE) for line in kept[:_MOST_LINES])
