"""Passwords that everybody knows, compared with the hashes in PostgreSQL and Keycloak: no login is tried, so no account
is locked.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helmd.model.security.findings import SecurityFinding, security_finding

WELL_KNOWN = ("admin", "password", "postgres", "keycloak", "hivematrix", "changeme", "change_me", "secret", "123456",
              "admin123", "test", "root", "")  # fmt: skip
"""Passwords that are tried for every account, besides its own name."""
LIKELY_ADMINS = ("admin", "administrator", "root", "keycloak", "hivematrix", "temp-admin", "test", "demo", "user")
"""Users of Keycloak whose passwords are looked at: to compute one hash takes some 20 ms."""
_WEAK = re.compile(
    r"(dev|test|secret|password|passwd|change[-_ ]?me|change[-_ ]?this|default|admin|example|insecure|dummy|todo|x+|"
    r"your[-_ ].*|.*[-_ ]change[-_ ](me|this|in[-_ ]production).*|super[-_ ]?secret|secret[-_ ]?key|dev[-_ ].*)",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(r"(SECRET|PASSWORD|PASSWD|TOKEN|API_?KEY|PRIVATE_?KEY)", re.IGNORECASE)
_NO_SECRET_NAME = re.compile(r"_(FILE|PATH|URL|URI|TTL|EXPIRES|LIFETIME|ALGORITHM|NAME|ID)\Z", re.IGNORECASE)
_LEAST = 8

Argon2 = Callable[[bytes, bytes, int, int, int, int, str, int], bytes]
"""Computes Argon2 of a password and salt with time cost, memory in KiB, lanes, length, type (id, i, d) and version."""


@dataclass(frozen=True, slots=True)
class StoredPassword:
    """A password as a server keeps it. ``matches`` says whether it is the one that is given."""

    account: str
    server: str
    matches: Callable[[str], bool]
    fix: str


def judge_passwords(stored: Sequence[StoredPassword]) -> Iterator[SecurityFinding]:
    """Yield which of STORED are known to everybody."""
    for each in stored:
        for tried in dict.fromkeys((each.account, *WELL_KNOWN)):
            if each.matches(tried):
                what = "its own name" if tried == each.account else "empty" if not tried else "a well-known one"
                yield security_finding(
                    "default-password",
                    f"{each.server} {each.account}",
                    f"the password of {each.account} in {each.server} is {what}",
                    [f"{each.server}: the stored hash of {each.account} is that of {what} of the passwords tried"],
                    each.fix,
                )
                break


def scram_matches(verifier: str, password: str) -> bool:
    """Return whether a SCRAM verifier of PostgreSQL (``pg_authid.rolpassword``; RFC 5803) is that of PASSWORD."""
    found = re.fullmatch(r"SCRAM-SHA-256\$(\d{1,7}):([^$]+)\$([^:]+):(\S+)", verifier)
    if found is None:
        return False
    try:
        salt, stored = base64.b64decode(found[2]), base64.b64decode(found[3])
    except ValueError:
        return False
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, int(found[1]))
    key = hmac.digest(salted, b"Client Key", "sha256")
    return hmac.compare_digest(hashlib.sha256(key).digest(), stored)


def keycloak_matches(secret_data: str, credential_data: str, password: str, argon2: Argon2) -> bool | None:
    """Return whether a password credential of Keycloak (its table ``credential``) is PASSWORD, or None if its kind is
    unknown.
    """
    try:
        secret, about = json.loads(secret_data), json.loads(credential_data)
        value, salt = base64.b64decode(secret["value"]), base64.b64decode(secret["salt"])
        iterations, algorithm = int(about["hashIterations"]), str(about["algorithm"])
        given: Mapping[str, Any] = about.get("additionalParameters") or {}
        if algorithm in ("pbkdf2-sha256", "pbkdf2-sha512", "pbkdf2"):
            name = "sha1" if algorithm == "pbkdf2" else algorithm.removeprefix("pbkdf2-")
            made = hashlib.pbkdf2_hmac(name, password.encode(), salt, iterations, len(value))
        elif algorithm == "argon2":
            made = argon2(
                password.encode(),
                salt,
                iterations,
                int(_first(given, "memory", "7168")),
                int(_first(given, "parallelism", "1")),
                len(value),
                _first(given, "type", "id"),
                19 if _first(given, "version", "1.3") == "1.3" else 16,
            )
        else:
            return None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return hmac.compare_digest(made, value)


def _first(given: Mapping[str, Any], name: str, default: str) -> str:
    values = given.get(name)
    return str(values[0]) if isinstance(values, list) and values else default


def is_secret_name(name: str) -> bool:
    """Return whether a variable of this NAME holds a secret."""
    return bool(_SECRET_NAME.search(name)) and not _NO_SECRET_NAME.search(name)


def judge_secrets(service: str, place: str, variables: Mapping[str, str]) -> Iterator[SecurityFinding]:
    """Yield which secrets among VARIABLES of a service, as PLACE has them, can be guessed. Values are not shown."""
    for name, value in variables.items():
        # An empty one is none, and {…} is filled in later.
        if not is_secret_name(name) or not value or value.startswith("{"):
            continue
        short = len(value) < _LEAST
        if short or _WEAK.fullmatch(value) or value.lower() in WELL_KNOWN:
            why = f"is shorter than {_LEAST} characters" if short else "is a well-known value"
            yield security_finding(
                "weak-secret",
                f"{service} {name}",
                f"{name} of {service} {why}",
                [f"{place} sets {name}, with {len(value)} characters"],
                f"Set another value, such as from: openssl rand -hex 32; in {place}; then: helmctl restart {service}",
            )
