"""The state of jobs: looked up, recorded once it is final, changed by a cancellation. helmd and helmctl use it."""

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from helmd.model.api.jobs import JobReply
from helmd.model.errors import HelmError
from helmd.model.jobs.record import JOB_ENDED, JobEnd, JobRecord, JobVerdict, Requester, job_verdict
from helmd.model.jobs.replies import job_reply
from helmd.operations.jobs.directory import JobDirectory, UnknownJobError
from helmd.operations.jobs.units import remove_unit, stop_unit
from helmd.systemd.bus import Manager


class JobEndedError(HelmError):
    """The job has ended, so it can't be cancelled any more."""

    code: ClassVar[str] = "job_ended"


@dataclass(frozen=True, slots=True)
class JobView:
    """A job and its state."""

    record: JobRecord
    verdict: JobVerdict

    @property
    def ended(self) -> bool:
        return self.verdict.state in JOB_ENDED

    @property
    def reply(self) -> JobReply:
        return job_reply(self.record, self.verdict)


def look_up(directory: JobDirectory, manager: Manager | None, job_id: str, boot: str) -> JobView:
    """Return a job and its state; if it has ended, its end is recorded and its unit removed.

    Without a MANAGER, what the job's files say. Raises UnknownJobError, BusError.
    """
    found, facts = directory.read(job_id), None
    while manager is not None and found.end is None:
        before, facts = found, manager.facts(found.unit)
        # The process may have written more before its unit ended.
        found = directory.read(job_id)
        if facts.exists or found == before:
            break
        # There was no unit; it may have begun since then, or another process has recorded its end.
    if found.end is not None:
        return JobView(found, job_verdict(found, None, boot, time.time()))
    view = JobView(found, job_verdict(found, facts, boot, time.time()))
    if manager is not None and facts is not None and view.verdict.end is not None:
        directory.record_end(job_id, view.verdict.end)
        remove_unit(manager, facts)
    return view


def look_up_all(directory: JobDirectory, manager: Manager | None, ids: Iterable[str], boot: str) -> list[JobView]:
    """Return those of the jobs IDS that there are. Raises BusError."""
    found = []
    for job_id in ids:
        with suppress(UnknownJobError):
            found.append(look_up(directory, manager, job_id, boot))
    return found


def newest_first(views: Iterable[JobView]) -> list[JobView]:
    """Return VIEWS in the order in which jobs are listed."""
    return sorted(views, key=lambda view: view.record.request.requested_at, reverse=True)


def cancel_job(directory: JobDirectory, manager: Manager, job_id: str, by: Requester, boot: str) -> None:
    """Cancel a job on behalf of BY: it is kept from beginning, or its process gets SIGTERM and ends by itself.

    Raises UnknownJobError, JobEndedError and BusError.
    """
    view = look_up(directory, manager, job_id, boot)
    if view.ended:
        raise JobEndedError(f"job {job_id} has ended ({view.verdict.state})", hint=f"See: helmctl jobs show {job_id}")
    directory.note_cancel(job_id, by)
    directory.abandon(job_id, JobEnd(time.time(), "cancelled", f"cancelled by {by.described} before it began"))
    stop_unit(manager, view.record.unit)
