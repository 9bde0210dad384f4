"""What ``helmctl doctor --json`` prints, and helmd shows."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from helmd.model.units.diagnostics import Finding, Severity


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """A finding with the name of its check."""

    check: str
    verdict: Severity
    sentence: str
    fix: str


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """All findings. ``healthy`` says that none of them is bad, ``checked_at`` when the last one was made."""

    healthy: bool
    findings: tuple[DoctorFinding, ...]
    checked_at: datetime


def doctor_report(found: Iterable[tuple[str, Finding]], now: datetime) -> DoctorReport:
    """Return the report of findings, each with the name of its check."""
    findings = tuple(DoctorFinding(check, *finding) for check, finding in found)
    return DoctorReport(all(each.verdict != "bad" for each in findings), findings, now)
