"""Reading the users of the suite's realm from Keycloak. Blocks."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from helmd.keycloak.admin.api import RightsError, Session, named, path_of
from helmd.model.errors import UsageError
from helmd.model.identity.realm import ADMINS, EVENTS_KEPT, PROBE_USER
from helmd.model.identity.users import (
    DEFAULT_USERS,
    RealmGroup,
    RealmUser,
    Standing,
    UnknownUserError,
    finds_probe,
    group_named,
    group_of,
    infix_search,
    time_of_milliseconds,
    user_of,
)
from helmd.operations.identity.found import group_id, management_id

_MOST_GROUPS = 1000
_MEMBERS = 100


@dataclass(frozen=True, slots=True)
class UserPage:
    """A page of users, and their total number; None if Keycloak does not count.

    A page that would have Helm's technical account has one user less, so MORE says whether another one follows.
    """

    users: tuple[RealmUser, ...]
    total: int | None
    more: bool


@dataclass(frozen=True, slots=True)
class UserDetails:
    """A user with its groups, sessions and locks."""

    user: RealmUser
    groups: tuple[RealmGroup, ...]
    privileged: bool
    locked: bool
    """Whether the account is temporarily locked after too many failed logins."""
    failed_logins: int
    sessions: int
    last_login: datetime | None
    """The last login in Keycloak's events or sessions."""
    logins_since: datetime | None
    """The oldest time covered by these events; None if Helm may not read them."""


@dataclass(frozen=True, slots=True)
class UserSession:
    """A session at Keycloak."""

    id: str
    address: str
    started: datetime | None
    last_access: datetime | None
    clients: tuple[str, ...]


class UserReader:
    """The users of REALM that SESSION may see, for one operation: groups are read once."""

    def __init__(self, session: Session, realm: str) -> None:
        self._session, self._realm = session, realm
        self._management = ""
        self._groups: tuple[RealmGroup, ...] | None = None
        self._probe: bool | None = None

    def page(
        self, search: str = "", first: int = 0, most: int = DEFAULT_USERS, enabled: bool | None = None, group: str = ""
    ) -> UserPage:
        """Return users by name, without service accounts and Helm's technical account.

        SEARCH is words, each a substring of names or email. A GROUP can't be combined with SEARCH and has no total.
        Raises UsageError.
        """
        if group:
            if search or enabled is not None:
                raise UsageError("group: can't be combined with search or enabled")
            members = self.members(group_named(group, self.groups()), first, most)
            return UserPage(members, None, len(members) == most)
        asked = {"search": infix_search(search)} if search.strip() else {}
        if enabled is not None:
            asked["enabled"] = "true" if enabled else "false"
        users = path_of(self._realm, "users")
        found = self._session.get(users, **asked, first=str(first), max=str(most), briefRepresentation="true")
        page = tuple(map(user_of, found or ()))
        people = tuple(user for user in page if user.username != PROBE_USER)
        last = len(page) < most and bool(page or not first)
        # Counting takes as long as searching; on the last page, the total is known.
        total = first + len(page) if last else self._session.get(f"{users}/count", **asked)
        if not isinstance(total, int):
            return UserPage(people, None, len(page) == most)
        hidden = len(people) < len(page)
        if not hidden and total > len(page) and finds_probe(search, enabled):
            hidden = self._has_probe()
        return UserPage(people, total - hidden, len(page) == most and first + most < total)

    def _has_probe(self) -> bool:
        """Return whether Helm's technical account is in the realm."""
        if self._probe is None:
            self._probe = self.exactly("username", PROBE_USER) is not None
        return self._probe

    def members(self, group: RealmGroup, first: int, most: int) -> tuple[RealmUser, ...]:
        """Return members of a group, by username."""
        path = f"{path_of(self._realm, 'groups', group.id)}/members"
        found = self._session.get(path, first=str(first), max=str(most), briefRepresentation="true")
        return tuple(map(user_of, found or ()))

    def user(self, id: str) -> RealmUser:
        """Return the user with this id. Raises UnknownUserError."""
        return user_of(self._document(id))

    def find(self, wanted: str) -> RealmUser:
        """Return the user with this username, email or id. Raises UnknownUserError."""
        for key in ("username", "email"):
            if found := self.exactly(key, wanted):
                return found
        if "@" in wanted or "/" in wanted:
            raise unknown_user(wanted)
        return self.user(wanted)

    def exactly(self, key: str, value: str) -> RealmUser | None:
        """Return the user whose KEY, username or email, is VALUE in any case."""
        found = self._session.get(path_of(self._realm, "users"), **{key: value, "exact": "true", "max": "2"})
        document = named(found, key, value.lower())
        return user_of(document) if document is not None else None

    def details(self, id: str) -> UserDetails:
        """Return everything about a user. Raises UnknownUserError."""
        user = self.user(id)
        standing = self._standing(user)
        lock = self._session.get(f"{path_of(self._realm)}/attack-detection/brute-force{path_of('users', id)}") or {}
        sessions = self.sessions(id)
        event, since = self._last_login(id)
        made = time_of_milliseconds(user.created)
        if since is not None and made is not None:
            since = max(since, made)
        times = [time for time in (event, *(session.started for session in sessions)) if time is not None]
        failures = lock.get("numFailures")
        return UserDetails(
            user,
            standing.groups,
            standing.privileged,
            bool(lock.get("disabled")),
            failures if isinstance(failures, int) else 0,
            len(sessions),
            max(times, default=None),
            since,
        )

    def _last_login(self, id: str) -> tuple[datetime | None, datetime | None]:
        """Return when the user last logged in by Keycloak's events, and how far back these reach."""
        try:
            found = self._session.get(f"{path_of(self._realm)}/events", type="LOGIN", user=id, max="1")
        except RightsError:
            return None, None
        event = found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else {}
        return time_of_milliseconds(event.get("time")), datetime.now(UTC) - timedelta(seconds=EVENTS_KEPT)

    def logins(self, first: int, most: int) -> tuple[tuple[str, datetime], ...] | None:
        """Return ids of users and when they logged in, the newest first, or None where Helm may not read events."""
        try:
            found = self._session.get(
                f"{path_of(self._realm)}/events", type="LOGIN", first=str(first), max=str(most), direction="desc"
            )
        except RightsError:
            return None
        times = ((each.get("userId"), time_of_milliseconds(each.get("time"))) for each in found or ())
        return tuple((id, time) for id, time in times if isinstance(id, str) and time is not None)

    def groups(self) -> tuple[RealmGroup, ...]:
        """Return all groups, nested ones after their parents."""
        if self._groups is not None:
            return self._groups
        path = path_of(self._realm, "groups")
        waiting = [*map(group_of, self._session.get(path, first="0", max=str(_MOST_GROUPS)) or ())]
        found: list[RealmGroup] = []
        while waiting and len(found) < _MOST_GROUPS:
            group = waiting.pop(0)
            found.append(group)
            if group.subgroups:
                children = self._session.get(f"{path}{path_of(group.id)}/children", first="0", max=str(_MOST_GROUPS))
                waiting += map(group_of, children or ())
        self._groups = tuple(found)
        return self._groups

    def groups_of(self, id: str) -> tuple[RealmGroup, ...]:
        """Return the groups of a user. Raises UnknownUserError."""
        return self._groups_of(self.user(id))

    def _groups_of(self, user: RealmUser) -> tuple[RealmGroup, ...]:
        path = f"{self._path(user.id)}/groups"
        return tuple(map(group_of, self._session.get(path, first="0", max=str(_MOST_GROUPS)) or ()))

    def sessions(self, id: str) -> tuple[UserSession, ...]:
        """Return the sessions of a user at Keycloak, the newest first."""
        found = [_session_of(each) for each in self._session.get(f"{self._path(id)}/sessions") or ()]
        return tuple(sorted(found, key=lambda each: str(each.started), reverse=True))

    def _standing(self, user: RealmUser) -> Standing:
        groups = self._groups_of(user)
        path = f"{self._path(user.id)}/role-mappings/clients{path_of(self._management_client())}/composite"
        standing = Standing(groups, bool(self._session.get(path, briefRepresentation="true")))
        return replace(standing, other_admins=self._other_admin(user)) if standing.counted else standing

    def _other_admin(self, user: RealmUser) -> bool:
        """Return whether another enabled user is in the group of admins."""
        path, first = f"{path_of(self._realm, 'groups', group_id(self._session, self._realm, ADMINS))}/members", 0
        while True:
            page = self._session.get(path, first=str(first), max=str(_MEMBERS), briefRepresentation="true") or ()
            if any(each.enabled and each.id != user.id for each in map(user_of, page)):
                return True
            if len(page) < _MEMBERS:
                return False
            first += _MEMBERS

    def _management_client(self) -> str:
        self._management = self._management or management_id(self._session, self._realm)
        return self._management

    def _document(self, id: str) -> dict[str, Any]:
        found = self._session.get(self._path(id))
        if not isinstance(found, dict):
            raise unknown_user(id)
        return cast(dict[str, Any], found)

    def _path(self, id: str) -> str:
        if id in (".", ".."):
            # Not escaped in URLs, so that the path would be that of the realm itself (RFC 3986, section 5.2.4).
            raise unknown_user(id)
        return path_of(self._realm, "users", id)


def unknown_user(wanted: str) -> UnknownUserError:
    """Return the error about a user who does not exist."""
    return UnknownUserError(f"there is no user '{wanted[:100]}'", hint="List them: helmctl users list")


def _session_of(document: Any) -> UserSession:
    clients = document.get("clients")
    return UserSession(
        str(document.get("id", "")),
        str(document.get("ipAddress") or ""),
        time_of_milliseconds(document.get("start")),
        time_of_milliseconds(document.get("lastAccess")),
        tuple(sorted(map(str, clients.values()))) if isinstance(clients, dict) else (),
    )
