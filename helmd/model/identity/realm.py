"""The realm that the suite needs, as far as Helm is concerned with it. What is not named here is the admin's.

Names of settings are those of Keycloak's Admin REST API (RealmRepresentation, ClientRepresentation of 26.4).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from helmd.model.config.settings import Settings
from helmd.model.suite.service import Registry, Service
from helmd.model.urls import normal_url, origin_of

CORE_CLIENT = "core-client"
"""The client by which the gateway and Core let users log in."""
HELM_CLIENT = "helm"
"""The public client of Helm's own login (authorization code with PKCE, RFC 7636)."""
ADMIN_CLIENT = "helm-admin"
"""The client whose service account Helm uses for the realm's administration."""
GROUPS = ("admins", "technicians", "billing", "client")
ADMINS = GROUPS[0]
"""The group whose members are admins of the suite."""
FIRST_ADMIN = "admin"
"""The account that set-up makes in it."""
MANAGEMENT_CLIENT = "realm-management"
"""The client of each realm whose roles are the rights to administer it."""
ADMIN_ROLES = ("manage-clients", "manage-realm", "manage-users", "view-events")
"""The roles of MANAGEMENT_CLIENT that Helm needs. Those to manage include the right to view; events are apart."""
PROBE_USER = "helm-page-probe"
"""The technical account by which helmd sees pages as the gateway passes them on. Nobody's, in no group, without a role;
Helm refuses it everything that needs one."""
PROBE_NAME = ("HiveMatrix", "Page Probe")
"""Its first and last name."""

HOSTNAME = "KC_HOSTNAME"
"""Keycloak's option with the URL below which browsers reach it; its links then do not follow the Host header."""
GATEWAY = "nexus"
GATEWAY_PATH = "/keycloak"
"""The path below which the gateway passes requests on to Keycloak."""
CALLBACK_PATH = "/keycloak-callback"
"""The path of the gateway that gets the authorization code."""
LOGGED_OUT_PATH = "/helm/login/backchannel-logout"
"""The path at which Keycloak notifies helmd of sessions that have ended."""

REDIRECT_URIS = "redirectUris"
"""The setting of a client with the URIs to which a login may return."""
LOGOUT_URIS = "post.logout.redirect.uris"
"""The attribute of a client with those to which a logout may return."""

EVENTS_KEPT = 30 * 24 * 60 * 60
"""Seconds for which login and admin events are kept."""
LOGIN_FAILURES = 10
"""Failed logins after which an account is locked for a while."""
LONGEST_LOCK = 15 * 60
"""Seconds for which it is locked at most."""

_EXTERNAL = "keycloak"


@dataclass(frozen=True, slots=True)
class ProtocolMapper:
    """What Keycloak adds to the tokens of a client (ProtocolMapperRepresentation)."""

    name: str
    kind: str
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WantedClient:
    """A client. ``roles`` are those of realm-management that its service account must have, and no others."""

    client_id: str
    settings: Mapping[str, object]
    attributes: Mapping[str, str] = field(default_factory=dict)
    mappers: tuple[ProtocolMapper, ...] = ()
    roles: tuple[str, ...] = ()
    uris: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Settings with lists of URIs in which these must be, beside those of the admin."""


@dataclass(frozen=True, slots=True)
class WantedRealm:
    """A realm."""

    name: str
    settings: Mapping[str, object]
    attributes: Mapping[str, str]
    groups: tuple[str, ...]
    clients: tuple[WantedClient, ...]

    def client(self, client_id: str) -> WantedClient:
        return next(client for client in self.clients if client.client_id == client_id)


GROUPS_MAPPER = ProtocolMapper(
    "groups",
    "oidc-group-membership-mapper",
    {
        "claim.name": "groups",
        "full.path": "false",
        "multivalued": "true",
        "id.token.claim": "true",
        "access.token.claim": "true",
        "userinfo.token.claim": "true",
    },
)


def probe_email(frontend: str) -> str:
    """Return the address of the technical account, where users reach Keycloak at the URL FRONTEND. No mail is sent
    there.
    """
    return f"{PROBE_USER}@{urlsplit(frontend).hostname or 'localhost'}"


def frontend_url(keycloak: Service, registry: Registry) -> str:
    """Return the URL below which browsers reach Keycloak: what the admin sets, through the gateway, or its own without
    one.
    """
    if given := keycloak.environment.get(HOSTNAME):
        return normal_url(given)
    if GATEWAY in registry:
        return origin_of(registry[GATEWAY].url) + GATEWAY_PATH
    return keycloak.url.rstrip("/")


def realm_url(registry: Registry) -> str | None:
    """Return the URL at which the suite's programs reach the realm, or None without a Keycloak.

    That is a service of type keycloak, or an external one of that name.
    """
    found = next((each for each in registry.services.values() if each.type == "keycloak"), None)
    if found is None and _EXTERNAL in registry:
        found = registry[_EXTERNAL]
    if found is None or not found.url:
        return None
    base = found.url.rstrip("/")
    path = "" if urlsplit(base).path.rstrip("/") else found.relative_path
    return f"{base}{path}/realms/{found.realm}"


def wanted_realm(keycloak: Service, registry: Registry, settings: Settings) -> WantedRealm:
    """Return the realm that the suite of REGISTRY needs from the service KEYCLOAK."""
    gateway = [origin_of(registry[GATEWAY].url)] if GATEWAY in registry else []
    interactive = {"enabled": True, "standardFlowEnabled": True, "implicitFlowEnabled": False}
    interactive |= {"directAccessGrantsEnabled": False, "serviceAccountsEnabled": False}
    return WantedRealm(
        name=keycloak.realm,
        settings={
            "enabled": True,
            "sslRequired": "external",
            "registrationAllowed": False,
            "editUsernameAllowed": False,
            "bruteForceProtected": True,
            "permanentLockout": False,
            "failureFactor": LOGIN_FAILURES,
            "maxFailureWaitSeconds": LONGEST_LOCK,
            "eventsEnabled": True,
            "eventsExpiration": EVENTS_KEPT,
            "adminEventsEnabled": True,
        },
        # Without a fixed URL, links in pages and mails are made from the Host header of the request.
        attributes={"adminEventsExpiration": str(EVENTS_KEPT), "frontendUrl": frontend_url(keycloak, registry)},
        groups=GROUPS,
        clients=(
            WantedClient(
                CORE_CLIENT,
                {
                    **interactive,
                    "publicClient": False,
                    "clientAuthenticatorType": "client-secret",
                },
                mappers=(GROUPS_MAPPER,),
                uris={
                    REDIRECT_URIS: tuple(each + CALLBACK_PATH for each in gateway),
                    LOGOUT_URIS: tuple(f"{each}/*" for each in gateway),
                },
            ),
            WantedClient(
                HELM_CLIENT,
                {
                    **interactive,
                    "publicClient": True,
                    "frontchannelLogout": False,
                    REDIRECT_URIS: [f"{settings.url.rstrip('/')}/*", *(f"{each}/helm/*" for each in gateway)],
                },
                {
                    "pkce.code.challenge.method": "S256",
                    "backchannel.logout.url": settings.url.rstrip("/") + LOGGED_OUT_PATH,
                    "backchannel.logout.session.required": "true",
                },
                (GROUPS_MAPPER,),
            ),
            WantedClient(
                ADMIN_CLIENT,
                {
                    "enabled": True,
                    "publicClient": False,
                    "clientAuthenticatorType": "client-secret",
                    "standardFlowEnabled": False,
                    "implicitFlowEnabled": False,
                    "directAccessGrantsEnabled": False,
                    "serviceAccountsEnabled": True,
                },
                roles=ADMIN_ROLES,
            ),
        ),
    )
