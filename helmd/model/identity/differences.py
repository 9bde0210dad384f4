"""How a realm differs from what the suite needs, and the request bodies that change that and nothing else."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from helmd.model.identity.realm import REDIRECT_URIS, ProtocolMapper, WantedClient, WantedRealm

ROLES_SETTING = "roles"
"""The setting of a difference in the roles of realm-management that a service account has."""

_SEPARATOR = "##"
"""Between the values of an attribute that is a list."""
_MADE = "hivematrix."
"""Before the name of a setting with URIs: the client's attribute with those that Helm put there."""


@dataclass(frozen=True, slots=True)
class FoundClient:
    """A client as Keycloak has it: its ClientRepresentation, and its service account's roles of realm-management."""

    representation: Mapping[str, Any]
    roles: frozenset[str] = frozenset()

    @property
    def id(self) -> str:
        return str(self.representation["id"])

    @property
    def attributes(self) -> Mapping[str, Any]:
        return self.representation.get("attributes") or {}

    def uris(self, setting: str) -> list[str]:
        """Return the URIs in a setting, or in an attribute of this name."""
        if setting == REDIRECT_URIS:
            return list(self.representation.get(setting) or ())
        return [each for each in str(self.attributes.get(setting) or "").split(_SEPARATOR) if each]

    def mapper(self, name: str) -> Mapping[str, Any] | None:
        """Return the protocol mapper of this name."""
        mappers = self.representation.get("protocolMappers") or ()
        return next((mapper for mapper in mappers if mapper.get("name") == name), None)


@dataclass(frozen=True, slots=True)
class FoundRealm:
    """A realm as Keycloak has it: its RealmRepresentation, and those of its clients and groups that Helm needs."""

    representation: Mapping[str, Any]
    clients: Mapping[str, FoundClient] = field(default_factory=dict)
    groups: frozenset[str] = frozenset()

    @property
    def attributes(self) -> Mapping[str, Any]:
        return self.representation.get("attributes") or {}


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting of a realm, client, group or service that is not as it must be. Holds no secret.

    Without ``setting``, the subject as a whole is missing.
    """

    subject: str
    setting: str = ""
    found: object = None
    wanted: object = None

    def __str__(self) -> str:
        if not self.setting:
            return f"{self.subject} is missing"
        found = "is not set" if self.found is None else f"is {_shown(self.found)}"
        return f"{self.subject}: {self.setting} {found}, must be {_shown(self.wanted)}"


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value or "empty"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "empty"
    return json.dumps(value)


def differences(wanted: WantedRealm, found: FoundRealm | None) -> tuple[Difference, ...]:
    """Return what of the WANTED realm the FOUND one lacks or has otherwise; what it has besides does not count."""
    subject = f"realm {wanted.name}"
    if found is None:
        return (Difference(subject),)
    return (
        *_of_settings(subject, wanted.settings, found.representation),
        *_of_settings(subject, wanted.attributes, found.attributes),
        *(Difference(f"group {group}") for group in wanted.groups if group not in found.groups),
        *(each for client in wanted.clients for each in _of_client(client, found.clients.get(client.client_id))),
    )


def _of_settings(subject: str, wanted: Mapping[str, object], found: Mapping[str, Any]) -> Iterator[Difference]:
    for key in changed_settings(wanted, found):
        value = found.get(key)
        yield Difference(subject, key, sorted(map(str, value)) if isinstance(value, list) else value, wanted[key])


def _of_client(wanted: WantedClient, found: FoundClient | None) -> Iterator[Difference]:
    subject = f"client {wanted.client_id}"
    if found is None:
        yield Difference(subject)
        return
    wanted = beside_the_admins(wanted, found)
    yield from _of_settings(subject, wanted.settings, found.representation)
    yield from _of_settings(subject, wanted.attributes, found.attributes)
    for mapper in wanted.mappers:
        yield from _of_mapper(f"mapper {mapper.name} of {subject}", mapper, found.mapper(mapper.name))
    if wanted.roles and found.roles != set(wanted.roles):
        yield Difference(subject, ROLES_SETTING, sorted(found.roles), sorted(wanted.roles))


def _of_mapper(subject: str, wanted: ProtocolMapper, found: Mapping[str, Any] | None) -> Iterator[Difference]:
    if found is None:
        yield Difference(subject)
        return
    if found.get("protocolMapper") != wanted.kind:
        yield Difference(subject, "protocolMapper", found.get("protocolMapper"), wanted.kind)
    yield from _of_settings(subject, wanted.config, found.get("config") or {})


def changed_settings(wanted: Mapping[str, object], found: Mapping[str, Any]) -> dict[str, object]:
    """Return those of the WANTED settings that FOUND has otherwise or not at all. Lists have no order."""
    return {key: value for key, value in wanted.items() if not _same(value, found.get(key))}


def _same(wanted: object, found: object) -> bool:
    if isinstance(wanted, list) and isinstance(found, list):
        return sorted(map(str, wanted)) == sorted(map(str, found))
    # An empty value is not stored.
    return wanted == found or (found is None and wanted in ("", []))


def realm_body(wanted: WantedRealm, found: FoundRealm) -> dict[str, object]:
    """Return the body of PUT /admin/realms/NAME; empty if nothing differs. Settings that it does not name stay.

    Attributes are the exception: those that it does not name are removed, once it names any (26.4.0).
    """
    changed = changed_settings(wanted.settings, found.representation)
    if changed_settings(wanted.attributes, found.attributes):
        changed["attributes"] = {**found.attributes, **wanted.attributes}
    return {"realm": wanted.name, **changed} if changed else {}


def beside_the_admins(wanted: WantedClient, found: FoundClient) -> WantedClient:
    """Return WANTED, with the URIs that others have added to the FOUND client.

    Those that Helm has put there for an earlier URL of the suite are not among them.
    """
    settings, attributes = dict(wanted.settings), dict(wanted.attributes)
    for setting, ours in wanted.uris.items():
        made = found.uris(f"{_MADE}{setting}")
        present = found.uris(setting)
        uris = [each for each in present if each in ours or each not in made]
        uris += [each for each in ours if each not in present]
        if setting == REDIRECT_URIS:
            settings[setting] = uris
        else:
            attributes[setting] = _SEPARATOR.join(uris)
        attributes[f"{_MADE}{setting}"] = _SEPARATOR.join(ours)
    return replace(wanted, settings=settings, attributes=attributes)


def client_body(wanted: WantedClient, found: FoundClient) -> dict[str, object]:
    """Return the body of PUT .../clients/ID; empty if nothing differs.

    It names all that is there: Keycloak changes some settings that are not named (frontchannelLogout, 26.4.0).
    """
    wanted = beside_the_admins(wanted, found)
    changed = changed_settings(wanted.settings, found.representation)
    if attributes := changed_settings(wanted.attributes, found.attributes):
        changed["attributes"] = {**found.attributes, **attributes}
    return {**found.representation, **changed} if changed else {}


def new_client_body(wanted: WantedClient, secret: str = "") -> dict[str, object]:
    """Return the body of POST .../clients. Without SECRET, Keycloak makes one for a confidential client."""
    wanted = beside_the_admins(wanted, FoundClient({}))
    return {
        "clientId": wanted.client_id,
        "protocol": "openid-connect",
        **wanted.settings,
        "attributes": {**wanted.attributes},
        **({"secret": secret} if secret else {}),
        **({"protocolMappers": [mapper_body(mapper, None) for mapper in wanted.mappers]} if wanted.mappers else {}),
    }


def mapper_body(wanted: ProtocolMapper, found: Mapping[str, Any] | None) -> dict[str, object]:
    """Return the body that makes a protocol mapper, or changes the one FOUND."""
    return {
        **(found or {}),
        "name": wanted.name,
        "protocol": "openid-connect",
        "protocolMapper": wanted.kind,
        "config": {**((found or {}).get("config") or {}), **wanted.config},
    }
