"""Bodies and parameters about users of the suite's realm. Members that Keycloak has as well are called as there."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Literal

from helmd.model.json_fields import described

_ID = described("its id at Keycloak", example="4fecbd06-57dc-408a-ba8a-ab24f3686dc9")
_USERNAME = described("the username, in lower case", example="bill")
_EMAIL = described("the email address", example="bill@example.org")
_FIRST, _LAST = described("first name", example="Bill"), described("last name", example="Ing")
_ENABLED = described("whether the user may log in")
_VERIFIED = described("whether the email address was verified")
_GROUPS = described("groups by name, or by path where they are in others", example=["technicians"], maxItems=100)
_PASSWORD = described("the password; it is neither stored nor logged by Helm", minLength=1, maxLength=1000)
_TEMPORARY = described("whether it must be changed at the next login")
_GENERATE = described("whether to make a temporary password, which the reply has, once", example=False)
_SUCCESS = described("true")
_MESSAGE = described("what was done, for a person", example="User updated successfully")
_ONCE = described("the password that was made; it is shown this once", omitted=True)
_REASON = described("why, for the audit trail", maxLength=500)


@dataclass(frozen=True, slots=True)
class UserBody:
    """A user."""

    id: str = field(metadata=_ID)
    username: str = field(metadata=_USERNAME)
    email: str | None = field(metadata=_EMAIL)
    firstName: str | None = field(metadata=_FIRST)
    lastName: str | None = field(metadata=_LAST)
    enabled: bool = field(metadata=_ENABLED)
    emailVerified: bool = field(metadata=_VERIFIED)
    createdTimestamp: int | None = field(metadata=described("milliseconds since 1970", example=1795411858268))


@dataclass(frozen=True, slots=True)
class UserGroupBody:
    """A group."""

    id: str = field(metadata=_ID)
    name: str = field(metadata=described("its name", example="technicians"))
    path: str = field(metadata=described("its name below those of the groups that it is in", example="/technicians"))
    admin: bool = field(metadata=described("whether its members have the rights of an admin, or may have"))


@dataclass(frozen=True, slots=True)
class UserDetailsReply(UserBody):
    """A user with groups, lock, sessions and last login."""

    groups: tuple[UserGroupBody, ...] = field(metadata=described("the groups that the user is in"))
    admin: bool = field(metadata=described("whether the user has the rights of an admin: changes need a recent login"))
    locked: bool = field(metadata=described("whether the user is locked for a while, after too many failed logins"))
    failed_logins: int = field(metadata=described("failed logins since the last successful one", example=0))
    sessions: int = field(metadata=described("sessions at Keycloak", example=1))
    requiredActions: tuple[str, ...] = field(
        metadata=described("what Keycloak has the user do at the next login", example=["UPDATE_PASSWORD"])
    )
    last_login_at: datetime | None = field(metadata=described("the last login that Keycloak has an event of"))
    logins_since: datetime | None = field(
        metadata=described("how far back these events reach; null where Helm may not read them")
    )


@dataclass(frozen=True, slots=True)
class ListedUserBody(UserBody):
    """A user in a list."""

    groups: tuple[str, ...] | None = field(
        metadata=described(
            "with details: the groups by name; left out while they are read", example=["client"], omitted=True
        )
    )
    last_login_at: datetime | None = field(
        default=None, metadata=described("with details: the last login that Keycloak has an event of", omitted=True)
    )


@dataclass(frozen=True, slots=True)
class UserListReply:
    """Some users, by username."""

    users: tuple[ListedUserBody, ...] = field(metadata=described("the users, without service accounts"))
    total: int | None = field(metadata=described("how many there are in all; null for those of a group", example=42))
    first: int = field(metadata=described("how many come before these", example=0))
    max: int = field(metadata=described("at most so many are given", example=100))
    logins_since: datetime | None = field(
        metadata=described("with details: how far back events of logins reach", omitted=True)
    )


@dataclass(frozen=True, slots=True)
class UserListQuery:
    """Which users."""

    search: str | None = field(
        default=None,
        metadata=described("words that are anywhere in username, names or email; at most 5", omitted=True),
    )
    group: str | None = field(
        default=None, metadata=described("those in this group; not together with search or enabled", omitted=True)
    )
    enabled: Literal["true", "false"] | None = field(
        default=None, metadata=described("those that may log in, or may not", omitted=True)
    )
    details: Literal["true", "false"] | None = field(
        default=None, metadata=described("whether to give groups and last logins as well", omitted=True)
    )
    first: int = field(default=0, metadata=described("how many to leave out", minimum=0, maximum=10**18 - 1))
    max: int = field(
        default=100, metadata=described("users in a page; at most 500 are given", minimum=1, maximum=10**18 - 1)
    )


@dataclass(frozen=True, slots=True)
class CreateUserBody:
    """A new user. Members that are not known are passed over, as older clients send some."""

    OPEN: ClassVar[bool] = True

    username: str = field(metadata=_USERNAME)
    email: str = field(metadata=_EMAIL)
    firstName: str | None = field(default=None, metadata=_FIRST)
    lastName: str | None = field(default=None, metadata=_LAST)
    enabled: bool = field(default=True, metadata=_ENABLED)
    emailVerified: bool = field(default=False, metadata=_VERIFIED)
    groups: tuple[str, ...] = field(default=(), metadata=_GROUPS)
    password: str | None = field(default=None, metadata=_PASSWORD)
    temporary: bool = field(default=True, metadata=_TEMPORARY)
    generate_password: bool = field(default=False, metadata=_GENERATE)
    reason: str = field(default="", metadata=_REASON)


@dataclass(frozen=True, slots=True)
class EditUserBody:
    """What of a user is to change; what is left out or null stays. Members that are not known are passed over."""

    OPEN: ClassVar[bool] = True

    email: str | None = field(default=None, metadata=_EMAIL)
    firstName: str | None = field(default=None, metadata=_FIRST)
    lastName: str | None = field(default=None, metadata=_LAST)
    enabled: bool | None = field(default=None, metadata=_ENABLED)
    emailVerified: bool | None = field(default=None, metadata=_VERIFIED)
    reason: str = field(default="", metadata=_REASON)


@dataclass(frozen=True, slots=True)
class ResetPasswordBody:
    """A new password for a user."""

    OPEN: ClassVar[bool] = True

    password: str | None = field(default=None, metadata=_PASSWORD)
    temporary: bool = field(default=True, metadata=_TEMPORARY)
    generate_password: bool = field(default=False, metadata=_GENERATE)
    reason: str = field(default="", metadata=_REASON)


@dataclass(frozen=True, slots=True)
class UserGroupsBody:
    """The groups that a user is to be in, and no others."""

    OPEN: ClassVar[bool] = True

    groups: tuple[str, ...] = field(metadata=_GROUPS)
    reason: str = field(default="", metadata=_REASON)


@dataclass(frozen=True, slots=True)
class UserActionBody:
    """Why something is done to a user."""

    reason: str = field(default="", metadata=_REASON)


@dataclass(frozen=True, slots=True)
class UserChangedReply:
    """A user was changed."""

    success: bool = field(metadata=_SUCCESS)
    message: str = field(metadata=_MESSAGE)
    user: UserBody | None = field(metadata=described("the user as it is now; not after a removal", omitted=True))
    password: str | None = field(default=None, metadata=_ONCE)


@dataclass(frozen=True, slots=True)
class GroupListReply:
    """Groups."""

    groups: tuple[UserGroupBody, ...] = field(metadata=described("the groups"))


@dataclass(frozen=True, slots=True)
class GroupsChangedReply:
    """The groups of a user were changed."""

    success: bool = field(metadata=_SUCCESS)
    message: str = field(metadata=_MESSAGE)
    added: tuple[str, ...] = field(metadata=described("groups that the user was added to", example=["technicians"]))
    removed: tuple[str, ...] = field(metadata=described("groups that the user was removed from", example=["client"]))


@dataclass(frozen=True, slots=True)
class UserSessionBody:
    """A session at Keycloak."""

    id: str = field(metadata=described("its id at Keycloak"))
    address: str = field(metadata=described("from where the user logged in, as Keycloak saw it", example="192.0.2.7"))
    started_at: datetime | None = field(metadata=described("when it began"))
    last_access_at: datetime | None = field(metadata=described("when it was last used"))
    clients: tuple[str, ...] = field(
        metadata=described("the clients of Keycloak that it was used for", example=["core-client"])
    )


@dataclass(frozen=True, slots=True)
class UserSessionsReply:
    """The sessions of a user."""

    sessions: tuple[UserSessionBody, ...] = field(metadata=described("the newest first"))


@dataclass(frozen=True, slots=True)
class ImportUsersBody:
    """Users as CSV."""

    csv: str = field(
        metadata=described(
            "the file: a row with the names of columns (username, email, firstName, lastName, enabled, groups,"
            " password), then a row for each user",
            example="username,email\nbill,bill@example.org\n",
            minLength=1,
        )
    )
    dry_run: bool = field(default=False, metadata=described("whether to check the rows only"))
    reason: str = field(default="", metadata=_REASON)
