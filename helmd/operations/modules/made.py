"""Objects that a version creates for its module: a database, its role, variables in its secrets file.

They are removed when the change is rolled back, so that the next one does not find a partly migrated database.
"""

from dataclasses import dataclass

from helmd.files.environment_file import read_environment_file, remove_variables
from helmd.model.layout import Layout
from helmd.model.modules.intent import Facts, Intent
from helmd.model.suite.names import DATABASE_PASSWORD, SUITE_CLUSTER
from helmd.model.suite.service import Registry
from helmd.operations.configuration.databases import database_services, databases_of
from helmd.operations.configuration.effective import load_effective
from helmd.operations.modules.data import ModuleData
from helmd.postgres.copies import database_exists, drop_database, drop_role, role_exists
from helmd.postgres.passfile import remove_password
from helmd.systemd.bus import Manager


@dataclass(frozen=True, slots=True)
class Made:
    """What exists of the database of a version, and what it needs. ``present`` is None if unknown."""

    database: str
    present: bool | None
    role: bool
    secrets: tuple[str, ...]
    """Variables missing in its secrets file."""

    @property
    def facts(self) -> Facts:
        """The facts that `remove_made` needs."""
        makes = self.database if self.present is False else ""
        return {"makes": makes, "role": self.role, "secrets": ",".join(self.secrets)}


def what_is_made(layout: Layout, manager: Manager, planned: Registry, name: str) -> Made:
    """Return what is created for the module NAME of the suite PLANNED. Raises HelmError."""
    suite, service = load_effective(layout), planned[name]
    secrets = set(service.secrets)
    database, role, present = "", False, None
    if name in database_services(planned):
        secrets |= {DATABASE_PASSWORD, service.database_variable}
        database = databases_of(planned, layout, suite.settings).get(name, "")
        if not suite.settings.suite_embedded or SUITE_CLUSTER in suite.registry:
            admin = ModuleData(layout.module(name), layout, suite, manager, database).administration
            present, role = database_exists(admin, database), role_exists(admin, name)
        elif not layout.suite_cluster.exists():
            present = False
    known = read_environment_file(layout.secrets_file(name))
    return Made(database, present, role, tuple(sorted(secrets - set(known))))


def remove_made(layout: Layout, manager: Manager, name: str, intent: Intent) -> None:
    """Remove what was created for a version of the module NAME that was rolled back. Raises HelmError, OSError."""
    suite = load_effective(layout)
    embedded = suite.settings.suite_embedded
    database, role = str(intent.given.get("makes") or ""), intent.given.get("role")
    if database and (not embedded or SUITE_CLUSTER in suite.registry):
        admin = ModuleData(layout.module(name), layout, suite, manager, database).administration
        drop_database(admin, database)
        if not role:
            drop_role(admin, name)
    if database and embedded and not role:
        remove_password(layout.suite_passfile, name)
    file, secrets = layout.secrets_file(name), str(intent.given.get("secrets") or "")
    if secrets and remove_variables(file, secrets.split(",")) and not file.stat().st_size:
        file.unlink()
