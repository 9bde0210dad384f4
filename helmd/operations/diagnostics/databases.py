"""The check of ``helmctl doctor`` for services that have a database in PostgreSQL, but use another one."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from helmd.model.errors import HelmError
from helmd.model.suite.names import unit_of
from helmd.model.units.diagnostics import Finding, judge_database_use, ok, unknown
from helmd.operations.configuration.databases import administration, databases_of
from helmd.operations.diagnostics.context import DoctorContext

_SETTLED = 30.0
"""Time limit in seconds for a service to connect after its start."""
_SQLITE = b"SQLite format 3\0"
_SUFFIXES = (".db", ".sqlite", ".sqlite3")
_DEEPEST = 3


def databases(context: DoctorContext) -> list[Finding]:
    """Check whether running services that have a database are connected to it, or have tables in it."""
    # Imported here: psycopg costs every helmctl command 60 ms.
    from helmd.postgres.activity import database_use

    found = []
    for name, database in databases_of(context.suite, context.layout, context.settings).items():
        facts = context.manager.facts(unit_of(name))
        if facts.oneshot or not facts.active or time.time() - facts.active_since < _SETTLED:
            continue
        try:
            admin = administration(context.suite, context.layout, context.settings)
            use = database_use(admin, name, database)
        except HelmError as error:
            found.append(unknown(f"the database of {name}: {error.sentence}"))
            continue
        files = list(sqlite_files(context.layout.resolve(context.suite[name].path)))
        if finding := judge_database_use(name, use.sessions, use.tables, [str(file) for file in files]):
            found.append(finding)
    return found or [ok("running services that have one use it")]


def sqlite_files(directory: Path) -> Iterator[Path]:
    """Return SQLite databases in a service's directory, by name and content; links are not followed."""
    for place, directories, names in os.walk(directory):
        depth = len(Path(place).relative_to(directory).parts)
        directories[:] = [
            each
            for each in directories
            if depth < _DEEPEST and not each.startswith(".") and not (Path(place, each) / "pyvenv.cfg").exists()
        ]
        for name in names:
            if name.endswith(_SUFFIXES) and _is_sqlite(Path(place, name)):
                yield Path(place, name)


def _is_sqlite(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(descriptor, len(_SQLITE)) == _SQLITE
    except OSError:
        return False
    finally:
        os.close(descriptor)
