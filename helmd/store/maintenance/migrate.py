"""Migrations of the store's schema: numbered SQL files, each applied once, in order.

A file is applied and recorded in ``schema_migrations`` in one transaction, under an advisory lock, so that concurrent
runs and interruptions do no harm. In a file, ``:"helm_role"`` (a quoted variable of psql(1)) stands for the role of the
daemons; there is no other placeholder.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

import psycopg
from psycopg import sql

from helmd.model.errors import StoreError
from helmd.store.maintenance.older import set_older_aside
from helmd.store.session import LOCK_CLASS, MIGRATE_LOCK, Connection, connect, reason, store_errors

ROLE_PLACEHOLDER = ':"helm_role"'
_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql\Z")
_LOCK_WAIT = "60s"
_EQUAL = {
    "c0016561ecc600d6985927b6af2c079fa6b76a678e0a49844b0cda3d68dfa318":
    "4908cb9b9457b8a871482df51bd01ce11481f753da27e5b365f3151aa6908b0d",
}  # fmt: skip
"""Digests of steps as unreleased versions had them, and of the released steps with the same result."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step of the schema."""

    number: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.number:04d}_{self.name}"


def migrations(directory: Traversable | None = None) -> tuple[Migration, ...]:
    """Return the steps of this version of Helm, in order.

    Raises StoreError if a number is missing or occurs twice.
    """
    place = directory if directory is not None else files("helmd.store") / "migrations"
    found = []
    for file in place.iterdir():
        match = _FILE.match(file.name)
        if match:
            found.append(Migration(int(match.group(1)), match.group(2), file.read_text(encoding="utf-8")))
    found.sort(key=lambda step: step.number)
    if [step.number for step in found] != list(range(1, len(found) + 1)):
        raise StoreError("the migrations are not numbered 1, 2, 3 …: the installation is damaged")
    return tuple(found)


async def migrate(
    owner_conninfo: str, store_role: str | None = None, steps: Sequence[Migration] | None = None
) -> tuple[Migration, ...]:
    """Apply the missing steps as the role that owns the schema; return them.

    STORE_ROLE is granted the privileges that the daemons need; None if they connect as the owner. Raises StoreError if
    the database can't be reached, refuses a step, has another version of a step, or is newer than this version of Helm.
    """
    known = migrations() if steps is None else tuple(steps)
    connection = await connect(owner_conninfo, "helm migrations", None)
    applied = []
    try:
        with store_errors("the store's schema can't be brought up to date"):
            await connection.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(_LOCK_WAIT)))
            role = store_role or connection.info.user
            while (step := await _apply_next(connection, known, role)) is not None:
                applied.append(step)
    finally:
        await connection.close()
    return tuple(applied)


async def _apply_next(connection: Connection, known: Sequence[Migration], role: str) -> Migration | None:
    """Apply the first missing step, in a transaction of its own; return it, or None if there is none."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_CLASS, MIGRATE_LOCK))
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (number integer PRIMARY KEY, name text NOT NULL,"
            " sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        cursor = await connection.execute("SELECT number, name, sha256 FROM schema_migrations ORDER BY number")
        done = await cursor.fetchall()
        if not done:
            await set_older_aside(connection)
        step = next_step(known, [(int(number), str(name), str(digest)) for number, name, digest in done])
        if step is None:
            return None
        try:
            # Without parameters, a string of several statements is sent by the simple query protocol.
            await connection.execute(_for_role(step.text, role, connection))
        except psycopg.Error as error:
            raise StoreError(f"migration {step} failed and was undone: {_notified(error)}") from error
        await connection.execute(
            "INSERT INTO schema_migrations (number, name, sha256) VALUES (%s, %s, %s)",
            (step.number, step.name, step.sha256),
        )
        return step


def next_step(known: Sequence[Migration], done: Sequence[tuple[int, str, str]]) -> Migration | None:
    """Return the first of KNOWN that is not in DONE (number, name, sha256).

    Raises StoreError if DONE is not the beginning of KNOWN.
    """
    if len(done) > len(known):
        number, name, _ = done[-1]
        raise StoreError(
            f"the store's schema ({number:04d}_{name}) is newer than this version of Helm knows",
            hint="Install the newer version again, or restore a backup from before it.",
        )
    for step, (number, name, digest) in zip(known, done, strict=False):
        if (number, _EQUAL.get(digest, digest)) != (step.number, step.sha256):
            raise StoreError(
                f"migration {number:04d}_{name} was applied in another form than {step} has now",
                hint="A migration must not change once it was released: reinstall the package.",
            )
    return known[len(done)] if len(done) < len(known) else None


def _for_role(text: str, role: str, connection: Connection) -> bytes:
    return text.replace(ROLE_PLACEHOLDER, sql.Identifier(role).as_string(connection)).encode()


def _notified(error: psycopg.Error) -> str:
    detail = error.diag.message_detail
    return f"{reason(error)} ({detail})" if detail else reason(error)
