"""``helmctl keycloak setup`` and ``status``: compare the realm with what the suite needs; change what differs.

Each step creates only what is missing, so that an interrupted set-up is completed by the next one.
"""

import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from secrets import choice
from urllib.parse import urlsplit

from helmd.files.durable import create_atomically
from helmd.files.lock import locked
from helmd.keycloak.admin.api import RightsError, Session, named, path_of
from helmd.model.config.settings import Settings
from helmd.model.errors import KeycloakError
from helmd.model.identity.differences import ROLES_SETTING, Difference, FoundRealm, differences
from helmd.model.identity.realm import ADMINS, CORE_CLIENT, FIRST_ADMIN, GATEWAY, PROBE_USER, WantedRealm, wanted_realm
from helmd.model.layout import Layout
from helmd.model.suite.names import unit_of
from helmd.model.suite.service import Registry
from helmd.operations.configuration.module_files import FLASKENV, place_client_secret
from helmd.operations.identity.access import (
    BY_ADMIN,
    AdminLogin,
    bootstrap_login,
    ensure_own_client,
    missing_rights,
    own_session,
    remove_bootstrap_admin,
)
from helmd.operations.identity.found import change_realm, group_id, read_realm
from helmd.operations.identity.probe_account import account_differences
from helmd.operations.identity.server import (
    Report,
    follow_public_url,
    hostname_difference,
    keycloak_unit,
    running_server,
    started_server,
)
from helmd.systemd.bus import Manager

_PASSWORD_LENGTH = 20
_LETTERS = string.ascii_lowercase, string.ascii_uppercase, string.digits
"""Character classes of passwords: each has one of all, since a realm may require that."""


@dataclass(frozen=True, slots=True)
class FirstAdmin:
    """The first admin of the suite, with a password that must be changed at the first login."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RealmStatus:
    """The realm as it is at present."""

    realm: str
    url: str
    differences: tuple[Difference, ...]


def realm_status(registry: Registry, layout: Layout, settings: Settings, manager: Manager) -> RealmStatus:
    """Compare without changes. Raises KeycloakError, with what to do, while Keycloak can't be queried."""
    refuse_while_upgrading(layout)
    keycloak = keycloak_unit(registry)
    wanted = wanted_realm(keycloak.service, registry, settings)
    server = running_server(keycloak, manager)
    session = own_session(server, layout, wanted)
    try:
        found = read_realm(session, wanted)
        different = [*differences(wanted, found)]
        if found is not None:
            different += _of_files(session, registry, layout, found, write=False)
            if GATEWAY in registry:
                different += account_differences(session, wanted, layout, write=False)
            if not _members(session, wanted.name):
                different.append(Difference(f"member of group {ADMINS}"))
    except RightsError as error:
        raise missing_rights(wanted.name, error) from None
    if outdated := hostname_difference(keycloak, registry, manager):
        different.append(outdated)
    if login := bootstrap_login(keycloak.service.name, layout):
        different.append(Difference(f"user {login.name} of realm master", "temporary admin", "kept", "removed"))
    return RealmStatus(wanted.name, wanted.attributes["frontendUrl"], tuple(different))


def set_up_realm(
    registry: Registry,
    layout: Layout,
    settings: Settings,
    manager: Manager,
    notify: Report,
    login: AdminLogin | None = None,
) -> FirstAdmin | None:
    """Make the realm what the suite needs; return the first admin if there was none.

    Print its password, then call `password_printed`. Raises KeycloakError, and LockedError while another process does
    the same.
    """
    keycloak = keycloak_unit(registry)
    wanted = wanted_realm(keycloak.service, registry, settings)
    with locked(layout.keycloak_lock, "Keycloak is being set up"):
        refuse_while_upgrading(layout)
        follow_public_url(keycloak, registry, layout, manager, notify)
        server = started_server(keycloak, manager, notify)
        session = ensure_own_client(server, keycloak.service.name, layout, wanted, login, notify)
        try:
            found = _changed(session, wanted, notify)
            _give_secrets(session, registry, layout, found, manager, notify)
            if GATEWAY in registry:
                _ensure_probe_account(session, wanted, layout, notify)
            first = _first_admin(session, wanted, layout, notify)
        except RightsError as error:
            raise missing_rights(wanted.name, error) from None
        remove_bootstrap_admin(server, keycloak.service.name, layout, notify)
    # Only the rights of Helm's own client may be left: `_changed` has repaired everything else.
    if left := differences(wanted, found):
        raise RightsError(f"{left[0]}; it can't change that itself", hint=BY_ADMIN)
    return first


def refuse_while_upgrading(layout: Layout) -> None:
    """Raises KeycloakError while an upgrade is under way, or was interrupted: it may undo what is changed now."""
    if layout.keycloak_upgrade.exists():
        raise KeycloakError(
            "an upgrade of Keycloak is not finished",
            hint="If it was interrupted, run: helmctl keycloak upgrade, which first goes back to what was before",
        )


def _changed(session: Session, wanted: WantedRealm, notify: Report) -> FoundRealm:
    """Change the realm to what is WANTED and return it; report what differed, then what was done."""
    found = read_realm(session, wanted)
    if found is None:
        raise KeycloakError(f"realm {wanted.name} is gone again; another program changes it")
    different = differences(wanted, found)
    for difference in different:
        notify(str(difference))
    for change in change_realm(session, wanted, found):
        notify(change)
    if different:
        found = read_realm(session, wanted)
        # The roles of Helm's client are left to `ensure_own_client`: the client can't change them itself.
        if found is None or (left := [each for each in differences(wanted, found) if each.setting != ROLES_SETTING]):
            kept = "; ".join(map(str, left)) if found else f"realm {wanted.name} is missing"
            raise KeycloakError(f"Keycloak did not take the change: {kept}", hint="See its log: helmctl logs keycloak")
    return found


def _of_files(
    session: Session, registry: Registry, layout: Layout, found: FoundRealm, write: bool
) -> Iterator[Difference]:
    """Yield what the ``.flaskenv`` of services lack; with WRITE, add it."""
    client = found.clients.get(CORE_CLIENT)
    if client is None:
        return
    document = session.get(f"{path_of(str(found.representation['realm']), 'clients', client.id)}/client-secret") or {}
    secret = document.get("value")
    if not isinstance(secret, str) or not secret:
        return
    try:
        yield from place_client_secret(registry, layout, secret, write)
    except (OSError, ValueError) as problem:
        place = f"{problem.filename}: {problem.strerror}" if isinstance(problem, OSError) else str(problem)
        raise KeycloakError(
            f"the secret of client {CORE_CLIENT} can't be given to a service: {place}",
            hint="Correct that, then run: helmctl keycloak setup",
        ) from None


def _give_secrets(
    session: Session, registry: Registry, layout: Layout, found: FoundRealm, manager: Manager, notify: Report
) -> None:
    """Put the secret of Core's client where services read it; say which of them must be restarted.

    A file that can't be written is only reported.
    """
    names = []
    try:
        for difference in _of_files(session, registry, layout, found, write=True):
            notify(str(difference))
            if difference.setting != "mode":
                names.append(difference.subject.removeprefix(f"{FLASKENV} of "))
    except KeycloakError as error:
        notify(f"warning: {error.sentence}")
    if running := [name for name in dict.fromkeys(names) if manager.facts(unit_of(name)).active]:
        notify(f"gave it to {', '.join(running)}, which must be restarted: helmctl restart {' '.join(running)}")


def _ensure_probe_account(session: Session, wanted: WantedRealm, layout: Layout, notify: Report) -> None:
    """Create the technical account for requests through the gateway. Nothing else depends on it, so a failure is only
    reported.
    """
    try:
        for difference in account_differences(session, wanted, layout, write=True):
            notify(str(difference))
            if not difference.setting and difference.subject == f"user {PROBE_USER}":
                notify(f"created user {PROBE_USER}, by which Helm sees pages as the gateway passes them on")
    except RightsError:
        raise
    except KeycloakError as error:
        notify(f"warning: {error.sentence}")


def _members(session: Session, realm: str) -> bool:
    """Return whether anybody is in the group of admins."""
    group = group_id(session, realm, ADMINS)
    return bool(group and session.get(f"{path_of(realm, 'groups', group)}/members", max="1"))


def _first_admin(session: Session, wanted: WantedRealm, layout: Layout, notify: Report) -> FirstAdmin | None:
    """Create the first admin if there is none. Its password is stored in a file until it was printed."""
    realm = wanted.name
    user = named(session.get(path_of(realm, "users"), username=FIRST_ADMIN, exact="true"), "username", FIRST_ADMIN)
    if _members(session, realm):
        # An earlier run may have been interrupted before it printed the password.
        pending = _pending_password(layout.first_password)
        return FirstAdmin(FIRST_ADMIN, pending) if user and pending else None
    if user:
        notify(
            f"warning: nobody is in group {ADMINS}; there is a user {FIRST_ADMIN}, which was not changed. Add somebody"
            " in Keycloak's admin console"
        )
        return None
    create_atomically(layout.first_password, generate_password() + "\n")
    password = _pending_password(layout.first_password)
    create_admin(session, wanted, FIRST_ADMIN, password)
    notify(f"created user {FIRST_ADMIN} in group {ADMINS}")
    return FirstAdmin(FIRST_ADMIN, password)


def create_admin(session: Session, wanted: WantedRealm, username: str, password: str) -> None:
    """Create a user in the group of admins, with a PASSWORD that must be changed at the first login."""
    session.post(
        path_of(wanted.name, "users"),
        {
            "username": username,
            "enabled": True,
            # Keycloak asks users at their login for names and address that are missing.
            "firstName": "HiveMatrix",
            "lastName": "Admin",
            "email": f"{username}@{urlsplit(wanted.attributes['frontendUrl']).hostname or 'localhost'}",
            "emailVerified": True,
            "groups": [ADMINS],
            "credentials": [{"type": "password", "value": password, "temporary": True}],
        },
    )


def password_printed(layout: Layout) -> None:
    """Remove the file with the first admin's password."""
    layout.first_password.unlink(missing_ok=True)


def _pending_password(file: Path) -> str:
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return ""


def generate_password() -> str:
    """Generate a password that conforms to Keycloak's common password policies."""
    while True:
        password = "".join(choice("".join(_LETTERS)) for _ in range(_PASSWORD_LENGTH))
        if all(set(password) & set(letters) for letters in _LETTERS):
            return password
