"""Bodies about machine tokens."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from helmd.model.json_fields import described

_NAME = described("what it is called; no other token may have it", example="backup-script",
                  pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$")  # fmt: skip
_ROLE = described("what it may do")
_SERVICES = described(
    "the services that it is confined to; null for all",
    example=["codex"],
    minItems=1,
    maxItems=100,
    items={"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,49}$"},
)
Level = Literal["client", "billing", "technician", "admin"]


@dataclass(frozen=True, slots=True)
class NewTokenRequest:
    """A new machine token."""

    name: str = field(metadata=_NAME)
    role: Level = field(metadata=_ROLE)
    services: tuple[str, ...] | None = field(default=None, metadata=_SERVICES)
    expires_in: Any = field(
        default=None,
        metadata=described(
            "how long it is valid: seconds, or for example 90d, which is the default; at most a year",
            example="90d",
            type=["number", "string", "null"],
            pattern="^([1-9]|[1-9][0-9]|[12][0-9][0-9]|3[0-5][0-9]|36[0-6])d$",
            minimum=1,
            maximum=366 * 86400,
        ),
    )
    reason: str = field(default="", metadata=described("why, for the audit trail", maxLength=500))


@dataclass(frozen=True, slots=True)
class TokenBody:
    """A machine token without its secret."""

    id: str = field(metadata=described("its id", example="3f2b8c1d9a04"))
    name: str = field(metadata=_NAME)
    role: Level = field(metadata=_ROLE)
    services: tuple[str, ...] | None = field(metadata=_SERVICES)
    created_at: datetime = field(metadata=described("when it was created"))
    created_by: str = field(metadata=described("who created it", example="hive"))
    expires_at: datetime = field(metadata=described("until when it is valid"))
    expired: bool = field(metadata=described("whether that is past", example=False))
    last_used_at: datetime | None = field(
        metadata=described("when it was last used, exact to a minute after a restart of helmd")
    )


@dataclass(frozen=True, slots=True)
class CreatedToken(TokenBody):
    """A new machine token with its secret."""

    token: str = field(metadata=described("the secret, which is never shown again"))


@dataclass(frozen=True, slots=True)
class TokenList:
    """The machine tokens."""

    tokens: tuple[TokenBody, ...] = field(metadata=described("all of them, without their secrets"))
