"""The page of the suite's users: who there is, found by server-side search, and everything about one of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from urllib.parse import urlencode

from aiohttp import web

from helmd.model.errors import HelmError
from helmd.model.identity.realm import ADMINS, FIRST_ADMIN
from helmd.model.identity.users import RealmGroup, RealmUser, time_of_milliseconds
from helmd.operations.identity.user_index import names_of
from helmd.operations.identity.user_reader import UserDetails, UserSession
from helmd.operations.identity.users import Users
from helmd.web.api.sources import Run, UserSource
from helmd.web.http.cancellation import run_while_connected
from helmd.web.pages.fresh_login import FreshLogin, fresh_login
from helmd.web.pages.rendering import Renderer

PAGE_USERS = 50


@dataclass(frozen=True, slots=True)
class Chip:
    """A group of a user. ``admin`` says that its members have the rights of an admin, or may have."""

    name: str
    admin: bool


@dataclass(frozen=True, slots=True)
class ListedUser:
    """A user in the list. ``chips`` is None while groups are read."""

    user: RealmUser
    name: str
    chips: tuple[Chip, ...] | None
    last_login: datetime | None
    logins_since: datetime | None
    """When there was no login since, if there was none: how far back logins are known, or when the user was made."""
    link: str
    here: bool


@dataclass(frozen=True, slots=True)
class ShownUser:
    """The user whose details are open, as far as Keycloak was asked."""

    details: UserDetails
    name: str
    chips: tuple[Chip, ...]
    choices: tuple[tuple[RealmGroup, bool], ...]
    """All groups, and whether the user is in each."""
    sessions: tuple[UserSession, ...]
    delete_refusal: str = ""
    admin_note: FreshLogin = field(default_factory=FreshLogin)


@dataclass(frozen=True, slots=True)
class UserQuery:
    """What is asked for, as it is in the page's URL."""

    q: str = ""
    group: str = ""
    enabled: str = ""
    first: int = 0
    user: str = ""

    def link(self, **changes: object) -> str:
        """Return the query string of this with CHANGES; empty values are left out."""
        changed = replace(self, **changes)  # type: ignore[arg-type]
        given = {name: getattr(changed, name) for name in ("q", "group", "enabled", "first", "user")}
        return "?" + urlencode({name: value for name, value in given.items() if value})


@dataclass(frozen=True, slots=True)
class UsersContext:
    """What the page shows. ``trouble`` says why there are no users, ``hint`` what to do."""

    query: UserQuery
    trouble: str = ""
    hint: str = ""
    code: str = ""
    rows: tuple[ListedUser, ...] = ()
    total: int | None = None
    more: bool = False
    page_size: int = PAGE_USERS
    groups: tuple[RealmGroup, ...] = ()
    shown: ShownUser | None = None
    shown_trouble: str = ""
    admins: FreshLogin = field(default_factory=FreshLogin)


class UsersPage:
    """The handler. SOURCE is asked in threads of RUN; URL is that at which browsers reach helmd."""

    def __init__(self, source: UserSource, run: Run, url: Callable[[], str], renderer: Renderer) -> None:
        self._source, self._run, self._url, self._renderer = source, run, url, renderer

    async def show(self, request: web.Request) -> web.StreamResponse:
        """GET /users"""
        query = query_of(request.query)
        part = request.query.get("part", "")
        login = fresh_login(request, self._url(), "Changing admins")

        async def asked() -> UsersContext:
            return await self._run(lambda: self._read(query, login, part))

        return self._renderer.show(request, "users.html", await run_while_connected(request, asked()))

    def _read(self, query: UserQuery, login: FreshLogin, part: str) -> UsersContext:
        """Blocks."""
        empty = UsersContext(query, admins=login)
        try:
            users = self._source.users(_no_change)
            if part == "user":
                return self._with_user(empty, users)
            # Keycloak does not search within a group.
            searching = "" if query.group else query.q
            enabled = None if query.group else {"true": True, "false": False}.get(query.enabled)
            page = users.page(searching, query.first, PAGE_USERS, enabled, query.group)
            all_groups = users.groups()
            groups, logins = self._source.index.groups(users, page.users), self._source.index.logins(users)
        except HelmError as error:
            return replace(empty, trouble=error.sentence, hint=error.hint or "", code=error.code)
        admin = {name for group in all_groups if group.gives_admin for name in names_of([group])}
        found = replace(
            empty,
            rows=tuple(
                ListedUser(
                    user,
                    full_name(user),
                    None if groups is None else tuple(Chip(name, name in admin) for name in groups[user.id]),
                    logins.times.get(user.id),
                    _later(logins.since, time_of_milliseconds(user.created)),
                    query.link(user=user.id),
                    user.id == query.user,
                )
                for user in page.users
            ),
            total=page.total,
            more=page.more,
            groups=all_groups,
        )
        return self._with_user(found, users) if query.user and not part else found

    def _with_user(self, context: UsersContext, users: Users) -> UsersContext:
        try:
            details = users.details(context.query.user)
            sessions = users.sessions(details.user.id)
            groups = context.groups or users.groups()
        except HelmError as error:
            return replace(context, shown_trouble=error.sentence, code=error.code)
        own = {group.id for group in details.groups}
        shown = ShownUser(
            details=details,
            name=full_name(details.user),
            chips=tuple(Chip(names_of([group])[0], group.gives_admin) for group in details.groups),
            choices=tuple((group, group.id in own) for group in groups),
            sessions=sessions,
            delete_refusal=_delete_refusal(details),
            admin_note=context.admins if details.privileged else FreshLogin(),
        )
        return replace(context, shown=shown)


def query_of(given: Mapping[str, str]) -> UserQuery:
    """Return what the parameters GIVEN ask for; what can't be read is left out."""
    first = given.get("first", "")
    enabled = given.get("enabled", "")
    return UserQuery(
        q=given.get("q", "").strip(),
        group=given.get("group", ""),
        enabled=enabled if enabled in ("true", "false") else "",
        first=int(first) if first.isascii() and first.isdigit() and len(first) < 9 else 0,
        user=given.get("user", ""),
    )


def full_name(user: RealmUser) -> str:
    """First and last name; may be empty."""
    return f"{user.first_name} {user.last_name}".strip()


def _delete_refusal(details: UserDetails) -> str:
    """Return why the user can't be removed by anyone, as a sentence; Keycloak is asked about the last admin when it
    comes to that.
    """
    if details.user.username.casefold() == FIRST_ADMIN:
        return f"The account {FIRST_ADMIN} can't be deleted: it is the way back in when {ADMINS} is empty."
    return ""


def _no_change(what: str) -> None:
    """The page reads; changes are made by the API, which asks for more."""


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    """Return None where ONE is."""
    return one if one is None or other is None else max(one, other)
