"""What a job's process writes down: that it has begun, its steps, what it prints, how it ended.

Steps and the end are flushed to the disk, so that they are known after a crash of the machine. A job goes on when its
disk is full: systemd's result is known in any case.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict

from helmd.model.errors import HelmError
from helmd.model.jobs.codec import event_line
from helmd.model.jobs.record import JobLine, JobOutcome, JobRequest, JobStep
from helmd.operations.jobs.directory import JobDirectory
from helmd.operations.lifecycle.steps import Step

MAX_LOG = 4 << 20
"""Characters of printed lines that are kept in a job's directory; the journal has all."""
_MAX_LINE = 4096


class JobProcess:
    """The one process that may write a job's events; made by `begin`."""

    def __init__(self, request: JobRequest, descriptor: int) -> None:
        self.request = request
        self._descriptor = descriptor
        self._logged = 0

    def step(self, step: Step) -> None:
        """Record what happened to a service."""
        self._write(event_line("step", JobStep(time.time(), **asdict(step))), flush=True)

    def line(self, text: str) -> None:
        """Record a line that the job prints."""
        if self._logged > MAX_LOG:
            return
        self._logged += len(text)
        shown = text[:_MAX_LINE] if self._logged <= MAX_LOG else "(what follows is in the journal only)"
        self._write(event_line("line", JobLine(time.time(), shown)))

    def ended(self, exit_code: int, cancelled: bool, error: HelmError | None) -> None:
        """Record helmctl's exit code, and the error that it ended with."""
        said = (error.code, error.sentence, error.hint, tuple(error.lines)) if error is not None else ("", "", "", ())
        self._write(event_line("ended", JobOutcome(time.time(), exit_code, cancelled, *said)), flush=True)

    def _write(self, line: bytes, flush: bool = False) -> None:
        try:
            os.write(self._descriptor, line)
            if flush:
                os.fdatasync(self._descriptor)
        except OSError:
            return


def begin(directory: JobDirectory, job_id: str) -> JobProcess:
    """Begin a job, which can be done once. Raises HelmError when it has begun or was abandoned, UnknownJobError."""
    request = directory.read(job_id).request
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    place = directory.place(job_id)
    try:
        descriptor = os.open(place / "events.ndjson", flags, 0o600)
    except FileExistsError:
        raise HelmError(f"job {job_id} has begun already, or was cancelled before it could") from None
    os.write(descriptor, event_line("begun", {"at": time.time()}))
    os.fdatasync(descriptor)
    holder = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(holder)
    finally:
        os.close(holder)
    return JobProcess(request, descriptor)


def job_words(job_id: str, words: Sequence[str]) -> list[str]:
    """helmctl's arguments for a job that does what the arguments WORDS say."""
    return ["--job", job_id, *words]
