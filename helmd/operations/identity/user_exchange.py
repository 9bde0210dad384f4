"""Import and export of users as CSV. Each user is created by one request, so an import can be interrupted and
repeated.
"""

import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from helmd.files.beneath import opened_directory, read_in
from helmd.files.durable import write_in
from helmd.model.errors import HelmError, KeycloakAwayError, LockedError, UsageError
from helmd.model.identity.user_table import USER_COLUMNS, RowReport, UserRow, csv_text, user_cells
from helmd.model.identity.users import MOST_USERS, RealmGroup, RealmUser
from helmd.operations.identity.user_index import names_of
from helmd.operations.identity.user_reader import UserPage
from helmd.operations.identity.users import Users

MOST_EXPORTED = 100_000
"""Maximum number of users in an export."""
_KEPT_SECONDS = 2 * 3600.0
"""Seconds after which a file that was not read by a job is removed; a job runs for at most an hour."""
_Notify = Callable[[RowReport], None]


def import_users(
    users: Users, rows: Iterable[UserRow | RowReport], dry_run: bool, notify: _Notify = lambda report: None
) -> Iterator[RowReport]:
    """Create the users of ROWS that do not exist yet; yield the result of each row, after calling NOTIFY.

    Existing users are not changed. Raises KeycloakAwayError and LockedError,
    after which the remaining rows were not imported; another import continues there.
    """
    for row in rows:
        report = row if isinstance(row, RowReport) else _imported(users, row, dry_run)
        notify(report)
        yield report


def _imported(users: Users, row: UserRow, dry_run: bool) -> RowReport:
    wanted = row.user
    try:
        if (found := users.exactly("username", wanted.username)) is not None:
            if found.email == wanted.email:
                return RowReport(row.number, wanted.username, "unchanged")
            sentence = "username: there is a user of this name, with another email"
            return RowReport(row.number, wanted.username, "failed", sentence)
        if users.exactly("email", wanted.email) is not None:
            return RowReport(row.number, wanted.username, "failed", "email: another user has it")
        if dry_run:
            users.check_new(wanted)
            return RowReport(row.number, wanted.username, "would_create")
        users.make(wanted, row.password)
        return RowReport(row.number, wanted.username, "created")
    except (KeycloakAwayError, LockedError):
        raise
    except HelmError as error:
        return RowReport(row.number, wanted.username, "failed", error.sentence)


def export_users(users: Users) -> str:
    """Return all users with their groups as CSV. Raises UsageError for too many.

    Asks for the members of each group instead of the groups of each user.
    """
    everybody = [*_all(lambda first: users.page(first=first, most=MOST_USERS))]
    groups: dict[str, list[str]] = {}
    for group in users.groups():
        (name,) = names_of([group])
        for user in _all(partial(_members, users, group)):
            groups.setdefault(user.id, []).append(name)
    rows = [user_cells(user, groups.get(user.id, ())) for user in everybody]
    return csv_text([USER_COLUMNS, *rows])


def _members(users: Users, group: RealmGroup, first: int) -> UserPage:
    found = users.members(group, first, MOST_USERS)
    return UserPage(found, None, len(found) == MOST_USERS)


def _all(page: Callable[[int], UserPage]) -> Iterator[RealmUser]:
    first, count, more = 0, 0, True
    while more:
        found = page(first)
        first, more = first + MOST_USERS, found.more
        count += len(found.users)
        if count > MOST_EXPORTED:
            raise UsageError(f"there are more than {MOST_EXPORTED:,} users; use Keycloak's own export")
        yield from found.users


class ImportFiles:
    """Files in DIRECTORY for jobs to import; a job removes its file as soon as it has read it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, content: bytes, key: str = "") -> Path:
        """Write CONTENT to a new file, mode 0600. With KEY, its name depends on both only. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in self._directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
                    old.unlink()
        name = hashlib.sha256(key.encode() + b"\0" + content).hexdigest()[:32] if key else secrets.token_hex(16)
        with opened_directory(self._directory) as directory:
            write_in(directory, f"{name}.csv", content, 0o600)
        return self._directory / f"{name}.csv"

    def take(self, file: Path) -> bytes:
        """Return the content of a file and remove it. Raises OSError, UsageError for a file elsewhere."""
        if file.parent != self._directory:
            raise UsageError("this file was not made for a job")
        with opened_directory(self._directory) as directory:
            content = read_in(directory, file.name)
        if content is None:
            raise UsageError("the file is gone: a job has read it already")
        file.unlink(missing_ok=True)
        return content
