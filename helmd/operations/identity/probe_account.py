"""The technical account for requests through the gateway, without groups and roles."""

import os
from collections.abc import Iterator
from secrets import token_urlsafe
from typing import Any

from helmd.files.durable import write_atomically
from helmd.keycloak.admin.api import Session, named, path_of
from helmd.model.errors import DeniedError, KeycloakError
from helmd.model.identity.differences import Difference, changed_settings
from helmd.model.identity.realm import PROBE_NAME, PROBE_USER, WantedRealm, probe_email
from helmd.model.layout import Layout

_SUBJECT = f"user {PROBE_USER}"


def probe_password(layout: Layout) -> str:
    """Return the account's password; empty before set-up. Raises DeniedError if it can't be read."""
    try:
        return layout.probe_password.read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as problem:
        raise DeniedError(f"{layout.probe_password} can't be read: {problem}") from None


def account_differences(session: Session, wanted: WantedRealm, layout: Layout, write: bool) -> Iterator[Difference]:
    """Yield differences of the account from what is needed; with WRITE, fix them. Raises KeycloakError, OSError.

    The password's file is written last: after an interruption the next set-up sets a new password.
    """
    users, password = path_of(wanted.name, "users"), probe_password(layout)
    settings = _settings(wanted)
    user = named(session.get(users, username=PROBE_USER, exact="true"), "username", PROBE_USER)
    if user is None:
        yield Difference(_SUBJECT)
        if not write:
            return
        password = password or _new_password()
        credential = {"type": "password", "value": password, "temporary": False}
        session.post(users, {"username": PROBE_USER, **settings, "credentials": [credential]})
        user = named(session.get(users, username=PROBE_USER, exact="true"), "username", PROBE_USER)
        if user is None:
            raise KeycloakError(f"{_SUBJECT} is gone again; another program changes realm {wanted.name}")
        # Keycloak assigns default roles to new users; this one gets none.
        for _ in _rights(session, wanted.name, str(user["id"]), write=True):
            pass
        _keep(layout, password)
        return
    path = f"{users}{path_of(str(user['id']))}"
    changed = changed_settings(settings, user)
    for key, value in changed.items():
        yield Difference(_SUBJECT, key, user.get(key), value)
    if changed and write:
        session.put(path, {**user, **changed})
    yield from _rights(session, wanted.name, str(user["id"]), write)
    if not password:
        yield Difference(f"password of {_SUBJECT}")
        if write:
            password = _new_password()
            session.put(f"{path}/reset-password", {"type": "password", "value": password, "temporary": False})
            _keep(layout, password)


def _settings(wanted: WantedRealm) -> dict[str, Any]:
    first, last = PROBE_NAME
    return {
        "enabled": True,
        # Keycloak asks users at their login for names and address that are missing.
        "firstName": first,
        "lastName": last,
        "email": probe_email(str(wanted.attributes["frontendUrl"])),
        "emailVerified": True,
        "requiredActions": [],
    }


def _rights(session: Session, realm: str, user: str, write: bool) -> Iterator[Difference]:
    """Yield the groups and roles that it has."""
    path = path_of(realm, "users", user)
    if groups := session.get(f"{path}/groups") or []:
        yield Difference(_SUBJECT, "groups", sorted(str(each["name"]) for each in groups), [])
        for group in groups if write else ():
            session.delete(f"{path}/groups{path_of(str(group['id']))}")
    held = session.get(f"{path}/role-mappings") or {}
    by_place = {"realm": held.get("realmMappings") or []}
    for client in (held.get("clientMappings") or {}).values():
        by_place[f"clients{path_of(str(client['id']))}"] = client.get("mappings") or []
    if names := sorted(str(role["name"]) for roles in by_place.values() for role in roles):
        yield Difference(_SUBJECT, "roles", names, [])
        for place, roles in by_place.items() if write else ():
            if roles:
                session.delete(f"{path}/role-mappings/{place}", roles)


def _new_password() -> str:
    """Generate a password with a character of each class, since a realm may require that."""
    return f"Aa1-{token_urlsafe(24)}"


def _keep(layout: Layout, password: str) -> None:
    layout.probe_password.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if probe_password(layout) != password:
        write_atomically(layout.probe_password, password + "\n", 0o600)
    os.chmod(layout.probe_password, 0o600)
