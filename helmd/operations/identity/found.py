"""Reading a realm from Keycloak, and changing it as needed, with as few requests as possible."""

from collections.abc import Iterator
from typing import Any

from helmd.keycloak.admin.api import Session, named, path_of
from helmd.model.errors import KeycloakError
from helmd.model.identity.differences import (
    FoundClient,
    FoundRealm,
    client_body,
    mapper_body,
    new_client_body,
    realm_body,
)
from helmd.model.identity.realm import MANAGEMENT_CLIENT, WantedClient, WantedRealm


def read_realm(session: Session, wanted: WantedRealm) -> FoundRealm | None:
    """Return the present realm, with those of its clients and groups that are WANTED, or None if it does not exist."""
    representation = session.get(path_of(wanted.name))
    if representation is None:
        return None
    clients = {
        client.client_id: found
        for client in wanted.clients
        if (found := read_client(session, wanted.name, client)) is not None
    }
    groups = frozenset(group for group in wanted.groups if group_id(session, wanted.name, group))
    return FoundRealm(representation, clients, groups)


def read_client(session: Session, realm: str, wanted: WantedClient) -> FoundClient | None:
    """Return the present client, or None if it does not exist."""
    clients = path_of(realm, "clients")
    representation = named(session.get(clients, clientId=wanted.client_id), "clientId", wanted.client_id)
    if representation is None:
        return None
    roles: frozenset[str] = frozenset()
    if wanted.roles and representation.get("serviceAccountsEnabled"):
        held = session.get(_roles_path(session, realm, representation["id"]))
        roles = frozenset(str(role["name"]) for role in held or ())
    return FoundClient(representation, roles)


def group_id(session: Session, realm: str, group: str) -> str:
    """Return the id of the group of this name at the top; empty if there is none."""
    found = named(session.get(path_of(realm, "groups"), search=group, exact="true"), "name", group)
    return str(found["id"]) if found else ""


def change_realm(session: Session, wanted: WantedRealm, found: FoundRealm) -> Iterator[str]:
    """Make the FOUND realm what is WANTED; yield each change after it was made, as a sentence."""
    if body := realm_body(wanted, found):
        session.put(path_of(wanted.name), body)
        yield f"changed realm {wanted.name}"
    for group in wanted.groups:
        if group not in found.groups:
            session.post(path_of(wanted.name, "groups"), {"name": group})
            yield f"created group {group}"
    for client in wanted.clients:
        present = found.clients.get(client.client_id)
        if present is None:
            session.post(path_of(wanted.name, "clients"), new_client_body(client))
            yield f"created client {client.client_id}"
        else:
            yield from change_client(session, wanted.name, client, present)


def change_client(session: Session, realm: str, wanted: WantedClient, found: FoundClient) -> Iterator[str]:
    """Make the FOUND client what is WANTED; yield as `change_realm` does."""
    path = path_of(realm, "clients", found.id)
    if body := client_body(wanted, found):
        session.put(path, body)
        yield f"changed client {wanted.client_id}"
    for mapper in wanted.mappers:
        present = found.mapper(mapper.name)
        body = mapper_body(mapper, present)
        if present is None:
            session.post(f"{path}/protocol-mappers/models", body)
            yield f"created mapper {mapper.name} of client {wanted.client_id}"
        elif body != present:
            session.put(f"{path}/protocol-mappers/models{path_of(str(present['id']))}", body)
            yield f"changed mapper {mapper.name} of client {wanted.client_id}"


def change_roles(session: Session, realm: str, wanted: WantedClient, found: FoundClient) -> Iterator[str]:
    """Assign the needed roles to the client's service account, and remove other roles of realm-management.

    Only an admin of the realm master may do that (26.4.0).
    """
    if set(wanted.roles) == found.roles:
        return
    path = _roles_path(session, realm, found.id)
    known: list[dict[str, Any]] = session.get(path_of(realm, "clients", management_id(session, realm), "roles")) or []
    if missing := [role for role in known if role["name"] in set(wanted.roles) - found.roles]:
        session.post(path, missing)
        yield f"gave client {wanted.client_id} the roles {', '.join(sorted(role['name'] for role in missing))}"
    if excess := [role for role in known if role["name"] in found.roles - set(wanted.roles)]:
        names = ", ".join(sorted(role["name"] for role in excess))
        session.delete(path, excess)
        yield f"took the roles {names} from client {wanted.client_id}"


def management_id(session: Session, realm: str) -> str:
    """Return the id of the client realm-management, whose roles are those for administering the realm."""
    found = named(session.get(path_of(realm, "clients"), clientId=MANAGEMENT_CLIENT), "clientId", MANAGEMENT_CLIENT)
    if found is None:
        raise KeycloakError(
            f"realm {realm} has no client {MANAGEMENT_CLIENT}",
            hint="Keycloak makes it with a realm and can't do without; restore the realm from a backup.",
        )
    return str(found["id"])


def _roles_path(session: Session, realm: str, client: str) -> str:
    """Return the path of the roles of realm-management that the client's service account has."""
    user = session.get(f"{path_of(realm, 'clients', client)}/service-account-user")
    if user is None:
        raise KeycloakError(f"client {client} of realm {realm} has no service account")
    return f"{path_of(realm, 'users', user['id'], 'role-mappings', 'clients', management_id(session, realm))}"
