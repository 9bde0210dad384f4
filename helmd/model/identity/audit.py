"""The audit trail: who changed what, or tried to, when and from where."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING
from zlib import crc32

from helmd.model.identity.origin import Origin
from helmd.model.logs.entry import realtime_of

if TYPE_CHECKING:
    from helmd.model.api.audit import AuditRecord

DRY_RUN = "dry run: "
"""How the detail of a change begins that was only tried."""


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
    def place(self) -> tuple[int, int]:
        """Its place in the order of the audit trail, the same in the journal and the store: when it was written, in
        microseconds since 1970, and a checksum of the change, for entries of the same microsecond.
        """
        return realtime_of(self.time), crc32(repr(self.change).encode())

    @property
    def cursor(self) -> str:
        """The place as text."""
        return "{}-{}".format(*self.place)

    @property
    def body(self) -> "AuditRecord":
        """What the API and ``helmctl audit`` show of it."""
        # Not needed by helmctl start and stop, which write records.
        from helmd.model.api.audit import AuditRecord

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
            cursor=self.cursor,
        )
