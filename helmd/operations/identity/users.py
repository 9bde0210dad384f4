"""The users of the suite's realm: searching, creating, changing, removing. The last admin is always protected.

Blocks. Users are stored in Keycloak only.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path

from helmd.files.lock import locked
from helmd.keycloak.admin.api import RefusedRequestError, Session, path_of
from helmd.model.errors import KeycloakError, UsageError
from helmd.model.identity.users import (
    NewUser,
    RealmGroup,
    RealmUser,
    Standing,
    UserChange,
    UserExistsError,
    check_change,
    checked_user,
    fault_of,
    group_named,
)
from helmd.operations.identity.keycloak import generate_password
from helmd.operations.identity.user_reader import UserReader, unknown_user

Confirm = Callable[[str], None]
"""Raises HelmError if the caller may not change admins; the argument is the beginning of a sentence."""
LOCK_SECONDS = 15.0
_FIELDS = {"email": "email", "first_name": "firstName", "last_name": "lastName", "enabled": "enabled",
           "email_verified": "emailVerified"}  # fmt: skip
_OF_DIRECTORY = {
    "error-user-attribute-read-only": (
        "Keycloak keeps this field read-only; one of a user from a directory (LDAP) is changed there"
    ),
    "Can't reset password as account is read only": "that of a user from a directory (LDAP) can only be changed there",
}
"""Messages for Keycloak's (26.4) errors about users in a read-only directory."""


@dataclass(frozen=True, slots=True)
class GroupsChange:
    """The groups that a user was added to and removed from, by name."""

    added: tuple[str, ...]
    removed: tuple[str, ...]


class Users(UserReader):
    """The users of REALM, as SESSION may manage them, for one operation.

    Changes hold LOCK; those that concern admins ask CONFIRM.
    """

    def __init__(self, session: Session, realm: str, lock: Path, confirm: Confirm) -> None:
        super().__init__(session, realm)
        self._lock, self._confirm = lock, confirm
        self._rights: dict[str, bool] = {}

    def create(self, wanted: NewUser, password: str = "", temporary: bool = True) -> RealmUser:
        """Create a user with groups and password in one request. Raises UsageError, UserExistsError."""
        self.make(wanted, password, temporary)
        if (made := self.exactly("username", wanted.username)) is None:
            raise KeycloakError(f"user {wanted.username} is gone again; another program changes users")
        return made

    def make(self, wanted: NewUser, password: str = "", temporary: bool = True) -> None:
        """As `create`, by one request, whose result is not read back."""
        wanted = checked_user(wanted)
        with self._locked():
            groups = self.check_new(wanted)
            body: dict[str, object] = {
                "username": wanted.username,
                "email": wanted.email,
                "firstName": wanted.first_name,
                "lastName": wanted.last_name,
                "enabled": wanted.enabled,
                "emailVerified": wanted.email_verified,
                "groups": [group.path for group in groups],
            }
            if password:
                body["credentials"] = [_credential(password, temporary)]
            with _as_field_errors():
                self._session.post(path_of(self._realm, "users"), body)

    def check_new(self, wanted: NewUser) -> tuple[RealmGroup, ...]:
        """Return the groups of a user to create.

        Raises UsageError, and as CONFIRM for the rights of an admin.
        """
        groups = self._named(wanted.groups)
        if self._give_rights(groups):
            self._confirm(f"making a user in {_names(groups)}, who has the rights of an admin,")
        return groups

    def edit(self, id: str, **changes: str | bool) -> RealmUser:
        """Change fields of a user: email, first_name, last_name, enabled, email_verified.

        A new email is not verified, unless that is said as well. Raises UsageError, UserExistsError, DeniedError.
        """
        given = {_FIELDS[name]: value for name, value in changes.items()}
        for name, value in given.items():
            if isinstance(value, str) and (fault := fault_of(name, value)):
                raise UsageError(f"{name}: {fault}")
        with self._changing(id, "disable" if given.get("enabled") is False else "edit") as (user, _):
            document = self._document(id)
            if str(given.get("email", user.email)).lower() != user.email and "emailVerified" not in given:
                given["emailVerified"] = False
            # It names all that is there: Keycloak empties fields that are not named.
            with _as_field_errors():
                self._session.put(self._path(id), {**document, **given})
            if user.enabled and given.get("enabled") is False:
                self._log_out(id)
        return self.user(id)

    def delete(self, id: str) -> RealmUser:
        """Remove a user, after ending its sessions. Return the user that was removed."""
        with self._changing(id, "delete") as (user, _):
            # Those who keep sessions of their own are notified by this alone, not by the removal.
            self._log_out(id)
            self._session.delete(self._path(id))
        return user

    def enable(self, id: str) -> RealmUser:
        return self._enabled(id, "enable")

    def disable(self, id: str) -> RealmUser:
        """Keep a user from logging in, and end its sessions."""
        return self._enabled(id, "disable")

    def _enabled(self, id: str, change: UserChange) -> RealmUser:
        with self._changing(id, change) as (user, _):
            self._session.put(self._path(id), {**self._document(id), "enabled": change == "enable"})
            if change == "disable":
                self._log_out(id)
        return replace(user, enabled=change == "enable")

    def set_groups(self, id: str, names: tuple[str, ...]) -> tuple[RealmUser, GroupsChange]:
        """Have a user be in these groups and no others."""
        return self._change_groups(id, lambda present: self._named(names))

    def change_groups(self, id: str, add: tuple[str, ...], remove: tuple[str, ...]) -> tuple[RealmUser, GroupsChange]:
        """Add a user to groups, and remove it from others."""

        def wanted(present: tuple[RealmGroup, ...]) -> tuple[RealmGroup, ...]:
            gone = {group.id for group in self._named(remove)}
            return tuple(group for group in (*present, *self._named(add)) if group.id not in gone)

        return self._change_groups(id, wanted)

    def _change_groups(
        self, id: str, wanted_of: Callable[[tuple[RealmGroup, ...]], tuple[RealmGroup, ...]]
    ) -> tuple[RealmUser, GroupsChange]:
        with self._locked():
            user = self.user(id)
            standing = self._standing(user)
            wanted = {group.id: group for group in wanted_of(standing.groups)}
            present = {group.id: group for group in standing.groups}
            added = [group for group in wanted.values() if group.id not in present]
            removed = [group for group in present.values() if group.id not in wanted]
            check_change(user, standing, "groups", removed)
            if standing.privileged:
                self._confirm(f"changing {user.username}, who has the rights of an admin,")
            elif self._give_rights(added):
                self._confirm(f"adding {user.username} to {_names(added)}, whose members have the rights of an admin,")
            # First what gives, so that an interruption takes nobody's access away.
            for group in added:
                self._session.put(f"{self._path(id)}/groups{path_of(group.id)}", {})
            for group in removed:
                self._session.delete(f"{self._path(id)}/groups{path_of(group.id)}")
        return user, GroupsChange(*(tuple(group.name for group in some) for some in (added, removed)))

    def reset_password(self, id: str, password: str = "", temporary: bool = True) -> tuple[RealmUser, str]:
        """Give a user a password, which must be changed at the next login if it is TEMPORARY.

        Without PASSWORD one is made, which is always temporary; it is returned, and stored nowhere. Raises UsageError.
        """
        made = "" if password else generate_password()
        with self._changing(id, "password") as (user, _):
            body = _credential(password or made, temporary or bool(made))
            with _as_field_errors("password"):
                self._session.put(f"{self._path(id)}/reset-password", body)
        return user, made

    def unlock(self, id: str) -> RealmUser:
        """Let a user log in again who was locked after too many failed logins."""
        with self._changing(id, "unlock") as (user, _):
            self._session.delete(f"{path_of(self._realm)}/attack-detection/brute-force{path_of('users', id)}")
        return user

    def log_out(self, id: str) -> RealmUser:
        """End all sessions of a user, also those at programs that Keycloak notifies."""
        with self._changing(id, "logout") as (user, _):
            self._log_out(id)
        return user

    def _log_out(self, id: str) -> None:
        self._session.post(f"{self._path(id)}/logout", {})

    @contextmanager
    def _changing(self, id: str, change: UserChange) -> Iterator[tuple[RealmUser, Standing]]:
        """Yield the user, once it may be changed; nobody else changes users meanwhile.

        Raises DeniedError, and as CONFIRM.
        """
        with self._locked():
            user = self.user(id)
            standing = self._standing(user)
            check_change(user, standing, change)
            if standing.privileged:
                self._confirm(f"changing {user.username}, who has the rights of an admin,")
            try:
                yield user, standing
            except RefusedRequestError as refused:
                if refused.status == HTTPStatus.NOT_FOUND:
                    raise unknown_user(id) from None
                raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with locked(self._lock, "users are being changed", LOCK_SECONDS):
            yield

    def _give_rights(self, groups: Collection[RealmGroup]) -> bool:
        """Return whether members of GROUPS are admins, or have roles of realm-management by them."""
        for group in groups:
            if group.id not in self._rights:
                path = path_of(self._realm, "groups", group.id)
                path += f"/role-mappings/clients{path_of(self._management_client())}/composite"
                roles = group.gives_admin or self._session.get(path, briefRepresentation="true")
                self._rights[group.id] = bool(roles)
        return any(self._rights[group.id] for group in groups)

    def _named(self, names: tuple[str, ...]) -> tuple[RealmGroup, ...]:
        present = self.groups() if names else ()
        return tuple({group.id: group for name in names for group in (group_named(name, present),)}.values())


def _credential(password: str, temporary: bool) -> dict[str, object]:
    return {"type": "password", "value": password, "temporary": temporary}


def _names(groups: Iterable[RealmGroup]) -> str:
    return ", ".join(group.name for group in groups)


@contextmanager
def _as_field_errors(field: str = "") -> Iterator[None]:
    """Convert what Keycloak refuses for its content into UsageError, for being there twice into UserExistsError."""
    try:
        yield
    except RefusedRequestError as refused:
        if refused.status == HTTPStatus.CONFLICT:
            raise UserExistsError(refused.reason or "another user has this username or email") from None
        if refused.status == HTTPStatus.BAD_REQUEST:
            said = _OF_DIRECTORY.get(refused.reason, refused.reason) or "Keycloak does not take it"
            raise UsageError(f"{field}: {said}" if field else said) from None
        raise
