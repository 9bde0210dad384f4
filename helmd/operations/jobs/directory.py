"""The directories of jobs, one each: what was requested, what happened, how it ended. Readable without PostgreSQL.

=================  ==================================================================================================
``request.json``   written by whoever requests the job, before its unit is started
``events.ndjson``  written by the job's process alone, which creates it, so that a job begins once; or by whoever
                   abandons the job before that, so that it begins no more
``cancel.json``    who cancelled it
``end.json``       its end, once systemd's result is known
=================  ==================================================================================================
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from helmd.files.durable import create_atomically, fsync_directory, write_atomically
from helmd.model.errors import HelmError
from helmd.model.jobs.codec import (
    LoggedEvent,
    event_line,
    file_text,
    job_request_of,
    logged_events,
    read_end,
    read_events,
    read_requester,
)
from helmd.model.jobs.record import JOB_ID, JobEnd, JobRecord, JobRequest, Requester
from helmd.model.printable import printable

KEPT_JOBS, KEPT_SECONDS = 200, 90 * 86400.0
"""Maximum number and age, in seconds, of ended jobs that are kept; the log store keeps entries as long by default."""
_LEFT_OVER_SECONDS = 3600.0
"""Age in seconds at which an incomplete directory, whose creation or removal was interrupted, is removed."""

Read = TypeVar("Read")


class UnknownJobError(HelmError):
    """There is no such job, or not any more."""

    code = "unknown_job"


class JobDirectory:
    """The jobs below ROOT, mode 0700. Methods raise OSError, and UnknownJobError for an id without a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self, request: JobRequest) -> bool:
        """Make a job's directory with its request, durably and at once; False if there is a job with this id."""
        making = self.root / f".{request.id}.{os.urandom(4).hex()}"
        # mkdir gives its mode to the last directory alone.
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        making.mkdir(mode=0o700)
        try:
            write_atomically(making / "request.json", file_text(request), 0o600)
            making.rename(self.root / request.id)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            _remove(making)
            return False
        fsync_directory(self.root)
        return True

    def place(self, job_id: str) -> Path:
        """Return the directory of a job."""
        place = self.root / job_id
        if not JOB_ID.match(job_id) or not (place / "request.json").exists():
            raise UnknownJobError(f"there is no job '{printable(job_id, 60)}'", hint="List them: helmctl jobs list")
        return place

    def read(self, job_id: str) -> JobRecord:
        """Return what the directory of a job has."""
        place = self.place(job_id)
        request = _read(place / "request.json", job_request_of)
        if request is None:
            raise UnknownJobError(f"the request of job {job_id} can't be read", hint=f"Remove it: rm -r {place}")
        return JobRecord(
            request,
            read_events(self.events(job_id)),
            _read(place / "end.json", read_end),
            _read(place / "cancel.json", read_requester),
        )

    def events(self, job_id: str) -> bytes:
        """Return the file of events, as far as it is written; empty before the job has begun."""
        try:
            return (self.place(job_id) / "events.ndjson").read_bytes()
        except FileNotFoundError:
            return b""

    def log(self, job_id: str) -> list[LoggedEvent]:
        """Return the steps of the job so far, and the lines it has printed."""
        return logged_events(self.events(job_id))

    def ids(self) -> list[str]:
        """Return the ids of all jobs, in no order."""
        try:
            return [name for name in os.listdir(self.root) if JOB_ID.match(name)]
        except FileNotFoundError:
            return []

    def has_ended(self, job_id: str) -> bool:
        """Return whether the end of a job is recorded."""
        return (self.place(job_id) / "end.json").exists()

    def unended(self) -> list[str]:
        """Return the ids of jobs whose end is not recorded."""
        return [job_id for job_id in self.ids() if not (self.root / job_id / "end.json").exists()]

    def records(self) -> Iterator[JobRecord]:
        """Yield every job that can be read; another process may remove some meanwhile."""
        for job_id in self.ids():
            with suppress(UnknownJobError):
                yield self.read(job_id)

    def abandon(self, job_id: str, end: JobEnd) -> bool:
        """Keep a job from beginning, with this END; False if it has begun."""
        return create_atomically(self.place(job_id) / "events.ndjson", event_line("abandoned", end).decode())

    def discard(self, job_id: str) -> None:
        """Remove a job, with all that is known of it. One that has not begun can't begin after that."""
        going = self.root / f".{job_id}.{os.urandom(4).hex()}"
        (self.root / job_id).rename(going)
        _remove(going)

    def note_cancel(self, job_id: str, by: Requester) -> None:
        """Record who cancels a job."""
        write_atomically(self.place(job_id) / "cancel.json", file_text(by), 0o600)

    def record_end(self, job_id: str, end: JobEnd) -> None:
        """Record the end of a job."""
        write_atomically(self.place(job_id) / "end.json", file_text(end), 0o600)

    def prune(self, now: float) -> None:
        """Remove old jobs that have ended, and what a crash has left of others."""
        ended = [record for record in self.records() if record.end is not None]
        ended.sort(key=lambda record: record.request.requested_at, reverse=True)
        for number, record in enumerate(ended):
            if number >= KEPT_JOBS or now - record.request.requested_at > KEPT_SECONDS:
                with suppress(FileNotFoundError):
                    self.discard(record.request.id)
        with suppress(FileNotFoundError):
            for name in os.listdir(self.root):
                path = self.root / name
                whole = JOB_ID.match(name) and (path / "request.json").exists()
                with suppress(FileNotFoundError):
                    if not whole and now - path.stat().st_mtime > _LEFT_OVER_SECONDS:
                        _remove(path)


def _remove(directory: Path) -> None:
    # Imported here: a job's process, which begins in a few milliseconds, removes nothing.
    import shutil

    shutil.rmtree(directory, ignore_errors=True)


def _read(path: Path, read: Callable[[str], Read]) -> Read | None:
    """Return what READ makes of a file's text, or None without the file, or if its content is not valid."""
    try:
        return read(path.read_text(errors="replace"))
    except (FileNotFoundError, ValueError):
        return None
