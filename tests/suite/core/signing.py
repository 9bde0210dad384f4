"""Core's RSA key, tokens signed with it, and its public key as JWKS (RFC 7517)."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hivesuite.tokens import ISSUER

KID = "hivematrix-signing-key-1"
USER_SECONDS = int(os.environ.get("CORE_USER_SECONDS", "3600"))
SERVICE_SECONDS = 300
_KEY_BITS = 2048


@dataclass(frozen=True)
class User:
    """A user, as Keycloak's userinfo endpoint returns it."""

    sub: str
    name: str
    email: str
    preferred_username: str
    groups: tuple[str, ...]

    @property
    def permission_level(self) -> str:
        """The highest level of the user's groups; "client" without any."""
        for group, level in (("admins", "admin"), ("technicians", "technician"), ("billing", "billing")):
            if group in self.groups:
                return level
        return "client"


class Signer:
    """Issues and verifies Core's tokens. They have no `aud` or `nbf`; only users' tokens have a `jti`."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key

    @staticmethod
    def now() -> int:
        return int(time.time())

    def user_token(self, user: User) -> tuple[str, str, int]:
        """Return a token valid for USER_SECONDS, its session id (`jti`) and its expiry in seconds since the epoch."""
        now, session = self.now(), secrets.token_urlsafe(32)
        token = self._sign(
            {
                "iss": ISSUER,
                "sub": user.sub,
                "jti": session,
                "name": user.name,
                "email": user.email,
                "preferred_username": user.preferred_username,
                "permission_level": user.permission_level,
                "groups": list(user.groups),
                "iat": now,
                "exp": now + USER_SECONDS,
            }
        )
        return token, session, now + USER_SECONDS

    def service_token(self, caller: str, target: str) -> str:
        """Return a token valid for five minutes, for requests of the service `caller` to the service `target`."""
        now = self.now()
        return self._sign(
            {
                "iss": ISSUER,
                "sub": f"service:{caller}",
                "calling_service": caller,
                "target_service": target,
                "type": "service",
                "iat": now,
                "exp": now + SERVICE_SECONDS,
            }
        )

    def claims(self, token: object) -> dict[str, Any]:
        """Return the claims of a token of this Core. Raises jwt.InvalidTokenError."""
        if not isinstance(token, str):
            raise jwt.DecodeError("Not a string")
        claims: dict[str, Any] = jwt.decode(token, self._key.public_key(), algorithms=["RS256"], issuer=ISSUER)
        return claims

    def jwks(self) -> dict[str, Any]:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": KID, "n": public["n"], "e": public["e"]}
        return {"keys": [key]}

    def _sign(self, claims: dict[str, Any]) -> str:
        token: str = jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": KID})
        return token


def load_or_make_key(path: Path) -> rsa.RSAPrivateKey:
    """Return the key in `path`, generated if missing. Exit if the file can't be read or is not an RSA key."""
    try:
        if not path.exists():
            _make_key(path)
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        sys.exit(f"core: cannot use the signing key {path}: {error}")
    if not isinstance(key, rsa.RSAPrivateKey):
        sys.exit(f"core: cannot use the signing key {path}: it is not an RSA key")
    return key


def _make_key(path: Path) -> None:
    """Write a new key with mode 0600. link(2) makes it appear complete, and never replaces an existing file."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()
