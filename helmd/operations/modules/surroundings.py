"""The actions of the steps of a change, and of its rollback (`helmd.operations.modules.engine.Surroundings`)."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from helmd.model.errors import HelmError, ModuleError, StartFailedError
from helmd.model.layout import Layout
from helmd.model.modules.gate import GatePolicy
from helmd.model.modules.intent import Facts, Intent
from helmd.model.modules.record import HistoryEntry, ModuleRecord, Version
from helmd.model.modules.transaction import AfterStep, ChangeStep, UndoStep, failure_sentence
from helmd.model.suite.names import unit_of
from helmd.model.suite.service import Registry
from helmd.modules.records import read_record, write_record
from helmd.modules.sandbox import is_sandbox_of
from helmd.modules.start_block import allow_start, block_start
from helmd.modules.versions import keep_unlinked_state, remove_version
from helmd.operations.configuration.apply import apply, changes, changes_for
from helmd.operations.configuration.databases import ensure_databases
from helmd.operations.configuration.effective import load_effective
from helmd.operations.configuration.module_files import ensure_service_secrets, place_flaskenv
from helmd.operations.lifecycle import control
from helmd.operations.lifecycle.changes import changed_since
from helmd.operations.lifecycle.driver import Driver
from helmd.operations.lifecycle.steps import Options, Step
from helmd.operations.modules.build import BuildOptions, Candidate, ModuleBuild, tidy
from helmd.operations.modules.data import ModuleData, kept_of, seconds_down, stamp_of
from helmd.operations.modules.engine import RolledBackError
from helmd.operations.modules.kept import FAILED_DATA_SECONDS, remove_kept
from helmd.operations.modules.made import remove_made, what_is_made
from helmd.operations.modules.migrate import run_for_module
from helmd.operations.modules.planned import place_entry, planned_suite, version_path
from helmd.operations.modules.watch import Usual, observe_before, watch
from helmd.operations.setup.setup import run_unit
from helmd.systemd.bus import Manager, Signals

BACK_SECONDS = 5.0
"""Seconds for which the old version is watched after a rollback."""
_DETAIL = 1000
_ENDED_WITHIN = 20.0


def wait_until_ended(manager: Manager, unit: str) -> None:
    """Wait until UNIT has no processes. Raises ModuleError if it does not end."""
    deadline = time.monotonic() + _ENDED_WITHIN
    while manager.facts(unit).active_state not in ("inactive", "failed"):
        if time.monotonic() > deadline:
            raise ModuleError(f"{unit} does not end", hint=f"See: systemctl --user status {unit}")
        time.sleep(0.1)


@dataclass
class ModuleSteps:
    """The steps of one change of the module NAME, and of its rollback.

    A recovery has neither ``candidate`` nor what was observed before; a rollback needs none of them.
    """

    layout: Layout
    manager: Manager
    name: str
    options: BuildOptions
    step: Callable[[Step], None]
    gate_seconds: float = 60.0
    builder: ModuleBuild | None = None
    candidate: Candidate | None = None
    checks: Callable[[], Facts] = dict
    """Checks before the first step. Raises HelmError."""
    usual: Usual = field(default_factory=dict)
    errors_before: int = 0
    _lines: tuple[str, ...] = ()
    _hint: str = ""

    def forward(self, step: ChangeStep, intent: Intent) -> Facts:
        try:
            facts: Facts = getattr(self, f"_do_{step}")(intent)
        except HelmError as error:
            self._lines, self._hint = error.lines, error.hint
            raise
        return facts

    def after(self, step: AfterStep, intent: Intent) -> None:
        getattr(self, f"_after_{step}")(intent)

    def undo(self, step: UndoStep, intent: Intent) -> Facts:
        # The next steps may need it.
        self.release()
        facts: Facts = getattr(self, f"_undo_{step}")(intent)
        return facts

    def describe(self, intent: Intent) -> HelmError:
        sentence = failure_sentence(intent, kept_of(intent), seconds_down(intent))
        trouble = [
            f"{step}: {facts['trouble']}"
            for step, facts in intent.undone.items()
            if isinstance(facts.get("trouble"), str)
        ]
        if trouble:
            sentence += f"; but it is not well: {trouble[0]}"
        return RolledBackError(sentence, hint=self._hint, lines=self._lines)

    # What is planned.

    def planned(self, version: str) -> Registry:
        """Return the suite as it would be with the module in VERSION."""
        assert self.builder is not None and self.candidate is not None
        settings, declared = load_effective(self.layout).settings, self.candidate.declared.text
        source, ref = self.builder.source.url, self.builder.ref
        return planned_suite(self.layout, settings, self.name, version, source, ref, declared)

    def found(self) -> Facts:
        """Return the facts needed for a rollback. Raises HelmError."""
        return what_is_made(self.layout, self.manager, self.planned("x"), self.name).facts

    # What the steps share.

    @property
    def unit(self) -> str:
        return unit_of(self.name)

    def _record(self) -> ModuleRecord:
        record = read_record(self.layout.module(self.name))
        if record is None:
            raise ModuleError(f"{self.name} has no record", hint="Is it installed? See: helmctl modules list")
        return record

    def _version(self, record: ModuleRecord, version: str) -> Version:
        found = record.version(version)
        if found is None:
            raise ModuleError(f"{self.name} has no version {version}")
        return found

    def _data(self, intent: Intent) -> ModuleData:
        suite = load_effective(self.layout)
        database = str(intent.given.get("database") or "")
        return ModuleData(self.layout.module(self.name), self.layout, suite, self.manager, database)

    def block(self) -> None:
        """Prevent starts of the module while its code and data may be of two versions. Raises OSError."""
        block_start(
            self.layout.module(self.name),
            f"{self.name} is not started: a change of it goes on, or was interrupted, and its code and data may be of"
            f" two versions. To wait for that, and go on with it: helmctl modules recover {self.name}",
        )

    def allow(self) -> None:
        """Allow starts again. Raises OSError."""
        allow_start(self.layout.module(self.name))

    def release(self) -> None:
        """Release the space reserved for a rollback. Raises OSError."""
        self.layout.module(self.name).reserve.unlink(missing_ok=True)

    def _halted(self) -> None:
        """Stop the module, and wait for its end. A unit that is not loaded is not running."""
        facts = self.manager.facts(self.unit)
        # Its start may be waiting for this recovery: a stop job would cancel that.
        if not facts.exists or facts.active_state in ("inactive", "failed"):
            return
        with Signals() as signals:
            self.manager.subscribe()
            run_unit(self.manager, signals, self.unit, stop=True)
        self.manager.reset_failed(self.unit)

    def _started(self, registry: Registry, with_dependencies: bool = False) -> None:
        """Start the module, and wait until it is healthy. Raises StartFailedError."""
        with Signals() as signals:
            self.manager.subscribe()
            driver = Driver(self.manager, signals.wait, self.step, partial(changed_since, self.layout))
            result = driver.run(control.start(registry, [self.name], Options(with_dependencies=with_dependencies)))
        if not result.good:
            cause = result.cause
            sentence = cause.sentence if cause else "it did not start"
            raise StartFailedError(sentence, hint=cause.hint if cause else "", lines=cause.lines if cause else ())

    def _applied(self, version: str) -> None:
        """Make the module's unit run VERSION. Raises HelmError."""
        suite = load_effective(self.layout)
        if version and (self.name not in suite.registry or not suite.registry[self.name].path.endswith(version)):
            faults = [str(fault) for fault in suite.faults]
            raise ModuleError(f"its configuration has faults with version {version}", lines=faults)
        found = changes(suite.registry, self.layout, suite.settings, refused=suite.refused)
        applied = apply(changes_for(found, {self.unit}), suite.registry, self.layout, suite.settings, self.manager)
        if refused := [str(fault) for change in applied.refused for fault in change.faults]:
            raise ModuleError(f"its unit can't be installed: {refused[0]}", lines=refused[1:])
        for notice in applied.notices:
            self.options.notify(f"warning: {notice}")

    # Forward.

    def _do_preflight(self, intent: Intent) -> Facts:
        facts = self.checks()
        self._data(intent).reserve()
        return facts

    def _do_build(self, intent: Intent) -> Facts:
        assert self.builder is not None and self.candidate is not None
        _, version = self.builder.build(self.candidate)
        return {"version": version.id, "commit": version.commit}

    def _do_stop(self, intent: Intent) -> Facts:
        self.block()
        suite = load_effective(self.layout)
        if intent.given.get("ran"):
            self.usual, self.errors_before = observe_before(
                self.layout, suite.registry, self.name, self.manager, self.gate_seconds, self.options.notify
            )
        at = time.time()
        self._halted()
        return {"at": at}

    def _do_close(self, intent: Intent) -> Facts:
        return self._data(intent).close()

    def _do_copy(self, intent: Intent) -> Facts:
        return self._data(intent).copy(intent)

    def _do_snapshot(self, intent: Intent) -> Facts:
        suite = load_effective(self.layout)
        if intent.before and self.name in suite.registry:
            shared = suite.registry[self.name].shared_paths
            if moved := keep_unlinked_state(self.layout.module(self.name), intent.before, shared):
                self.options.notify(f"{self.name}: kept as its state: {', '.join(moved)}")
        return self._data(intent).snapshot(intent)

    def _do_open(self, intent: Intent) -> Facts:
        return self._data(intent).open()

    def _do_data(self, intent: Intent) -> Facts:
        if intent.change == "rollback-data":
            self._data(intent).restore_version(intent, str(intent.given["stamp"]))
        if intent.change != "update":
            return {}
        suite, registry = load_effective(self.layout), self.planned(intent.after)
        service = registry[self.name]
        if service.database:
            ensure_databases(registry, self.layout, suite.settings, self.manager.facts)
        for report in (*ensure_service_secrets(registry, self.layout), *place_flaskenv(registry, self.layout)):
            self.options.notify(f"warning: {report}")
        if service.install.migrate:
            self.options.notify(f"{self.name}: preparing its database")
            run_for_module(
                service, registry, self.layout, suite.settings, service.install.migrate, self.options.line,
                self.options.job,
            )  # fmt: skip
        return {}

    def _do_record(self, intent: Intent) -> Facts:
        record = self._record()
        record = record.activated(intent.after, time.time())
        write_record(self.layout.module(self.name), record)
        place_entry(self.layout, record, self._version(record, intent.after))
        return {}

    def _do_unit(self, intent: Intent) -> Facts:
        self._applied(version_path(self.name, intent.after))
        return self._data(intent).marks()

    def _do_start(self, intent: Intent) -> Facts:
        self.allow()
        self._started(load_effective(self.layout).registry)
        return {"at": time.time()}

    def _do_gate(self, intent: Intent) -> Facts:
        policy = GatePolicy(self.gate_seconds, errors_before=self.errors_before)
        watch(self.layout, load_effective(self.layout).registry, self.name, self.manager, policy, self.usual)
        return {}

    # Once it is committed.

    def _after_running(self, intent: Intent) -> None:
        self.release()
        if not intent.given.get("ran"):
            self._halted()

    def _after_copies(self, intent: Intent) -> None:
        stamp = stamp_of(intent)
        data = self._data(intent)
        data.clear_older(stamp)
        remove_kept(data, FAILED_DATA_SECONDS)
        record = self._record()
        for version in record.versions:
            record = record.with_version(replace(version, data=stamp if version.id == intent.before else ""))
        write_record(self.layout.module(self.name), record)

    def _after_versions(self, intent: Intent) -> None:
        tidy(self.layout.module(self.name), self._record())

    def _after_report(self, intent: Intent) -> None:
        record = self._record()
        if any(each.at >= intent.began_at and each.ok for each in record.history):
            return
        version = self._version(record, intent.after)
        action = "update" if intent.change == "update" else "rollback"
        down = seconds_down(intent) or 0.0
        what = {"update": "updated to", "rollback-data": "rolled back, with its data, to"}
        sentence = f"{what.get(intent.change, 'rolled back to')} commit {version.commit[:12]}"
        by = str(intent.given.get("by") or "")
        entry = HistoryEntry(time.time(), action, sentence, version.id, intent.before, by, downtime=down)
        write_record(self.layout.module(self.name), record.noted(entry))
        if intent.change == "update":
            self._finish(version)

    def _finish(self, version: Version) -> None:
        """Run the module's commands after an update. The new version serves in any case."""
        suite = load_effective(self.layout)
        service = suite.registry.services.get(self.name)
        if service is None or not service.install.after_update:
            return
        try:
            run_for_module(
                service, suite.registry, self.layout, suite.settings, service.install.after_update,
                self.options.line, self.options.job,
            )  # fmt: skip
        except HelmError as error:
            self.options.notify(f"warning: {error.sentence}")

    # Back.

    def _undo_halt(self, intent: Intent) -> Facts:
        # Rollback must work on a full disk.
        with suppress(OSError):
            self.block()
        # A migration survives the command if that is killed; in a job it ends with it.
        for unit in self.manager.units_like("helm-sandbox-*.service"):
            if is_sandbox_of(unit, self.name):
                self.manager.kill(unit, signal.SIGKILL)
                wait_until_ended(self.manager, unit)
        self._halted()
        return {}

    def _undo_database(self, intent: Intent) -> Facts:
        return self._data(intent).restore_database(intent)

    def _undo_shared(self, intent: Intent) -> Facts:
        return self._data(intent).restore_shared(intent)

    def _undo_open(self, intent: Intent) -> Facts:
        return self._data(intent).open()

    def _undo_record(self, intent: Intent) -> Facts:
        record = self._record_before(intent)
        if intent.before:
            record = record.activated(intent.before, time.time())
        write_record(self.layout.module(self.name), record)
        if intent.before:
            place_entry(self.layout, record, self._version(record, intent.before))
        return {}

    def _record_before(self, intent: Intent) -> ModuleRecord:
        """Return the record with the revision that was followed before."""
        record = self._record()
        ref = intent.given.get("ref")
        return replace(record, ref=ref) if isinstance(ref, str) else record

    def _undo_unit(self, intent: Intent) -> Facts:
        self._applied(version_path(self.name, intent.before) if intent.before else "")
        return {}

    def _undo_start(self, intent: Intent) -> Facts:
        self.allow()
        if not intent.given.get("ran"):
            return {}
        self._started(load_effective(self.layout).registry)
        return {"at": time.time()}

    def _undo_gate(self, intent: Intent) -> Facts:
        if not intent.given.get("ran"):
            return {}
        policy = GatePolicy(min(BACK_SECONDS, self.gate_seconds), errors_before=1 << 30)
        watch(self.layout, load_effective(self.layout).registry, self.name, self.manager, policy, self.usual)
        return {}

    def _undo_copies(self, intent: Intent) -> Facts:
        return self._data(intent).clear_failed(intent)

    def _undo_discard(self, intent: Intent) -> Facts:
        places = self.layout.module(self.name)
        if read_record(places) is None:
            # It was interrupted before the first version was recorded, so none was created.
            return {}
        record = self._record_before(intent)
        for version in record.versions:
            if version.state == "building":
                remove_version(places, version.id)
            if version.state == "building" or version.id == intent.after:
                detail = intent.reason[:_DETAIL] or "it was interrupted"
                record = record.with_version(replace(version, state="failed", detail=detail, served_at=0.0))
        write_record(places, record)
        remove_made(self.layout, self.manager, self.name, intent)
        return {}
