"""Groups and last logins in lists of users. Keycloak is queried by group and by event, never by user.

Keycloak takes a millisecond per member of a group, so groups are read in a thread and cached for minutes. Blocks.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from helmd.model.errors import HelmError, UsageError
from helmd.model.identity.realm import EVENTS_KEPT
from helmd.model.identity.users import RealmGroup, RealmUser
from helmd.operations.identity.user_reader import UserReader

GROUPS_SECONDS, LOGINS_SECONDS = 300.0, 30.0
"""Maximum age of cached groups and logins in seconds; outdated groups are used until they are read again."""
FIRST_SECONDS = 2.0
"""Maximum time in seconds that the first list waits for groups."""
_MEMBERS = 1000
"""Maximum number of members of a group per request."""
MOST_MEMBERSHIPS = 200_000
_EVENTS, _MOST_EVENTS = 500, 20_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LastLogins:
    """Last logins of users by id, and since when these are known; None if Helm may not read events."""

    times: Mapping[str, datetime] = field(default_factory=dict)
    since: datetime | None = None


class UserIndex:
    """Groups and last logins of all users, each read again once they are too old. CLOCK is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turn = threading.Lock()
        self._groups: Mapping[str, tuple[str, ...]] | None = None
        self._groups_at = 0.0
        self._read_at = 0.0
        """When the last read began, in seconds since the epoch."""
        self._reading: threading.Thread | None = None
        self._changed: set[str] = set()
        """Users whose groups may have changed since."""
        self._logins = LastLogins()
        self._logins_at: float | None = None
        self._newest = datetime.min.replace(tzinfo=UTC)

    def forget(self, id: str) -> None:
        """Note that the groups of a user may have changed."""
        self._changed.add(id)

    def groups(self, users: UserReader, wanted: Iterable[RealmUser]) -> Mapping[str, tuple[str, ...]] | None:
        """Return the names, or paths if nested, of the groups of the WANTED users, by user id.

        They may be some minutes old, except for users that are newer, or were changed by this process. None during the
        first read, if that takes long.
        """
        with self._turn:
            due = self._groups is None or self._clock() - self._groups_at >= GROUPS_SECONDS
            if due and self._reading is None:
                self._reading = threading.Thread(
                    target=self._read_groups, args=(users,), name="helmd-groups", daemon=True
                )
                self._reading.start()
            known, reading = self._groups, self._reading
        if known is None and reading is not None:
            reading.join(FIRST_SECONDS)
            known = self._groups
        if known is None:
            return None
        return {
            user.id: names_of(users.groups_of(user.id)) if self._is_newer(user) else known.get(user.id, ())
            for user in wanted
        }

    def _is_newer(self, user: RealmUser) -> bool:
        return user.id in self._changed or (user.created or 0) >= (self._read_at - 1) * 1000

    def _read_groups(self, users: UserReader) -> None:
        before = set(self._changed)
        began, found = time.time(), None
        try:
            found = _memberships(users)
        except HelmError as error:
            _log.warning("groups of users could not be read: %s", error.sentence)
        with self._turn:
            self._reading = None
            if found is not None:
                self._groups, self._groups_at, self._read_at = found, self._clock(), began
                self._changed -= before

    def logins(self, users: UserReader) -> LastLogins:
        """Return the last logins; after the first call only new ones are read."""
        with self._turn:
            if self._logins_at is None or self._clock() - self._logins_at >= LOGINS_SECONDS:
                self._logins = self._read_logins(users)
                self._logins_at = self._clock()
            return self._logins

    def _read_logins(self, users: UserReader) -> LastLogins:
        times, oldest, first = dict(self._logins.times), None, 0
        kept_since = datetime.now(UTC) - timedelta(seconds=EVENTS_KEPT)
        since, newest = self._logins.since, self._newest
        while first < _MOST_EVENTS:
            page = users.logins(first, _EVENTS)
            if page is None:
                return LastLogins()
            for id, at in page:
                times[id] = max(at, times.get(id, at))
                newest, oldest = max(newest, at), at
            first += len(page)
            if len(page) < _EVENTS or (oldest is not None and oldest <= self._newest):
                break
        else:
            # There are more logins than are read: the oldest of these is where the known time begins.
            since = oldest
        self._newest = newest
        return LastLogins(times, max(since or kept_since, kept_since))


def _memberships(users: UserReader) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    count = 0
    for group in users.groups():
        (name,) = names_of([group])
        first = 0
        while True:
            if count > MOST_MEMBERSHIPS:
                raise UsageError(f"details: there are more than {MOST_MEMBERSHIPS:,} members of groups to list")
            members = users.members(group, first, _MEMBERS)
            for user in members:
                found[user.id] = (*found.get(user.id, ()), name)
            first, count = first + len(members), count + len(members)
            if len(members) < _MEMBERS:
                break
    return found


def names_of(groups: Iterable[RealmGroup]) -> tuple[str, ...]:
    """Return the names of groups, or the paths of nested ones."""
    return tuple(group.name if group.path == f"/{group.name}" else group.path for group in groups)
