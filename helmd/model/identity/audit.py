"""The audit trail: who changed what, or tried to, when and from where."""

from dataclasses import dataclass, field
from datetime import datetime

from helmd.model.api.audit import AuditRecord

DRY_RUN = "dry run: "
"""How the detail of a change begins that was only tried."""


@dataclass(frozen=True, slots=True)
class Origin:
    """From where a change was asked for. Empty where that is not known."""

    via: str = ""
    """How the caller was authenticated (`helmd.web.auth.roles.Via`), or ``helmctl``."""
    address: str = ""
    """The caller's address, as far as trusted proxies say it."""
    unit: str = ""
    """The unit of this host that sent the request; ``elsewhere`` and ``unknown`` as in `helmd.model.identity.peer`."""
    session: str = ""
    """Identifies a session or a machine token; not a secret."""


@dataclass(frozen=True, slots=True)
class AuditedChange:
    """A change, or an attempt at one. ``service`` is empty for Helm itself."""

    action: str
    result: str
    """``done``, ``failed``, ``refused``, or what a start or stop came to."""
    actor: str
    service: str = ""
    reason: str = ""
    detail: str = ""
    origin: Origin = field(default_factory=Origin)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A change as it is in the journal."""

    time: datetime
    change: AuditedChange
    host: str

    @property
    def body(self) -> AuditRecord:
        """What the API and ``helmctl audit`` show of it."""
        change, origin = self.change, self.change.origin
        return AuditRecord(
            timestamp=self.time,
            action=change.action,
            service_name=change.service or None,
            result=change.result,
            who=change.actor,
            reason=change.reason or None,
            detail=change.detail or None,
            via=origin.via or None,
            address=origin.address or None,
            unit=origin.unit or None,
            session=origin.session or None,
            hostname=self.host or None,
        )
