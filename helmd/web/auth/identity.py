"""Authentication: the peer of the unix socket by its credentials (unix(7), SO_PEERCRED), or the bearer of a token."""

import os
import pwd
import socket
import struct
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv6Address, ip_address
from types import TracebackType
from typing import ClassVar

import aiohttp
from aiohttp import web

from helmd.model.config.settings import Settings
from helmd.model.errors import DeniedError, HelmError, UsageError
from helmd.model.suite.composition import core_url
from helmd.model.suite.service import Registry
from helmd.web.auth.core import Core, core_session
from helmd.web.auth.roles import Access, Identity, Role
from helmd.web.auth.single_flight import SingleFlight
from helmd.web.auth.verifier import Verifier

_CREDENTIALS = struct.Struct("3i")

_NOT_FROM_HERE = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Via")
_OF_BROWSERS = ("Origin", "Sec-Fetch-Site")
"""Headers of browsers: any web page can make a browser on this machine send a request."""


class NoCredentialError(HelmError):
    """The request has no credential."""

    code: ClassVar[str] = "no_credential"


class Callers:
    """Authenticates callers. An async context manager; outside of it, or before `adopt`, no token is accepted.

    The unix socket needs neither.
    """

    def __init__(self) -> None:
        self._single_flight = SingleFlight()
        self._session: aiohttp.ClientSession | None = None
        self._core = ""
        self._verifier: Verifier | None = None
        self._anonymous = False
        self._billing: frozenset[str] = frozenset()

    async def __aenter__(self) -> "Callers":
        self._session = core_session()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._single_flight.stop()
        if self._session is not None:
            await self._session.close()

    def adopt(self, settings: Settings, registry: Registry) -> None:
        """Use SETTINGS from now on. If the URL of Core has changed, all cached tokens are dropped."""
        self._anonymous = settings.ingest_anonymous == "loopback"
        self._billing = frozenset(settings.billing_services)
        url = core_url(settings, registry)
        if self._session is not None and url != self._core:
            self._core, self._verifier = url, Verifier(Core(self._session, url), self._single_flight)

    async def authorize(self, request: web.Request, access: Access) -> Identity | None:
        """The caller, if they may use a route with this ACCESS; None for an unknown caller of a public one.

        Raises NoCredentialError, BadTokenError, CoreUnreachableError, DeniedError, and UsageError.
        """
        identity = _by_socket(request)
        if access.role is Role.PUBLIC:
            # A health check must work even with an expired token.
            return identity
        if identity is None:
            identity = await self._by_token(request)
        if identity is None and access.anonymous and self._anonymous and _is_local_program(request):
            identity = Identity("anonymous", Role.PUBLIC, "anonymous")
        if identity is None:
            raise NoCredentialError(
                "authentication required",
                hint="Send a token of Core (Authorization: Bearer), or use helmctl or the unix socket on the machine.",
            )
        if refusal := access.refusal(identity):
            raise DeniedError(refusal)
        return identity

    async def _by_token(self, request: web.Request) -> Identity | None:
        token = _bearer_token(request.headers.getall("Authorization", ()))
        if token is None or self._verifier is None:
            return None
        identity = await self._verifier.identity(token)
        return replace(identity, services=self._billing) if identity.role is Role.BILLING else identity


def _by_socket(request: web.Request) -> Identity | None:
    """The caller over the unix socket, which is the account itself, or root; None over TCP. Raises DeniedError."""
    uid = _peer_uid(request)
    if uid is None:
        return None
    if uid not in (os.getuid(), 0):
        raise DeniedError(f"uid {uid} may not use the socket of uid {os.getuid()}")
    return Identity(_account(uid), Role.ADMIN, "socket")


def _bearer_token(given: Sequence[str]) -> str | None:
    """The token in the Authorization headers (RFC 6750, section 2.1), or None. Raises UsageError for more than one."""
    if len(given) > 1:
        raise UsageError("more than one Authorization header")
    scheme, _, token = given[0].strip().partition(" ") if given else ("", "", "")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _is_local_program(request: web.Request) -> bool:
    """Whether a program on this machine sent it, rather than a proxy or a browser."""
    if any(name in request.headers for name in ("Authorization", *_NOT_FROM_HERE, *_OF_BROWSERS)):
        return False
    peer = None if request.transport is None else request.transport.get_extra_info("peername")
    return isinstance(peer, tuple) and is_loopback(str(peer[0]))


def is_loopback(address: str) -> bool:
    """Whether it is this machine's own, also as IPv4 in an IPv6 socket (RFC 4291, section 2.5.5.2)."""
    try:
        read = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(read, IPv6Address) and read.ipv4_mapped is not None:
        return read.ipv4_mapped.is_loopback
    return read.is_loopback


def _peer_uid(request: web.Request) -> int | None:
    """The uid behind a unix socket; None for any other connection."""
    connection = None if request.transport is None else request.transport.get_extra_info("socket")
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
