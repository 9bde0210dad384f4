"""Users of the suite's realm: what a field may be, who is an admin, and what may not be done to the last one."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from helmd.model.errors import DeniedError, HelmError, UsageError
from helmd.model.identity.realm import ADMINS, FIRST_ADMIN, PROBE_NAME, PROBE_USER

UserChange = Literal["edit", "delete", "disable", "enable", "groups", "password", "unlock", "logout"]
DEFAULT_USERS, MOST_USERS = 100, 500
"""Users in one page."""
MOST_WORDS, LONGEST_SEARCH = 5, 200
LONGEST_FIELD = 255
"""Characters of a field (Keycloak's user profile)."""
USERNAME = r"^[^\s<>&\"'$%!#?\u00a7;*~/\\|=\[\]{}()^\x00-\x1f\x7f]{3,255}$"
"""Keycloak's validators length and username-prohibited-characters (26.4)."""
EMAIL = r"^[^\s@<>\"\x00-\x1f\x7f]{1,64}@[^\s@<>\"\x00-\x1f\x7f]{1,190}$"
PERSON_NAME = r"^[^<>&\"$%!#?\u00a7;*~/\\|^=\[\]{}()\x00-\x1f\x7f]{0,255}$"
"""Keycloak's validator person-name-prohibited-characters (26.4)."""
_SERVICE_ACCOUNT = "service-account-"
"""How the users of clients' service accounts are named. Answers about users do not say whose they are (26.4)."""
_ALLOWED: Mapping[str, tuple[re.Pattern[str], str]] = {
    "username": (
        re.compile(USERNAME.removesuffix("$") + r"\Z"),
        "must have 3 to 255 characters, without spaces and without any of <>&\"'$%!#?§;*~/\\|=[]{}()^",
    ),
    "email": (re.compile(EMAIL.removesuffix("$") + r"\Z"), "must be an email address"),
    "firstName": (re.compile(PERSON_NAME.removesuffix("$") + r"\Z"), "has characters that names may not have"),
    "lastName": (re.compile(PERSON_NAME.removesuffix("$") + r"\Z"), "has characters that names may not have"),
}
_ADD_ANOTHER = "Add somebody else first: helmctl users groups NAME --add admins"


class UnknownUserError(HelmError):
    """There is no such user."""

    code: ClassVar[str] = "unknown_user"


class UserExistsError(HelmError):
    """Another user has this username or email."""

    code: ClassVar[str] = "user_exists"


@dataclass(frozen=True, slots=True)
class RealmGroup:
    """A group of the realm. ``path`` has the names of those that it is in (``/admins/deputies``)."""

    id: str
    name: str
    path: str
    subgroups: int = 0

    @property
    def gives_admin(self) -> bool:
        """Whether its members are admins of the suite, or have what admins have.

        Tokens name groups without their paths, so one of that name counts wherever it is; those in it have its roles.
        """
        return any(part.casefold() == ADMINS for part in self.path.split("/"))


@dataclass(frozen=True, slots=True)
class RealmUser:
    """A user as Keycloak has it (UserRepresentation)."""

    id: str
    username: str
    email: str = ""
    first_name: str = ""
    last_name: str = ""
    enabled: bool = True
    email_verified: bool = False
    created: int | None = None
    """Milliseconds since the epoch."""
    service_account_of: str = ""
    """The client whose service account it is; empty for other users."""
    required_actions: tuple[str, ...] = ()
    """What Keycloak has the user do at the next login."""
    from_directory: bool = False
    """Whether a directory (LDAP) has the user, and Keycloak only a copy."""


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user to be made."""

    username: str
    email: str
    first_name: str = ""
    last_name: str = ""
    enabled: bool = True
    email_verified: bool = False
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides whether a user may be changed: as it is now."""

    groups: tuple[RealmGroup, ...]
    manages: bool = False
    """Whether the user has roles of realm-management, by itself or by a group or role."""
    other_admins: bool = True
    """Whether another member of admins is enabled."""

    @property
    def privileged(self) -> bool:
        return self.manages or any(group.gives_admin for group in self.groups)

    @property
    def counted(self) -> bool:
        """Whether the user is a direct member of the group admins, and so certainly an admin."""
        return any(group.path == f"/{ADMINS}" for group in self.groups)


def refusal_of_change(
    user: RealmUser, standing: Standing, change: UserChange, removed: Iterable[RealmGroup] = ()
) -> str | None:
    """Return why CHANGE of USER is refused for every caller, as a sentence, or None.

    REMOVED are groups that it leaves.
    """
    if user.service_account_of:
        return f"{user.username} is the service account of client {user.service_account_of}, not a person"
    if user.username == PROBE_USER:
        return f"{user.username} is the account by which Helm looks at the gateway's pages, not a person"
    if change == "delete" and user.username.casefold() == FIRST_ADMIN:
        return f"the account {FIRST_ADMIN} can't be deleted"
    if change == "delete" and user.from_directory:
        return f"{user.username} is from a directory (LDAP), so it would be back, enabled, when it is next looked for"
    leaves = change in ("delete", "disable") or any(group.path == f"/{ADMINS}" for group in removed)
    if leaves and user.enabled and standing.counted and not standing.other_admins:
        return f"{user.username} is the last enabled member of group {ADMINS}; without it nobody is an admin any more"
    return None


def check_change(user: RealmUser, standing: Standing, change: UserChange, removed: Iterable[RealmGroup] = ()) -> None:
    """Raises DeniedError as `refusal_of_change`."""
    if refusal := refusal_of_change(user, standing, change, removed):
        hint = _ADD_ANOTHER if "last enabled" in refusal else ""
        if user.service_account_of:
            hint = "Change the client in Keycloak's admin console."
        elif change == "delete" and user.from_directory:
            hint = f"Delete it in the directory, or keep it from logging in: helmctl users disable {user.username}"
        raise DeniedError(refusal, hint=hint)


def fault_of(name: str, value: str) -> str | None:
    """Return what is wrong with VALUE of the field NAME, as Keycloak calls it; or None."""
    if name == "email" and not value:
        return "is missing"
    pattern, sentence = _ALLOWED[name]
    return None if pattern.match(value) else sentence


def checked_user(user: NewUser) -> NewUser:
    """Return USER as Keycloak would keep it. Raises UsageError, which names the field."""
    made = {"username": user.username, "email": user.email, "firstName": user.first_name, "lastName": user.last_name}
    for name, value in made.items():
        if fault := fault_of(name, value):
            raise UsageError(f"{name}: {fault}")
    if user.username.lower().startswith(_SERVICE_ACCOUNT):
        raise UsageError(f"username: {_SERVICE_ACCOUNT}… is for service accounts of clients")
    return NewUser(
        user.username.lower(),
        user.email.lower(),
        user.first_name,
        user.last_name,
        user.enabled,
        user.email_verified,
        user.groups,
    )


def infix_search(text: str) -> str:
    """Return Keycloak's search for users with all words of TEXT in names or email, anywhere in them.

    Raises UsageError.
    """
    words = text.split()
    if len(text) > LONGEST_SEARCH or len(words) > MOST_WORDS:
        raise UsageError(f"search: must have at most {MOST_WORDS} words and {LONGEST_SEARCH} characters")
    # A quotation mark at both ends would make it an exact search.
    return " ".join(f"*{word}*" for word in words)


def finds_probe(search: str, enabled: bool | None) -> bool:
    """Return whether Helm's technical account would be among those that a search by `infix_search` finds, were it a
    person.
    """
    known = " ".join((PROBE_USER, *PROBE_NAME)).lower()
    return enabled is not False and all(word in known for word in search.lower().split())


def user_of(document: Mapping[str, Any]) -> RealmUser:
    """Return the user in an answer of Keycloak."""
    created = document.get("createdTimestamp")
    username = str(document.get("username", ""))
    machine = username.removeprefix(_SERVICE_ACCOUNT) if username.startswith(_SERVICE_ACCOUNT) else ""
    return RealmUser(
        id=str(document.get("id", "")),
        username=username,
        email=str(document.get("email") or ""),
        first_name=str(document.get("firstName") or ""),
        last_name=str(document.get("lastName") or ""),
        enabled=bool(document.get("enabled")),
        email_verified=bool(document.get("emailVerified")),
        created=created if isinstance(created, int) else None,
        service_account_of=machine,
        required_actions=tuple(map(str, document.get("requiredActions") or ())),
        from_directory=bool(document.get("federationLink") or document.get("origin")),
    )


def group_of(document: Mapping[str, Any]) -> RealmGroup:
    """Return the group in an answer of Keycloak."""
    count = document.get("subGroupCount")
    name = str(document.get("name", ""))
    path = str(document.get("path") or f"/{name}")
    return RealmGroup(str(document.get("id", "")), name, path, count if isinstance(count, int) else 0)


def group_named(name: str, present: Iterable[RealmGroup]) -> RealmGroup:
    """Return the group with this path (``/a/b``), or name: the one at the top, or else the only one of that name.

    Raises UsageError.
    """
    listed = list(present)
    if name.startswith("/"):
        found = [group for group in listed if group.path == name]
    else:
        found = [group for group in listed if group.path == f"/{name}"] or [
            group for group in listed if group.name == name
        ]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"groups: there are several groups '{name}'", hint=f"Give its path: {found[0].path}")
    raise UsageError(f"groups: there is no group '{name}'", hint="List them: helmctl users groups")


def time_of_milliseconds(given: object) -> datetime | None:
    """Return a time of Keycloak's, milliseconds since the epoch."""
    if isinstance(given, bool) or not isinstance(given, int) or not 0 < given < 253_402_300_800_000:
        return None
    return datetime.fromtimestamp(given / 1000, UTC)
