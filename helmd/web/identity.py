"""Who is calling: the peer of the unix socket, as the kernel vouches for it (unix(7), SO_PEERCRED)."""

import os
import pwd
import socket
import struct
from typing import ClassVar

from aiohttp import web

from helmd.model.errors import DeniedError, HelmError
from helmd.web.roles import Identity, Role

_CREDENTIALS = struct.Struct("3i")


class NoCredentialError(HelmError):
    """The caller has shown nothing that says who they are."""

    code: ClassVar[str] = "no_credential"


def identity_of(request: web.Request) -> Identity | None:
    """The caller, or None when nothing tells. Over the unix socket that is the account itself, or root."""
    uid = _peer_uid(request)
    if uid is None:
        return None
    if uid not in (os.getuid(), 0):
        raise DeniedError(f"this socket belongs to uid {os.getuid()}; uid {uid} may not use it")
    return Identity(_account(uid), Role.ADMIN, "socket")


def authorize(request: web.Request, asked: Role) -> Identity | None:
    """The caller, once they may use a route that asks for this role. Raises NoCredentialError and DeniedError."""
    identity = identity_of(request)
    if asked is Role.PUBLIC:
        return identity
    if identity is None:
        raise NoCredentialError(
            "this needs a credential, and none that Helm knows was given",
            hint="On the machine itself, use helmctl or the unix socket as the account that owns the suite.",
        )
    if not identity.may(asked):
        raise DeniedError(f"this takes the role {asked}; {identity.name} has {identity.role}")
    return identity


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
