"""Authentication: the peer of the unix socket by its uid, the bearer of a token, or the session of a browser.

For changing requests the sending program is checked as well (`helmd.web.auth.peers`).
"""

import os
import pwd
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv6Address, ip_address
from types import TracebackType
from typing import ClassVar, Protocol

import aiohttp
from aiohttp import web

from helmd.model.config.settings import Settings
from helmd.model.errors import DeniedError, HelmError, UsageError
from helmd.model.identity.peer import Peer, Place
from helmd.model.identity.realm import realm_url
from helmd.model.suite.composition import core_url
from helmd.model.suite.service import Registry
from helmd.operations.identity.peers import peer_uid
from helmd.operations.identity.tokens import TokenStore
from helmd.web.auth.connector import CheckedConnector, units_by_port
from helmd.web.auth.core import Core, core_session
from helmd.web.auth.machine import is_machine_token, machine_identity
from helmd.web.auth.peers import FORWARDED_HEADERS, Forwarded, Trust, check_peer, forwarded
from helmd.web.auth.roles import Access, Identity, Role
from helmd.web.auth.same_origin import PROXY_HEADERS, PROXY_SCHEME, foreign, is_proxied
from helmd.web.auth.single_flight import SingleFlight
from helmd.web.auth.verifier import Verifier

_OF_BROWSERS = ("Origin", "Sec-Fetch-Site")
"""Headers of browsers: any web page can make a browser on this machine send a request."""


class NoCredentialError(HelmError):
    """The request has no credential."""

    code: ClassVar[str] = "no_credential"


class SessionLogins(Protocol):
    """Sessions of browsers: `helmd.web.auth.logins.Logins`."""

    async def identity(self, request: web.Request) -> Identity | None:
        """Return the user, or None without a session. Raises HelmError."""

    def adopt(
        self,
        session: aiohttp.ClientSession,
        single_flight: SingleFlight,
        realm: str | None,
        core: Core,
        verifier: Verifier,
    ) -> None:
        """Use the realm at the URL REALM (None: there is none) and CORE from now on."""


class Callers:
    """Authenticates callers. An async context manager; outside of it, or before `adopt`, no token of Core is accepted.

    The unix socket needs neither. LOCATE identifies the peer of a connection, from a client or to Core or Keycloak;
    without it, peers are unknown, and servers are not checked.
    MACHINE_TOKENS are those that Helm issued.
    """

    def __init__(
        self,
        locate: Callable[[socket.socket], Peer] | None = None,
        machine_tokens: TokenStore | None = None,
    ) -> None:
        self._locate = locate or (lambda _: Peer(Place.UNKNOWN, ""))
        self._locate_server = locate
        self._machine_tokens = machine_tokens
        self._trust = Trust()
        self.logins: SessionLogins | None = None
        """Set before `adopt`, if browsers may log in."""
        self._single_flight = SingleFlight()
        self._session: aiohttp.ClientSession | None = None
        self._connector: CheckedConnector | None = None
        self._core = ""
        self._verifier: Verifier | None = None
        self._anonymous = False
        self._billing: frozenset[str] = frozenset()

    async def __aenter__(self) -> "Callers":
        self._connector = CheckedConnector(self._locate_server)
        self._session = core_session(self._connector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._single_flight.stop()
        if self._machine_tokens is not None:
            self._machine_tokens.save_uses()
        if self._session is not None:
            await self._session.close()

    def adopt(self, settings: Settings, registry: Registry) -> None:
        """Use SETTINGS from now on. If the URL of Core has changed, all cached tokens are dropped."""
        self._anonymous = settings.ingest_anonymous == "loopback"
        self._billing = frozenset(settings.billing_services)
        self._trust = Trust.of(settings)
        url = core_url(settings, registry)
        if self._session is None or self._connector is None:
            return
        self._connector.units = units_by_port(registry)
        core = Core(self._session, url)
        if self._verifier is None or url != self._core:
            self._core, self._verifier = url, Verifier(core, self._single_flight)
        if self.logins is not None:
            self.logins.adopt(self._session, self._single_flight, realm_url(registry), core, self._verifier)

    async def authorize(self, request: web.Request, access: Access) -> Identity | None:
        """Return the caller, if they may use a route with this ACCESS, or None for an unknown caller of a public one.

        Raises NoCredentialError, BadTokenError, CoreUnreachableError, DeniedError, PeerRefusedError, LoginNeededError
        and UsageError.
        """
        identity = _by_socket(request)
        if access.role is Role.PUBLIC:
            # A health check must work even with an expired token.
            return identity
        if identity is None:
            identity = await self._by_token(request) or await self._by_session(request)
        if identity is None and access.anonymous and self._anonymous and _is_local_program(request):
            identity = Identity("anonymous", Role.PUBLIC, "anonymous")
        if identity is None:
            raise NoCredentialError(
                "authentication required",
                hint="Send a token of Core (Authorization: Bearer), or use helmctl or the unix socket on the machine.",
            )
        request["caller"] = identity
        if refusal := access.refusal(identity):
            raise DeniedError(refusal)
        if access.checked or identity.via in ("machine", "session"):
            tls = request.secure or self.client(request).scheme == "https"
            check_peer(identity, access, self.peer(request), self._trust, tls=tls, now=time.time())
        return identity

    def peer(self, request: web.Request) -> Peer:
        """Return the peer of the request's connection."""
        found: Peer | None = request.get("peer")
        if found is None:
            connection = None if request.transport is None else request.transport.get_extra_info("socket")
            found = request["peer"] = Peer(Place.UNKNOWN, "") if connection is None else self._locate(connection)
        return found

    def client(self, request: web.Request) -> Forwarded:
        """Return the forwarding headers of a trusted proxy; empty for a request without one."""
        headers = {name: ",".join(request.headers.getall(name, ())) for name in FORWARDED_HEADERS}
        return forwarded(headers, self.peer(request), self._trust)

    def note_proxy(self, request: web.Request) -> None:
        """Store the scheme that the admin's own reverse proxy forwards under PROXY_SCHEME in REQUEST."""
        if is_proxied(request.headers) and self._trust.is_reverse_proxy(self.peer(request)):
            request[PROXY_SCHEME] = self.client(request).scheme

    async def _by_token(self, request: web.Request) -> Identity | None:
        token = _bearer_token(request.headers.getall("Authorization", ()))
        if token is None:
            return None
        if self._machine_tokens is not None and is_machine_token(token):
            identity = machine_identity(token, self._machine_tokens, self._single_flight)
        elif self._verifier is None:
            return None
        else:
            identity = await self._verifier.identity(token)
        # The gateway adds the token to all requests that a page makes a browser send.
        if refusal := foreign(request.method, request.headers, by_cookie=False):
            raise DeniedError(refusal)
        return self._confined(identity)

    async def _by_session(self, request: web.Request) -> Identity | None:
        if self.logins is None or "Authorization" in request.headers:
            return None
        identity = await self.logins.identity(request)
        return identity and self._confined(identity)

    def _confined(self, identity: Identity) -> Identity:
        confined = identity.role is Role.BILLING and identity.services is None
        return replace(identity, services=self._billing) if confined else identity


def _by_socket(request: web.Request) -> Identity | None:
    """Return the caller over the unix socket, which is the account itself, or root.

    None over TCP. Raises DeniedError.
    """
    uid = _peer_uid(request)
    if uid is None:
        return None
    if uid not in (os.getuid(), 0):
        raise DeniedError(f"uid {uid} may not use the socket of uid {os.getuid()}")
    return Identity(_account(uid), Role.ADMIN, "socket")


def _bearer_token(given: Sequence[str]) -> str | None:
    """Return the token in the Authorization headers (RFC 6750, section 2.1), or None.

    Raises UsageError for more than one.
    """
    if len(given) > 1:
        raise UsageError("more than one Authorization header")
    scheme, _, token = given[0].strip().partition(" ") if given else ("", "", "")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _is_local_program(request: web.Request) -> bool:
    """Return whether a program on this machine sent it, rather than a proxy or a browser."""
    if any(name in request.headers for name in ("Authorization", *PROXY_HEADERS, *_OF_BROWSERS)):
        return False
    return from_loopback(request)


def from_loopback(request: web.Request) -> bool:
    """Return whether it came over this machine's loopback interface."""
    peer = None if request.transport is None else request.transport.get_extra_info("peername")
    return isinstance(peer, tuple) and is_loopback(str(peer[0]))


def is_loopback(address: str) -> bool:
    """Return whether it is this machine's own, also as IPv4 in an IPv6 socket (RFC 4291, section 2.5.5.2)."""
    try:
        read = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(read, IPv6Address) and read.ipv4_mapped is not None:
        return read.ipv4_mapped.is_loopback
    return read.is_loopback


def _peer_uid(request: web.Request) -> int | None:
    """Return the uid behind a unix socket, or None for any other connection."""
    connection = None if request.transport is None else request.transport.get_extra_info("socket")
    return None if connection is None else peer_uid(connection)


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
