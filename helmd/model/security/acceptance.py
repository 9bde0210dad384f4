"""Findings that an admin has accepted until some time: the file that they are kept in, and which of them are in force.

The clock of a machine may be wrong. An acceptance never lasts longer because the clock went back: no time before the
newest acceptance was made counts as now. A clock that is ahead ends acceptances early, which only shows more.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, cast

from helmd.model.errors import HelmError, UsageError
from helmd.model.security.findings import SEVERITIES, SecurityFinding, SecuritySeverity, at_least

LONGEST_ACCEPTANCE = timedelta(days=366)
MAX_ACCEPTANCE_REASON = 500
_MOST = 10_000
_FORMAT = 1


class UnknownFindingError(HelmError):
    """The audit has no finding with this id."""

    code: ClassVar[str] = "unknown_finding"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A finding that is accepted ``until`` a time. ``severity`` is what it was then: a worse one is not accepted."""

    id: str
    subject: str
    severity: SecuritySeverity
    reason: str
    until: datetime
    accepted_at: datetime
    accepted_by: str


def acceptance_of(finding: SecurityFinding, reason: str, until: datetime, by: str, now: datetime) -> Acceptance:
    """Return the acceptance of FINDING. Raises UsageError, which names the field."""
    reason = reason.strip()
    if not reason or len(reason) > MAX_ACCEPTANCE_REASON:
        raise UsageError(f"reason: must be a text of at most {MAX_ACCEPTANCE_REASON} characters that says why")
    if until <= now:
        raise UsageError(f"until: must be in the future; it is {now.isoformat(timespec='seconds')} now")
    if until > now + LONGEST_ACCEPTANCE:
        raise UsageError(f"until: must be at most {LONGEST_ACCEPTANCE.days} days ahead")
    return Acceptance(finding.id, finding.subject, finding.severity, reason, until, now, by)


def present_time(acceptances: Sequence[Acceptance], clock: datetime) -> datetime:
    """Return the time that counts as now: that of CLOCK, but never before an acceptance was made."""
    return max((clock, *(each.accepted_at for each in acceptances)))


def acceptances_in_force(acceptances: Sequence[Acceptance], clock: datetime) -> Mapping[str, Acceptance]:
    """Return those that have not ended, by the ids of their findings."""
    now = present_time(acceptances, clock)
    return {each.id: each for each in acceptances if now < each.until}


def accepted(finding: SecurityFinding, in_force: Mapping[str, Acceptance]) -> Acceptance | None:
    """Return what accepts FINDING, or None if nothing does, or it has become worse since."""
    found = in_force.get(finding.id)
    return found if found is not None and at_least(found.severity, finding.severity) else None


def with_acceptance(acceptances: Sequence[Acceptance], added: Acceptance) -> tuple[Acceptance, ...]:
    """Return ACCEPTANCES with ADDED in place of one of the same finding. Those that ended long ago are left out."""
    now = present_time(acceptances, added.accepted_at)
    kept = [each for each in acceptances if each.id != added.id and each.until + LONGEST_ACCEPTANCE > now]
    if len(kept) >= _MOST:
        raise UsageError(f"at most {_MOST:,} findings can be accepted")
    return (*kept, replace(added, accepted_at=max(added.accepted_at, now)))


def acceptances_text(acceptances: Sequence[Acceptance]) -> str:
    """Return the file's content."""
    rows = [
        {**asdict(each), "until": each.until.isoformat(), "accepted_at": each.accepted_at.isoformat()}
        for each in acceptances
    ]
    return json.dumps({"format": _FORMAT, "accepted": rows}, indent=1) + "\n"


def acceptances_in(text: str) -> tuple[Acceptance, ...]:
    """Return what a file says. Raises ValueError for one that is not such a file."""
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError("it is not a file of accepted findings of this version")
    rows = document.get("accepted")
    if not isinstance(rows, list):
        raise ValueError("accepted must be a list")
    return tuple(map(_acceptance, rows))


def _acceptance(row: Any) -> Acceptance:
    if not isinstance(row, dict):
        raise ValueError("each acceptance must be an object")
    texts = {name: row.get(name) for name in ("id", "subject", "severity", "reason", "accepted_by")}
    if not all(isinstance(value, str) for value in texts.values()) or texts["severity"] not in SEVERITIES:
        raise ValueError("an acceptance lacks a field, or has another type in it")
    times = {name: _time(row.get(name)) for name in ("until", "accepted_at")}
    return Acceptance(**cast(dict[str, Any], texts | times))


def _time(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError("a time must be a text")
    parsed = datetime.fromisoformat(value)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
