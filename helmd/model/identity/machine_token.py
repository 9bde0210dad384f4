"""Tokens that Helm issues to programs. The secret is random and long, so a plain hash of it can be kept instead."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal, cast, get_args

from helmd.model.api.tokens import CreatedToken, TokenBody
from helmd.model.config import validators as values
from helmd.model.counted import counted
from helmd.model.errors import HelmError, UsageError
from helmd.model.suite.names import SERVICE_NAME

TOKEN_PREFIX = "helm_"
"""How a token begins, which distinguishes it from one of Core, and by which it is found by scanners for secrets."""
SECRET_BYTES = 32
TokenRole = Literal["client", "billing", "technician", "admin"]
TOKEN_ROLES: tuple[TokenRole, ...] = get_args(TokenRole)
DEFAULT_DAYS = 90
MOST_TOKENS = 1000
MOST_SERVICES = 100

_TOKEN = re.compile(r"helm_[A-Za-z0-9_-]{43}\Z")
_ID = re.compile(r"[0-9a-f]{12}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_FORMAT = 1


class UnknownTokenError(HelmError):
    """No machine token has this id or name."""

    code: ClassVar[str] = "unknown_token"


class TokenExistsError(HelmError):
    """A machine token has this name already."""

    code: ClassVar[str] = "token_exists"


@dataclass(frozen=True, slots=True)
class MachineToken:
    """A token without its secret. ``services`` are all that it is for; None for all services."""

    id: str
    name: str
    role: TokenRole
    services: tuple[str, ...] | None
    created_at: datetime
    created_by: str
    expires_at: datetime
    digest: str

    def expired(self, now: datetime) -> bool:
        return now >= self.expires_at

    def body(self, used_at: datetime | None, now: datetime) -> TokenBody:
        """Return what the API and ``helmctl tokens list`` show of it."""
        return TokenBody(
            id=self.id,
            name=self.name,
            role=self.role,
            services=self.services,
            created_at=self.created_at,
            created_by=self.created_by,
            expires_at=self.expires_at,
            expired=self.expired(now),
            last_used_at=used_at,
        )

    def created(self, secret: str, now: datetime) -> CreatedToken:
        """Return what is shown of it once, with its SECRET."""
        return CreatedToken(**{**asdict(self.body(None, now)), "token": secret})


@dataclass(frozen=True, slots=True)
class NewToken:
    """What is asked for: a token with this NAME that lasts for ``lifetime``."""

    name: str
    role: TokenRole
    services: tuple[str, ...] | None
    lifetime: timedelta

    def __str__(self) -> str:
        services = f", services {', '.join(self.services)}" if self.services is not None else ""
        return f"token {self.name}, role {self.role}{services}, for {self.lifetime}"


def digest_of(secret: str) -> str:
    """Return the hash by which a token is kept and found.

    Of 256 random bits no dictionary can be made, so it has no salt.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def looks_like_token(text: str) -> bool:
    return _TOKEN.match(text) is not None


def new_token_of(
    name: object, role: object, services: object = None, expires_in: object = f"{DEFAULT_DAYS}d"
) -> NewToken:
    """Return what is asked for, from values of a request or a command line.

    Raises UsageError, which names the field.
    """
    if not isinstance(name, str) or not _NAME.match(name):
        raise UsageError("name: must begin with a letter or digit, and have at most 50 of A-Z, a-z, 0-9, '.', '_', '-'")
    if role not in TOKEN_ROLES:
        raise UsageError(f"role: must be one of {', '.join(TOKEN_ROLES)}")
    try:
        lifetime = timedelta(seconds=values.duration(expires_in))
    except ValueError as problem:
        raise UsageError(f"expires_in: {problem}") from None
    named = _services(services)
    if named is not None and role == "client":
        raise UsageError("services: a token with the role client sees the state of all services, and nothing else")
    return NewToken(name, role, named, lifetime)


def _services(given: object) -> tuple[str, ...] | None:
    if given is None:
        return None
    if not isinstance(given, list | tuple) or not 1 <= len(given) <= MOST_SERVICES:
        raise UsageError(f"services: must be a list of 1 to {MOST_SERVICES} names, or be left out for all services")
    for name in given:
        if not isinstance(name, str) or not SERVICE_NAME.match(name):
            raise UsageError("services: must be names of services")
    return tuple(dict.fromkeys(given))


def with_token(
    present: Sequence[MachineToken], wanted: NewToken, *, id: str, digest: str, by: str, now: datetime
) -> tuple[MachineToken, ...]:
    """Return PRESENT and, last, a new token; without those that expired over a month ago.

    Raises TokenExistsError for a name that is taken, UsageError when there are too many.
    """
    kept = [token for token in present if now - token.expires_at < timedelta(days=30)]
    if any(token.name == wanted.name for token in kept):
        raise TokenExistsError(
            f"there is a machine token named '{wanted.name}' already",
            hint=f"Revoke it first: helmctl tokens revoke {wanted.name}",
        )
    if len(kept) >= MOST_TOKENS:
        raise UsageError(f"there are {counted(len(kept), 'machine token')} already, the most that there can be")
    expires = now + wanted.lifetime
    return (*kept, MachineToken(id, wanted.name, wanted.role, wanted.services, now, by, expires, digest))


def token_named(present: Sequence[MachineToken], wanted: str) -> MachineToken:
    """Return the token with the id or name WANTED. Raises UnknownTokenError."""
    for token in present:
        if wanted in (token.id, token.name):
            return token
    raise UnknownTokenError("there is no such machine token", hint="List them: helmctl tokens list")


def tokens_text(tokens: Collection[MachineToken]) -> str:
    """Return the content of the file that keeps them."""
    listed = [
        {
            "id": token.id,
            "name": token.name,
            "role": token.role,
            "services": token.services,
            "created_at": token.created_at.isoformat(),
            "created_by": token.created_by,
            "expires_at": token.expires_at.isoformat(),
            "sha256": token.digest,
        }
        for token in tokens
    ]
    return json.dumps({"format": _FORMAT, "tokens": listed}, indent=1) + "\n"


def tokens_in(text: str) -> tuple[MachineToken, ...]:
    """Return the tokens in the content of that file. Raises ValueError, which says what is wrong with it."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError("it has another format")
    listed = document.get("tokens")
    if not isinstance(listed, list):
        raise ValueError("it has no list of tokens")
    return tuple(_token(entry, number) for number, entry in enumerate(listed, 1))


def _token(entry: object, number: int) -> MachineToken:
    if not isinstance(entry, dict):
        raise ValueError(f"token {number} is not an object")
    try:
        wanted = new_token_of(entry.get("name"), entry.get("role"), entry.get("services"))
        created, expires = _time(entry, "created_at"), _time(entry, "expires_at")
    except (UsageError, ValueError, TypeError) as problem:
        raise ValueError(f"token {number}: {problem}") from None
    id, digest, by = entry.get("id"), entry.get("sha256"), entry.get("created_by")
    if not isinstance(id, str) or not _ID.match(id) or not isinstance(digest, str) or not _DIGEST.match(digest):
        raise ValueError(f"token {number}: its id or hash is not valid")
    return MachineToken(id, wanted.name, wanted.role, wanted.services, created, str(by), expires, digest)


def _time(entry: Mapping[str, object], key: str) -> datetime:
    read = datetime.fromisoformat(cast(str, entry.get(key)))
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def uses_text(uses: Mapping[str, datetime]) -> str:
    """Return the content of the file with when tokens were last used, by id."""
    return json.dumps({id: used.isoformat() for id, used in uses.items()}) + "\n"


def uses_in(text: str) -> dict[str, datetime]:
    """Return when tokens were last used. What can't be read is left out: nothing depends on it."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    found: dict[str, datetime] = {}
    for id, used in document.items() if isinstance(document, dict) else ():
        try:
            read = datetime.fromisoformat(used)
        except (ValueError, TypeError):
            continue
        found[id] = read if read.tzinfo else read.replace(tzinfo=UTC)
    return found
