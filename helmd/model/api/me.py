"""Reply of ``GET /api/me``."""

from dataclasses import dataclass, field
from datetime import datetime

from helmd.model.json_fields import described


@dataclass(frozen=True, slots=True)
class MeReply:
    """Who the caller is."""

    name: str = field(metadata=described("the account, the user, or what a token is called", example="amira"))
    role: str = field(
        metadata=described(
            "the role; public for a service", enum=["public", "client", "billing", "technician", "admin"]
        )
    )
    via: str = field(metadata=described("how it is known: socket, token, session, machine", example="token"))
    services: tuple[str, ...] | None = field(
        metadata=described("the services whose logs it may read; null for all", example=["codex"])
    )
    session: str | None = field(metadata=described("identifies the session or machine token; not a secret"))
    expires_at: datetime | None = field(metadata=described("when the credential ends; null where it does not"))
