"""The log entries of an older Helm that was taken over, copied into the store; runs as a job."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from helmd.model.config.settings import Settings
from helmd.model.layout import Layout
from helmd.model.modules.adoption import AdoptionError
from helmd.model.suite.service import Registry
from helmd.operations.modules.adopt import older_database, read_adoption
from helmd.store.ingest.older_import import ImportedLogs, import_older_logs

IMPORT_KIND = "import-logs"
IMPORT_WORDS = ("adopt", "--import-logs")


def import_adopted_logs(
    layout: Layout, settings: Settings, suite: Registry, notify: Callable[[str], None]
) -> ImportedLogs:
    """Copy the entries of the adopted installation's older Helm. Raises AdoptionError and StoreError."""
    adoption = read_adoption(layout)
    if adoption is None:
        raise AdoptionError("nothing was taken over", hint="First: helmctl adopt DIR")
    uri = older_database(Path(adoption.directory))
    if not uri:
        raise AdoptionError(f"the older Helm in {adoption.directory} names no database")

    def retention_of(service: str) -> int:
        known = suite.services.get(service)
        return settings.retention if known is None or known.retention is None else known.retention

    return asyncio.run(import_older_logs(uri, settings.store_conninfo(layout, owner=True), retention_of, notify))
