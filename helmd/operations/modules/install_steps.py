"""The steps of installing a module. As those of an update, but without a previous version: a rollback leaves
nothing, and there are no responses and logs to compare with, so that being healthy is enough.

Data of an earlier installation, which was removed with --keep-data, is copied before and restored.
"""

import time
from dataclasses import dataclass, replace

from helmd.model.errors import HelmError, StartFailedError
from helmd.model.modules.intent import Facts, Intent
from helmd.model.modules.record import HistoryEntry
from helmd.modules.records import write_record
from helmd.modules.snapshot import remove_tree
from helmd.operations.configuration.effective import load_effective
from helmd.operations.modules.engine import RolledBackError
from helmd.operations.modules.install import migrate_module
from helmd.operations.modules.made import what_is_made
from helmd.operations.modules.planned import remove_entry, version_path
from helmd.operations.modules.surroundings import ModuleSteps


@dataclass
class InstallSteps(ModuleSteps):
    """The steps of one installation of the module NAME."""

    def found(self) -> Facts:
        """As for an update, with the module's database, if it exists, and whether this installation creates all
        data.
        """
        made = what_is_made(self.layout, self.manager, self.planned("x"), self.name)
        known = made.present is False or not made.database
        return {
            **made.facts,
            "database": made.database if made.present else "",
            "fresh": known and not any(self.layout.module(self.name).shared.iterdir()),
        }

    def describe(self, intent: Intent) -> HelmError:
        error = super().describe(intent)
        hint = error.hint or f"Its log: helmctl logs {self.name}; what was built is kept until the next success."
        return RolledBackError(error.sentence, hint=hint, lines=error.lines)

    # Forward.

    def _do_stop(self, intent: Intent) -> Facts:
        self.block()
        return {}

    def _do_unit(self, intent: Intent) -> Facts:
        self._applied(version_path(self.name, intent.after))
        return {}

    def _do_data(self, intent: Intent) -> Facts:
        suite = load_effective(self.layout)
        migrate_module(self.name, suite.registry, self.layout, suite.settings, self.manager, self.options)
        return {}

    def _do_start(self, intent: Intent) -> Facts:
        if not intent.given.get("start"):
            return {}
        self.allow()
        try:
            self._started(load_effective(self.layout).registry, with_dependencies=True)
        except StartFailedError as error:
            sentence = f"it did not become healthy ({error.sentence})"
            raise StartFailedError(sentence, hint=error.hint, lines=error.lines) from None
        return {"at": time.time()}

    # Once it is committed.

    def _after_running(self, intent: Intent) -> None:
        self.release()
        self.allow()

    def _after_report(self, intent: Intent) -> None:
        record = self._record()
        if any(each.at >= intent.began_at and each.ok for each in record.history):
            return
        version = self._version(record, intent.after)
        by = str(intent.given.get("by") or "")
        sentence = f"installed commit {version.commit[:12]}"
        write_record(
            self.layout.module(self.name),
            record.noted(HistoryEntry(time.time(), "install", sentence, version.id, by=by)),
        )

    # Back.

    def _undo_record(self, intent: Intent) -> Facts:
        remove_entry(self.layout, self.name)
        record = self._record_before(intent)
        version = record.version(intent.after)
        if version is not None:
            record = record.with_version(replace(version, state="failed"))
        write_record(self.layout.module(self.name), replace(record, active="", commit=""))
        return {}

    def _undo_start(self, intent: Intent) -> Facts:
        self.allow()
        return {}

    def _undo_discard(self, intent: Intent) -> Facts:
        facts = super()._undo_discard(intent)
        if intent.given.get("fresh"):
            shared = self.layout.module(self.name).shared
            remove_tree(shared)
            shared.mkdir(mode=0o700)
        return facts
