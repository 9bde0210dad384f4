"""The steps of installing a module. As those of an update, but there is no version before: going back leaves nothing,
and what it answers and logs can't be compared, so that being healthy is enough.

Data of an earlier installation, which was removed with --keep-data, is copied before and put back.
"""

import time
from dataclasses import dataclass, replace

from helmd.model.errors import HelmError, StartFailedError
from helmd.model.modules.intent import Facts, Intent
from helmd.model.modules.record import HistoryEntry
from helmd.model.suite.names import SUITE_CLUSTER
from helmd.model.suite.service import Registry
from helmd.modules.records import write_record
from helmd.modules.snapshot import remove_tree
from helmd.operations.configuration.databases import database_services, databases_of
from helmd.operations.configuration.effective import Effective, load_effective
from helmd.operations.modules.data import ModuleData
from helmd.operations.modules.engine import TakenBackError
from helmd.operations.modules.install import migrate_module
from helmd.operations.modules.planned import planned_suite, remove_entry, version_path
from helmd.operations.modules.surroundings import ModuleSteps
from helmd.postgres.copies import database_exists, drop_database, drop_role, role_exists
from helmd.postgres.passfile import remove_password


@dataclass
class InstallSteps(ModuleSteps):
    """The steps of one installation of the module NAME."""

    def planned(self) -> Registry:
        """The suite as it would be with the module."""
        assert self.builder is not None and self.candidate is not None
        suite, tree = load_effective(self.layout), self.candidate
        source, ref = self.builder.source.url, self.builder.ref
        return planned_suite(self.layout, suite.settings, self.name, "x", source, ref, tree.declared.text)

    def found(self) -> Facts:
        """What there is of the module's data: the name of its database if that is there, or of the one to be made;
        whether all of its data is made by this installation, and its role and its secrets too. Raises HelmError.
        """
        places, suite = self.layout.module(self.name), load_effective(self.layout)
        database, present, role = self._database(suite), False, False
        if database and (known := not suite.settings.suite_embedded or SUITE_CLUSTER in suite.registry):
            data = ModuleData(places, self.layout, suite, self.manager, database)
            present = database_exists(data.administration, database)
            role = role_exists(data.administration, self.name)
        else:
            known = not self.layout.suite_cluster.exists()
        fresh = not present and (known or not database) and not any(places.shared.iterdir())
        return {
            "database": database if present else "",
            "makes": "" if present else database,
            "fresh": fresh,
            "role": role,
            "secrets": self.layout.secrets_file(self.name).exists(),
        }

    def _database(self, suite: Effective) -> str:
        registry = self.planned()
        if self.name not in database_services(registry):
            return ""
        return databases_of(registry, self.layout, suite.settings).get(self.name, "")

    def describe(self, intent: Intent) -> HelmError:
        error = super().describe(intent)
        hint = error.hint or f"Its log: helmctl logs {self.name}; what was built is kept until the next success."
        return TakenBackError(error.sentence, hint=hint, lines=error.lines)

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
            self._remove_data(intent)
        return facts

    def _remove_data(self, intent: Intent) -> None:
        """Remove what was made for a module that there had not been."""
        places, suite = self.layout.module(self.name), load_effective(self.layout)
        if database := str(intent.given.get("makes") or ""):
            data = ModuleData(places, self.layout, suite, self.manager, database)
            if not suite.settings.suite_embedded or SUITE_CLUSTER in suite.registry:
                drop_database(data.administration, database)
                if not intent.given.get("role"):
                    drop_role(data.administration, self.name)
            if suite.settings.suite_embedded and not intent.given.get("role"):
                remove_password(self.layout.suite_passfile, self.name)
        if not intent.given.get("secrets"):
            self.layout.secrets_file(self.name).unlink(missing_ok=True)
        remove_tree(places.shared)
        places.shared.mkdir(mode=0o700)
