"""Helm's access to Keycloak's realm.

Keycloak creates a temporary admin of the realm master at its first start, with a password that set-up generated
(``KC_BOOTSTRAP_ADMIN_...`` in its environment file). As this admin, Helm creates its own client in the suite's realm,
with the roles to administer this realm only, and finally removes the temporary admin.
"""

from dataclasses import dataclass, field
from secrets import token_urlsafe

from helmd.files.durable import create_atomically
from helmd.files.environment_file import read_environment_file, remove_variables
from helmd.keycloak import launch
from helmd.keycloak.admin.api import (
    MASTER,
    LoginRefusedError,
    RightsError,
    Server,
    Session,
    named,
    password_of,
    path_of,
    secret_of,
)
from helmd.model.errors import DeniedError, KeycloakError
from helmd.model.identity.differences import new_client_body
from helmd.model.identity.realm import ADMIN_CLIENT, ADMIN_ROLES, WantedRealm
from helmd.model.layout import Layout
from helmd.operations.identity.found import change_client, change_roles, read_client
from helmd.operations.identity.server import Report

BY_ADMIN = (
    "Run: helmctl keycloak setup --login NAME, with an admin of Keycloak's realm master\n"
    "Without such an admin, run: helmctl keycloak recover-admin, which restarts Keycloak"
)
"""The hint if Helm's own client has no access."""


class NoAccessError(KeycloakError):
    """Helm's client can't log in to the realm."""


@dataclass(frozen=True, slots=True)
class AdminLogin:
    """An admin of the realm master, given by the caller."""

    name: str
    password: str = field(repr=False)


def own_secret(layout: Layout) -> str:
    """Return the secret of Helm's client; empty before set-up. Raises DeniedError if it can't be read."""
    try:
        return layout.admin_client_secret.read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as problem:
        raise DeniedError(f"{layout.admin_client_secret} can't be read: {problem}") from None


def own_session(server: Server, layout: Layout, wanted: WantedRealm) -> Session:
    """Return a session as Helm's client. Raises KeycloakError with what to do if it is not accepted."""
    secret = own_secret(layout)
    if not secret:
        raise NoAccessError("Keycloak's realm is not set up", hint="Run: helmctl keycloak setup")
    try:
        return Session(server, secret_of(wanted.name, ADMIN_CLIENT, secret))
    except LoginRefusedError as error:
        raise NoAccessError(
            f"{error.sentence}; the client was deleted or changed, or the realm is another one", hint=BY_ADMIN
        ) from None


def bootstrap_login(keycloak: str, layout: Layout) -> AdminLogin | None:
    """Return the temporary admin, unless it was removed. KEYCLOAK is the name of the service."""
    known = read_environment_file(layout.secrets_file(keycloak))
    password = known.get(launch.BOOTSTRAP_PASSWORD)
    return AdminLogin(known.get(launch.BOOTSTRAP_USERNAME) or launch.ADMIN, password) if password else None


def ensure_own_client(
    server: Server, keycloak: str, layout: Layout, wanted: WantedRealm, given: AdminLogin | None, notify: Report
) -> Session:
    """Return a session as Helm's client with its roles; realm and client are created if missing.

    GIVEN, an admin of the realm master, is used for that in any case; the temporary admin only if the client has no
    access. Raises KeycloakError, with what to do, if no login is possible.
    """
    login = given
    if login is None:
        try:
            return checked_session(server, layout, wanted)
        except KeycloakError as error:
            login = bootstrap_login(keycloak, layout)
            if login is None and own_secret(layout):
                raise
            if login is None:
                sentence = "Helm has no access to Keycloak: there is neither a client of its own nor a temporary admin"
                raise KeycloakError(sentence, hint=BY_ADMIN) from error
    try:
        admin = Session(server, password_of(login.name, login.password))
    except LoginRefusedError as error:
        hint = "Give the name and password of another one." if given else BY_ADMIN
        raise KeycloakError(error.sentence, hint=hint) from None
    _make_client(admin, layout, wanted, notify)
    return own_session(server, layout, wanted)


def checked_session(server: Server, layout: Layout, wanted: WantedRealm) -> Session:
    """As `own_session`. Raises RightsError, with what to do, if Helm's client lacks a role that it needs."""
    session = own_session(server, layout, wanted)
    client = wanted.client(ADMIN_CLIENT)
    try:
        found = read_client(session, wanted.name, client)
    except RightsError as error:
        raise missing_rights(wanted.name, error) from None
    if not found or set(client.roles) - found.roles:
        raise missing_rights(wanted.name)
    return session


def missing_rights(realm: str, refused: RightsError | None = None) -> RightsError:
    """Return the error if Helm's client lacks roles; REFUSED is Keycloak's error, if any."""
    said = refused.sentence if refused else f"client {ADMIN_CLIENT} of realm {realm} lacks rights"
    return RightsError(
        f"{said}; its service account needs the roles {', '.join(ADMIN_ROLES)} of realm-management", hint=BY_ADMIN
    )


def _make_client(admin: Session, layout: Layout, wanted: WantedRealm, notify: Report) -> None:
    """Create the realm and Helm's client with its secret and roles, if missing."""
    present = admin.get(path_of(wanted.name))
    if present is None:
        admin.post(
            "",
            {
                "realm": wanted.name,
                "displayName": "HiveMatrix",
                **wanted.settings,
                "attributes": {**wanted.attributes},
            },
        )
        notify(f"created realm {wanted.name}")
    elif not present.get("enabled"):
        # It is disabled: nobody can log in to it.
        admin.put(path_of(wanted.name), {"realm": wanted.name, "enabled": True})
        notify(f"enabled realm {wanted.name}")
    if create_atomically(layout.admin_client_secret, token_urlsafe(32) + "\n"):
        notify(f"generated the secret of client {ADMIN_CLIENT} ({layout.admin_client_secret}, mode 0600)")
    client, secret = wanted.client(ADMIN_CLIENT), own_secret(layout)
    found = read_client(admin, wanted.name, client)
    if found is None:
        admin.post(path_of(wanted.name, "clients"), new_client_body(client, secret))
        notify(f"created client {ADMIN_CLIENT}")
        found = read_client(admin, wanted.name, client)
        if found is None:
            raise KeycloakError(f"client {ADMIN_CLIENT} is gone again; another program changes realm {wanted.name}")
    elif found.representation.get("secret") != secret:
        admin.put(path_of(wanted.name, "clients", found.id), {**found.representation, "secret": secret})
        notify(f"changed the secret of client {ADMIN_CLIENT}")
    for change in (
        *change_client(admin, wanted.name, client, found),
        *change_roles(admin, wanted.name, client, found),
    ):
        notify(change)


def remove_bootstrap_admin(server: Server, keycloak: str, layout: Layout, notify: Report) -> None:
    """Remove the temporary admin from the realm master, then its password from Keycloak's environment file."""
    login = bootstrap_login(keycloak, layout)
    if login is None:
        return
    try:
        admin = Session(server, password_of(login.name, login.password))
    except LoginRefusedError:
        # It was removed, or an account of that name has another password, so it was created by a user.
        admin = None
    if admin is not None:
        found = named(admin.get(path_of(MASTER, "users"), username=login.name, exact="true"), "username", login.name)
        if found:
            admin.delete(path_of(MASTER, "users", str(found["id"])))
            notify(f"removed user {login.name}, the temporary admin of realm {MASTER}")
    if remove_variables(layout.secrets_file(keycloak), (launch.BOOTSTRAP_USERNAME, launch.BOOTSTRAP_PASSWORD)):
        notify(f"removed its password from {layout.secrets_file(keycloak)}")
