"""Records of changing requests for the audit trail, including refused ones."""

import time
from collections.abc import Callable

from aiohttp import web

from helmd.model.errors import HelmError
from helmd.model.identity.audit import AuditedChange
from helmd.model.identity.origin import Origin
from helmd.model.identity.peer import Place
from helmd.model.ingest.token_bucket import Rates
from helmd.web.auth.identity import Callers
from helmd.web.auth.roles import Identity

_REFUSALS, _BURST = 5.0, 100.0
"""Rate per second and burst of recorded requests by unauthorized callers."""
_NOBODY = "unknown"


Record = Callable[[AuditedChange], None]


def note_change(request: web.Request, *, reason: str = "", detail: str = "") -> None:
    """Set the reason and the detail in the record of REQUEST."""
    request["change"] = (reason, detail)


class AuditTrail:
    """Records changes by CALLERS with RECORD."""

    def __init__(self, record: Record, callers: Callers, clock: Callable[[], float] = time.monotonic) -> None:
        self._record = record
        self._callers = callers
        self._clock = clock
        self._rates = Rates(_REFUSALS, _BURST)
        self._left_out = 0

    def request(self, request: web.Request, action: str, service: str, error: HelmError | None, status: int) -> None:
        """Record ACTION of REQUEST, which was refused or failed with ERROR, or else answered with STATUS."""
        caller: Identity | None = request.get("caller")
        # Set once the caller may use the route.
        refused = "identity" not in request
        now = self._clock()
        if refused or caller is None:
            if self._rates.pause("", now):
                self._left_out += 1
                return
            self._rates.take("", 1, now)
        reason, detail = request.get("change", ("", ""))
        if error is not None:
            detail = f"{error.code}: {error.sentence}"
        elif status >= 400 or not status:
            ended = f"status {status}" if status else "interrupted"
            detail = f"{detail}; {ended}" if detail else ended
        if self._left_out:
            detail = f"{detail}; {self._left_out:,} more before this one are not recorded".removeprefix("; ")
            self._left_out = 0
        good = error is None and 0 < status < 400
        result = "refused" if refused else "done" if good else "failed"
        actor = caller.name if caller is not None else _NOBODY
        self._record(AuditedChange(action, result, actor, service, reason, detail, self.origin(request, caller)))

    def origin(self, request: web.Request, caller: Identity | None) -> Origin:
        """Return the origin of REQUEST, sent by CALLER."""
        peer = self._callers.peer(request)
        address = self._callers.client(request).address or peer.address
        unit = peer.unit if peer.place is Place.HERE else peer.place.value
        via, session = ("", "") if caller is None else (caller.via, caller.session)
        return Origin(via, address, unit, session)
