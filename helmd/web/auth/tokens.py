"""Verification of Core's tokens (JWT, RFC 7519) and parsing of its keys (RFC 7517). No I/O: keys and time are given."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from helmd.model.errors import HelmError
from helmd.model.identity.realm import PROBE_USER
from helmd.model.printable import printable
from helmd.web.auth.roles import Identity, Role

ISSUER = "hivematrix-core"
TARGET_SERVICE = "helm"
"""The ``target_service`` of tokens that are meant for Helm."""
LEEWAY = 5.0
"""Seconds by which Core's clock may be ahead or behind."""
MAX_TOKEN = 16 << 10

_ALGORITHM = "RS256"
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")
_SERVICE = re.compile(r"service:([a-z0-9_-]{1,50})\Z")
_NUMBER = re.compile(r"[A-Za-z0-9_-]{1,2000}={0,2}\Z")
_KEY_BITS = range(2048, 8193)
"""Accepted key lengths: shorter keys can be broken, longer ones take milliseconds per signature."""
_EXPONENTS = range(3, 1 << 32)
_NAME_LIMIT = 100
_EXTENSION = "the token requires an unsupported extension (crit)"

_ROLES: Mapping[object, Role] = {role.value: role for role in (Role.CLIENT, Role.BILLING, Role.TECHNICIAN, Role.ADMIN)}


class BadTokenError(HelmError):
    """The token was not issued by Core, is not for Helm, or is no longer valid."""

    code: ClassVar[str] = "bad_token"


@dataclass(frozen=True, slots=True)
class Bearer:
    """The subject of a token. ``expires`` is in seconds since the epoch, including the leeway."""

    identity: Identity
    expires: float
    revocable: bool
    """Whether it belongs to a session, which can end earlier: a user's does, a service's does not."""


def key_id(token: str) -> str:
    """Return the id of the key that TOKEN claims to be signed with. Raises BadTokenError if it is not a token."""
    if len(token) > MAX_TOKEN:
        raise BadTokenError(f"the token is longer than {MAX_TOKEN >> 10} KiB")
    if not _TOKEN.match(token):
        raise BadTokenError("the token is not a JWT")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        # Later versions of PyJWT look at "crit" themselves.
        if "critical extension" in str(error).lower():
            raise BadTokenError(_EXTENSION) from None
        raise BadTokenError("the token is not a JWT") from None
    if header.get("alg") != _ALGORITHM:
        raise BadTokenError(f"the token is not signed with {_ALGORITHM}")
    if "crit" in header:
        raise BadTokenError(_EXTENSION)
    if not header.get("kid"):
        raise BadTokenError("the token has no key id (kid)")
    return str(header["kid"])


def verified(token: str, key: RSAPublicKey, now: float) -> Bearer:
    """Return the subject of TOKEN, verified with KEY at NOW (seconds since the epoch). Raises BadTokenError."""
    try:
        # The times are compared below with NOW, as later when only the time is checked again; subject and session are
        # checked below, whatever the version of PyJWT (from 2.10 on it would refuse those that are no strings).
        own = {f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "sub", "jti")}
        claims = jwt.decode(token, key, algorithms=[_ALGORITHM], issuer=ISSUER, options=own)
    except (jwt.InvalidIssuerError, jwt.MissingRequiredClaimError):
        raise BadTokenError("the token was not issued by Core") from None
    except jwt.InvalidAudienceError:
        raise BadTokenError("the token is for another audience") from None
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise BadTokenError("the token has no valid signature of Core") from None
    expires = _timestamp(claims, "exp")
    if expires is None:
        raise BadTokenError("the token has no expiry time (exp)")
    bearer = _bearer(claims, expires + LEEWAY)
    begins = _timestamp(claims, "nbf") if "nbf" in claims else 0.0
    if begins is None or begins - LEEWAY > now:
        raise BadTokenError("the token is not valid yet")
    check_time(bearer, now)
    return bearer


def times_of(token: str) -> tuple[float, float]:
    """Return when a TOKEN that was verified before was issued and expires, in seconds since the epoch; 0 for what it
    lacks.
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return 0.0, 0.0
    return _timestamp(claims, "iat") or 0.0, _timestamp(claims, "exp") or 0.0


def check_time(bearer: Bearer, now: float) -> None:
    """Raise BadTokenError once the token has expired."""
    if now >= bearer.expires:
        raise BadTokenError("the token has expired", hint="Log in again.")


def _timestamp(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        return None
    return float(value)


def _bearer(claims: Mapping[str, Any], expires: float) -> Bearer:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        raise BadTokenError("the token has no subject (sub)")
    if "type" in claims or subject.startswith("service:"):
        return Bearer(_service(claims, subject), expires, revocable=False)
    if not claims.get("jti") or not isinstance(claims["jti"], str):
        raise BadTokenError("the token has no session (jti)")
    name = next(filter(None, (_text(claims, key) for key in ("preferred_username", "email", "name"))), subject)
    level = claims.get("permission_level")
    role = _ROLES.get(level, Role.CLIENT) if isinstance(level, str) else Role.CLIENT
    if name == PROBE_USER:
        # It needs a login at the gateway only, and no access here, independent of its groups.
        role = Role.PUBLIC
    return Bearer(Identity(printable(name, _NAME_LIMIT), role, "token"), expires, revocable=True)


def _service(claims: Mapping[str, Any], subject: str) -> Identity:
    found = _SERVICE.match(subject)
    if claims.get("type") != "service" or found is None or claims.get("calling_service") != found.group(1):
        raise BadTokenError("the token is neither for a user nor for a service")
    if claims.get("target_service") != TARGET_SERVICE:
        raise BadTokenError("the token is for another service than Helm")
    return Identity(subject, Role.PUBLIC, "token", service=found.group(1))


def _text(claims: Mapping[str, Any], key: str) -> str:
    value = claims.get(key)
    return value if isinstance(value, str) else ""


def keys_of(document: object) -> Mapping[str, RSAPublicKey]:
    """Return the keys of a JWK set that can check tokens, by id; the first of an id is used.

    Empty if it is not a key set.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    found: dict[str, RSAPublicKey] = {}
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and isinstance(kid := entry.get("kid"), str) and kid and kid not in found:
            key = _key(entry)
            if key is not None:
                found[kid] = key
    return found


def _key(entry: Mapping[str, Any]) -> RSAPublicKey | None:
    meant = entry.get("kty"), entry.get("use", "sig"), entry.get("alg", _ALGORITHM)
    modulus, exponent = _integer(entry.get("n")), _integer(entry.get("e"))
    if meant != ("RSA", "sig", _ALGORITHM) or modulus.bit_length() not in _KEY_BITS or exponent not in _EXPONENTS:
        return None
    try:
        return RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        return None


def _integer(value: object) -> int:
    """Return a Base64urlUInt (RFC 7518, section 2); 0 for anything else."""
    if not isinstance(value, str) or not _NUMBER.match(value):
        return 0
    try:
        return int.from_bytes(base64.urlsafe_b64decode(value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4)), "big")
    except ValueError:
        return 0
