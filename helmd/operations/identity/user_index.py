"""What lists of users say besides: groups and last logins. Keycloak is asked by group and by event, never by user.

Both are kept for some seconds. Blocks.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from helmd.model.errors import UsageError
from helmd.model.identity.realm import EVENTS_KEPT
from helmd.operations.identity.user_reader import UserReader

INDEX_SECONDS = 30.0
"""For how long both are used."""
_MEMBERS = 1000
"""Members of a group that are asked for at once."""
MOST_MEMBERSHIPS = 200_000
_EVENTS, _MOST_EVENTS = 500, 20_000


@dataclass(frozen=True, slots=True)
class LastLogins:
    """When users last logged in, by id, and how far back that is known; None where Helm may not read events."""

    times: Mapping[str, datetime] = field(default_factory=dict)
    since: datetime | None = None


class UserIndex:
    """Groups and last logins of all users, each read again once they are too old. CLOCK is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turn = threading.Lock()
        self._groups: Mapping[str, tuple[str, ...]] = {}
        self._groups_at: float | None = None
        self._logins = LastLogins()
        self._logins_at: float | None = None
        self._newest = datetime.min.replace(tzinfo=UTC)

    def forget_groups(self) -> None:
        """Somebody's groups have changed."""
        self._groups_at = None

    def groups(self, users: UserReader) -> Mapping[str, tuple[str, ...]]:
        """The names of each user's groups, by id; the paths of groups in others."""
        with self._turn:
            began = self._clock()
            if self._groups_at is None or began - self._groups_at >= INDEX_SECONDS:
                self._groups_at = began
                try:
                    self._groups = _memberships(users)
                except BaseException:
                    self._groups_at = None
                    raise
            return self._groups

    def logins(self, users: UserReader) -> LastLogins:
        """The last logins; after the first time only those that came since are read."""
        with self._turn:
            if self._logins_at is None or self._clock() - self._logins_at >= INDEX_SECONDS:
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
            # So many logins that older ones are not read: what is known begins with the oldest of these.
            since = oldest
        self._newest = newest
        return LastLogins(times, max(since or kept_since, kept_since))


def _memberships(users: UserReader) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    count = 0
    for group in users.groups():
        name = group.name if group.path == f"/{group.name}" else group.path
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
