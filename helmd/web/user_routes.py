"""Routes about users of Keycloak. Handlers require a recent login for changes of admins."""

from functools import partial
from http import HTTPStatus
from typing import Any

from helmd.model.api.jobs import JobAcceptedReply
from helmd.model.api.users import (
    CreateUserBody,
    EditUserBody,
    GroupListReply,
    GroupsChangedReply,
    ImportUsersBody,
    ResetPasswordBody,
    UserActionBody,
    UserChangedReply,
    UserDetailsReply,
    UserGroupsBody,
    UserListQuery,
    UserListReply,
    UserSessionsReply,
)
from helmd.web.api.users import UserHandlers
from helmd.web.auth.roles import Role
from helmd.web.http.problems import Handler
from helmd.web.reply import CSV, Reply
from helmd.web.route import Route


def user_routes(users: UserHandlers) -> tuple[Route, ...]:
    """Return all of them."""

    def get(path: str, handler: Handler, summary: str, reply: Reply, query: type | None = None) -> Route:
        return Route("GET", path, handler, Role.ADMIN, summary, query=query, reply=reply)

    def change(
        method: str, path: str, handler: Handler, summary: str, reply: Any = UserChangedReply, body: Any = None
    ) -> Route:
        made = reply if isinstance(reply, Reply) else Reply(reply)
        return Route(method, path, handler, Role.ADMIN, summary, request=body, reply=made)

    everybody, one = "/api/keycloak/users", "/api/keycloak/users/{id}"
    created, accepted = Reply(UserChangedReply, HTTPStatus.CREATED), Reply(JobAcceptedReply, HTTPStatus.ACCEPTED)
    act = partial(change, "POST", body=UserActionBody)
    return (
        get(everybody, users.list, "Users, by username", Reply(UserListReply), UserListQuery),
        change("POST", everybody, users.create, "A new user", created, CreateUserBody),
        get(f"{everybody}/export", users.export, "All users with their groups as CSV", CSV),
        change("POST", f"{everybody}/import", users.start_import, "Users from CSV", accepted, ImportUsersBody),
        get(one, users.user, "One user", Reply(UserDetailsReply)),
        change("PUT", one, users.edit, "Change fields of a user", body=EditUserBody),
        change("DELETE", one, users.delete, "Remove a user"),
        act(f"{one}/enable", users.enable, "Let a user log in"),
        act(f"{one}/disable", users.disable, "Keep a user from logging in, and end its sessions"),
        act(f"{one}/unlock", users.unlock, "Let a user log in again after too many failed logins"),
        act(f"{one}/logout", users.log_out, "End all sessions of a user"),
        change("POST", f"{one}/reset-password", users.reset_password, "A new password", body=ResetPasswordBody),
        get(f"{one}/sessions", users.sessions, "The sessions of a user", Reply(UserSessionsReply)),
        get(f"{one}/groups", users.groups_of, "The groups of a user", Reply(GroupListReply)),
        change("PUT", f"{one}/groups", users.set_groups, "Have a user be in these groups alone", GroupsChangedReply,
               UserGroupsBody),
        get("/api/keycloak/groups", users.groups, "All groups", Reply(GroupListReply)),
    )  # fmt: skip
