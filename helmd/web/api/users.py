"""Users of the suite's realm. Changes of admins need the unix socket, or a recent login at Helm itself."""

import time
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Any, ClassVar

from aiohttp import web

from helmd.model.api.jobs import JobAcceptedReply
from helmd.model.api.users import (
    CreateUserBody,
    EditUserBody,
    GroupListReply,
    GroupsChangedReply,
    ImportUsersBody,
    ListedUserBody,
    ResetPasswordBody,
    UserActionBody,
    UserBody,
    UserChangedReply,
    UserDetailsReply,
    UserGroupBody,
    UserGroupsBody,
    UserListReply,
    UserSessionBody,
    UserSessionsReply,
)
from helmd.model.errors import HelmError, UsageError
from helmd.model.identity.user_table import MOST_CSV_BYTES
from helmd.model.identity.users import DEFAULT_USERS, MOST_USERS, NewUser, RealmGroup, RealmUser
from helmd.model.ingest.body import idempotency_key
from helmd.operations.identity.keycloak import generate_password
from helmd.operations.identity.user_exchange import ImportFiles, export_users
from helmd.operations.identity.user_reader import UserDetails, UserPage
from helmd.operations.identity.users import Confirm, Users
from helmd.operations.jobs.engine import JobEngine
from helmd.web.api.control import requester_of
from helmd.web.api.log_query import number, one_of, parameters
from helmd.web.api.logs import page_links
from helmd.web.api.sources import Result, Run, UserSource
from helmd.web.auth.audit import note_change
from helmd.web.auth.peers import LoginNeededError, check_recent_login
from helmd.web.auth.roles import Identity
from helmd.web.http.cancellation import run_while_connected
from helmd.web.http.problems import json_response, prefix_of
from helmd.web.http.validation import read_request

MAX_USER_REQUESTS = 32
"""Maximum number of requests about users that wait for Keycloak; further ones are refused."""
_LOGIN = "/helm/login"


class TooManyUserRequestsError(HelmError):
    """The maximum number of requests waiting for Keycloak is reached."""

    code: ClassVar[str] = "busy"


class UserHandlers:
    """The handlers. URL is Helm's own; FILES are those for jobs to import."""

    def __init__(
        self, source: UserSource, run: Run, url: Callable[[], str], engine: JobEngine, files: ImportFiles
    ) -> None:
        self._source, self._run, self._url, self._engine, self._files = source, run, url, engine, files
        self._waiting = 0

    # reading

    async def list(self, request: web.Request) -> web.Response:
        """GET /api/keycloak/users"""
        given = parameters(request)
        first = number(given, "first", 0)
        most = min(number(given, "max", DEFAULT_USERS, least=1), MOST_USERS)
        search, group = given.get("search", ""), given.get("group", "")
        enabled = {"": None, "true": True, "false": False}[one_of(given, "enabled", ("", "true", "false"))]
        if one_of(given, "details", ("false", "true")) == "false":
            page = await self._ask(request, lambda users: users.page(search, first, most, enabled, group))
            bodies, since = tuple(ListedUserBody(**_members(user), groups=None) for user in page.users), None
        else:
            page, bodies, since = await self._ask(
                request, lambda users: self._detailed(users, users.page(search, first, most, enabled, group))
            )
        pages = {
            "next": ("first", str(first + most) if page.more else None),
            "prev": ("first", str(max(0, first - most)) if first else None),
        }
        return json_response(UserListReply(bodies, page.total, first, most, since), headers=page_links(request, pages))

    def _detailed(self, users: Users, page: UserPage) -> tuple[UserPage, tuple[ListedUserBody, ...], datetime | None]:
        """Return the users of a page with groups and last logins, and since when these are known. Blocks."""
        groups, logins = self._source.index.groups(users, page.users), self._source.index.logins(users)
        bodies = [
            ListedUserBody(
                **_members(user),
                groups=None if groups is None else groups[user.id],
                last_login_at=logins.times.get(user.id),
            )
            for user in page.users
        ]
        return page, tuple(bodies), logins.since

    async def user(self, request: web.Request) -> web.Response:
        """GET /api/keycloak/users/{id}"""
        id = request.match_info["id"]
        return json_response(details_body(await self._ask(request, lambda users: users.details(id))))

    async def groups(self, request: web.Request) -> web.Response:
        """GET /api/keycloak/groups"""
        found = await self._ask(request, lambda users: users.groups())
        return json_response(GroupListReply(tuple(map(group_body, found))))

    async def groups_of(self, request: web.Request) -> web.Response:
        """GET /api/keycloak/users/{id}/groups"""
        id = request.match_info["id"]
        found = await self._ask(request, lambda users: users.groups_of(id))
        return json_response(GroupListReply(tuple(map(group_body, found))))

    async def sessions(self, request: web.Request) -> web.Response:
        """GET /api/keycloak/users/{id}/sessions"""
        id = request.match_info["id"]
        found = await self._ask(request, lambda users: users.sessions(users.user(id).id))
        bodies = [
            UserSessionBody(each.id, each.address, each.started, each.last_access, each.clients) for each in found
        ]
        return json_response(UserSessionsReply(tuple(bodies)))

    async def export(self, request: web.Request) -> web.Response:
        """GET /api/keycloak/users/export"""
        text = await self._ask(request, export_users)
        headers = {"Content-Disposition": 'attachment; filename="users.csv"'}
        return web.Response(body=text.encode(), content_type="text/csv", charset="utf-8", headers=headers)

    # changing

    async def create(self, request: web.Request) -> web.Response:
        """POST /api/keycloak/users"""
        body = await read_request(request, CreateUserBody)
        _check_password(body.password, body.generate_password, needed=False)
        detail = f"user {body.username.lower()}"
        note_change(request, reason=body.reason, detail=detail)
        wanted = NewUser(
            body.username,
            body.email,
            body.firstName or "",
            body.lastName or "",
            body.enabled,
            body.emailVerified,
            body.groups,
        )
        generated = generate_password() if body.generate_password else ""
        password = body.password or generated
        made = await self._ask(request, lambda users: users.create(wanted, password, body.temporary or bool(generated)))
        groups = f", groups {', '.join(body.groups)}" if body.groups else ""
        note_change(request, reason=body.reason, detail=f"{detail} ({made.id}){groups}")
        reply = UserChangedReply(True, "User created successfully", user_body(made), generated or None)
        headers = {"Location": f"{prefix_of(request)}/api/keycloak/users/{made.id}"}
        return json_response(reply, HTTPStatus.CREATED, headers=headers)

    async def edit(self, request: web.Request) -> web.Response:
        """PUT /api/keycloak/users/{id}"""
        body = await read_request(request, EditUserBody)
        given = {
            "email": body.email,
            "first_name": body.firstName,
            "last_name": body.lastName,
            "enabled": body.enabled,
            "email_verified": body.emailVerified,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        what = ", ".join(changes) + ("" if body.enabled is None else f" {str(body.enabled).lower()}")
        message = "User updated successfully"
        return await self._change(request, body.reason, what, message, lambda users, id: users.edit(id, **changes))

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /api/keycloak/users/{id}"""
        id, message = request.match_info["id"], "User deleted successfully"
        note_change(request, detail=f"user {id}")
        user = await self._ask(request, lambda users: users.delete(id))
        note_change(request, detail=f"user {user.username} ({id})")
        return json_response(UserChangedReply(True, message, None))

    async def enable(self, request: web.Request) -> web.Response:
        """POST /api/keycloak/users/{id}/enable"""
        return await self._act(request, "User enabled successfully", lambda users, id: users.enable(id))

    async def disable(self, request: web.Request) -> web.Response:
        """POST /api/keycloak/users/{id}/disable"""
        return await self._act(request, "User disabled successfully", lambda users, id: users.disable(id))

    async def unlock(self, request: web.Request) -> web.Response:
        """POST /api/keycloak/users/{id}/unlock"""
        return await self._act(request, "User unlocked successfully", lambda users, id: users.unlock(id))

    async def log_out(self, request: web.Request) -> web.Response:
        """POST /api/keycloak/users/{id}/logout"""
        return await self._act(request, "User logged out everywhere", lambda users, id: users.log_out(id))

    async def reset_password(self, request: web.Request) -> web.Response:
        """POST /api/keycloak/users/{id}/reset-password"""
        body = await read_request(request, ResetPasswordBody)
        _check_password(body.password, body.generate_password, needed=True)
        id = request.match_info["id"]
        note_change(request, reason=body.reason, detail=f"user {id}")
        user, made = await self._ask(
            request, lambda users: users.reset_password(id, body.password or "", body.temporary)
        )
        kind = "generated" if made else "temporary" if body.temporary else "lasting"
        note_change(request, reason=body.reason, detail=f"user {user.username} ({id}), {kind} password")
        return json_response(UserChangedReply(True, "Password reset successfully", user_body(user), made or None))

    async def set_groups(self, request: web.Request) -> web.Response:
        """PUT /api/keycloak/users/{id}/groups"""
        body = await read_request(request, UserGroupsBody)
        id, wanted = request.match_info["id"], ", ".join(body.groups) or "none"
        note_change(request, reason=body.reason, detail=f"user {id}, groups {wanted}")
        user, done = await self._ask(request, lambda users: users.set_groups(id, body.groups))
        changed = " ".join([*(f"+{name}" for name in done.added), *(f"-{name}" for name in done.removed)])
        note_change(request, reason=body.reason, detail=f"user {user.username} ({id}), groups {changed or 'as before'}")
        return json_response(GroupsChangedReply(True, "Groups updated successfully", done.added, done.removed))

    async def start_import(self, request: web.Request) -> web.Response:
        """POST /api/keycloak/users/import"""
        body = await read_request(request, ImportUsersBody, 2 * MOST_CSV_BYTES)
        given = request.headers.get("Idempotency-Key")
        identity: Identity = request["identity"]
        key = None if given is None else (f"{identity.key} {request.path}", idempotency_key(given))
        words = ["users", "import", "--json", *(["--dry-run"] if body.dry_run else [])]
        try:
            self._confirm(request)("")
        except LoginNeededError:
            words.append("--no-admins")
        note_change(request, reason=body.reason, detail="import of users")
        content = body.csv.encode()
        file = await self._run(lambda: self._files.add(content, given or ""))
        words += ["--take", str(file)]
        try:
            by = requester_of(request)
            view = await self._engine.submit("import", ("users",), tuple(words), by, body.reason, key)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        if view.ended:
            # A repeated request: its file is not needed.
            file.unlink(missing_ok=True)
        job = view.reply
        note_change(request, reason=body.reason, detail=f"import of users, job {job.id}")
        headers = {"Location": f"{prefix_of(request)}/api/jobs/{job.id}"}
        reply = JobAcceptedReply(True, f"The import goes on as job {job.id}", job)
        return json_response(reply, HTTPStatus.ACCEPTED, headers=headers)

    # what they have in common

    async def _act(self, request: web.Request, message: str, change: Callable[[Users, str], RealmUser]) -> web.Response:
        body = await read_request(request, UserActionBody)
        return await self._change(request, body.reason, "", message, change)

    async def _change(
        self, request: web.Request, reason: str, what: str, message: str, change: Callable[[Users, str], RealmUser]
    ) -> web.Response:
        id, more = request.match_info["id"], f", {what}" if what else ""
        note_change(request, reason=reason, detail=f"user {id}{more}")
        user = await self._ask(request, lambda users: change(users, id))
        note_change(request, reason=reason, detail=f"user {user.username} ({id}){more}")
        return json_response(UserChangedReply(True, message, user_body(user)))

    async def _ask(self, request: web.Request, what: Callable[[Users], Result]) -> Result:
        """Return the result of WHAT, called in a thread. A change is completed if the client disconnects."""
        if self._waiting >= MAX_USER_REQUESTS:
            raise TooManyUserRequestsError("too many requests wait for Keycloak", hint="Try again in a few seconds.")
        self._waiting += 1
        try:
            confirm = self._confirm(request)
            return await run_while_connected(request, self._called(lambda: what(self._source.users(confirm))))
        finally:
            self._waiting -= 1
            if request.method not in ("GET", "HEAD") and (id := request.match_info.get("id")):
                self._source.index.forget(id)

    async def _called(self, function: Callable[[], Result]) -> Result:
        return await self._run(function)

    def _confirm(self, request: web.Request) -> Confirm:
        identity: Identity = request["identity"]
        link = f"{self._url().rstrip('/')}{_LOGIN}?fresh=1"
        return lambda what: check_recent_login(identity, time.time(), what, link)


def user_body(user: RealmUser) -> UserBody:
    """Return a user for the API."""
    return UserBody(**_members(user))


def _members(user: RealmUser) -> dict[str, Any]:
    return {
        "id": user.id,
        "username": user.username,
        "email": user.email or None,
        "firstName": user.first_name or None,
        "lastName": user.last_name or None,
        "enabled": user.enabled,
        "emailVerified": user.email_verified,
        "createdTimestamp": user.created,
    }


def details_body(found: UserDetails) -> UserDetailsReply:
    """Return a user for the API, with everything about it."""
    return UserDetailsReply(
        **_members(found.user),
        groups=tuple(map(group_body, found.groups)),
        admin=found.privileged,
        locked=found.locked,
        failed_logins=found.failed_logins,
        sessions=found.sessions,
        requiredActions=found.user.required_actions,
        last_login_at=found.last_login,
        logins_since=found.logins_since,
    )


def group_body(group: RealmGroup) -> UserGroupBody:
    """Return a group for the API."""
    return UserGroupBody(group.id, group.name, group.path, group.gives_admin)


def _check_password(password: str | None, generate: bool, *, needed: bool) -> None:
    if password and generate:
        raise UsageError("generate_password: there is a password already")
    if needed and not (password or generate):
        raise UsageError("password: is missing", hint='Send a password, or "generate_password": true for a random one.')
