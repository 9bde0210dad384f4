"""Accepted findings, in a file among the account's secrets that helmctl and helmd change."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from helmd.files.durable import write_atomically
from helmd.files.lock import locked
from helmd.files.private import private_text
from helmd.model.api.security import SecurityAuditReply
from helmd.model.errors import HelmError
from helmd.model.layout import Layout
from helmd.model.security.acceptance import (
    Acceptance,
    UnknownFindingError,
    acceptance_of,
    acceptances_in,
    acceptances_in_force,
    acceptances_text,
    with_acceptance,
)
from helmd.model.security.findings import SecurityFinding
from helmd.model.security.report import with_acceptances

UNUSABLE = "accepted findings can't be used"
"""The beginning of the sentence about a file that can't be used."""
_WHAT = "accepted findings are being changed"


def _now() -> datetime:
    return datetime.now(UTC)


class AcceptanceStore:
    """The acceptances of the account with these PLACES."""

    def __init__(self, places: Layout, now: Callable[[], datetime] = _now) -> None:
        self._path, self._lock, self._now = places.accepted_findings, places.accepted_findings_lock, now
        self.trouble = ""
        """Why the file can't be used, as a sentence; nothing is accepted then."""

    def acceptances(self) -> tuple[Acceptance, ...]:
        """Return all acceptances in the file, also expired ones; none if it can't be used (`trouble`)."""
        self.trouble = ""
        try:
            return acceptances_in(private_text(self._path))
        except FileNotFoundError:
            return ()
        except (OSError, ValueError) as error:
            self.trouble = f"{UNUSABLE}: {self._path}: {error}"
            return ()

    def accept(self, finding: SecurityFinding, reason: str, until: datetime, by: str) -> Acceptance:
        """Accept FINDING. Raises UsageError, LockedError, OSError, and HelmError while the file can't be used."""
        with locked(self._lock, _WHAT):
            known = self._usable()
            made = acceptance_of(finding, reason, until, by, self._now())
            changed = with_acceptance(known, made)
            self._write(changed)
        return changed[-1]

    def withdraw(self, finding: str) -> Acceptance:
        """End the acceptance of the finding with this id. Raises UnknownFindingError, and as `accept`."""
        with locked(self._lock, _WHAT):
            known = self._usable()
            found = next((each for each in known if each.id == finding), None)
            if found is None:
                raise UnknownFindingError(
                    f"no finding with the id {finding} is accepted", hint="List them: helmctl security audit --all"
                )
            self._write(tuple(each for each in known if each is not found))
        return found

    def _usable(self) -> tuple[Acceptance, ...]:
        known = self.acceptances()
        if self.trouble:
            raise HelmError(self.trouble, hint="Correct it, or move it away: then no finding is accepted any more.")
        return known

    def _write(self, acceptances: tuple[Acceptance, ...]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(self._path, acceptances_text(acceptances), 0o600)


def accepting(reply: SecurityAuditReply, store: AcceptanceStore) -> SecurityAuditReply:
    """Return REPLY with the present acceptances in STORE; without any, and a note, if its file can't be used."""
    accepted = store.acceptances()
    changed = with_acceptances(reply, acceptances_in_force(accepted, datetime.now(UTC)))
    said = tuple(each for each in reply.unchecked if not each.startswith(UNUSABLE))
    return replace(changed, unchecked=(*said, *([store.trouble] if store.trouble else [])))
